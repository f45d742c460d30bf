"Clients that others wrote: MLflow's and Triton's, pointed here and told nothing else; and the standard that a page is for people."
import json
import os
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pytest
import schemathesis
from fastapi.testclient import TestClient
from fields import DECIDING, INNER, LIMITED, TOO_MUCH, VALUE
from hypothesis import HealthCheck, given, settings
from processes import wait_until

from og_project.config import root
from og_project.data.contract import EXAMPLE, Record
from og_project.lifecycle.ledger import Change, ledger_sql, write_down
from og_project.model.estimator import load, predict, rows_table
from og_project.store import connect, create


@pytest.fixture(scope="module")
def frame(records) -> pd.DataFrame:
    return pd.DataFrame(records[:50])


@pytest.fixture(scope="module")
def expected(running, records) -> list[float]:
    model = load(running.folder / "models/versions/1")
    return predict(model, rows_table(Record(**row) for row in records[:50]))[VALUE].tolist()


def test_mlflows_own_client(running, frame, expected):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    client = ScoringServerClient("127.0.0.1", running.port)
    client.wait_server_ready(timeout=600)
    assert client.get_version()
    predictions = client.invoke(frame).get_predictions()
    assert predictions[VALUE].tolist() == expected


@pytest.fixture(scope="module")
def theirs(running, tmp_path_factory):
    "MLflow's own scoring server around the same model."
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import init

    folder = tmp_path_factory.mktemp("pyfunc") / "model"
    mlflow.pyfunc.save_model(str(folder), loader_module="og_project.model.estimator", data_path=str(running.folder / "models/versions/1"),
                             pip_requirements=["og_project"])
    return TestClient(init(mlflow.pyfunc.load_model(str(folder))), raise_server_exceptions=False)


def bodies(frame: pd.DataFrame) -> dict[str, tuple[str, bytes]]:
    "Name -> content type, body."
    plain = frame.head(3).astype(object).where(frame.head(3).notna(), None)
    split = {"columns": list(plain), "data": plain.to_numpy().tolist()}
    as_json = lambda value: ("application/json", json.dumps(value).encode())
    return {
        "split": as_json({"dataframe_split": split}), "records": as_json({"dataframe_records": plain.to_dict("records")}),
        "split with an index": as_json({"dataframe_split": split | {"index": [5, 6, 7]}}),
        "charset": ("application/json; charset=utf-8", json.dumps({"dataframe_split": split}).encode()),
        "two forms": as_json({"dataframe_split": split, "instances": []}), "no form": as_json({"data": split}), "a list": as_json([1]),
        "no JSON": ("application/json", b"{"), "a text": as_json("x"), "html": ("text/html", b"<p>"),
        "unknown column": as_json({"dataframe_records": [EXAMPLE | {"colour": "red"}]}),
        "wrong type": as_json({"dataframe_records": [EXAMPLE | {LIMITED: "w"}]}),
        "ragged": as_json({"dataframe_split": {"columns": ["a", "b"], "data": [[1]]}}),
    }


@pytest.mark.parametrize("case", ["split", "records", "split with an index", "charset", "two forms", "no form", "a list", "no JSON", "a text",
                                  "html", "unknown column", "wrong type", "ragged"])
def test_invocations_answers_as_mlflow_does(running, theirs, frame, case):
    kind, body = bodies(frame)[case]
    ours = httpx.post(running.url + "/invocations", content=body, headers={"content-type": kind})
    reply = theirs.post("/invocations", content=body, headers={"content-type": kind})
    assert ours.status_code == reply.status_code, (ours.text, reply.text)
    if ours.status_code == 200:
        assert ours.json() == reply.json()
    elif ours.status_code == 400:
        assert ours.json()["error_code"] == reply.json()["error_code"] == "BAD_REQUEST" and ours.json()["message"]


def test_csv_and_tensors_by_name(running, frame, expected):
    post = lambda kind, body: httpx.post(running.url + "/invocations", content=body, headers={"content-type": kind}).json()["predictions"]
    assert [row[VALUE] for row in post("text/csv", frame.to_csv(index=False).encode())] == expected
    columns = {name: [None if v != v else v for v in column] for name, column in frame.to_dict("list").items()}
    for form in ("inputs", "instances"):
        assert [row[VALUE] for row in post("application/json", json.dumps({form: columns}).encode())] == expected
    for path in ("/ping", "/health", "/version"):
        assert httpx.get(running.url + path).status_code == 200


DATATYPES = {"string": "BYTES", "integer": "INT64", "number": "FP64"}


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_own_client(running, frame, expected, binary):
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    client = InferenceServerClient(f"127.0.0.1:{running.port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("og_project") and client.is_model_ready("og_project", "1")
    assert not client.is_model_ready("another") and not client.is_model_ready("og_project", "2")
    about = client.get_model_metadata("og_project")
    inputs = []
    for tensor in about["inputs"]:
        column = frame[tensor["name"]]
        values = np.array(["" if v is None or v != v else v for v in column], object) if tensor["datatype"] == "BYTES" else \
            column.to_numpy(np.int64 if tensor["datatype"] == "INT64" else np.float64)
        made = InferInput(tensor["name"], [len(frame), 1], tensor["datatype"])
        made.set_data_from_numpy(values.reshape(-1, 1), binary_data=binary)
        inputs.append(made)
    outputs = [InferRequestedOutput(name, binary_data=binary) for name in (*INNER, "id")]
    for wanted in (outputs, None):
        reply = client.infer("og_project", inputs, outputs=wanted, request_id="triton-1")
        assert reply.as_numpy(VALUE).tolist() == expected and reply.get_response()["id"] == "triton-1"
        assert all(reply.as_numpy(name) is not None for name in INNER) and reply.get_response()["model_version"] == "1"
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="not served here"):
        client.infer("another", inputs)
    with pytest.raises(InferenceServerException, match=LIMITED):
        bad = InferInput(LIMITED, [1], "BYTES")
        bad.set_data_from_numpy(np.array(["warm"], object), binary_data=binary)
        client.infer("og_project", [bad])


