"""What a request may not do: be refused and leave a trace, become more than it says, get a verdict that depends on the form it came in,
make a 500, or be done twice. All of it against a running service."""
import gzip
import io
import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fields import LIMITED, ONE, VALUE, named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import wait_until
from sites import Site, make_site
from test_contract import good, odd, outcome
from test_journal import on_server

from og_project.data.contract import EXAMPLE, LabelledRecord, Record
from og_project.model.estimator import RECORD
from og_project.serving.guard import new_key
from og_project.serving.journal import schema_sql
from og_project.serving.protocols import INPUTS
from og_project.serving.records import PROPERTIES
from og_project.store import arrow_schema, conditions, connect, create, parquet, query, reasons, write

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
ARROW, V2 = "application/vnd.apache.arrow.stream", "/v2/models/og_project/infer"


@pytest.fixture(scope="module")
def client(running) -> httpx.Client:
    with httpx.Client(base_url=running.url, timeout=120) as client:
        yield client


def post(client, path: str, body: Any, kind: str = JSON, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, content=content, headers={"content-type": kind} | {n.replace("_", "-"): v for n, v in headers.items()})


def answered(client) -> float:
    "How many predictions were answered: what is refused must not be among them."
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("og_predictions_total{"))


# --- what was refused left no trace; what left a trace was answered ---------------------------------------------------


def tensor(name: str, values: list, **more: Any) -> dict:
    return {"name": name, "shape": [len(values)], "datatype": INPUTS[name], "data": values} | more


GOOD_V2 = {"inputs": [tensor(name, [value]) for name, value in EXAMPLE.items()]}
REFUSED_V2 = {
    "an output that is not there": {"outputs": [{"name": "nope"}]}, "an output named by a list": {"outputs": [{"name": ["x"]}]},
    "parameters that are a list": {"parameters": [1]}, "half a surrogate as its id": {"id": "\ud800"}, "an id that is a number": {"id": 7},
    "outputs that are a text": {"outputs": "all"}, "an output's parameters": {"outputs": [{"name": "id", "parameters": [1]}]},
}


@pytest.mark.parametrize("case", REFUSED_V2)
def test_what_is_refused_in_v2_is_not_recorded(client, case):
    before = answered(client)
    reply = post(client, V2, json.dumps(GOOD_V2 | REFUSED_V2[case]).encode())
    assert reply.status_code == 400 and reply.json()["error"] and answered(client) == before
    assert post(client, V2, GOOD_V2).status_code == 200 and answered(client) == before + 1


def test_who_was_told_no_is_not_recorded_and_who_is_recorded_was_answered(site, records):
    site.start(OG_SERVE__SECONDS="1")
    many = [records[i % len(records)] for i in range(10_000)]

    def ask(_) -> list[str]:
        reply = httpx.post(site.url + "/predict", json=many, timeout=120)
        assert reply.status_code in (200, 408, 503) and ("retry-after" in reply.headers) == (reply.status_code != 200)
        return [row["id"] for row in reply.json()["predictions"]] if reply.status_code == 200 else []

    with ThreadPoolExecutor(12) as pool:
        told = [name for ids in pool.map(ask, range(12)) for name in ids]
    site.stop()
    stored = [row["prediction_id"] for row in site.stored("SELECT prediction_id FROM predictions")]
    assert sorted(stored) == sorted(told)


def test_who_goes_away_while_waiting_is_not_recorded(site, records):
    site.start(OG_SERVE__SECONDS="600")
    body = json.dumps([records[i % len(records)] for i in range(10_000)]).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    asked = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(8)]
    for s in asked:
        s.sendall(head + body)
    [s.close() for s in asked]
    ended = {}

    def all_ended() -> bool:
        "What became of each, by the service's own count: whoever was scored before it was noticed is answered, as far as the service knows."
        found = httpx.get(site.url + "/metrics").text.splitlines()
        lines = [line for line in found if line.startswith("og_http_requests_total{") and "/predict" in line]
        ended.update({line.split('status="')[1][:3]: float(line.split()[-1]) for line in lines})
        return sum(ended.values()) == 8

    wait_until(all_ended)
    assert set(ended) <= {"200", "400", "499"}
    site.stop()
    assert len(site.stored("SELECT prediction_id FROM predictions")) == 10_000 * ended.get("200", 0)


