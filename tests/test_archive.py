"What a host has gathered goes into one file, and out of it on another host, between all engines; what does not fit changes nothing."
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from processes import wait_until
from projects import Project
from sites import model_folder

from og_project.commands import generated
from og_project.config import Settings, root, settings
from og_project.lifecycle import archive, ledger, registry
from og_project.lifecycle.gate import DECIDING
from og_project.model import estimator
from og_project.serving.journal import batch_of, demo_entry, journal_schema
from og_project.store import Store, append, query, store_of

SQL = generated()[root() / "db/schema.sql"]
TABLES = archive.table_names(SQL)
HASH_KEY = {"OG_JOURNAL__HASH_KEY": "a key of the old host"}  # pragma: allowlist secret


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    "A registry with nothing in it, made once: MLflow takes seconds for its tables."
    made = tmp_path_factory.mktemp("empty") / "mlflow.db"
    registry.begin_registry(made)
    return made


def host(folder: Path, empty: Path | None = None) -> Project:
    "A place that has gathered nothing yet; it may have an empty registry."
    folder.mkdir(parents=True)
    if empty:
        shutil.copy(empty, folder)
    for name in ("config", "nbs", "db", "og_project", "settings.ini", "env.yaml", "pipeline.yaml", "requirements.txt", "requirements-dev.txt"):
        (folder / name).symlink_to(root() / name)
    return Project(folder)


def settled(patch: pytest.MonkeyPatch, host: Project, **more: str) -> tuple[Settings, Store]:
    "Work there: its settings, and its store with all tables."
    own = {"OG_ROOT": str(host.folder), "OG_GATE__MODE": "off", "OG_MLFLOW__TRACKING_URI": f"sqlite:///{host.folder}/mlflow.db",
           "OG_STORE__URL": f"chdb://{host.folder}/data"}
    for name, value in (own | more).items():
        patch.setenv(name, value)
    return settings("local"), store_of(settings("local"), tables=SQL)


def contents(store: Store) -> dict[str, list[str]]:
    "Every row of every table."
    return {table: sorted(json.dumps(row, default=str) for row in query(store, f"SELECT * FROM {table}").to_pylist()) for table in TABLES}


def known(config: Settings) -> list[dict]:
    "What the registry says, without the ids and places that a new one gives."
    mlflow, found = registry.client(config), []
    for version in registry.versions(mlflow, config):
        said = archive.version_as_dict(mlflow, version)
        for run in said["runs"]:
            del run["id"]
            run["tags"] = {name: value for name, value in run["tags"].items() if name not in ("mlflow.parentRunId", "imported_from")}
        found.append(said | {"aliases": sorted(version.aliases), "sum": estimator.verify(registry.fetch(config, version, config_folder(config)))})
    return found


def config_folder(config: Settings) -> Path:
    return root() / "fetched" / config.mlflow.model


@pytest.fixture(scope="module")
def old(real, empty, tmp_path_factory) -> Path:
    "The archive of a host with predictions, three versions of which one was deleted, a promotion and a rollback."
    from mlflow.entities import Metric, Param

    made = host(tmp_path_factory.mktemp("old") / "host", empty)
    with pytest.MonkeyPatch.context() as patch:
        config, store = settled(patch, made, **HASH_KEY)
        append(store, "predictions", pa.Table.from_batches([batch_of(demo_entry(500), journal_schema(), b"k") for _ in range(3)]))
        mlflow = registry.client(config, make=True)
        place = registry.experiment(mlflow, config)
        mlflow.create_registered_model("og_project")
        for number in (1, 2, 3):
            folder = model_folder(real, tmp_path_factory.mktemp("models") / str(number), seed=number)
            with registry.recording(mlflow, place, f"run {number}", {"note": "ä", "imported_from": "one host before"}) as run:
                points = [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 1500)]
                mlflow.log_batch(run, params=[Param("seed", str(number))], metrics=points[:1000])
                mlflow.log_batch(run, metrics=points[1000:])
                mlflow.log_artifacts(run, str(folder), registry.MODEL_DATA)
                with registry.recording(mlflow, place, "nested", {"mlflow.parentRunId": run, "stage": "train"}) as nested:
                    mlflow.log_text(nested, "drawn", "pictures/a b.txt")
            tags = {"fingerprint": estimator.verify(folder), DECIDING: "0.71"}
            mlflow.create_model_version("og_project", f"{mlflow.get_run(run).info.artifact_uri}/model", run, tags=tags, description="what it is")
        mlflow.delete_model_version("og_project", "2")
        ledger.promote(config, "1", "first")
        ledger.promote(config, "3", "second")
        ledger.rollback(config, "a complaint")
        made.run("og", "export", "all.tar", **HASH_KEY)
        assert (made.folder / "all.tar").stat().st_mode & 0o77 == 0, "callers' records are for nobody else"
        (made.folder / "was.json").write_text(json.dumps([contents(store), known(config)], default=str))
    return made.folder / "all.tar"


