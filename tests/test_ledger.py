"The ledger's chain: whatever is done to its rows is seen, on both engines, and two promotions at one moment cannot fork it."
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from og_project.cli import og
from og_project.config import root, settings
from og_project.lifecycle.ledger import Change, changes, faults, ledger_sql, link, promote, write_down
from og_project.lifecycle.registry import RegistryError, begin_registry, client
from og_project.store import append, connect, create, query, store_of

TEXTS = [name for name in Change._fields if name not in ("at", "hash")]


def change(to: str = "1", at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Change:
    return Change(at, "demo", "promote", "", to, "ada", "passed", "")


def chained(count: int, old: int = 0) -> list[Change]:
    "A ledger whose first rows are from before there was a chain."
    rows = [change(str(i), datetime(2025, 1, 1 + i, tzinfo=UTC)) for i in range(old)]
    for i in range(count):
        rows.append(link(rows, change(str(i))))
    return rows


@given(st.integers(0, 5), st.integers(0, 3))
def test_a_chain_that_was_let_be_is_whole(count, old):
    rows = chained(count, old)
    assert faults(rows) == [] and [row.at for row in rows] == sorted({row.at for row in rows})


@given(st.integers(2, 5), st.integers(0, 2), st.data())
def test_whatever_is_done_to_a_row_is_seen(count, old, data):
    rows = chained(count, old)
    place = data.draw(st.integers(0, len(rows) - 2))  # what is done to the end alone, the registry knows
    kind = data.draw(st.sampled_from(["change", "time", "remove", "swap", "copy", "forge"]))
    if kind == "change":
        name = data.draw(st.sampled_from(TEXTS))
        rows[place] = rows[place]._replace(**{name: getattr(rows[place], name) + data.draw(st.text(min_size=1))})
    elif kind == "time":
        rows[place] = rows[place]._replace(at=rows[place].at + timedelta(microseconds=data.draw(st.integers(1, 10**9))))
    elif kind == "remove":
        del rows[place]
    elif kind == "swap":
        rows[place], rows[place + 1] = rows[place + 1], rows[place]
    elif kind == "copy":
        rows.insert(place, rows[place])
    else:
        rows.insert(place + 1, link(rows[:place + 1], change("9")))  # with hashes that fit what stands before it
    assert faults(rows)


@pytest.fixture(params=["embedded", "server", "cluster"])
def store(request, tmp_path):
    servers = {"server": "clickhouse", "cluster": "cluster"}
    url = request.getfixturevalue(servers[request.param]).url if request.param in servers else f"chdb://{tmp_path / 'data'}"
    store = connect(url, "hunter2")
    create(store, ledger_sql())
    return store


def rows_in(store) -> list[Change]:
    return [Change(**row) for row in query(store, "SELECT * FROM promotions ORDER BY at").to_pylist()]


def test_of_two_changes_after_the_same_row_one_is_there_and_the_other_is_told(store, monkeypatch):
    "Both had read the ledger before either wrote."
    from og_project.lifecycle import ledger

    write_down(store, change("1"))
    before, honest = rows_in(store), ledger.link
    monkeypatch.setattr(ledger, "link", lambda past, new: honest(before, new))
    first = write_down(store, change("2"))
    with pytest.raises(RegistryError, match="at the same moment ada let version 2 serve"):
        write_down(store, change("3"))
    assert rows_in(store) == [*before, first] and faults(rows_in(store)) == []


def test_processes_that_promote_at_once_make_one_chain(tmp_path):
    code = f"""
import sys
from datetime import UTC, datetime
from og_project.lifecycle.ledger import Change, ledger_sql, write_down
from og_project.lifecycle.registry import RegistryError
from og_project.store import connect, create
store = connect("chdb://{tmp_path / 'data'}")
create(store, ledger_sql())
print("ready", flush=True)
sys.stdin.readline()
done = 0
for i in range(10):
    try: done += bool(write_down(store, Change(datetime.now(UTC), "demo", "promote", "", str(i), sys.argv[1], "", "")))
    except RegistryError: pass
print(done)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": root()}
    both = [subprocess.Popen([sys.executable, "-c", code, who], **pipes) for who in ("ada", "bob")]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    done = [int(process.communicate("go\n")[0]) for process in both]
    store = connect(f"chdb://{tmp_path / 'data'}")
    create(store, ledger_sql())
    rows = rows_in(store)
    assert faults(rows) == [] and len(rows) == sum(done) >= 10, "what was told as done is there, and nothing else"


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A registry with three versions, the first two of which were promoted."
    begin_registry(tmp_path / "mlflow.db")
    shutil.copytree(root() / "config", tmp_path / "config")
    own = {"ROOT": str(tmp_path), "STORE__URL": f"chdb://{tmp_path}/data", "GATE__MODE": "off",
           "MLFLOW__TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for name, value in own.items():
        monkeypatch.setenv(f"OG_{name}", value)
    config = settings("local")
    mlflow = client(config)
    mlflow.create_registered_model("og_project")
    for _ in range(3):
        mlflow.create_model_version("og_project", tmp_path.as_uri())
    for version in ("1", "2"):
        promote(config, version)
    return tmp_path, config


def verified() -> tuple[int, str]:
    found = CliRunner().invoke(og, ["history", "--verify"])
    return found.exit_code, found.output.strip()


def files(folder) -> list:
    return sorted((folder / "data/promotions").glob("*.parquet"), key=lambda path: pq.read_table(path)["at"][0].as_py())


def test_og_history_verify_names_what_was_done(place):
    folder, config = place
    assert verified() == (0, "the ledger is whole")
    first, second = files(folder)
    honest = second.read_bytes()
    table = pq.read_table(second)
    pq.write_table(table.set_column(table.schema.get_field_index("who"), table.schema.field("who"), [["eve"]]), second)
    code, said = verified()
    assert code == 1 and "promote 2 of" in said and "was changed" in said
    second.unlink()
    code, said = verified()
    assert code == 1 and "the last rows were removed" in said
    second.write_bytes(honest)
    first.unlink()
    code, said = verified()
    assert code == 1 and "before promote 2 of" in said
    before = sorted(path.name for path in (folder / "data").rglob("*"))
    assert verified()[0] == 1 and sorted(path.name for path in (folder / "data").rglob("*")) == before, "who looks writes nothing"


def test_rows_from_before_there_was_a_chain_are_sealed_by_the_next(place):
    folder, config = place
    for path in files(folder):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["previous_hash", "hash"]), path)  # as an older project wrote it
    client(config).delete_registered_model_tag("og_project", "ledger_head")
    assert verified() == (0, "the ledger is whole")
    promote(config, "3")
    assert verified() == (0, "the ledger is whole") and len(changes(config, store_of(config, tables=ledger_sql()))) == 3
    files(folder)[0].unlink()
    assert verified()[0] == 1


def test_og_tables_adds_the_hashes_to_a_servers_ledger(clickhouse, monkeypatch):
    store = connect(clickhouse.url, "hunter2")
    create(store, ledger_sql())
    for column in ("previous_hash", "hash"):
        store.client.command(f"ALTER TABLE promotions DROP COLUMN {column}")
    append(store, "promotions", query(store, "SELECT * FROM promotions"))
    for name, value in {"URL": clickhouse.url, "PASSWORD": "hunter2"}.items():  # pragma: allowlist secret
        monkeypatch.setenv(f"OG_STORE__{name}", value)
    assert CliRunner().invoke(og, ["tables"]).exit_code == 0
    write_down(store, change("1"))
    assert faults(rows_in(store)) == [] and rows_in(store)[0].hash