def test_no_route_breaks_or_shows_a_trace_whatever_its_description_allows(running):
    "Requests made from the description. Whether each answer fits its schema is not asked here."
    schema = schemathesis.openapi.from_url(running.url + "/openapi.json")
    seen = set()

    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=25, suppress_health_check=list(HealthCheck), database=None)
        @given(case=strategy)
        def one(case):
            reply = case.call(base_url=running.url, timeout=600)
            seen.add(case.path)
            assert reply.status_code < 500 or reply.status_code == 503, f"{case.as_curl_command()}\n{reply.text}"
            assert "Traceback" not in reply.text

        one()
    assert {"/predict", "/feedback", "/invocations", "/metrics", "/v2/models/{name}/infer"} <= seen


# --- the page ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def promoted(running):
    "Somebody wrote a change of the champion down."
    store = connect(f"chdb://{running.folder / 'data'}")
    create(store, ledger_sql())
    write_down(store, Change(datetime.now(UTC), "og_project", "promote", "", "1", "somebody", "", "<b>first</b>"))


@pytest.mark.parametrize("width, height", [(1100, 900), (390, 844)])
def test_the_page_answers_in_a_real_browser_by_keyboard_alone(running, promoted, browser, width, height):
    page, errors = browser.new_page(viewport={"width": width, "height": height}), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith((running.url, "data:")) else None)
    page.goto(running.url)
    page.wait_for_selector("#model dd")
    assert "Version 1 serves since" in page.inner_text("#status") and DECIDING in page.inner_text("#model")
    for name in Record.model_fields:  # a form made from the contract, filled in with the example
        assert page.input_value(f"#field-{name}") == str(EXAMPLE[name]).removesuffix(".0")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "field-" + next(iter(Record.model_fields))
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer svg rect")
    assert VALUE in page.inner_text("#answer") and page.locator("#answer svg rect").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out to the side"
    wait_until(lambda: (page.evaluate("import('/page/watch.js').then(part => part.traffic())"), page.locator("#traffic svg").count())[1] == 1)
    httpx.post(running.url + "/predict", json=[EXAMPLE] * 250).raise_for_status()
    wait_until(lambda: (page.evaluate("import('/page/watch.js').then(part => part.drift())"), page.locator("#drift svg").count())[1] == 1)
    seen = "{version: '1', rows: 3, hours: 24, drift: [], quality: {outcomes: 0}, at: 0}"
    few = page.evaluate(f"import('/page/watch.js').then(part => part.compared({seen})"
                        ".map(e => e.textContent).join('|'))")
    assert few == "Version 1: 3 predictions in 24 hours, too few to say whether anything moved (200 are needed)."
    wait_until(lambda: (page.evaluate("import('/page/model.js').then(part => part.speed())"), "99 of 100" in page.inner_text("#speed"))[1])
    asked = page.inner_text("#speed dd")
    assert int(asked.replace(",", "")) >= 1 and "ms" in page.inner_text("#speed") and "(0.00%)" in page.inner_text("#speed")
    page.wait_for_selector("#versions td")
    assert "none → 1" in page.inner_text("#versions") and "<b>first</b>" in page.inner_text("#versions")
    if "SCREENSHOTS" in os.environ:  # for whoever wants to look
        page.screenshot(path=f"{os.environ['SCREENSHOTS']}/page-{width}.png", full_page=True)
    # what the browser would have stopped: the service says which field is wrong, and the page marks it
    page.eval_on_selector("#ask", "form => { form.noValidate = true; }")
    page.fill(f"#field-{LIMITED}", str(TOO_MUCH))
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .error")
    assert LIMITED in page.inner_text("#answer") and page.get_attribute(f"#field-{LIMITED}", "aria-invalid") == "true"
    assert not errors
    page.close()


def test_the_description_opens_in_a_browser(running, browser):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith((running.url, "data:")) else None)
    page.goto(running.url + "/docs")
    for path in ("/predict", "/feedback", "/model"):
        page.wait_for_selector(f"text={path}")
    assert not errors, errors
    page.close()


def test_the_page_asks_nobody_else(running):
    reply = httpx.get(running.url + "/")
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    for path in ("/", *(f"/page/{path.name}" for path in sorted((root() / "page").glob("*.*s")))):
        text = httpx.get(running.url + path).text
        assert "https://" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert httpx.get(running.url + "/page/..%2Fsettings.ini").status_code == 404 and httpx.get(running.url + "/page/x.js").status_code == 404
    docs = httpx.get(running.url + "/docs").text
    assert "https://" not in docs