@pytest.mark.parametrize("engines", ["embedded", "servers"])
def test_another_host_has_all_of_it(old, engines, tmp_path, monkeypatch, request):
    new, more = host(tmp_path / "new host"), {}
    if engines == "servers":
        clickhouse, servers = request.getfixturevalue("clickhouse"), request.getfixturevalue("registry")
        more = {"OG_STORE__URL": clickhouse.url, "OG_STORE__PASSWORD": "hunter2", "OG_MLFLOW__TRACKING_URI": servers.url}  # pragma: allowlist secret
        new.run("og", "tables", **more)
        sent = subprocess.run(["og", "import", "-"], cwd=new.folder, env=new.environment(more), stdin=old.open("rb"), capture_output=True, text=True)
        assert sent.returncode == 0, sent.stderr
        said = sent.stdout
    else:
        said = new.run("og", "import", str(old)).stdout
    assert "1,500 rows" in said and "version 3" in said and "still to do: journal.hash_key is another one" in said, said
    config, store = settled(monkeypatch, new, **more)
    tables, versions = json.loads((old.parent / "was.json").read_text())
    assert contents(store) == tables
    assert json.loads(json.dumps(known(config), default=str)) == versions and [v["version"] for v in versions] == [3, 1]
    first = registry.client(config).get_run(registry.versions(registry.client(config), config)[-1].run_id)
    assert first.data.tags["imported_from"] not in ("one host before", first.info.run_id), "it names the run of the host that was exported"
    assert [change.kind for change in ledger.history(config)[0]] == ["promote", "promote", "rollback"] and ledger.history(config)[1] is None
    assert ledger.promote(config, "3", "here").from_version == "1"
    mlflow, last = registry.client(config), registry.versions(registry.client(config), config)[0]
    made = mlflow.create_model_version("og_project", last.source, last.run_id)
    assert int(made.version) == 4, "a number that was deleted is not used again"


def test_an_import_that_failed_is_run_again(old, empty, tmp_path, monkeypatch):
    new = host(tmp_path / "new", empty)
    config, store = settled(monkeypatch, new, **HASH_KEY)
    for failing in ("import_run", "import_version", "import_table"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, failing, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                archive.import_archive(config, store, TABLES, old)
        assert registry.champion(config) is None, "nobody serves what is half there"
        assert ledger.changes(config, store) == [], "nor does the ledger name it"
    assert archive.import_archive(config, store, TABLES, old) == []
    before = contents(store)
    assert before == json.loads((old.parent / "was.json").read_text())[0]
    assert archive.import_archive(config, store, TABLES, old) == [] and contents(store) == before and len(known(config)) == 2
    mlflow = registry.client(config)
    assert len(mlflow.search_runs([registry.experiment(mlflow, config)])) == 4, "no run is left of the attempts"


def test_an_import_that_was_killed_while_the_registry_was_made_is_run_again(old, tmp_path):
    new = host(tmp_path / "new")
    with new.start("og", "import", str(old), log=tmp_path / "log", **HASH_KEY) as killed:
        wait_until(lambda: list(new.folder.glob(".registry_*/*")), killed)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(600)
    assert not (new.folder / "mlflow.db").exists()
    assert "there is no registry" in new.run("og", "history", check=False).stderr
    assert "champion     version 1" in new.run("og", "import", str(old), **HASH_KEY).stdout
    assert "all of it was here already" in new.run("og", "import", str(old), **HASH_KEY).stdout


def test_what_does_not_fit_changes_nothing(old, empty, tmp_path, monkeypatch):
    new = host(tmp_path / "new", empty)
    config, store = settled(monkeypatch, new)
    mlflow = registry.client(config, make=True)
    data, cut = old.read_bytes(), tmp_path / "cut.tar"
    for bad in (data[:len(data) // 2], data[:-12000], data.replace(b"a complaint", b"no complaint", 1)[:len(data)], b""):
        cut.write_bytes(bad)
        with pytest.raises(archive.ArchiveError, match="cut.tar is (cut short|no archive|damaged)"):
            archive.import_archive(config, store, TABLES, cut)
    with pytest.raises(archive.ArchiveError, match="has a table pr"):
        archive.import_archive(config, store, ["feedback"], old)
    assert not any(contents(store).values()) and not registry.versions(mlflow, config)

    append(store, "predictions", pa.Table.from_batches([batch_of(demo_entry(2), journal_schema(), b"k")]))
    with pytest.raises(archive.ArchiveError, match="predictions has 2 rows and the archive 1,500"):
        archive.import_archive(config, store, TABLES, old)
    other = host(tmp_path / "other", empty)
    config, store = settled(monkeypatch, other)
    mlflow = registry.client(config, make=True)
    mlflow.create_registered_model("og_project")
    mlflow.create_model_version("og_project", tmp_path.as_uri())
    with pytest.raises(archive.ArchiveError, match="has a version 1 of its own"):
        archive.import_archive(config, store, TABLES, old)
    assert not any(contents(store).values())
    done = other.run("og", "export", "all.tar", check=False)
    assert done.returncode == 1 and "version 1 has no run" in done.stderr, done.stderr


def test_any_byte_that_changed_is_noticed(tmp_path):
    file, tar = tmp_path / "file", tmp_path / "small.tar"
    file.write_bytes(bytes(range(256)))
    with tar.open("wb") as to:
        writer = archive.ArchiveWriter(to)
        writer.add("tables/one/00000.parquet", file)
        writer.add("runs/1/0/a b", file)
        writer.close({"rows": {"one": 3}})
    whole, noticed = tar.read_bytes(), 0
    before = archive.ArchiveReader(tar).manifest
    for place in range(0, len(whole), 3):
        tar.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1:])
        try:
            after = archive.ArchiveReader(tar)
        except archive.ArchiveError:
            noticed += 1
            continue
        kept = {name: after.open(name).read() == file.read_bytes() for name in after.manifest["files"]}
        assert all(kept.values()) and after.manifest == before, place
    assert noticed > 2 * 256 / 3


def test_an_export_that_fails_leaves_the_last_one(tmp_path):
    bare = host(tmp_path / "bare")
    (bare.folder / "all.tar").write_text("the last one")
    done = bare.run("og", "export", "all.tar", check=False)
    assert done.returncode == 1 and "there is no registry" in done.stderr and (bare.folder / "all.tar").read_text() == "the last one"
    assert sorted(path.name for path in bare.folder.iterdir() if not path.is_symlink()) == ["all.tar"]
