"""Nothing that was answered is lost, nothing is stored twice: faults injected into real processes, and what callers were
told compared with what the store holds, row by row."""
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pytest
from fields import LIMITED, ONE, VALUE, named
from processes import wait_until
from servers import Server
from sites import Site

from og_project.config import JournalSettings, SettingsError
from og_project.data.contract import EXAMPLE, Record, answer
from og_project.model.estimator import demo_scores, rows_table
from og_project.serving import journal as journal_module
from og_project.serving import service as service_module
from og_project.serving.guard import Refused
from og_project.serving.idempotency import claim
from og_project.serving.journal import Draft, Entry, Journal, batch_of, journal_schema, new_ids, read_segment, schema_sql
from og_project.serving.shipper import forget, lost_rows, ship, sweep
from og_project.store import connect, create, query

NUMBERS = named("number", "integer")[:2]


class Callers:
    "Callers in the background, who note what they were told."

    def __init__(self, site: Site, records: list[dict], threads: int = 4):
        self.site, self.records, self.told, self.refused, self.stopping = site, records, {}, [], False
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(threads)]

    def run(self, n: int) -> None:
        with httpx.Client(timeout=600) as client:
            turn = 0
            while not self.stopping:
                turn += 1
                rows = [self.records[(n * 97 + turn * 7 + i) % len(self.records)] for i in range(1 + turn % 5)]
                try:
                    reply = client.post(self.site.url + "/predict", json=rows)
                except httpx.TransportError:  # it was killed: nothing was said
                    time.sleep(0.01)
                    continue
                if reply.status_code == 200:
                    said = reply.json()
                    for row, made in zip(rows, said["predictions"], strict=True):
                        self.told[made["id"]] = (made[VALUE], said["model_version"], said["request_id"], *(row[name] for name in NUMBERS))
                else:
                    self.refused.append((reply.status_code, reply.headers.get("retry-after")))

    def __enter__(self) -> "Callers":
        [thread.start() for thread in self.threads]
        return self

    def __exit__(self, *_) -> None:
        self.stopping = True
        [thread.join() for thread in self.threads]


def assert_all_there_once(callers: Callers, rows: list[dict]) -> None:
    "Every prediction that somebody was told is in the store as it was told, and no id is there twice."
    ids = [row["prediction_id"] for row in rows]
    assert len(set(ids)) == len(ids), f"{len(ids) - len(set(ids))} rows are there twice"
    found = {r["prediction_id"]: (r[VALUE], r["model_version"], r["request_id"], *(r[name] for name in NUMBERS)) for r in rows}
    missing = callers.told.keys() - found.keys()
    assert not missing, f"{len(missing)} of {len(callers.told)} answered predictions are lost"
    assert {name: found[name] for name in callers.told} == callers.told


def shipped(site: Site) -> bool:
    "Is the journal empty?"
    return not [p for p in (site.folder / "journal").glob("*.journal") if read_rows(p)]


def read_rows(path) -> int:
    try:
        with path.open("rb") as file:
            rows = read_segment(file)
    except FileNotFoundError:
        return 0
    return 0 if rows is None else rows.num_rows


def test_killed_again_and_again_under_load_nothing_answered_is_lost(site, records):
    site.start()
    with Callers(site, records) as callers:
        for n in range(8):
            time.sleep(0.4 + 0.07 * n)
            site.kill()
            site.start()
    wait_until(lambda: shipped(site))
    site.stop()
    assert len(callers.told) > 100
    assert_all_there_once(callers, site.stored())


def test_two_workers_killed_under_load(site, records):
    site.start(OG_SERVE__WORKERS="2")
    with Callers(site, records, threads=6) as callers:
        for _ in range(2):
            time.sleep(1.5)
            site.kill()
            site.start(OG_SERVE__WORKERS="2")
    site.stop()
    site.start()  # whoever comes next ships what they left
    wait_until(lambda: shipped(site))
    site.stop()
    assert len(callers.told) > 50
    assert_all_there_once(callers, site.stored())


def test_sigterm_drains(site, records):
    site.start(OG_JOURNAL__SHIP_SECONDS="60")
    with Callers(site, records) as callers:
        time.sleep(1.5)
        site.stop()
    assert callers.told and shipped(site), "what is left is shipped on the way out"
    assert_all_there_once(callers, site.stored())


