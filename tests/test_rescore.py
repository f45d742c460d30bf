"What callers sent is answered again: the numbers are right, and a challenger that is worse for them is stopped."
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sites import PARAMS, SPLIT, model_folder, save_model

from og_project.config import settings
from og_project.data.contract import CLASSES, TASK, Record, answer
from og_project.features import build_features
from og_project.lifecycle.gate import Candidate
from og_project.model import estimator, train
from og_project.serving.journal import LABELS, Entry, batch_of, feedback_schema, journal_schema, new_ids, personal, tables_sql
from og_project.serving.rescore import Period, compared, drawn, judged, spread, summary
from og_project.store import append, connect, create

pytestmark = pytest.mark.skipif(bool(personal()), reason="models do without personal fields")
NOW = datetime.now(UTC)
DAY = Period(NOW - timedelta(days=1), NOW + timedelta(days=1))


@pytest.fixture(scope="module")
def models(real, tmp_path_factory) -> dict[str, Candidate]:
    "A model, the same with another threshold, and one that hardly learned; each with its version."
    place = tmp_path_factory.mktemp("models")
    parts = train.split_as_trained(pq.read_table(real["features"]), SPLIT)
    fitted, _ = estimator.fit(parts["train"], parts["valid"], PARAMS | {"num_boost_round": 2})
    save_model(place / "poor", real, fitted, parts)
    model_folder(real, place / "good")
    model_folder(real, place / "other", threshold=0.15)
    return {name: Candidate(name, estimator.load(place / name), place / name, np.zeros(0)) for name in ("good", "other", "poor")}


def fill(store, records: list[dict], model, outcomes: int) -> pa.Table:
    "Predictions of real records, and for some of them outcomes as likely as the model says; gives the records."
    asked = estimator.rows_table([Record(**record) for record in records])
    matrix = build_features(asked, model.features)
    score, ids = estimator.scores(model.estimator, matrix), new_ids(len(records))
    entry = Entry(ids, ids, "1", None, asked, matrix, answer(score, model.encoder["threshold"]))
    append(store, "predictions", pa.Table.from_batches([batch_of(entry, journal_schema(), b"key")]))
    draw = np.random.default_rng(1)
    seen = {"binary": lambda: draw.random(len(score)) < score, "regression": lambda: score + draw.normal(0, score.std() / 10, len(score)),
            "multiclass": lambda: np.array(CLASSES, object)[[draw.choice(len(CLASSES), p=row / row.sum()) for row in score]]}[TASK]()
    kind = feedback_schema().field("outcome").type
    rows = {"prediction_id": ids[:outcomes], "outcome": pa.array(seen.tolist()[:outcomes]).cast(kind), "received_at": pa.repeat(NOW, outcomes),
            **{name: pa.repeat("", outcomes) for name in ("request_id", "idempotency_key", "idempotency_answer")}}
    append(store, "feedback", pa.table([pa.array(rows[field.name].to_pylist(), field.type) for field in feedback_schema()], feedback_schema()))
    return asked


@pytest.fixture
def store(tmp_path):
    made = connect(f"chdb://{tmp_path / 'data'}")
    create(made, tables_sql())
    return made


def test_the_numbers_are_those_of_asking_both(store, models, records):
    good, other, poor = (one.model for one in models.values())
    asked = fill(store, records, good, 500)
    same = compared(settings("local"), store, models["good"], models["good"], DAY)
    assert (same.rows, same.looked, same.moved, same.flipped, same.gain) == (1000, 1000, 0, 0, 0) and same.outcomes == 500
    found = compared(settings("local"), store, models["poor"], models["good"], DAY)
    scores = [estimator.score_columns(estimator.scores(model.estimator, build_features(asked, model.features))) for model in (poor, good)]
    unit = spread(models["good"].folder)
    assert found.moved == pytest.approx(np.abs(scores[0] - scores[1]).mean() / unit) and unit > 0
    assert found.furthest >= found.moved > 0 and all(value > 0 for value in found.features.values()) and "µs" in summary(found)
    labels = lambda model: [estimator.predict(model, asked)[name] for name in LABELS]
    for name, model in (("other", other), ("poor", poor)):
        flipped = np.any([a != b for a, b in zip(labels(model), labels(good), strict=True)], axis=0).mean() if LABELS else 0
        assert compared(settings("local"), store, models[name], models["good"], DAY).flipped == pytest.approx(flipped)


def test_a_challenger_that_is_worse_for_callers_is_stopped(store, models, records):
    config = settings("local")
    limits = config.gate.model_copy(update={"traffic_moved": 100.0})  # not the distance: who was right
    fill(store, records, models["good"].model, 1000)
    worse, better = (compared(config, store, *(models[name] for name in pair), DAY) for pair in (("poor", "good"), ("good", "poor")))
    refused, passed = judged(worse, limits), judged(better, limits)
    assert refused.passed is False and worse.high < -limits.traffic_loss and "1,000 outcomes" in refused.said
    assert passed.passed is True and better.low > 0 and "may be missed" in passed.said
    narrow = config.gate.model_copy(update={"traffic_moved": better.moved / 2})
    assert judged(better, narrow).passed is False  # right, and far from what callers were told


def test_too_little_is_said_and_stops_nothing(store, models, records):
    config = settings("local")
    nothing = judged(compared(config, store, models["poor"], models["good"], DAY), config.gate)
    assert nothing.passed is None and "no prediction of the last 7 days" in nothing.said
    fill(store, records[:300], models["good"].model, 50)
    few = judged(compared(config, store, models["poor"], models["good"], DAY), config.gate.model_copy(update={"traffic_moved": 100.0}))
    assert few.passed is True and "50 outcomes are too few" in few.said
    early = Period(NOW - timedelta(days=9), NOW - timedelta(days=8))
    assert compared(config, store, models["poor"], models["good"], early).rows == 0


@pytest.mark.parametrize("engine", ["embedded", "server", "cluster"])
def test_the_same_rows_are_drawn_each_time_on_every_engine(request, engine, tmp_path, models, records):
    server = None if engine == "embedded" else request.getfixturevalue("clickhouse" if engine == "server" else "cluster")
    store = connect(f"chdb://{tmp_path / 'data'}") if server is None else connect(server.url, "hunter2")
    create(store, tables_sql())
    fill(store, records, models["good"].model, 600)
    some = Period(DAY.since, DAY.until, 100)
    (count, rows), (known, with_outcome) = drawn(store, some), drawn(store, some, outcomes=True)
    assert (count, known) == (1000, 600) and 50 < len(rows) <= 100 and 50 < len(with_outcome) <= 100
    assert drawn(store, some)[1]["prediction_id"].equals(rows["prediction_id"]) and "seen" in with_outcome.column_names