def test_a_stream_that_cannot_be_recorded_whole_is_not_recorded_at_all(site, records):
    site.start(OG_STORE__URL="http://og@127.0.0.1:9/default", OG_STORE__TIMEOUT="1", OG_JOURNAL__BUDGET_MB="30")
    table = pa.concat_tables([pa.Table.from_pylist([Record(**row).model_dump() for row in records], RECORD())] * 200)
    refused = httpx.post(site.url + "/predict", content=stream(table), headers={"content-type": ARROW}, timeout=120)
    assert refused.status_code == 503 and "journal" in refused.text
    assert not list((site.folder / "journal").glob("*.journal"))
    with httpx.Client(base_url=site.url) as client:
        assert answered(client) == 0
    site.kill()
    site.start()
    site.stop()
    assert site.stored() == []


def test_feedback_that_timed_out_is_not_kept(site, clickhouse):
    store = connect(clickhouse.url, "hunter2")
    create(store, schema_sql())
    site.start(OG_SERVE__SECONDS="1", **on_server(clickhouse) | {"OG_STORE__TIMEOUT": "30"})
    made = httpx.post(site.url + "/predict", json=EXAMPLE).json()["predictions"][0]["id"]
    wait_until(lambda: query(store, "SELECT count() AS n FROM predictions")["n"][0].as_py() == 1)
    clickhouse.process.send_signal(signal.SIGSTOP)  # it is there, and does not answer in time
    reply = httpx.post(site.url + "/feedback", json={"id": made, "outcome": ONE}, timeout=600)
    clickhouse.process.send_signal(signal.SIGCONT)
    assert reply.status_code == 503
    assert httpx.post(site.url + "/predict", json=EXAMPLE).status_code == 200
    time.sleep(3)
    assert query(store, "SELECT count() AS n FROM feedback")["n"][0].as_py() == 0


# --- Idempotency-Key ---------------------------------------------------------------------------------------------------


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_a_request_sent_again_gets_the_same_bytes_and_is_recorded_once(client, records):
    before = answered(client)
    first = post(client, "/predict?explain=true", records[:3], idempotency_key="order-17")
    again = post(client, "/predict?explain=true", records[:3], idempotency_key='"order-17"')
    assert first.status_code == again.status_code == 200 and first.content == again.content and answered(client) == before + 3
    assert again.headers["idempotency-replayed"] == "true" and "idempotency-replayed" not in first.headers
    assert post(client, "/predict?explain=true", records[:2], idempotency_key="order-17").status_code == 422
    assert post(client, "/predict", records[:3], idempotency_key="order-17").status_code == 422
    assert post(client, "/predict", records[:3], idempotency_key="a b").status_code == 400
    bad = post(client, "/predict", {"colour": "red"}, idempotency_key="order-18")
    assert bad.status_code == 422 and post(client, "/predict", records[0], idempotency_key="order-18").status_code == 200
    assert answered(client) == before + 4


def test_an_outcome_sent_again_gets_the_same_bytes(client):
    made = post(client, "/predict", EXAMPLE).json()["predictions"][0]["id"]
    say = lambda key, outcome: post(client, "/feedback", {"id": made, "outcome": outcome}, idempotency_key=key)
    first, again = say("o-1", True), say("o-1", True)
    assert first.content == again.content and b'"recorded"' in first.content and say("o-1", False).status_code == 422
    unknown = [post(client, "/feedback", {"id": "unheard", "outcome": ONE}, idempotency_key="o-2") for _ in range(2)]
    assert unknown[0].content == unknown[1].content and [reply.status_code for reply in unknown] == [207, 207]


def test_the_same_key_at_the_same_moment_is_done_once(client, running, records):
    many = [records[i % len(records)] for i in range(5000)]
    before = answered(client)
    with ThreadPoolExecutor(6) as pool:
        asked = {"json": many, "headers": {"idempotency-key": "rush"}, "timeout": 600}
        replies = list(pool.map(lambda _: httpx.post(running.url + "/predict", **asked), range(6)))
    assert {reply.status_code for reply in replies} <= {200, 409} and len({reply.content for reply in replies if reply.status_code == 200}) == 1
    assert answered(client) == before + 5000


