"What only looks changes nothing: commands that read, at registries and stores that are there, and at some that are not."
import hashlib
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from og_project.cli import og
from og_project.config import root, settings
from og_project.lifecycle.ledger import changes, history, ledger_sql, promote, rollback
from og_project.lifecycle.registry import CHAMPION, RegistryError, client, point
from og_project.store import store_of

READERS = [["history"], ["history", "--at", "2026-01-01"], ["gate"], ["rollback"], ["promote", "1"], ["monitor", "--once"],
           ["smoke", "--version", "champion"], ["dag", "--check"], ["clean", "--check"]]
NOWHERE = ["sqlite:///{folder}/empty.db", "sqlite:///{folder}/nothing.db", "mlruns", "http//mlflow:5000", "file:///{folder}/mlruns", ""]


def contents(folder: Path) -> dict[str, str]:
    "Path -> what is in it."
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in sorted(folder.rglob("*"))}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    "A project that has made nothing yet."
    for name in ("config", "nbs", "db"):
        (tmp_path / name).symlink_to(root() / name)
    for name in ("settings.ini", "env.yaml", "pipeline.yaml", "dvc.yaml"):
        (tmp_path / name).symlink_to(root() / name)
    (tmp_path / "og_project").symlink_to(root() / "og_project")
    (tmp_path / "empty.db").touch()
    monkeypatch.setenv("OG_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("uri", NOWHERE)
@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_a_registry_that_is_not_there_is_an_error_and_nothing_is_made(place, monkeypatch, command, uri):
    monkeypatch.setenv("OG_MLFLOW__TRACKING_URI", uri.format(folder=place))
    before = contents(place)
    done = CliRunner().invoke(og, command)
    assert contents(place) == before
    if command[0] in ("dag", "clean"):
        return
    assert done.exit_code == 1 and ("no registry" in done.output) and "Traceback" not in done.output, done.output


@pytest.fixture(scope="module")
def three_versions(tmp_path_factory) -> Path:
    "A registry and a store with three versions, each promoted in its turn."
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("config", "settings.ini"):
            (folder / name).symlink_to(root() / name)
        patch.setenv("OG_ROOT", str(folder))
        patch.setenv("OG_MLFLOW__TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("OG_GATE__MODE", "off")
        config = settings("local")
        mlflow = client(config, make=True)
        mlflow.create_registered_model("og_project")
        for version in ("1", "2", "3"):
            mlflow.create_model_version("og_project", folder.as_uri())
            promote(config, version)
    return folder


@pytest.fixture
def ledger(place, monkeypatch, three_versions):
    "Three versions, each promoted in its turn."
    shutil.copy(three_versions / "mlflow.db", place)
    shutil.copytree(three_versions / "data", place / "data")
    monkeypatch.setenv("OG_MLFLOW__TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    monkeypatch.setenv("OG_GATE__MODE", "off")
    config = settings("local")
    return config, client(config)


def test_looking_writes_nothing_down_whatever_became_of_the_alias(place, ledger):
    config, mlflow = ledger
    for change in (lambda: point(config, CHAMPION, "1"), lambda: mlflow.delete_registered_model_alias("og_project", CHAMPION),
                   lambda: mlflow.delete_model_version("og_project", "3")):
        change()
        before = contents(place / "data")
        for command in (["history"], ["history", "--json"], ["history", "--at", "2099-01-01"]):
            assert CliRunner().invoke(og, command).exit_code == 0
        assert contents(place / "data") == before
    assert [change.kind for change in history(config)[0]] == ["promote"] * 3


def test_another_models_name_is_no_move_to_no_version(place, ledger, monkeypatch):
    config, _ = ledger
    monkeypatch.setenv("OG_MLFLOW__MODEL", "mistyped")
    assert "no version has been promoted" in CliRunner().invoke(og, ["history"]).output
    assert len(changes(config, store_of(config, tables=ledger_sql()))) == 3


GONE = [(["3"], "2", "3"), (["2"], "1", "2"), (["3", "2"], "1", "3, 2"), (["1"], "2", ""), (["1", "2"], None, "2, 1")]


@pytest.mark.parametrize("deleted, to, skipped", GONE)
def test_a_rollback_goes_to_the_last_promoted_version_that_still_exists(ledger, deleted, to, skipped):
    config, mlflow = ledger
    for version in deleted:
        mlflow.delete_model_version("og_project", version)
    if to is None:
        with pytest.raises(RegistryError, match=f"no version to go back to \\(skipped versions {skipped}: deleted"):
            rollback(config)
        return
    change = rollback(config, "a test")
    assert change.to_version == to and (f"{skipped}: deleted" in change.reason) == bool(skipped)
    assert str(mlflow.get_model_version_by_alias("og_project", CHAMPION).version) == to
