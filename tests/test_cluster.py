"""Tables on several ClickHouse hosts. No real cluster can be had here. What is real: the engine, its Distributed tables where a shard is this host,
its HTTP interface, two hosts that take batches. What is not: replication, `ON CLUSTER`, and reading from another host: parsed and planned only."""
import gc
import json
import re
from dataclasses import dataclass, field
from zlib import crc32

import chdb
import httpx
import pyarrow as pa
import pytest
from click.testing import CliRunner
from processes import free_port, wait_until
from servers import Server, write_clusters

from og_project import cli, commands
from og_project import cluster as on_hosts
from og_project.config import root, settings
from og_project.data.contract import EXAMPLE
from og_project.lifecycle.monitor import outcome_type, outcomes_sql
from og_project.serving.journal import HEAD, adapt, batch_of, demo_entry, demo_outcomes, feedback_schema, journal_schema
from og_project.serving.shipper import ship
from og_project.store import Store, StoreError, append, connect, create, query, statements, store_of

SCHEMA = commands.generated()[root() / "db/schema.sql"]
TABLES = [on_hosts.CREATE.match(sql)[1] for sql in statements(SCHEMA)]


def opened(patch: pytest.MonkeyPatch, url: str, name: str = "main") -> Store:
    "The store of this environment, which is a cluster."
    for key, value in {"URL": url, "PASSWORD": "hunter2", "TIMEOUT": "60", "CLUSTER": name}.items():  # pragma: allowlist secret
        patch.setenv(f"OG_STORE__{key}", value)
    return on_hosts.on_all_hosts(store_of(settings("local")))


def predictions(first: int, rows: int) -> pa.Table:
    made = pa.Table.from_batches([batch_of(demo_entry(rows), journal_schema())])
    place = made.schema.get_field_index("prediction_id")
    return made.set_column(place, made.schema.field(place), pa.array([f"id-{first}-{i}" for i in range(rows)]))


def segment(rows: pa.Table) -> bytes:
    "What the journal's file of these rows holds."
    batch = rows.combine_chunks().to_batches()[0]
    frames = batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()
    return b"".join(HEAD.pack(len(frame), crc32(frame)) + frame for frame in frames)


def alone_in(store: Store) -> Store:
    "This host of a cluster as if it were all of them: the stand-in tells no others."
    client = getattr(store.client, "client", store.client)
    return Store(on_hosts.AllHosts(client, "main", lambda host: client), store.place)


def count(store: Store, table: str = "predictions") -> int:
    return query(store, f"SELECT toInt64(count()) AS n FROM {table}")["n"][0].as_py()


@pytest.fixture
def two_shards(tmp_path):
    "The engine, in this process, as a host of a cluster whose two shards are other hosts."
    config = write_clusters(tmp_path / "two.xml", (("shard-a.invalid",), ("shard-b.invalid",)))
    gc.collect()  # a process has one engine at a time, and an error that was caught may still hold another
    engine = chdb.connect(f"file:{tmp_path}/two?config-file={config}")
    yield engine
    engine.close()


@dataclass
class Told:
    "A client that writes down what it is told."

    told: list[str] = field(default_factory=list)

    def command(self, statement: str) -> None:
        self.told.append(statement)


def all_statements() -> list[str]:
    "All that `og tables --users` tells a server."
    told = Told()
    adapt(Store(told, "nowhere"), 30)
    return [*statements(SCHEMA), *told.told, *statements((root() / "db/users.sql").read_text())]


def test_the_engine_knows_every_statement_for_all_hosts(two_shards):
    said = [told for sql in all_statements() for told in on_hosts.on_cluster(sql, "main", "default")]
    assert len(said) > len(all_statements()) and all("ON CLUSTER 'main'" in sql for sql in said)
    for sql in said:
        assert two_shards.query(f"EXPLAIN AST {sql}").bytes(), sql


def test_what_two_shards_are_asked_is_planned(two_shards):
    "Both sides of the join of predictions and outcomes are read from the shards."
    for table, sql in zip(TABLES, statements(SCHEMA), strict=True):
        two_shards.query(sql.replace(f"EXISTS {table} ", f"EXISTS {table}_local "))  # replicas need a Keeper
        two_shards.query(on_hosts.on_cluster(sql, "main", "default")[1].replace(" ON CLUSTER 'main'", ""))
    asked = {"since": "2026-01-01 00:00:00", "until": "2026-02-01 00:00:00", "version": "1"}
    sql = outcomes_sql(pa.types.is_string(outcome_type()[1]))
    plan = two_shards.query(f"EXPLAIN {sql} SETTINGS distributed_product_mode = 'global'", "TabSeparated", params=asked).bytes().decode()
    assert plan.count("ReadFromRemote") == 2 and "Join" in plan, plan
    with pytest.raises(Exception, match="shard-[ab].invalid"):  # it would have asked them
        two_shards.query("SELECT count() FROM predictions")