def on_server(server: Server) -> dict[str, str]:
    return {"OG_STORE__URL": server.url, "OG_STORE__PASSWORD": "hunter2", "OG_STORE__TIMEOUT": "3"}  # pragma: allowlist secret


def stored_on(server: Server) -> list[dict]:
    return query(connect(server.url, "hunter2"), "SELECT * FROM predictions").to_pylist()


def test_the_database_away_and_back(site, clickhouse, records):
    create(connect(clickhouse.url, "hunter2"), schema_sql())
    site.start(**on_server(clickhouse))
    with Callers(site, records) as callers:
        wait_until(lambda: len(stored_on(clickhouse)) > 100)
        clickhouse.stop()
        before = len(callers.told)
        wait_until(lambda: any("wait in the journal" in line["message"] for line in site.lines()))
        wait_until(lambda: len(callers.told) > before + 100)
        assert not callers.refused, "predictions go on"
        clickhouse.start()
        time.sleep(1)
    wait_until(lambda: shipped(site))
    site.stop()
    assert_all_there_once(callers, stored_on(clickhouse))
    messages = [line["message"] for line in site.lines()]
    assert sum("wait in the journal" in message for message in messages) == 1 and any("caught up" in message for message in messages)


def test_the_database_dies_after_it_stored_a_batch_and_before_it_said_so(tmp_path, clickhouse, monkeypatch):
    store = connect(clickhouse.url, "hunter2")
    create(store, schema_sql())
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))
    journal.write(entry(10))
    journal.rotate()
    insert = store.client.insert_arrow
    told = []

    def insert_and_lose_the_answer(*args, **kwargs):
        insert(*args, **kwargs)
        told.append(1)
        raise OSError("connection reset")

    monkeypatch.setattr(store.client, "insert_arrow", insert_and_lose_the_answer)
    with pytest.raises(Exception, match="connection reset"):
        ship(journal.folder, store)
    assert len(told) > 1, "it was tried again under the same token"
    monkeypatch.undo()
    assert ship(journal.folder, store) == 10 and len(stored_on(clickhouse)) == 10
    journal.rotate()


@pytest.mark.parametrize("whole", [True, False])
def test_a_segment_that_a_shipper_took_before_it_was_locked_is_begun_again(tmp_path, monkeypatch, whole):
    "Another worker may look at a file between its making and its lock, and remove it as empty: rows would go to a file without a name."
    store = connect(f"chdb://{tmp_path / 'data'}")
    create(store, schema_sql())
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))
    honest, looked = journal_module.fcntl.flock, []

    def lock(file, how):
        if isinstance(file, int) and not looked:  # a segment's own; a shipper locks file objects
            looked.append(list((tmp_path / "journal").iterdir()))
            ship(journal.folder, store)
            sweep(journal.folder)
        return honest(file, how)

    monkeypatch.setattr(journal_module.fcntl, "flock", lock)
    if whole:
        journal.write(entry(3))
        journal.rotate()
    else:
        with Draft(journal) as draft:
            draft.write(entry(3))
            draft.keep()
    assert len(looked[0]) == 1 and ship(journal.folder, store) == 3
    assert query(store, "SELECT count() AS n FROM predictions")["n"][0].as_py() == 3


def test_a_key_whose_file_was_removed_before_it_was_locked_is_not_held(tmp_path, monkeypatch):
    honest = journal_module.fcntl.flock
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.fcntl, "flock", lambda file, how: ((tmp_path / "a.key").unlink(), honest(file, how)))
        with pytest.raises(Refused):
            claim(tmp_path, "a")
    os.close(claim(tmp_path, "a"))


def entry(rows: int, **fields) -> Entry:
    "A batch of predictions."
    table = rows_table([Record(**EXAMPLE)] * rows)
    at = journal_module.datetime(2020, 1, 1, tzinfo=journal_module.UTC)
    return Entry(new_ids(rows), new_ids(rows), "1", at, table, journal_module.np.zeros((rows, 3), "f4"), answer(demo_scores(rows), 0.5))


