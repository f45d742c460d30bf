"The service as its callers know it: a real process, asked over HTTP."
import io
import json
import socket
import threading
import time
from uuid import UUID

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from fields import DECIDING, LIMITED, ONE, OTHER, REQUIRED, TOO_MUCH, VALUE
from processes import wait_until
from prometheus_client.parser import text_string_to_metric_families

from og_project.config import root, settings
from og_project.data.contract import EXAMPLE, Record
from og_project.features import FEATURES
from og_project.model.estimator import load, predict, rows_table, score_names
from og_project.serving.api import create_app
from og_project.serving.guard import new_key
from og_project.serving.metrics import METRICS
from og_project.serving.slot import open_model

ARROW = {"content-type": "application/vnd.apache.arrow.stream"}


@pytest.fixture
def client(running):
    with httpx.Client(base_url=running.url, timeout=600) as made:
        yield made


def stream(table: pa.Table, rows: int = 1000) -> bytes:
    "A table as an Arrow stream."
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def expected(running, records) -> list[float]:
    model = load(running.folder / "models/versions/1")
    return predict(model, rows_table(Record(**row) for row in records))[VALUE].tolist()


def test_a_list_is_answered_in_its_order_as_the_model_says(running, client, records):
    reply = client.post("/predict", json=records).json()
    assert [row[VALUE] for row in reply["predictions"]] == expected(running, records)
    assert reply["model_version"] == "1" and reply["model_name"] == "og_project"


def test_ids_are_the_callers_or_ours(client):
    mine, ours = client.post("/predict", json=[EXAMPLE | {"id": "order-7/α".encode().hex()}, EXAMPLE]).json()["predictions"]
    assert mine["id"] == "order-7/α".encode().hex() and UUID(ours["id"]).version == 7
    twice = client.post("/predict", json=[EXAMPLE | {"id": "a"}] * 2)
    assert twice.status_code == 422 and "twice" in twice.text