@pytest.mark.parametrize("shipped", [True, False])
def test_a_key_is_known_after_a_crash(site, records, shipped):
    site.start(OG_JOURNAL__SHIP_SECONDS="0.1" if shipped else "600")
    ask = lambda: httpx.post(site.url + "/predict", json=records[:2], headers={"idempotency-key": "crash"})
    first = ask()
    if shipped:
        wait_until(lambda: not list((site.folder / "journal").glob("*.journal")))
    site.kill()
    site.start(OG_JOURNAL__SHIP_SECONDS="600")
    again = ask()
    assert again.status_code == 200 and again.content == first.content
    site.stop()
    assert len(site.stored()) == 2


def test_a_key_is_known_to_another_replica(real, clickhouse, tmp_path, records):
    create(connect(clickhouse.url, "hunter2"), schema_sql())
    one, other = (make_site(real, tmp_path / name).start(**on_server(clickhouse)) for name in ("one", "other"))
    ask = lambda site: httpx.post(site.url + "/predict", json=records[0], headers={"idempotency-key": "moved"})
    first = ask(one)
    wait_until(lambda: not list((one.folder / "journal").glob("*.journal")))
    one.kill()
    assert ask(other).content == first.content
    other.kill()


def test_a_key_is_known_to_another_worker(site, records):
    site.start(OG_SERVE__WORKERS="2", OG_JOURNAL__SHIP_SECONDS="600")
    ask = lambda: httpx.post(site.url + "/predict", json=records[0], headers={"idempotency-key": "either"})  # a connection each
    assert len({ask().content for _ in range(12)}) == 1
    site.kill()
    site.start()
    site.stop()
    assert len(site.stored()) == 1


# --- a limit is on what it becomes ---------------------------------------------------------------------------------------


def packed(table: pa.Table, **options: Any) -> bytes:
    pq.write_table(table, sink := io.BytesIO(), **options)
    return sink.getvalue()


def v2_bomb(kind: str, size: int) -> tuple[bytes, dict[str, str]]:
    "A tensor that is as long as its request."
    head = json.dumps({"inputs": [{"name": LIMITED, "datatype": kind, "shape": [size], "parameters": {"binary_data_size": size}}]}).encode()
    return head + bytes(size), {"inference_header_content_length": str(len(head))}


MB = 2**20
TEXT, NUMBER = [*named("choice", "text"), *EXAMPLE][0], LIMITED  # a field of texts, if there is one
BOMBS: dict[str, Any] = {
    "Parquet, equal rows": lambda: ("/invocations", packed(pa.table({TEXT: pa.repeat("x" * 100, 500_000)})), PARQUET),
    "Parquet, a dictionary of one long text": lambda: ("/invocations", packed(long_dictionary(9_000).select([TEXT])), PARQUET),
    "Parquet, packed zeros": lambda: ("/invocations", packed(zeros(50_000_000), compression="zstd", use_dictionary=False), PARQUET),
    "Parquet, wide": lambda: ("/invocations", packed(pa.table({f"c{i}": [1] for i in range(5000)})), PARQUET),
    "Parquet, nested": lambda: ("/invocations", packed(pa.table({TEXT: [[[["x"]]]]})), PARQUET),
    "CSV, lines": lambda: ("/invocations", (TEXT + "\n" + "x\n" * (8 * MB - 100)).encode(), CSV),
    "CSV, empty lines": lambda: ("/invocations", (TEXT + "\n" * (15 * MB)).encode(), CSV),
    "CSV, wide": lambda: ("/invocations", b"," * (15 * MB), CSV),
    "CSV, one long text": lambda: ("/invocations", f"{TEXT}\n{'x' * 15 * MB}\n".encode(), CSV),
    "CSV, one open quote": lambda: ("/invocations", f'{TEXT}\n"{"x," * 7 * MB}\n'.encode(), CSV),
    "v2, bytes": lambda: (V2, *v2_bomb("UINT8", MB), "application/octet-stream"),
    "v2, empty texts": lambda: (V2, *v2_bomb("BYTES", 12 * MB), "application/octet-stream"),
    "v2, a shape that the data do not have": lambda: (V2, json.dumps({"inputs": [tensor(TEXT, ["x"], shape=[10**15])]}).encode(), JSON),
    "v2, values": lambda: (V2, b'{"inputs":[{"name":"x","data":[' + b"1," * (7 * MB) + b"1]}]}", JSON),
    "inputs": lambda: ("/invocations", b'{"inputs":{"%s":[' % NUMBER.encode() + b"1," * MB + b"1]}}", JSON),
    "split": lambda: ("/invocations", b'{"dataframe_split":{"columns":["a"],"data":[' + b"[1]," * (3 * MB) + b"[1]]}}", JSON),
    "JSON, empty lists": lambda: ("/predict", b"[" + b"[]," * (5 * MB) + b"[]]", JSON),
    "JSON, empty records": lambda: ("/predict", b"[" + b"{}," * (5 * MB) + b"{}]", JSON),
    "JSON, deep": lambda: ("/predict", b"[" * (15 * MB), JSON),
    "JSON, one long text": lambda: ("/predict", json.dumps(EXAMPLE | {TEXT: "x" * 15 * MB}).encode(), JSON),
    "JSON, one long number": lambda: ("/predict", b'{"%s":' % NUMBER.encode() + b"1" * (15 * MB) + b"}", JSON),
    "JSON, escapes": lambda: ("/predict", b'{"%s":"' % TEXT.encode() + b"\\u0041" * (2 * MB) + b'"}', JSON),
    "feedback": lambda: ("/feedback", b"[" + b"{}," * (5 * MB) + b"{}]", JSON),
    "Arrow, packed zeros": lambda: ("/predict", stream(zeros(60_000_000), compression="zstd"), ARROW),
    "Arrow, a dictionary of one long text": lambda: ("/predict", stream(long_dictionary()), ARROW),
    "gzip": lambda: ("/predict", gzip.compress(bytes(200 * MB)), JSON),
}