def test_a_full_disk_refuses_and_loses_nothing(site, records):
    disk = site.folder / "journal"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        site.start(OG_STORE__URL="http://og@127.0.0.1:9/default", OG_STORE__TIMEOUT="1")
        with Callers(site, records) as callers:
            wait_until(lambda: len(callers.refused) > 50)
            time.sleep(0.5)
        assert set(callers.refused) == {(503, "10")} and len(callers.told) > 300
        assert httpx.get(site.url + "/health/live").status_code == 200
        site.kill()
        site.start()  # with the store back: there is room again
        wait_until(lambda: shipped(site))
        assert httpx.post(site.url + "/predict", json=records[0]).status_code == 200
        site.stop()
        assert_all_there_once(callers, site.stored())
    finally:
        if site.process and site.process.poll() is None:
            site.kill()
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("full", ["refuse", "drop"])
def test_a_budget_that_is_used_up(site, records, full):
    away = {"OG_STORE__URL": "http://og@127.0.0.1:9/default", "OG_STORE__TIMEOUT": "1", "OG_JOURNAL__BUDGET_MB": "1", "OG_JOURNAL__FULL": full}
    site.start(**away)
    lost = lambda: next(float(line.split()[1]) for line in httpx.get(site.url + "/metrics").text.splitlines()
                        if line.startswith("og_predictions_lost_total"))
    assert lost() == 0
    with Callers(site, records) as callers:
        wait_until(lambda: lost() > 0 if full == "drop" else bool(callers.refused))
    if full == "drop":
        assert not callers.refused
    else:
        assert set(callers.refused) == {(503, "10")} and lost() == 0
    site.kill()
    dropped = lost_rows(site.folder / "journal")  # written down before it happened, so whatever moment it was killed at
    site.start()
    assert full == "refuse" or lost() >= dropped, "the count outlives the process"
    wait_until(lambda: shipped(site))
    site.stop()
    rows = site.stored()
    if full == "refuse":
        return assert_all_there_once(callers, rows)
    assert any("are dropped" in line["message"] for line in site.lines())
    found = {row["prediction_id"] for row in rows}
    assert len(found) == len(rows) and len(callers.told.keys() - found) <= dropped, "what is missing is what was counted as lost"


def test_a_torn_tail_is_not_read_and_stops_nobody(site, records):
    site.start(OG_JOURNAL__SHIP_SECONDS="600")
    told = [httpx.post(site.url + "/predict", json=record).json()["predictions"][0]["id"] for record in records[:20]]
    site.kill()
    torn = next((site.folder / "journal").glob("*.journal"))
    with torn.open("ab") as file:
        file.write(b"\x10\x27\x00\x00 half a frame")
    site.start()
    wait_until(lambda: shipped(site))
    site.stop()
    assert sorted(row["prediction_id"] for row in site.stored()) == sorted(told)


def test_two_shippers_of_one_folder_ship_everything_once(tmp_path):
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))
    for _ in range(60):
        journal.write(entry(3))
        journal.rotate()
    stores = [connect(f"chdb://{tmp_path / 'data'}", engine=False) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda store: ship(journal.folder, store), stores)) == 180
    store = connect(f"chdb://{tmp_path / 'data'}")
    create(store, schema_sql())
    assert query(store, "SELECT count() AS n, uniqExact(prediction_id) AS ids FROM predictions").to_pylist() == [{"n": 180, "ids": 180}]
    journal.rotate()


# --- personal data -----------------------------------------------------------------------------------


@pytest.fixture
def personal(monkeypatch):
    "A contract that marks two fields."
    from pydantic import Field, create_model

    person = create_model("Person", __base__=Record, private_text=(str, Field(json_schema_extra={"personal": "hash"})),
                          private_number=(int | None, Field(None, json_schema_extra={"personal": "drop"})))
    monkeypatch.setattr(journal_module, "Record", person)
    monkeypatch.setattr(journal_module, "RECORD", lambda: journal_module.arrow_schema(person))
    return person


def test_personal_fields_are_hashed_or_dropped_before_anything_is_written(personal, tmp_path):
    rows = [personal(**EXAMPLE, private_text="ada@example.org", private_number=36), personal(**EXAMPLE, private_text="bob@example.org")]
    schema = journal_module.arrow_schema(personal)
    table = pa.table([pa.array([getattr(row, name) for row in rows], schema.field(name).type) for name in schema.names], schema)
    with pytest.raises(SettingsError, match="OG_JOURNAL__HASH_KEY"):
        Journal(JournalSettings(folder=str(tmp_path / "without")))
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal"), hash_key="k" * 32))
    journal.write(entry(2)._replace(records=table))
    written = journal.segment.path.read_bytes()
    assert b"ada@" not in written and "private_number" not in journal.schema.names
    batch = batch_of(entry(2)._replace(records=table), journal.schema, journal.key)
    ada, bob = batch["private_text"].to_pylist()
    assert len(ada) == 64 and ada != bob and ada == batch_of(entry(2)._replace(records=table), journal.schema, journal.key)["private_text"][0].as_py()
    assert ada != batch_of(entry(2)._replace(records=table), journal.schema, b"another key")["private_text"][0].as_py()
    assert "private_text Nullable(String)" in schema_sql() and "private_number" not in schema_sql()
    journal.rotate()


