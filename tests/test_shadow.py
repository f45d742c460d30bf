"A challenger answers beside the champion: each prediction once, within its budget, and the gate looks at what it said."
import json
import os
import shutil
import signal

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from processes import begin, wait_until
from sites import model_folder
from test_rescore import DAY, fill

from og_project.cli import og
from og_project.config import settings
from og_project.data.contract import TASK
from og_project.lifecycle import ledger
from og_project.lifecycle.gate import Candidate
from og_project.model.estimator import load, rows_table, score_columns, scores
from og_project.serving.journal import personal, tables_sql
from og_project.serving.records import RequestRecord
from og_project.serving.rescore import opened_store
from og_project.serving.shadow import answer_beside, check_shadow, rest_after, shadowed, waiting
from og_project.store import connect, create, query

pytestmark = pytest.mark.skipif(bool(personal()), reason="a challenger would answer without the personal fields")


@pytest.fixture
def place(registry, real, site, monkeypatch, tmp_path):
    "A service with a champion beside a registry that has a challenger. Gives the site, the settings, and the folders of both."
    shutil.rmtree(site.folder / "models")
    of = {"OG_MLFLOW__TRACKING_URI": registry.url, "OG_SERVE__WATCH_SECONDS": "0.3", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}
    for name, value in (of | {"OG_ROOT": str(site.folder), "OG_STORE__URL": f"chdb://{site.folder / 'data'}"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    folders = [model_folder(real, tmp_path / str(number), threshold=threshold) for number, threshold in enumerate((0.3, 0.99))]
    versions = [registry.publish(folder) for folder in folders]
    config = settings("local")
    ledger.promote(config, versions[0], "a test", force=True)
    site.start(ready=False, **of)
    wait_until(lambda: httpx.get(site.url + "/model").json()["version"] == versions[0])
    return site, config, [Candidate(version, load(folder), folder, np.zeros(0)) for version, folder in zip(versions, folders, strict=True)]


def ask(site, records: list[dict]) -> dict[str, dict]:
    "Ask, and wait until the store has it: id -> answer."
    said = httpx.post(site.url + "/predict", json=records).raise_for_status().json()["predictions"]
    wait_until(lambda: {one["id"] for one in said} <= {row["prediction_id"] for row in site.stored("SELECT prediction_id FROM predictions")})
    return {one["id"]: one for one in said}


def test_each_prediction_is_answered_once_and_exactly(place, records):
    site, config, (champion, challenger) = place
    given = ask(site, records[:40])
    look = lambda: json.loads(CliRunner().invoke(og, ["shadow", challenger.version, "--once", "--json"]).stdout)
    assert look() == {"version": challenger.version, "waiting": 40, "answered": 40} and look()["waiting"] == 0
    given |= ask(site, records[40:100])
    assert look()["answered"] == 60
    found = query(opened_store(config), "SELECT prediction_id, scores FROM shadows").to_pylist()
    assert len(found) == 100 and {row["prediction_id"] for row in found} == given.keys()
    said = score_columns(scores(challenger.model.estimator, matrix_of(challenger, records[:100])))
    by_id = dict(zip(given, said.tolist(), strict=True))
    assert all(row["scores"] == by_id[row["prediction_id"]] for row in found), "to the bit, as if it had been asked"
    assert json.loads(CliRunner().invoke(og, ["shadow", champion.version, "--once", "--json"]).stdout)["version"] == "", "it serves"

    check = check_shadow(config, challenger, champion)
    assert check.passed and "100 of 100 requests" in check.said and check.numbers["moved"] == 0
    assert (check.numbers["flipped"] > 0) == (TASK == "binary"), "the same scores, and for yes or no another threshold"
    for asked, passed in ((100, True), (101, False)):
        limits = config.gate.model_copy(update={"shadow_rows": asked})
        assert check_shadow(config.model_copy(update={"gate": limits}), challenger, champion).passed is passed


def matrix_of(one: Candidate, records: list[dict]) -> np.ndarray:
    from og_project.features import build_features

    return build_features(rows_table([RequestRecord(**record) for record in records]), one.model.features)


@pytest.mark.parametrize("engine", ["embedded", "server", "cluster"])
def test_the_tables_say_the_same_on_every_engine(request, engine, real, tmp_path, records):
    server = None if engine == "embedded" else request.getfixturevalue("clickhouse" if engine == "server" else "cluster")
    store = connect(f"chdb://{tmp_path / 'data'}") if server is None else connect(server.url, "hunter2")
    create(store, tables_sql())
    folder = model_folder(real, tmp_path / "model")
    ours, theirs = (Candidate(version, load(folder), folder, np.zeros(0)) for version in ("2", "1"))
    fill(store, records[:200], theirs.model, 150)
    (count, rows), config = waiting(store, "2", 150), settings("local")
    assert (count, len(rows)) == (200, 150) and waiting(store, "2", 150)[1]["prediction_id"].equals(rows["prediction_id"])
    assert answer_beside(config, store, ours, rows) == 150 and waiting(store, "2", 150)[0] == 50
    found = shadowed(config, store, ours, theirs, DAY)
    assert (found.rows, found.looked, found.moved, found.flipped) == (150, 150, 0, 0) and 0 < found.outcomes <= 150
    assert waiting(store, "1", 150)[0] == 0, "it does not answer itself"


def test_it_may_be_killed_at_any_moment(place, records):
    site, config, (_, challenger) = place
    count = lambda what: query(opened_store(config), f"SELECT count({what}) AS n FROM shadows")["n"][0].as_py()
    env = os.environ | {"OG_SHADOW__SECONDS": "0.05", "OG_SHADOW__ROWS": "30", "OG_SHADOW__CPU": "1"}
    for turn in range(3):
        ask(site, records[100 * turn : 100 * (turn + 1)])
        process = begin(("og", "shadow", challenger.version), site.folder, dict(env), site.folder / "shadow.log")
        wait_until(lambda turn=turn: count("*") > 100 * turn, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(600)
    process = begin(("og", "shadow", challenger.version), site.folder, dict(env), site.folder / "shadow.log")
    wait_until(lambda: count("*") >= 300, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(600)
    assert count("*") == count("DISTINCT prediction_id") == 300
    assert httpx.get(site.url + "/health/ready").status_code == 200


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0.01, 1), st.floats(0, 100))
def test_it_keeps_within_its_share_of_a_core(used, more, cpu, seconds):
    took = used + more  # a look takes at least as long as the processor works for it, on one core
    rest = rest_after(used, took, cpu, seconds)
    assert rest >= 0 and took + rest >= seconds - 1e-9 and used <= cpu * (took + rest) * (1 + 1e-9) + 1e-9