def long_dictionary(rows: int = 30_000) -> pa.Table:
    columns = {name: pa.repeat(pa.scalar(value, RECORD().field(name).type), rows) for name, value in Record(**EXAMPLE)}
    columns[TEXT] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["x" * MB]))
    return pa.table(columns)


def zeros(rows: int) -> pa.Table:
    return pa.table({NUMBER: np.zeros(rows)})


MOST_GROWTH = 400 * MB  # of the process, whatever comes; docs/serving.md says so


def memory(site: Site) -> int:
    "The most that the service's process has ever used."
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(running, client, case):
    path, body, *more = BOMBS[case]()
    headers, kind = (more[0], more[1]) if len(more) == 2 else ({}, more[0])
    assert len(body) < 16 * MB
    post(client, "/predict", EXAMPLE)
    before = memory(running)
    reply = post(client, path, body, kind, **headers)
    assert reply.status_code in (400, 413, 415, 422), (reply.status_code, reply.text[:300])
    assert len(reply.text) < 3000 and ("at most" in reply.text or "more than" in reply.text or reply.status_code != 413)
    assert memory(running) - before < MOST_GROWTH


def test_others_are_answered_while_bombs_arrive(running, client):
    "How long a caller waits is compared with how long a bomb takes, so that a busy machine changes both."
    waits, done = [], threading.Event()
    cases = ("Parquet, a dictionary of one long text", "CSV, lines", "inputs", "JSON, empty lists", "Parquet, packed zeros")
    made = [BOMBS[case]() for case in cases]

    def look() -> None:
        with httpx.Client(base_url=running.url, timeout=600) as other:
            while not done.is_set():
                start = time.perf_counter()
                assert other.get("/health/live").status_code == 200
                waits.append(time.perf_counter() - start)

    thread = threading.Thread(target=look)
    thread.start()
    for path, body, kind in made * 3:
        post(client, path, body, kind)
    done.set()
    thread.join()
    assert len(waits) > 20 and float(np.median(waits)) < 0.5


# --- all readers agree -----------------------------------------------------------------------------------------------------


def flat(value: Any) -> Any:
    "A value as JSON has it."
    return value.isoformat() if isinstance(value, datetime) else value


def forms(row: dict[str, Any]) -> dict[str, tuple]:
    "One record in every form that is read: name -> path, body, content type, and headers."
    plain = {name: flat(value) for name, value in row.items()}
    text = lambda value: "" if value is None else repr(value) if isinstance(value, float) else str(value)
    quoted = ['"' + text(value).replace('"', '""') + '"' if value is not None else "" for value in plain.values()]
    csv = f"{','.join(plain)}\n{','.join(quoted)}\n"
    found = {
        "JSON": ("/predict", json.dumps(plain).encode(), JSON), "JSON, a list": ("/predict", json.dumps([plain]).encode(), JSON),
        "split": ("/invocations", json.dumps({"dataframe_split": {"columns": list(plain), "data": [list(plain.values())]}}).encode(), JSON),
        "records": ("/invocations", json.dumps({"dataframe_records": [plain]}).encode(), JSON),
        "instances": ("/invocations", json.dumps({"instances": [plain]}).encode(), JSON),
        "inputs": ("/invocations", json.dumps({"inputs": {name: [value] for name, value in plain.items()}}).encode(), JSON),
        "CSV": ("/invocations", csv.encode(), CSV),
        "v2": (V2, json.dumps({"inputs": [tensor(name, [value]) for name, value in plain.items()]}).encode(), JSON),
    }
    if (table := as_table(row)) is not None:
        found |= {"Arrow": ("/predict", stream(table), ARROW), "Parquet": ("/invocations", packed(table), PARQUET)}
    return found


