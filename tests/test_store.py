"The same few functions on both engines; the server is spoken to by clickhouse-connect's real HTTP client."
import multiprocessing
import signal
import subprocess
import sys
import threading

import httpx
import pyarrow as pa
import pytest

from og_project.cluster import on_all_hosts
from og_project.config import Settings, StoreSettings, root
from og_project.data.contract import EXAMPLE
from og_project.store import RETRY, StoreError, append, connect, connect_cluster, create, query

SCHEMA = """
-- a table of both engines
CREATE TABLE IF NOT EXISTS trees (kind String, rings Int64, height Nullable(Float64)) ENGINE = MergeTree ORDER BY kind
SETTINGS non_replicated_deduplication_window = 100;
"""
TREES = pa.table({"kind": ["oak", "ash"], "rings": [3, 5], "height": [1.5, None]})


@pytest.fixture(params=["embedded", "server", "cluster"])
def store(request, tmp_path):
    if request.param == "embedded":
        return connect(f"chdb://{tmp_path / 'data'}")
    if request.param == "cluster":
        url = request.getfixturevalue("cluster").url
        return on_all_hosts(connect_cluster(Settings(store=StoreSettings(url=url, password="hunter2", cluster="main"))))  # pragma: allowlist secret
    return connect(request.getfixturevalue("clickhouse").url, "hunter2")


def test_create_append_query(store):
    for _ in range(2):
        create(store, SCHEMA)  # may run again
    assert query(store, "SELECT * FROM trees").num_rows == 0
    append(store, "trees", TREES)
    assert query(store, "SELECT * FROM trees ORDER BY rings").to_pydict() == TREES.to_pydict()
    assert query(store, "SELECT kind, height FROM trees WHERE rings > {r:Int64}", {"r": 2}).sort_by("kind").to_pydict() == {
        "kind": ["ash", "oak"], "height": [None, 1.5],
    }


def test_a_batch_appended_twice_under_one_token_is_there_once(store):
    create(store, SCHEMA)
    for token in ("a", "a", "b"):
        append(store, "trees", TREES, token=token)
    assert query(store, "SELECT count() AS n FROM trees")["n"][0].as_py() == 4


def test_threads_share_a_store(store):
    errors = []

    def ask():
        try:
            for _ in range(10):
                assert query(store, "SELECT sum(number) AS s FROM numbers(1000)")["s"][0].as_py() == 499500
        except Exception as e:  # noqa: BLE001
            errors.append(e)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors


def test_a_bad_query_names_place_and_query(store):
    with pytest.raises(StoreError, match="while: SELECT nothing FROM trees") as error:
        query(store, "SELECT nothing\nFROM trees")
    assert store.place in str(error.value) and "hunter2" not in str(error.value)


def test_a_wrong_password_is_told_without_it(clickhouse):
    with pytest.raises(StoreError) as error:
        connect(clickhouse.url, "wrong-hunter3")
    assert f"127.0.0.1:{clickhouse.port}" in str(error.value) and "hunter3" not in str(error.value)


def test_reading_survives_a_restart_of_the_server(clickhouse, monkeypatch):
    store, waits = connect(clickhouse.url, "hunter2"), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clickhouse.start()  # it is back before the next try, however long that takes

    monkeypatch.setattr(RETRY, "sleep", wait)
    assert query(store, "SELECT 1 AS one").num_rows == 1 and not waits
    clickhouse.stop()
    assert query(store, "SELECT 1 AS one").num_rows == 1 and len(waits) == 1


def test_a_dead_server_is_one_line(clickhouse):
    store = connect(clickhouse.url, "hunter2")
    clickhouse.stop()
    with pytest.raises(StoreError, match=f"127.0.0.1:{clickhouse.port}.*INSERT INTO trees") as error:
        append(store, "trees", TREES)
    assert "\n" not in str(error.value)


def append_some(folder: str, name: str) -> None:
    store = connect(f"chdb://{folder}")
    create(store, SCHEMA)
    for i in range(5):
        append(store, "trees", TREES, token=f"{name}-{i}")


def test_processes_share_an_embedded_store(tmp_path):
    spawn = multiprocessing.get_context("spawn")  # an engine does not survive a fork
    workers = [spawn.Process(target=append_some, args=(str(tmp_path), f"w{i}")) for i in range(2)]
    [w.start() for w in workers]
    [w.join() for w in workers]
    store = connect(f"chdb://{tmp_path}")
    create(store, SCHEMA)
    assert query(store, "SELECT count() AS n FROM trees")["n"][0].as_py() == 20


def test_where_the_embedded_engine_is_not_installed_it_is_an_error_of_the_store(tmp_path):
    "As in the serving image, which is made for a server: it is as if one were away; appending needs no engine."
    code = f"""import sys; sys.modules["chdb"] = None
from og_project.store import connect
connect("chdb://{tmp_path}", engine=False); print("appends")
connect("chdb://{tmp_path}")"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root(), capture_output=True, text=True)
    assert done.stdout == "appends\n" and "StoreError: the embedded engine (chdb) is not installed here: name a server in store.url" in done.stderr


def test_a_service_without_the_embedded_engine_answers_and_knows_its_keys(site, tmp_path):
    "A store that cannot be asked costs no answer: journal and memory know the keys of this folder."
    without = tmp_path / "without"  # a chdb that cannot be imported, before the real one
    without.mkdir()
    (without / "chdb.py").write_text("raise ImportError\n")
    site.start(PYTHONPATH=f"{without}:{root()}", cold=True)
    ask = lambda **headers: httpx.post(site.url + "/predict", json=EXAMPLE, headers=headers)  # noqa: E731
    first, again = (ask(**{"idempotency-key": "a"}) for _ in range(2))
    assert first.status_code == 200 and again.content == first.content
    for path in ("/traffic", "/drift", "/history"):
        assert httpx.get(site.url + path).status_code in (200, 503), path
    assert site.stop() in (0, -signal.SIGTERM)
    assert len(site.stored()) == 1