def test_names_that_collide_are_told(monkeypatch):
    from pydantic import create_model

    for name, message in [(VALUE, "twice"), ("id", "rename"), ("request_id", "twice")]:
        monkeypatch.setattr(journal_module, "Record", create_model("Clash", __base__=Record, **{name: (float, ...)}))
        with pytest.raises(SettingsError, match=message):
            journal_schema()


def test_the_embedded_store_forgets_what_is_old(tmp_path):
    old = tmp_path / "01500000-0000-7000-8000-000000000000.parquet"
    old.touch()
    assert forget(tmp_path, 365) == 1 and not old.exists()


def test_a_segment_of_a_process_that_lives_is_left_alone(tmp_path):
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))
    journal.write(entry(3))
    assert ship(journal.folder, connect(f"chdb://{tmp_path / 'data'}", engine=False)) == 0
    journal.rotate()
    assert ship(journal.folder, connect(f"chdb://{tmp_path / 'data'}", engine=False)) == 3
    assert os.listdir(journal.folder) == []


def test_og_tables_makes_the_tables_and_adapts_them(clickhouse, monkeypatch):
    from click.testing import CliRunner

    from og_project.cli import og

    monkeypatch.setenv("OG_STORE__URL", clickhouse.url)
    monkeypatch.setenv("OG_STORE__PASSWORD", "hunter2")
    monkeypatch.setenv("OG_JOURNAL__RETENTION_DAYS", "30")
    made = CliRunner().invoke(og, ["tables"])
    assert made.exit_code == 0, made.output
    store = connect(clickhouse.url, "hunter2")
    store.client.command(f"ALTER TABLE predictions DROP COLUMN {LIMITED}")  # as if the contract had grown since
    assert CliRunner().invoke(og, ["tables"]).exit_code == 0
    columns = query(store, "SELECT name FROM system.columns WHERE table = 'predictions'")["name"].to_pylist()
    assert sorted(columns) == sorted(journal_schema().names)
    assert "toIntervalDay(30)" in query(store, "SHOW CREATE TABLE predictions")["statement"][0].as_py()


def test_a_segment_that_is_put_aside_the_moment_it_was_written(tmp_path):
    "The shipper comes as soon as the lock is free. (One in fifty thousand requests once was recorded, and answered 500.)"
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))

    class Eager:
        "The journal's lock; whoever lets go of it finds that the shipper was there before the next line."

        lock, coming = threading.Lock(), False

        def __enter__(self):
            self.lock.acquire()

        def __exit__(self, *_):
            self.lock.release()
            if not self.coming:
                self.coming = True
                journal.rotate()
                self.coming = False

    journal.lock = Eager()
    for _ in range(3):
        journal.write(entry(1))
    kept = [read_segment(path.open("rb")) for path in (tmp_path / "journal").glob("*.journal")]
    assert sum(rows.num_rows for rows in kept) == 3


def test_an_outcome_finds_its_prediction_on_the_way_from_journal_to_store(tmp_path, monkeypatch):
    "It was not in the store yet when that was asked, and no longer in the journal when that was read."
    journal = Journal(JournalSettings(folder=str(tmp_path / "journal")))
    store = connect(f"chdb://{tmp_path / 'data'}")
    create(store, schema_sql())
    row = entry(1)
    journal.write(row)

    def on_the_way(journal: Journal) -> set[str]:
        journal.rotate()
        ship(journal.folder, store)
        return set()

    monkeypatch.setattr(service_module, "unshipped", on_the_way)
    service = SimpleNamespace(store=lambda: store, journal=journal)
    item = SimpleNamespace(id=row.ids.to_pylist()[0], outcome=ONE)
    report = service_module.Report([item], "a-request")
    assert service_module.record_outcomes(service, report)[0][0]["status"] == "recorded"
