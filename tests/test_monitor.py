"""What the monitor sees of a running service, embedded and on a server; and the smoke test that asks it."""
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import problem
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_until
from prometheus_client.parser import text_string_to_metric_families

from og_project.config import root
from og_project.data.contract import EXAMPLE
from og_project.features import FEATURES
from og_project.lifecycle.gate import better
from og_project.lifecycle.monitor import GAUGES, drift, jensen_shannon, psi, score_parts
from og_project.lifecycle.smoke import SmokeError, smoke, watch
from og_project.model.estimator import read_reference
from og_project.model.evaluate import METRICS
from og_project.serving.journal import demo_outcomes, schema_sql
from og_project.store import append, connect, create, query

counts = st.lists(st.integers(0, 10**9), min_size=3, max_size=3).map(np.array)


@given(counts, counts)
def test_distances_are_distances(a, b):
    for distance in (psi, jensen_shannon):
        assert distance(a, a) == 0 and distance(a, b) >= -1e-12 and np.isfinite(distance(a, b))
        assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-6, abs=1e-9)
    assert jensen_shannon(a, b) <= 1


@pytest.fixture(scope="module")
def asked(running, records):
    "A thousand real records, and a flood of strange ones; outcomes of half of the real ones, whatever was said."
    with httpx.Client(base_url=running.url, timeout=600) as client:
        said = client.post("/predict", json=records).json()["predictions"]
        client.post("/predict", json=[EXAMPLE | problem.STRANGE] * 500)
        wait_until(lambda: running.stored("SELECT count() AS n FROM predictions")[0]["n"] >= 1500)
        outcomes = [{"id": p["id"], "outcome": outcome} for p, outcome in zip(said, demo_outcomes(500), strict=False)]
        assert client.post("/feedback", json=outcomes).status_code == 200
        yield client


def test_drift_is_seen_by_feature_and_told_to_machines(running, asked):
    def report():
        return asked.get("/drift").json()

    wait_until(lambda: (report() or {}).get("quality", {}).get("outcomes") == 500)
    seen = report()
    of = {d["feature"]: d for d in seen["drift"]}
    assert set(of) == {*FEATURES, *score_parts(read_reference(running.folder / "models/versions/1"))}
    assert seen["rows"] >= 1500 and {t["table"] for t in seen["tables"]} >= {"predictions", "feedback"}
    assert of[problem.MOVED]["psi"] > 0.25
    unseen = [name for name, value in problem.STRANGE.items() if name in of and isinstance(value, str)]  # words that training never saw
    assert all(0.3 < of[name]["unknown"] < 0.4 for name in unseen) and all(d["unknown"] == 0 for name, d in of.items() if name not in unseen)
    quality = seen["quality"]
    assert {*METRICS, "said", "seen", "calibration"} <= quality.keys()
    # outcomes by turns, whatever was said: far below what was registered, and badly calibrated
    registered = asked.get("/model").json()["quality"]
    assert quality["gain"] == pytest.approx(better(quality, registered)) and quality["gain"] < -0.2 and quality["calibration"] > 0.1
    text = asked.get("/metrics").text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    told = {s.labels["feature"]: s.value for s in families["og_drift_psi"].samples}
    assert told[problem.MOVED] == pytest.approx(of[problem.MOVED]["psi"], rel=0.2) and any(name.startswith("score") for name in told)
    assert {s.labels["table"] for s in families["og_store_rows"].samples} >= {"predictions"}


def test_every_metric_of_the_monitor_is_documented():
    docs = (root() / "docs/monitoring.md").read_text()
    for name, (text, labels) in GAUGES.items():
        assert f"| `{name}` |" in docs and all(f"`{label}`" in docs for label in labels) and text
        assert re.search(r"_(ratio|seconds|bytes|rows|parts|psi|shannon|predictions|mean|quality|outcomes|passed|changes|faults|strayed)$", name)


def test_a_server_counts_as_the_embedded_engine_does(running, asked, clickhouse):
    reference = read_reference(running.folder / "models/versions/1")
    here = connect(f"chdb://{running.folder / 'data'}")
    create(here, schema_sql())
    there = connect(clickhouse.url, "hunter2")
    create(there, schema_sql())
    files = sorted((Path(running.folder) / "data/predictions").glob("*.parquet"))
    for path in files:
        append(there, "predictions", pq.read_table(path), token=path.stem)
    window = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    ours, theirs = (drift(store, reference, "1", *window) for store in (here, there))
    assert ours[0] == theirs[0] and ours[1] == pytest.approx(theirs[1]) and ours[2] == theirs[2]
    assert query(there, "SELECT count() AS n FROM predictions")["n"][0].as_py() >= 1500


def test_smoke_finds_its_prediction_in_the_store(running, asked):
    store = connect(f"chdb://{running.folder / 'data'}")
    create(store, schema_sql())
    found = smoke(running.url, version="1", store=store)
    assert running.stored(f"SELECT request_id FROM predictions WHERE prediction_id = '{found['id']}'") == [{"request_id": found["request_id"]}]
    assert watch(running.url, "", 1)["errors"] == 0


def test_smoke_says_what_is_wrong(running):
    with pytest.raises(SmokeError, match="serves version 1, not 9"):
        smoke(running.url, version="9", seconds=0.5)
    with pytest.raises(SmokeError, match="is not ready: no answer"):
        smoke("http://127.0.0.1:9", seconds=0.5)
    with pytest.raises(SmokeError, match="took longer than 0 s"):
        watch(running.url, "", 5, max_p99=0.0)


def test_a_slow_check_does_not_take_the_place_of_a_newer_one(monkeypatch):
    "The service checks by itself and when somebody asks; a check that began before outcomes came ended after one that had seen them."
    from threading import Event, Thread

    from og_project.config import settings
    from og_project.lifecycle import monitor as module

    began, go, seen = Event(), Event(), [0]

    def check(*_):
        outcomes = seen[0]
        if not began.is_set():
            began.set()
            go.wait(600)
        return outcomes

    monkeypatch.setattr(module, "check", check)
    monitor = module.Monitor(settings("local"), lambda: None, lambda: ("1", {}, {}))
    slow = Thread(target=monitor.check)
    slow.start()
    began.wait(600)
    seen[0] = 500
    asked = Thread(target=monitor.check)
    asked.start()
    go.set()
    slow.join(60)
    asked.join(60)
    assert monitor.report == 500