def test_a_batch_is_in_one_shard_and_there_once(tmp_path, monkeypatch):
    hosts, port = ("127.0.0.1", "127.0.0.2"), free_port()
    servers = [Server(tmp_path / host, port, host, shards=(hosts[:1], hosts[1:])) for host in hosts]
    [server.start() for server in servers]
    try:
        store = opened(monkeypatch, servers[0].url)
        own = [connect(server.url, "hunter2") for server in servers]
        for host in own:  # each for itself: the stand-in does not tell others
            create(alone_in(host), SCHEMA)
        for token in range(10):
            for _ in range(2):
                append(store, "predictions", predictions(token, 3), token=f"segment-{token}")
        held = [count(host, "predictions_local") for host in own]
        assert sum(held) == 30 and all(held), held
        servers[1].stop()
        journal, new = tmp_path / "journal", 20
        journal.mkdir()
        for token in range(10, 10 + new):
            (journal / f"segment-{token}.journal").write_bytes(segment(predictions(token, 3)))
        with pytest.raises(StoreError, match="127.0.0.2"):
            ship(journal, store)
        left = len(list(journal.iterdir()))
        assert 3 < left < new, "one shard that is away holds up what goes to the other"
        assert count(own[0], "predictions_local") == held[0] + 3 * (new - left), "a batch goes to its own shard, or nowhere"
        servers[1].start()
        store.client.away.clear()  # half a minute later
        assert ship(journal, store) == 3 * left and not list(journal.iterdir())
        assert sum(count(host, "predictions_local") for host in own) == 30 + 3 * new
    finally:
        [server.stop() for server in servers]


def test_another_replica_takes_a_batch_when_the_first_one_is_away(tmp_path, monkeypatch):
    port = free_port()
    server = Server(tmp_path / "there", port, shards=(("127.0.0.3", "127.0.0.1"),))
    server.start()
    try:
        store = opened(monkeypatch, server.url)
        with pytest.raises(StoreError, match="127.0.0.3"):
            create(store, SCHEMA)  # all hosts have to be there
        create(alone_in(store), SCHEMA)
        for _ in range(2):
            append(store, "predictions", predictions(0, 3), token="a")
        assert count(store, "predictions_local") == 3
    finally:
        server.stop()


def filled(server: Server) -> dict[str, list[str]]:
    "A single server with rows, one of whose tables has a column of an older contract; what it holds."
    store = connect(server.url, "hunter2")
    create(store, SCHEMA)
    for first in range(3):
        append(store, "predictions", predictions(first, 4), token=f"segment-{first}")
    store.client.command("ALTER TABLE predictions ADD COLUMN colour Nullable(String) DEFAULT 'green'")
    kind, said = outcome_type()[1], {pa.bool_(): True, pa.string(): "a"}
    row = {name: [demo] for name, demo in {"prediction_id": "id-0-0", "outcome": said.get(kind, 1.5)}.items()}
    row |= {name: [""] for name in ("request_id", "idempotency_key", "idempotency_answer")}
    append(store, "feedback", pa.table(row | {"received_at": pa.array([1_700_000_000_000_000], pa.timestamp("us", "UTC"))}, feedback_schema()))
    return contents(store)


def contents(store: Store) -> dict[str, list[str]]:
    rows = {table: query(store, f"SELECT * FROM {table}").to_pylist() for table in TABLES}
    return {table: sorted(json.dumps(row, default=str, sort_keys=True) for row in found) for table, found in rows.items()}


def test_the_engine_knows_every_statement_of_a_move(cluster, two_shards, monkeypatch):
    filled(cluster)
    store, said = opened(monkeypatch, cluster.url), []
    say = store.client.client.command
    monkeypatch.setattr(store.client.client, "command", lambda sql: said.append(sql) or say(sql))
    on_hosts.move_rows(store, SCHEMA)
    assert {sql.split()[0] for sql in said} == {"CREATE", "ALTER", "DROP", "RENAME", "INSERT"}
    for sql in said:
        assert two_shards.query(f"EXPLAIN AST {sql}").bytes(), sql


def test_a_single_servers_rows_move_into_its_cluster(cluster, monkeypatch):
    before = filled(cluster)
    store = opened(monkeypatch, cluster.url)
    refused = CliRunner().invoke(cli.og, ["tables"])
    assert refused.exit_code and f"has {TABLES[0]} as a single server has it: `og tables --cluster` moves its rows" in refused.output
    assert contents(store) == before
    moved = CliRunner().invoke(cli.og, ["tables", "--cluster"])
    assert moved.exit_code == 0 and re.search(r"predictions +12 rows moved", moved.output), moved.output
    assert contents(store) == before == contents(Store(Renamed(store), store.place))
    assert count(store, "predictions_local") == 12
    append(store, "predictions", predictions(9, 1), token="new")
    for _ in range(2):  # again, with more rows than before
        again = CliRunner().invoke(cli.og, ["tables", "--cluster"])
        assert again.exit_code == 0 and "moved" not in again.output, again.output
    assert count(store) == 13
    assert "TTL" in query(store, "SHOW CREATE TABLE logs_local")["statement"][0].as_py()


