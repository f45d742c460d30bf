"""No feature of a flight knows an outcome (its own, or another flight's) that was not known an hour before it left, and nothing at or
after `until`. Weather is no outcome: it is the measured one of the scheduled hour, standing in for a forecast.

The proof does not trust the SQL: it changes the future and looks whether a feature notices."""
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from og_project import features
from og_project.data.contract import LabelledRecord, Record, moment
from og_project.store import connect, parquet

OUTCOMES = sorted(LabelledRecord.model_fields.keys() - Record.model_fields.keys())
FROM, TO = moment("2013-07-01"), moment("2013-07-15")


@pytest.fixture(scope="module")
def two_weeks(real) -> pa.Table:
    "A busy fortnight with many delays."
    rows = pq.read_table(real["records"])
    return rows.filter((pc.field("sched_dep") >= FROM) & (pc.field("sched_dep") < TO))


def features_of(rows: pa.Table, real, folder) -> np.ndarray:
    "(n, k) features, made as the stage makes them."
    store, path = connect(), folder / "rows.parquet"
    pq.write_table(rows, path)
    flights, planes = parquet(real["raw"] / "flights.parquet"), parquet(real["external"] / "planes.parquet")
    fixed = features.reference_lookups(store, features.Sources(parquet(path), flights, planes), TO)
    table = features.feature_block(store, parquet(path), features.Window(FROM, FROM, TO), fixed, 15)
    return np.stack([table[name].to_numpy() for name in features.FEATURES], axis=1)


def known_at(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    "Seconds since 1970 at which a departure, and an arrival, became known: written down anew, apart from the code under test."
    left = rows["sched_dep"].to_numpy().astype("datetime64[s]").astype(float) + 60 * rows["dep_delay"].to_numpy(zero_copy_only=False)
    return left, left + 60 * rows["air_time"].to_numpy(zero_copy_only=False)


def scrambled_after(rows: pa.Table, at: float, seed: int) -> pa.Table:
    "The same flights, but all that became known at or after a moment is different."
    rng = np.random.default_rng(seed)
    left, landed = known_at(rows)
    planned = rows["sched_dep"].to_numpy().astype("datetime64[s]").astype(float)
    late = rng.integers(0, 2000, len(planned))  # minutes; whatever is made up becomes known after the moment, too
    not_before = {
        "dep_delay": (left, np.ceil((at - planned) / 60).clip(0)),
        "air_time": (landed, np.ceil((at - np.where(left < at, left, at)) / 60).clip(30)),
        "arr_delay": (landed, 0),
    }
    changed = {}
    for name, (known, least) in not_before.items():
        values = np.where(known < at, rows[name].to_numpy(zero_copy_only=False).astype(float), least + late)
        changed[name] = pa.array(values.astype(int))
    for name, column in changed.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def notices(rows: pa.Table, at, seed: int, real, folder) -> list[str]:
    "The features that change when what came after a moment changes, of flights that leave up to an hour after it."
    asked = pc.less(rows["sched_dep"], at + timedelta(hours=1)).to_numpy()
    honest, other = (features_of(r, real, folder)[asked] for r in (rows, scrambled_after(rows, at.timestamp(), seed)))
    assert asked.sum() > 100
    return [name for j, name in enumerate(features.FEATURES) if not np.array_equal(honest[:, j], other[:, j], equal_nan=True)]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(minutes=st.integers(24 * 60, 300 * 60), seed=st.integers(0, 1000))
def test_no_feature_notices_the_future(two_weeks, real, tmp_path, minutes, seed):
    assert notices(two_weeks, FROM + timedelta(minutes=minutes), seed, real, tmp_path) == []


@pytest.mark.parametrize("leak", ["window ends late", "arrival known at departure", "own outcome as a feature"])
def test_a_leak_planted_on_purpose_is_caught(two_weeks, real, tmp_path, monkeypatch, leak):
    if leak == "window ends late":
        monkeypatch.setattr(features, "HORIZON", -1)
    elif leak == "arrival known at departure":
        monkeypatch.setitem(features.KNOWN, "arrived", "sched_dep")
    else:
        honest = features.schedule
        monkeypatch.setattr(features, "schedule", lambda rows, clock: honest(rows, clock) | {"minute": pc.fill_null(rows["dep_delay"], 0).to_numpy()})
    assert notices(two_weeks, FROM + timedelta(hours=181, minutes=20), 1, real, tmp_path)


def test_nothing_at_or_after_until_reaches_features_or_lookups(two_weeks, real, tmp_path):
    "The products for an earlier `until` are the same whether or not the rows after it exist."
    until, store = moment("2013-07-10"), connect()
    made = {}
    for name, rows in {"with": two_weeks, "without": two_weeks.filter(pc.field("sched_dep") < until)}.items():
        place = tmp_path / name
        place.mkdir()
        pq.write_table(rows, place / "records.parquet")
        flights = pq.read_table(real["raw"] / "flights.parquet")
        pq.write_table(flights if name == "with" else flights.filter(pc.field("time_hour") < until), place / "flights.parquet")
        tables = [place / "records.parquet", place / "flights.parquet", real["external"] / "planes.parquet"]
        out = {"features": place / "features.parquet", "lookups": place / "lookups"}
        features.build(store, features.Sources(*map(parquet, tables)), out, until, 15)
        made[name] = {p.name: pq.read_table(p) for p in [place / "features.parquet", *sorted((place / "lookups").iterdir())]}
    for name in made["without"]:
        assert made["with"][name].to_pandas().equals(made["without"][name].to_pandas()), name