def test_a_request_id_is_in_answer_headers_and_log(running, client):
    reply = client.post("/predict", json=EXAMPLE, headers={"x-request-id": "call-17"})
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "call-17"
    wait_until(lambda: any(line.get("http.request.id") == "call-17" for line in running.lines()))
    line = next(line for line in running.lines() if line.get("http.request.id") == "call-17")
    assert line["og.model_version"] == "1" and line["og.records"] == 1 and line["http.response.status_code"] == 200
    assert not any(str(value) in json.dumps(line) for value in EXAMPLE.values() if len(str(value)) > 4)
    odd = client.post("/predict", json=EXAMPLE, headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert len(odd) == 32  # one that could break a log is not taken over


def test_reasons_add_up_in_size(client):
    reasons = client.post("/predict?explain=true", json=EXAMPLE).json()["predictions"][0]["reasons"]
    sizes = [abs(reason["contribution"]) for reason in reasons]
    assert len(reasons) == 5 and sizes == sorted(sizes, reverse=True) and set(reasons[0]) == {"feature", "value", "contribution"}
    assert client.post("/predict?explain=perhaps", json=EXAMPLE).status_code == 422
    assert client.post("/predict?explain=true", json=[EXAMPLE] * 101).status_code == 413


BAD = {
    "an unknown field": ([EXAMPLE, EXAMPLE | {"colour": "red"}], ["body", 1, "colour"]),
    "a value out of range": ([EXAMPLE, EXAMPLE, EXAMPLE | {LIMITED: TOO_MUCH}], ["body", 2, LIMITED]),
    "a missing field": ({name: value for name, value in EXAMPLE.items() if name != REQUIRED}, ["body", REQUIRED]),
    "a wrong type": (EXAMPLE | {LIMITED: "warm"}, ["body", LIMITED]),
    "a number too large for a number": (EXAMPLE | {LIMITED: 10**30}, ["body", LIMITED]),
    "not a record": ([1], ["body", 0]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_names_record_and_field_and_leaves_nothing_behind(running, client, case):
    body, place = BAD[case]
    before = lost(client)
    reply = client.post("/predict", json=body)
    assert reply.status_code == 422 and reply.json()["detail"][0]["loc"] == place
    assert "Traceback" not in reply.text and "input" not in reply.json()["detail"][0]
    assert lost(client) == before


def lost(client) -> float:
    "Predictions answered so far."
    return sum(metric(client, "og_predictions_total").values())


def metric(client, name: str) -> dict:
    "Labels -> value."
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {tuple(sorted(s.labels.items())): s.value for family in families for s in family.samples if s.name == name}


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null", b"[]x", b'{"a": NaN}', b"[{}]" * 2])
def test_what_is_no_json_is_told_so(client, body):
    reply = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert reply.status_code in (413, 422) and "Traceback" not in reply.text and len(reply.text) < 2000


def test_limits_have_their_own_answers(running, client):
    assert client.post("/predict", json=[EXAMPLE] * 10_001).status_code == 413
    json_type = {"content-type": "application/json"}
    assert client.post("/predict", content=b" " * (17 * 2**20), headers=json_type).status_code == 413
    assert client.post("/predict", content=(b" " * 2**20 for _ in range(17)), headers=json_type).status_code == 413
    assert client.post("/predict", content=b"x", headers={"content-type": "text/html"}).status_code == 415
    assert client.get("/predict").status_code == 405 and client.get("/nowhere").status_code == 404


def test_a_stranger_host_is_refused(client):
    assert client.get("/health/live", headers={"host": "evil.example"}).status_code == 400


def test_arrow_gives_the_answers_of_json(running, client, records):
    table = rows_table(Record(**row) for row in records)
    reply = client.post("/predict", content=stream(table, 300), headers=ARROW)
    answered = pa.ipc.open_stream(reply.content).read_all()
    assert answered[VALUE].to_pylist() == expected(running, records)
    assert answered.schema.metadata[b"model_version"] == b"1" and reply.headers["x-request-id"]
    assert len(set(answered["id"].to_pylist())) == 1000


def test_a_bad_row_at_the_end_of_a_stream_leaves_nothing_behind(client, records):
    table = rows_table(Record(**row) for row in records)
    values = table[LIMITED].to_pylist()
    values[-1] = TOO_MUCH
    before = lost(client)
    bad = table.set_column(table.column_names.index(LIMITED), LIMITED, pa.array(values))
    reply = client.post("/predict", content=stream(bad, 100), headers=ARROW)
    assert reply.status_code == 422 and reply.json()["detail"][0]["loc"] == ["body", 999, LIMITED]
    assert client.post("/predict", content=stream(table)[:-2000], headers=ARROW).status_code == 422
    assert client.post("/predict", content=b"no arrow", headers=ARROW).status_code == 422
    assert lost(client) == before


def test_outcomes_are_kept_once_and_corrected(running, client):
    made = [row["id"] for row in client.post("/predict", json=[EXAMPLE] * 2).json()["predictions"]]
    say = lambda *items: [item["status"] for item in client.post("/feedback", json=list(items)).json()["results"]]
    first = {"id": made[0], "outcome": ONE}
    assert say(first) == ["recorded"] and say(first) == ["already recorded"]
    assert say(first | {"outcome": OTHER}, {"id": "unheard", "outcome": ONE}) == ["recorded", "unknown"]
    assert say(first) == ["recorded"]  # back again: a correction too
    assert client.post("/feedback", json={"id": "unheard", "outcome": ONE}).status_code == 207
    assert client.post("/feedback", json={"id": made[1], "outcome": ["a", "list"]}).status_code == 422
    found = running.stored(f"SELECT argMax(outcome, received_at) AS outcome, count() AS n FROM feedback WHERE prediction_id = '{made[0]}'")
    assert found == [{"outcome": ONE, "n": 3}]


def test_model_says_what_serves(client):
    about = client.get("/model").json()
    assert about["version"] == "1" and about["quality"] == {DECIDING: 0.7} and about["from_disk"] and not about["registry_reachable"]
    assert (about["lookups_age_seconds"] is None) == (about["lookups_until"] is None)


def test_every_metric_is_documented_and_named_by_convention(client):
    client.post("/predict", json=EXAMPLE)
    text, docs = client.get("/metrics").text, (root() / "docs/serving.md").read_text()
    shown = {family.name for family in text_string_to_metric_families(text)}
    for name, (kind, meaning, labels, _) in METRICS.items():
        assert f"| `{name}` |" in docs, name
        assert all(f"`{label}`" in docs for label in labels) and meaning
        assert name.endswith("_total") == (kind.__name__ == "Counter")
        assert name.removesuffix("_total") in shown
        units = ("seconds", "bytes", "total", "records", "ready", "reachable", "files", "segments", "active", "fresh")
        assert name.split("_")[-1] in units, f"{name} has no unit"


def test_features_and_scores_are_counted_in_the_references_buckets(running, client, records):
    of = lambda name: sum(value for labels, value in metric(client, "og_feature_values_total").items() if ("feature", name) in labels)
    client.post("/predict", json=records)
    wait_until(lambda: of(FEATURES[0]) == lost(client))  # handed over once a second
    assert of(FEATURES[0]) == of(FEATURES[-1])
    assert of(FEATURES[0]) * len(score_names()) == sum(metric(client, "og_prediction_scores_total").values())


def test_slow_and_half_open_callers_do_not_starve_others(running, client):
    head = b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 500\r\n"
    sockets = []
    for i in range(300):
        s = socket.create_connection(("127.0.0.1", running.port))
        s.sendall(head + (b"\r\n{" if i % 2 else b""))  # half of them end within the head, half within the body
        sockets.append(s)
    for _ in range(50):
        assert client.post("/predict", json=EXAMPLE).status_code == 200
    [s.close() for s in sockets]


def test_others_are_answered_while_a_stream_is_scored(running, client, records):
    table = pa.concat_tables([rows_table(Record(**row) for row in records)] * 100)
    answers: list[int] = []
    post = lambda: httpx.post(running.url + "/predict", content=stream(table), headers=ARROW, timeout=120)
    thread = threading.Thread(target=lambda: answers.append(post().status_code))
    thread.start()
    asked = 0
    while thread.is_alive():
        assert client.post("/predict", json=EXAMPLE).status_code == 200 and client.get("/health/live").status_code == 200
        asked += 1
    assert answers == [200] and asked > 5


def test_nothing_of_the_inside_is_shown(running, client):
    for path in ("/predict", "/feedback", "/invocations", "/v2/models/og_project/infer", "/admin/reload"):
        for body in (b"", b"{}", b"[]", b"[[]]", b'{"inputs": 7}', b'{"inputs": [{}]}'):
            reply = client.post(path, content=body, headers={"content-type": "application/json"})
            assert reply.status_code < 500 and "Traceback" not in reply.text and str(running.folder) not in reply.text


def test_a_body_that_does_not_arrive_is_given_up(site):
    site.start(OG_SERVE__SECONDS="1")
    with socket.create_connection(("127.0.0.1", site.port)) as s:
        s.sendall(b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
        s.settimeout(20)
        answer = ""
        while "}" not in answer:  # head and body may come apart
            answer += s.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 408") and "did not arrive within 1 s" in answer
    assert httpx.post(site.url + "/predict", json=EXAMPLE).status_code == 200


def test_too_many_at_once_are_told_to_come_back(site):
    site.start(OG_SERVE__MAX_REQUESTS="2")
    slow = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(2)]
    for s in slow:
        s.sendall(b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
    time.sleep(0.2)
    refused = httpx.post(site.url + "/predict", json=EXAMPLE)
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    [s.close() for s in slow]
    wait_until(lambda: httpx.post(site.url + "/predict", json=EXAMPLE).status_code == 200)


def test_a_failure_of_ours_is_logged_with_its_trace_and_told_without(running, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OG_JOURNAL__FOLDER", str(tmp_path / "journal"))
    monkeypatch.setenv("OG_STORE__URL", f"chdb://{tmp_path / 'data'}")
    app = create_app(settings("local"), open_model(running.folder / "models/versions/1", "1", {}))
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        monkeypatch.setattr(app.app.state.service.scorer, "score", lambda *_: 1 / 0)
        reply = client.post("/predict", json=EXAMPLE, headers={"x-request-id": "broken-1"})
    assert reply.status_code == 500 and "ZeroDivision" not in reply.text and reply.json()["request_id"] == "broken-1"
    told = next(record for record in caplog.records if "broken-1" in record.getMessage())
    assert told.exc_info[0] is ZeroDivisionError


# --- keys ------------------------------------------------------------------------------------------


def test_keys_open_what_their_scopes_say_and_change_without_a_restart(site):
    asker, line = new_key("web", "predict")
    watcher, other = new_key("prometheus", "metrics", "admin", "feedback")
    file = site.folder / "keys"
    file.write_text(other)
    site.start(OG_SERVE__AUTH="true", OG_SERVE__KEYS=line, OG_SERVE__KEYS_FILE=str(file))
    status = lambda method, path, key="": httpx.request(method, site.url + path, json=EXAMPLE if method == "POST" else None,
                                                        headers={"authorization": f"Bearer {key}"} if key else {}).status_code
    assert [status("POST", "/predict", key) for key in (asker, watcher, "og_guess", "")] == [200, 403, 401, 401]
    assert [status("GET", "/metrics", key) for key in (asker, watcher)] == [403, 200]
    assert [status("POST", "/admin/reload", key) for key in (asker, watcher)] == [403, 200]
    assert [status("GET", path) for path in ("/health/live", "/health/ready", "/", "/openapi.json", "/ping")] == [200] * 5
    assert [status("GET", path) for path in ("/model", "/traffic", "/nowhere")] == [401] * 3
    assert httpx.post(site.url + "/predict", json=EXAMPLE, headers={"x-api-key": asker}).status_code == 200
    file.write_text("")  # the watcher's key is taken back
    wait_until(lambda: status("GET", "/metrics", watcher) == 401)
    assert status("POST", "/predict", asker) == 200
    assert not any(key in site.log.read_text() for key in (asker, watcher)) and any(line.get("user.name") == "web" for line in site.lines())


@pytest.mark.parametrize("settings", [{"OG_SERVE__HOST": "0.0.0.0"}, {"OG_ENV": "test"}, {"OG_SERVE__AUTH": "true"}])
def test_it_does_not_start_open_to_strangers(site, settings):
    with pytest.raises(AssertionError, match="the server ended"):
        site.start(**{"OG_SERVE__AUTH": "false"} | settings)
    assert "serve." in site.log.read_text() and "Traceback" not in site.log.read_text()


# --- without a model -------------------------------------------------------------------------------


def test_nothing_on_disk_and_no_registry_is_live_but_not_ready(site):
    (site.folder / "models/versions/champion.json").unlink()
    site.start(ready=False)
    assert httpx.get(site.url + "/health/ready").status_code == 503
    wait_until(lambda: any("/health/ready" in line["message"] for line in site.lines()))
    assert not [line for line in site.lines() if line["log.level"] == "error" and "/health" in line["message"]], "not ready is no error"
    refused = httpx.post(site.url + "/predict", json=EXAMPLE)
    assert refused.status_code == 503 and refused.headers["retry-after"] and "promote" in refused.text
    assert httpx.get(site.url + "/").status_code == 200 and httpx.get(site.url + "/ping").status_code == 404


def test_a_damaged_copy_on_disk_does_not_serve(site):
    file = site.folder / "models/versions/1/contract.json"
    file.write_text(file.read_text() + " ")
    site.start(ready=False)
    time.sleep(0.5)
    assert httpx.get(site.url + "/health/ready").status_code == 503
    assert any("contract.json" in line["message"] for line in site.lines() if line.get("log.level") == "error")


def test_several_workers_count_as_one(site, records):
    site.start(OG_SERVE__WORKERS="2")
    with httpx.Client(base_url=site.url) as client:
        for _ in range(40):
            assert httpx.post(site.url + "/predict", json=records[:5]).status_code == 200  # a connection each, so both workers are asked
        wait_until(lambda: sum(metric(client, "og_predictions_total").values()) == 200)
        assert len(metric(client, "og_worker_memory_bytes")) == 2
    site.stop()
    assert len(site.stored()) == 200
    assert pq.read_table(site.folder / "data/predictions")["prediction_id"].to_pylist()
