"""The model that serves: from a real registry on real S3-compatible storage, swapped under load, refused when it is not right."""
import json
import os
import re
import shutil
import time

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fields import BINARY, DECIDING, VALUE
from processes import wait_until
from sites import model_folder
from test_journal import Callers, assert_all_there_once, shipped

from og_project.config import settings
from og_project.data.contract import EXAMPLE, TARGET
from og_project.lifecycle import ledger
from og_project.model.estimator import seal


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")


@pytest.fixture
def empty(site):
    "A place without a model."
    shutil.rmtree(site.folder / "models")
    return site


def of(registry, **more: str) -> dict[str, str]:
    return {"OG_MLFLOW__TRACKING_URI": registry.url, "OG_SERVE__WATCH_SECONDS": "0.3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"} | more


def serves(site) -> str | None:
    return httpx.get(site.url + "/model").json()["version"]


@pytest.fixture(scope="module")
def versions(registry, real, tmp_path_factory) -> tuple[str, str]:
    "Two good versions; of two classes, the second says yes where the first does not."
    place = tmp_path_factory.mktemp("versions")
    first, second = model_folder(real, place / "a"), model_folder(real, place / "b", threshold=0.01)
    return registry.publish(first), registry.publish(second)


def test_the_champion_comes_from_the_registry_and_is_there_without_it(registry, versions, empty):
    registry.promote(versions[0])
    empty.start(**of(registry))
    about = httpx.get(empty.url + "/model").json()
    assert about["version"] == versions[0] and not about["from_disk"] and about["registry_reachable"] and about["quality"][DECIDING] == 0.71
    empty.stop()
    registry.stop()
    try:
        empty.start(**of(registry))  # the last good copy serves
        wait_until(lambda: not httpx.get(empty.url + "/model").json()["registry_reachable"])
        assert httpx.post(empty.url + "/predict", json=EXAMPLE).json()["model_version"] == versions[0]
        assert httpx.get(empty.url + "/model").json()["from_disk"]
        assert "og_registry_reachable 0.0" in settled(empty, "og_registry_reachable 0.0")
    finally:
        registry.start()
    registry.promote(versions[1])
    wait_until(lambda: serves(empty) == versions[1])  # and it catches up
    assert httpx.get(empty.url + "/model").json()["registry_reachable"]


def settled(site, line: str) -> str:
    "The metrics, once a line is there."
    wait_until(lambda: line in httpx.get(site.url + "/metrics").text)
    return httpx.get(site.url + "/metrics").text


def test_a_swap_under_load_fails_no_request_and_every_answer_names_its_version(registry, versions, empty, records):
    registry.promote(versions[0])
    empty.start(**of(registry))
    with Callers(empty, records) as callers:
        for version in (versions[1], versions[0], versions[1]):  # forward, back, forward
            time.sleep(0.5)
            registry.promote(version)
            wait_until(lambda version=version: serves(empty) == version)
        time.sleep(0.3)
    wait_until(lambda: shipped(empty))
    assert not callers.refused and {told[1] for told in callers.told.values()} == set(versions)
    rows = empty.stored()
    assert_all_there_once(callers, rows)
    if BINARY:  # the version that a row names is the one that gave its answer: the two say yes to others
        threshold = {versions[0]: 0.3, versions[1]: 0.01}
        assert all(row[TARGET] == (row[VALUE] >= threshold[row["model_version"]]) for row in rows)
    assert "og_model_swaps_total 3.0" in settled(empty, "og_model_swaps_total 3.0")


def damaged(folder):
    "Another answer than the golden rows say."
    golden = json.loads((folder / "golden.json").read_text())
    golden[0]["answer"][VALUE] += 0.1
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder)


def with_code(folder):
    "A file that a model may not hold."
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    seal(folder)


def write_nothing(folder):
    "Cut the file of the estimator, whatever it is called."
    file = next(path for path in sorted(folder.iterdir()) if path.name not in
                ("card.md", "contract.json", "encoder.json", "golden.json", "lookups", "manifest.json", "reference.json"))
    file.write_text("tree")


def without_trees(folder):
    "No model that can be read."
    write_nothing(folder)
    seal(folder)