@dataclass
class Renamed:
    "A client that reads the tables as they were before the move."

    store: Store

    def query_arrow(self, sql: str, **more) -> pa.Table:
        return self.store.client.query_arrow(f"{sql}_single", **more)


def test_a_move_that_is_cut_off_anywhere_is_finished_by_the_next(cluster, monkeypatch):
    "Before each statement in turn; nothing is lost, nothing doubled."
    schema, cut, whole = "\n".join(sql + ";" for sql in statements(SCHEMA) if "predictions" in sql), 0, False
    while not whole:
        connect(cluster.url, "hunter2").client.command(f"CREATE DATABASE cut_{cut}")
        url = cluster.url.replace("default", f"cut_{cut}")
        alone = connect(url, "hunter2")
        create(alone, schema)
        append(alone, "predictions", predictions(0, 5), token="a")
        store = opened(monkeypatch, url)
        left, say = [cut], store.client.client.command

        def command(sql, left=left, say=say):
            if not left[0]:
                raise InterruptedError("cut off")
            left[0] -= 1
            return say(sql)

        store.client.client.command = command
        try:
            on_hosts.move_rows(store, schema)
            whole = True
        except StoreError as error:
            assert "cut off" in str(error)
        store = opened(monkeypatch, url)
        finished = not on_hosts.unmoved("predictions", on_hosts.engines(store.client))
        if not finished:
            with pytest.raises(StoreError, match="`og tables --cluster` moves its rows"):
                create(store, schema)  # as whoever starts the stack does
        assert on_hosts.move_rows(store, schema) == ({} if finished else {"predictions": 5}) and count(store) == 5, cut
        create(store, schema)
        cut += 1
    assert cut > 8


def test_a_copy_that_is_not_whole_takes_no_place(cluster, monkeypatch):
    "And nothing can be appended to the old table meanwhile: the journal keeps it."
    before = filled(cluster)
    alone, store = connect(cluster.url, "hunter2"), opened(monkeypatch, cluster.url)
    say = store.client.client.command

    def command(sql):
        if not sql.startswith("INSERT INTO predictions_moving"):
            return say(sql)
        with pytest.raises(StoreError, match="predictions"):
            append(alone, "predictions", predictions(7, 1), token="late")
        return say(sql.replace("FROM predictions_single", "FROM predictions_single LIMIT 11"))

    with monkeypatch.context() as patch:
        patch.setattr(store.client.client, "command", command)
        with pytest.raises(StoreError, match="11 of 12 rows were copied; predictions_single holds them all"):
            on_hosts.move_rows(store, SCHEMA)
    assert on_hosts.move_rows(store, SCHEMA)["predictions"] == 12
    create(store, SCHEMA)
    assert contents(store) == before


def test_the_service_on_a_cluster(site, cluster, monkeypatch):
    "Predictions, outcomes, what the monitor sees of them."
    store = opened(monkeypatch, cluster.url)
    assert CliRunner().invoke(cli.og, ["tables"]).exit_code == 0
    server = {"OG_STORE__URL": cluster.url, "OG_STORE__PASSWORD": "hunter2", "OG_STORE__CLUSTER": "main"}  # pragma: allowlist secret
    site.start(OG_MONITOR__INSIDE="true", **server)
    ids = [row["id"] for row in httpx.post(site.url + "/predict", json=[EXAMPLE] * 20).json()["predictions"]]
    wait_until(lambda: count(store, "predictions_local") == 20)
    reply = httpx.post(site.url + "/feedback", json=[{"id": ids[0], "outcome": demo_outcomes(1)[0]}])
    assert [row["status"] for row in reply.json()["results"]] == ["recorded"]
    wait_until(lambda: count(store, "feedback_local") == 1)
    wait_until(lambda: httpx.get(site.url + "/drift").json().get("rows") == 20)
    wait_until(lambda: httpx.get(site.url + "/drift").json()["quality"].get("outcomes") == 1)


@pytest.mark.parametrize(("url", "name", "said"), [
    (None, "other", "the server knows no cluster 'other' .it knows .*main"),
    (None, "a b", "'a b' is no name of a cluster"),
    ("chdb://data", "main", "store.cluster is for servers: store.url begins with chdb://"),
])
def test_a_cluster_that_is_none(cluster, monkeypatch, url, name, said):
    with pytest.raises(StoreError, match=said):
        opened(monkeypatch, url or cluster.url, name)
