"""What has to hold of a stack that stands; the entry of the service `test` (docker-compose-test.yml). Exit code 0: all of it; the report says which.

It asks over the network, as a caller and as the pipeline do, and knows the problem by its contract only."""
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from og_project import features
from og_project.config import root, settings
from og_project.data.contract import EXAMPLE, TASK, Answer, Record
from og_project.lifecycle import gate, registry
from og_project.lifecycle.card import quality
from og_project.lifecycle.smoke import ask, recorded, wait
from og_project.model import estimator, evaluate
from og_project.store import connect, parquet, properties, query, store_of

URL, KEY = os.environ.get("SERVICE_URL", ""), os.environ.get("SERVICE_KEY", "")
CONFIG = settings()
PAGES = ("/", "/health/live", "/health/ready", "/model", "/traffic", "/history", "/drift", "/metrics", "/docs", "/openapi.json",
         "/v2/models/" + CONFIG.mlflow.model)
REQUIRED = [name for name, (_, nullable) in properties(Record).items() if not nullable]


def predicted(body: object) -> dict:
    status, text = ask(URL, "/predict", KEY, body)
    assert status == 200, f"{status} {text[:500]}"
    return json.loads(text)


# --- io ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("table", ["predictions", "feedback", "promotions"])
def test_clickhouse_has_the_table(table):
    assert query(store_of(CONFIG), f"SELECT count() AS rows FROM {table}").num_rows == 1


def test_mlflow_knows_the_champion_that_serves():
    assert str(registry.expect_champion(CONFIG).version) == json.loads(ask(URL, "/model", KEY)[1])["version"]


# --- endpoints --------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PAGES)
def test_an_endpoint_answers(path):
    status, text = ask(URL, path, KEY)
    assert status == 200 and text, f"{status} {text[:300]}"


@pytest.mark.parametrize("path", ["/predict", "/metrics", "/model"])
def test_nobody_comes_in_without_a_key(path):
    assert ask(URL, path, "", EXAMPLE if path == "/predict" else None)[0] == 401


def test_a_prediction_is_answered_and_recorded_once():
    reply = predicted(EXAMPLE)
    Answer(**{name: reply["predictions"][0][name] for name in Answer.model_fields})
    wait(lambda: recorded(store_of(CONFIG), reply["predictions"][0]["id"]), 60)


# --- parsing ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(field):
    status, text = ask(URL, "/predict", KEY, {name: value for name, value in EXAMPLE.items() if name != field})
    assert status == 422 and field in text, f"{status} {text[:300]}"


@pytest.mark.parametrize("body", [{}, "text", 7, EXAMPLE | {"no_such_field": 1}, [EXAMPLE, {}]])
def test_what_is_no_record_is_refused(body):
    assert ask(URL, "/predict", KEY, body)[0] == 422


# --- features, model, quality -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(tmp_path_factory) -> estimator.Model:
    "The champion, fetched from the registry as a replica does."
    return estimator.load(registry.fetch(CONFIG, registry.expect_champion(CONFIG), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def later(model) -> tuple[list[Record], np.ndarray]:
    "Real records later than the model was trained on, and what became of them."
    store, records = connect(), parquet(root() / "data/interim/records.parquet")
    rows, outcomes, _ = gate.fresh(store, records, model, gate.unseen(store, records, model), 3000)
    assert len(outcomes), "the model has seen all records: ./setup.sh og run all, with a later until"
    return [Record(**row) for row in rows.select(list(Record.model_fields)).to_pylist()], outcomes


@pytest.fixture(scope="module")
def said(later) -> dict[str, np.ndarray]:
    "What the service answers to them."
    asked = [json.loads(record.model_dump_json()) for record in later[0]]
    answers = [answer for start in range(0, len(asked), 1000) for answer in predicted(asked[start:start + 1000])["predictions"]]
    return {name: np.array([answer[name] for answer in answers]) for name in Answer.model_fields}


def test_the_service_answers_what_the_registered_model_does(model, later, said):
    "The same features are built and the same model is asked, here and there; with what the tables say now, where they are the source."
    if CONFIG.source == "store":
        lookups = features.refresh(store_of(CONFIG), model.lookups, model.encoder)
        model = replace(model, lookups=lookups, features=features.ready(lookups))
    here = estimator.predict(model, estimator.rows_table(later[0]))
    for name in Answer.model_fields:
        assert np.array_equal(said[name], here[name]), name


def test_quality_did_not_regress(later, said):
    """The service is about as good as the registry says that this version is.

    Other records are harder or easier by some percent; what the gate compares is finer, and pairs two versions on the same ones."""
    score = np.stack([said[name] for name in estimator.SCORE], axis=1)
    now, then = evaluate.score(later[1], score if TASK == "multiclass" else score[:, 0]), quality(registry.expect_champion(CONFIG).tags)
    assert gate.better(now, then) > -0.1, f"when the version was registered: {then}; now: {now}"


if __name__ == "__main__":
    report = Path(root(), "reports", "junit.xml")
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]))