@pytest.mark.parametrize("damage, reason", [(damaged, "golden row"), (with_code, "model.pkl"), (without_trees, "")])
def test_a_version_that_is_not_right_is_refused_once_and_the_old_one_serves_on(registry, versions, real, empty, tmp_path, damage, reason):
    registry.promote(versions[0])
    empty.start(**of(registry))
    folder = model_folder(real, tmp_path / "bad")
    damage(folder)
    bad = registry.publish(folder)
    registry.promote(bad)
    wait_until(lambda: bad in httpx.get(empty.url + "/model").json()["refused"])
    assert reason in httpx.get(empty.url + "/model").json()["refused"][bad] and serves(empty) == versions[0]
    time.sleep(1)
    assert sum(f"version {bad} is refused" in line["message"] for line in empty.lines()) == 1
    settled(empty, "og_model_refused_total 1.0")
    assert "refused" in httpx.post(empty.url + "/admin/reload").json()["status"]
    registry.promote(versions[1])
    wait_until(lambda: serves(empty) == versions[1])


def test_a_version_that_was_changed_in_the_storage_is_refused(registry, versions, real, empty, tmp_path):
    registry.promote(versions[0])
    empty.start(**of(registry))
    folder = model_folder(real, tmp_path / "changed", threshold=0.5)
    version = registry.publish(folder)
    from mlflow import MlflowClient

    run = MlflowClient(registry.url).get_model_version("og_project", version).run_id
    encoder = json.loads((folder / "encoder.json").read_text()) | {"threshold": 0.99}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    seal(folder)  # whoever changed it also made a manifest that fits
    MlflowClient(registry.url).log_artifacts(run, str(folder), "model/data/model")
    registry.promote(version)
    wait_until(lambda: version in httpx.get(empty.url + "/model").json()["refused"])
    assert "not the model that was registered" in httpx.get(empty.url + "/model").json()["refused"][version]


def test_storage_away_while_a_version_is_wanted_is_no_refusal(registry, versions, real, empty, tmp_path):
    registry.promote(versions[0])
    empty.start(**of(registry))
    version = registry.publish(model_folder(real, tmp_path / "later", threshold=0.4))
    registry.stop(registry.storage)
    try:
        registry.promote(version)
        wait_until(lambda: not httpx.get(empty.url + "/model").json()["registry_reachable"])
        about = httpx.get(empty.url + "/model").json()
        assert about["version"] == versions[0] and not about["refused"]
        assert httpx.post(empty.url + "/predict", json=EXAMPLE).status_code == 200
    finally:
        registry.start_storage()
    wait_until(lambda: serves(empty) == version)


def test_only_what_the_ledger_names_serves_where_it_is_trusted(registry, versions, empty, monkeypatch):
    first, second = versions
    trusting = of(registry, OG_SERVE__TRUST="ledger", OG_STORE__URL=f"chdb://{empty.folder / 'data'}", OG_ROOT=str(empty.folder))
    for name, value in trusting.items():
        monkeypatch.setenv(name, value)
    config = settings("local")
    promote = lambda version: ledger.promote(config, version, "a test", force=True)
    registry.promote(first)  # by hand, before anybody promoted
    empty.start(ready=False, **trusting)
    assert "no champion" in httpx.post(empty.url + "/admin/reload").json()["status"]
    promote(first)
    wait_until(lambda: serves(empty) == first)
    registry.promote(second)  # by hand
    assert httpx.post(empty.url + "/admin/reload").json()["status"] == f"version {first} serves"
    past, found = ledger.history(config)
    assert found.to_version == second and ledger.strayed(config, past)
    promote(second)  # and now as one should; the move before is written down as found, and is not gone back to
    wait_until(lambda: serves(empty) == second)
    assert [change.kind for change in ledger.history(config)[0]] == ["found", "promote", "found", "promote"]
    assert not ledger.strayed(config, ledger.history(config)[0]) and ledger.verify(config) == []
    ledger.rollback(config, "a test")
    wait_until(lambda: serves(empty) == first)

    file = max((empty.folder / "data/promotions").glob("*.parquet"), key=lambda path: pq.read_table(path)["at"][0].as_py())
    row = pq.read_table(file)
    pq.write_table(row.set_column(row.column_names.index("to_version"), "to_version", pa.array([second])), file)  # in the store, by hand
    wait_until(lambda: "the ledger is not whole" in httpx.post(empty.url + "/admin/reload").json()["status"])
    assert serves(empty) == first and httpx.post(empty.url + "/predict", json=EXAMPLE).json()["model_version"] == first


def test_the_metrics_of_a_model_are_of_its_version(registry, versions, empty):
    registry.promote(versions[1])
    empty.start(**of(registry))
    httpx.post(empty.url + "/predict", json=EXAMPLE)
    assert re.search(rf'og_predictions_total{{label="[^"]*",version="{versions[1]}"}} 1.0', settled(empty, "og_predictions_total{"))
    assert os.path.exists(empty.folder / "models/versions" / versions[1] / "manifest.json")