def as_table(row: dict[str, Any]) -> pa.Table | None:
    "The record as one row of typed columns; `None` where no column can hold the value."
    try:
        values = row | {name: datetime.fromisoformat(row[name]) for name in named("date-time") if isinstance(row[name], str) and "T" in row[name]}
        return pa.table({name: pa.array([value]) for name, value in values.items()})
    except (pa.ArrowInvalid, ValueError, OverflowError):
        return None


def verdict(client, path: str, body: bytes, kind: str) -> Any:
    "What became of it: the score, or no."
    reply = post(client, path, body, kind)
    assert reply.status_code in (200, 400, 422), (reply.status_code, reply.text[:300], body[:300])
    if reply.status_code != 200:
        return "refused"
    if kind == ARROW:
        return pa.ipc.open_stream(reply.content).read_all()[VALUE][0].as_py()
    found = reply.json()
    if path == V2:
        return next(output["data"][0] for output in found["outputs"] if output["name"] == VALUE)
    return found["predictions"][0][VALUE]


base = st.just({name: flat(value) for name, value in EXAMPLE.items()})
ODD = {"date-time": ["2013", "20131230", 0, "2013-12-30", "2013-12-30T15:05:00", None], "integer": [7.0, 7.5, True, "7", None],
       "number": [35, True, "35.06", None], "text": ["NA", None, 7], "choice": ["NA", None, 7], "boolean": [0, "true", None]}
strange = st.sampled_from([{name: value} for kind, values in ODD.items() for name in named(kind)[:3] for value in values])
fields = odd.filter(lambda change: set(change) <= set(EXAMPLE)).map(lambda change: {name: flat(value) for name, value in change.items()})
changed = lambda record, changes: record | {name: value for change in changes for name, value in change.items()}
logical = st.builds(changed, base, st.lists(st.one_of(strange, fields), max_size=2))


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(logical)
def test_a_record_gets_the_same_verdict_from_every_reader(client, row):
    found = {name: verdict(client, *form) for name, form in forms(row).items() if sayable(name, row)}
    assert len(set(map(str, found.values()))) == 1, (found, row)


def sayable(form: str, row: dict[str, Any]) -> bool:
    "Can this form say the record? CSV writes 35 and \"35\" alike, a missing text and an empty one; a tensor of texts has no missing one."
    kinds = {name: spec["type"] for name, (spec, _) in PROPERTIES.items()}
    if form == "CSV":
        fits = {"string": lambda value: isinstance(value, str) and value and value.isprintable()}
        number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
        return all(value is None or fits.get(kinds[name], number)(value) for name, value in row.items())
    return form != "v2" or "" not in row.values()


@settings(max_examples=8)
@given(st.lists(st.builds(lambda base, change: base | change, good, odd), min_size=10, max_size=30))
def test_a_row_of_a_table_gets_the_verdict_of_json(client, tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    rows = [{name: row.get(name) for name in LabelledRecord.model_fields} | outcome() for row in rows]
    write(path, pa.Table.from_pylist(rows, schema=arrow_schema(LabelledRecord)))
    why = query(connect(), f"SELECT {reasons(conditions(LabelledRecord))} AS why FROM {parquet(path)}")["why"].to_pylist()
    for row, reason in zip(rows, why, strict=True):
        if any(isinstance(value, float) and not np.isfinite(value) for value in row.values()):
            continue  # a table's NaN is an error, a data frame's is a missing value
        body = json.dumps({name: flat(value) for name, value in row.items() if name in EXAMPLE}).encode()
        assert (verdict(client, "/predict", body, JSON) == "refused") == bool(reason), (row, reason)


# --- a body never makes a 500 -----------------------------------------------------------------------------------------------

ANY = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just("\ud800")),
                   lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)), max_leaves=5)


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    "Where the nodes of a JSON value are."
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in paths(part, (*at, key)))]


def replaced(value: Any, at: tuple, new: Any) -> Any:
    if not at:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[at[0]] = replaced(value[at[0]], at[1:], new)
    return changed


SPLIT = {"columns": list(EXAMPLE), "data": [list(EXAMPLE.values())], "index": [0]}
BODIES = [("/predict", EXAMPLE), ("/predict", [EXAMPLE, EXAMPLE]), ("/feedback", [{"id": "a", "outcome": ONE}]),
          ("/invocations", {"dataframe_split": SPLIT}),
          ("/invocations", {"dataframe_records": [EXAMPLE], "params": {}}), ("/invocations", {"inputs": {n: [v] for n, v in EXAMPLE.items()}}),
          ("/invocations", {"instances": [EXAMPLE]}),
          (V2, GOOD_V2 | {"id": "x", "parameters": {"binary_data_output": False}, "outputs": [{"name": "id", "parameters": {"binary_data": True}}]})]
CHANGES = st.sampled_from(BODIES).flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.sampled_from(paths(pair[1])), ANY))


@settings(max_examples=1000, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_any_json_in_place_of_any_node_is_answered_or_explained(client, change):
    path, body, at, new = change
    reply = post(client, path, json.dumps(replaced(body, at, new)).encode())
    assert reply.status_code < 500, (path, at, new, reply.text)
    if reply.status_code >= 400:
        said = reply.json()
        assert len(str(said.get("detail") or said.get("error") or said.get("message"))) > 10


@pytest.mark.parametrize("path, kind, body", [
    ("/invocations", CSV, b"a,a\n1,2\n"), ("/invocations", CSV, b"\xff\xfe\n"), ("/invocations", CSV, b""), ("/invocations", CSV, b"\n\n"),
    ("/invocations", CSV, b",x\n1,2\n"), ("/invocations", PARQUET, b"PAR1"), ("/invocations", PARQUET, b""), ("/predict", ARROW, b""),
    ("/invocations", PARQUET, packed(pa.table({TEXT: ["x"], "__index_level_0__": [1]}))), ("/invocations", CSV, b"a\n" + b"\0" * 100),
    ("/predict", ARROW, stream(pa.table([[1], [2]], names=["x", "x"]))), ("/predict", ARROW, stream(pa.table([[1], [2]], names=[TEXT, TEXT]))),
    ("/predict", ARROW, stream(pa.table({"": [1]}))), ("/predict", ARROW, stream(pa.table({NUMBER: pa.array([{"a": 1}])}))),
    (V2, "application/octet-stream", b"\x00"), ("/v2/models/%ED%A0%80/infer", JSON, b"{}"),
])
def test_what_is_no_such_body_is_told_so(client, path, kind, body):
    reply = post(client, path, body, kind)
    assert 400 <= reply.status_code < 500, reply.text


@pytest.mark.parametrize("length", ["²", "-1", "1e3", "99999999999", "x"])
def test_a_length_that_is_none_is_told_so(client, length):
    reply = client.post(V2, content=b"{}", headers={"inference-header-content-length": length.encode("latin-1")})
    assert reply.status_code == 400 and reply.json()["error"]


def test_a_spoiled_file_of_keys_reaches_no_caller(site):
    key, line = new_key("web", "predict", "metrics", "admin")
    file = site.folder / "keys"
    file.write_text(line)
    site.start(OG_SERVE__AUTH="true", OG_SERVE__KEYS_FILE=str(file))
    ask = lambda path: httpx.get(site.url + path, headers={"authorization": f"bearer {key}"})  # in lower case, as RFC 9110 has it
    fresh = lambda: "og_keys_fresh 1.0" in ask("/metrics").text
    wait_until(fresh)
    for spoil in (lambda: file.write_text("web predict"), lambda: file.write_bytes(line.encode("utf-16")), lambda: (file.unlink(), file.mkdir())):
        spoil()
        wait_until(lambda: "og_keys_fresh 0.0" in ask("/metrics").text)
        assert {ask("/model").status_code for _ in range(30)} == {200} and "serve.keys_file" in ask("/model").json()["problems"][0]
    file.rmdir()
    file.write_text(line)
    wait_until(fresh)
    assert sum("keys of before stay valid" in record["message"] for record in site.lines()) >= 2
