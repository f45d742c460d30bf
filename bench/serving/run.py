"""The prediction service beside others: all in one run, on one machine, medians of several rounds.

usage: python bench/serving/run.py [ROUNDS [SECONDS]] [--write]    (apt-get install wrk hey; `make pipeline` before; `--write`: into
docs/benchmarks.md)
Each contender is one process with one worker, asked over 16 connections; they take turns within a round, and what was measured while somebody
else used the machine is measured again. Ours has everything on: validation, keys, the journal as
the disk confirms it, metrics, logs; it runs in the serving environment (requirements-serve.txt) and nothing else."""
import csv
import io
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import about, into_page, undisturbed
from rows import real_records

from og_project.config import root
from og_project.data.contract import EXAMPLE, Record
from og_project.features import build_features
from og_project.model.estimator import RECORD, load, predict, rows_table, scores
from og_project.serving.guard import new_key

GIVEN = [word for word in sys.argv[1:] if word.isdigit()]
ROUNDS, SECONDS = int((GIVEN + ["3"])[0]), int((GIVEN + ["3", "4"])[1])
SAID: list[str] = []
HERE, PLACE = Path(__file__).parent, root() / "build/bench"
CONNECTIONS = 16
KEY, LINE = new_key("bench", "predict", "metrics", "admin")
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
ENV = {name: value for name, value in os.environ.items() if not name.startswith("OG_")} | {
    "PYTHONPATH": f"{root()}:{HERE}", "BENCH_MODEL": str(root() / "models/model"), "MLFLOW_TRACKING_URI": f"sqlite:///{root()}/mlflow.db",
    "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "True", "PYTHONWARNINGS": "ignore"}


def environment(name: str, *requirements: str) -> Path:
    "The bin folder of an environment of its own; made once."
    folder = PLACE / "environments" / name
    if not (folder / "ready").exists():
        print(f"making the environment {name}", flush=True)
        subprocess.run(["uv", "venv", "-q", "--clear", "-p", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", folder, *requirements], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def site(name: str, **settings: str) -> dict[str, str]:
    "A folder that our service starts in, with the champion on its disk; gives the environment variables."
    folder = PLACE / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("config", "page"):
        shutil.copytree(root() / part, folder / part)
    shutil.copytree(root() / "models/model", folder / "models/versions/1")
    about = {"name": "og_project", "version": "1", "run_id": "", "tags": {}}
    (folder / "models/versions/champion.json").write_text(json.dumps(about))
    return ENV | {"OG_ROOT": str(folder), "OG_SERVE__AUTH": "true", "OG_SERVE__KEYS": LINE, "OG_MLFLOW__TRACKING_URI": "http://127.0.0.1:9",
                  "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"} | settings


@contextmanager
def running(command: list, env: dict[str, str], url: str, path: str = "/health/ready", seconds: float = 120):
    "A server in the background; gives its process, and the seconds until it was ready."
    began = time.perf_counter()
    with (PLACE / "log").open("ab") as log:
        process = subprocess.Popen(command, env=env, cwd=HERE, start_new_session=True, stdout=log, stderr=log)
    try:
        while True:
            assert process.poll() is None and time.perf_counter() - began < seconds, f"{command} did not start; see {PLACE}/log"
            try:
                if httpx.get(url + path).status_code < 400:
                    break
            except httpx.TransportError:
                time.sleep(0.02)
        yield process, time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


SCRIPT = """wrk.method = "POST"
for line in io.lines(os.getenv("BENCH_HEADERS")) do local k, v = line:match("(.-): (.*)"); wrk.headers[k] = v end
local bodies, made, n, begun = {}, {}, 0, os.getenv("BENCH_KEYS")
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
init = function(args)
  for i, body in ipairs(bodies) do made[i] = wrk.format(nil, nil, nil, body) end
end
request = function()
  n = n + 1
  if not begun then return made[n % #made + 1] end
  wrk.headers["idempotency-key"] = begun .. "-" .. n
  return wrk.format(nil, nil, nil, bodies[n % #bodies + 1])
end
"""


def first(pattern: str, text: str) -> str:
    "What the first group of a pattern found in a text."
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in {text[-500:]}"
    return found[1]


def resident_kb(pid: int) -> int:
    "Memory of a process, in kilobytes."
    return int(first(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()))


def wrk(url: str, bodies: list[bytes], seconds: int = SECONDS, keys: bool = False) -> tuple[float, float, float]:
    "Requests a second, p50 and p99 (ms), as fast as 16 connections can send these bodies in turn; with `keys`, each under an `Idempotency-Key`."
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("script.lua", SCRIPT), ("headers", "\n".join(f"{k}: {v}" for k, v in HEADERS.items()))):
            Path(folder, name).write_text(text)
        Path(folder, "bodies").write_bytes(b"\n".join(bodies))
        env = os.environ | {"BENCH_HEADERS": f"{folder}/headers", "BENCH_BODIES": f"{folder}/bodies"}
        env |= {"BENCH_KEYS": f"bench-{time.time_ns()}"} if keys else {}
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--timeout", "20", "--latency", "-s", f"{folder}/script.lua", url]
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    millis = lambda text: float(text[:-2]) if text.endswith("ms") else float(text[:-2]) / 1e3 if text.endswith("us") else float(text[:-1]) * 1e3
    return float(first(r"Requests/sec: *([\d.]+)", said)), millis(first(r"(?m)^\s+50%\s+(\S+)", said)), millis(first(r"(?m)^\s+99%\s+(\S+)", said))


def hey(url: str, body: bytes, rate: float, seconds: float) -> np.ndarray:
    "Latencies (s), offsets (s) and statuses at a fixed rate over 16 connections."
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        headers = [part for k, v in HEADERS.items() if k != "content-type" for part in ("-H", f"{k}: {v}")]
        command = ["hey", "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-q", str(max(1, rate / CONNECTIONS)), "-m", "POST",
                   "-T", "application/json", *headers, "-D", file.name, "-o", "csv", url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = list(csv.DictReader(io.StringIO(said)))
    return np.array([[float(row["response-time"]), float(row["offset"]), float(row["status-code"])] for row in rows])


ONE, RECORDS = json.dumps(EXAMPLE).encode(), real_records(1000)
HUNDREDS = [RECORDS[start::10] for start in range(10)]
ONES = [[record] for record in RECORDS[:100]]
as_bodies = lambda form, batches: [json.dumps(form(batch)).encode() for batch in batches]
split = lambda rows: {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}
KINDS = {"string": "BYTES", "int64": "INT64", "double": "FP64"}


def v2(rows: list[dict]) -> dict:
    "Records as tensors."
    tensor = lambda kind: {"name": kind.name, "shape": [len(rows), 1], "datatype": KINDS.get(str(kind.type), "BYTES"),
                           "data": [row[kind.name] for row in rows]}
    return {"parameters": {"content_type": "pd"}, "inputs": [tensor(kind) for kind in RECORD()]}


def contenders() -> dict[str, tuple]:
    "Name -> command, environment, URL, path that says it is ready, (path, bodies) of one record, of a hundred."
    serve = environment("serve", "-r", str(root() / "requirements-serve.txt"))
    PLACE.mkdir(parents=True, exist_ok=True)
    needed = ["click", "clickhouse-connect", "holidays", "lightgbm", "numpy", "pyarrow", "pydantic-settings", "pyyaml", "tenacity"]
    bento, mlserver = environment("bento", "bentoml", *needed), environment("mlserver", "mlserver", *needed)
    ours, here = site("ours"), Path(sys.executable).parent
    start = "from og_project.config import settings; from og_project.serving.api import serve; serve(settings())"
    one, many = as_bodies(lambda rows: rows[0], ONES), as_bodies(list, HUNDREDS)
    folder = PLACE / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": 8305, "grpc_port": 8306, "metrics_port": 8307}
    (folder / "settings.json").write_text(json.dumps(ports | {"parallel_workers": 0, "debug": False}))
    (folder / "model-settings.json").write_text(json.dumps({"name": "delay", "implementation": "mlserver_model.Delay"}))
    uvicorn = lambda app, port: [serve / "uvicorn", app, "--port", port, "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return {
        "ours, everything on": ([serve / "python", "-c", start], ours | {"OG_SERVE__PORT": "8301"}, "http://127.0.0.1:8301", "/health/ready",
                                ("/predict", one), ("/predict", many)),
        "FastAPI, parses only": (uvicorn("parse_only:app", "8302"), ENV, "http://127.0.0.1:8302", "/docs", ("/predict", one), ("/predict", many)),
        "FastAPI + pydantic, nothing else": (uvicorn("plain_pydantic:app", "8303"), ENV, "http://127.0.0.1:8303", "/docs",
                                             ("/predict", one), ("/many", many)),
        "BentoML": ([bento / "bentoml", "serve", "bento:Delay", "--port", "8304"], ENV | {"PATH": f"{bento}:{os.environ['PATH']}"},
                    "http://127.0.0.1:8304", "/livez", ("/predict", one), ("/many", as_bodies(lambda rows: {"records": rows}, HUNDREDS))),
        "MLServer": ([mlserver / "mlserver", "start", str(folder)], ENV, "http://127.0.0.1:8305", "/v2/models/delay/ready",
                     ("/v2/models/delay/infer", as_bodies(v2, ONES)), ("/v2/models/delay/infer", as_bodies(v2, HUNDREDS))),
        "mlflow models serve": ([here / "mlflow", "models", "serve", "-m", "models:/og_project@champion", "--env-manager", "local", "-p", "8308"],
                                ENV | {"PATH": f"{here}:{os.environ['PATH']}"}, "http://127.0.0.1:8308", "/ping",
                                ("/invocations", as_bodies(split, ONES)), ("/invocations", as_bodies(split, HUNDREDS))),
    }


def shown(value) -> str:
    "A number with as many digits as it deserves."
    return f"{value:,.0f}" if isinstance(value, float) and value >= 100 else f"{value:.2f}" if isinstance(value, float) else str(value)


def say(text: str) -> None:
    "Show something, and keep it for the page."
    SAID.append(text)
    print(f"\n{text}", flush=True)


def table(head: list[str], rows: list[list]) -> None:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(shown(value) for value in row)} |" for row in rows)]
    say("\n".join(lines))


def side_by_side() -> dict[str, dict[str, list[float]]]:
    "Everybody asked for one record and for a hundred, in turn."
    found: dict[str, dict[str, list]] = {}
    for turn in range(ROUNDS):
        for name, (command, env, url, path, one, hundred) in contenders().items():
            try:
                with running(command, env, url, path) as (process, _):
                    time.sleep(8)  # whatever a server still loads beside its first requests is there
                    for kind, (route, body) in {"one": one, "hundred": hundred}.items():
                        wrk(url + route, body, 1)
                        found.setdefault(name, {}).setdefault(kind, []).append(undisturbed(process.pid, wrk, url + route, body))
            except AssertionError as e:
                print(f"{name}: left out of round {turn + 1}: {str(e)[:200]}", flush=True)
    medians = lambda runs: [statistics.median(column) for column in zip(*runs, strict=True)]
    middle = {name: {kind: medians(runs) for kind, runs in of.items()} for name, of in found.items()}
    parse, best = middle["FastAPI, parses only"]["one"][0], middle["ours, everything on"]
    table(["server", "one record, requests/s", "p50 ms", "p99 ms", "of parsing only", "ours is faster by", "100 records, requests/s", "p50 ms",
           "p99 ms"],
          [[name, *of["one"], of["one"][0] / parse, best["one"][0] / of["one"][0], *of.get("hundred", [0.0] * 3)] for name, of in middle.items()])
    return middle


def model_alone(middle: dict) -> None:
    "What the model could score if nothing else had to be done."
    model = load(root() / "models/model")
    records = rows_table([Record(**row) for row in HUNDREDS[0]])
    matrix = build_features(records, model.features)
    def rate(work, count=300):
        work()
        rounds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            [work() for _ in range(count)]
            rounds.append(count / (time.perf_counter() - began))
        return statistics.median(rounds)
    alone = {"trees, one thread": rate(lambda: model.estimator.predict(matrix, num_threads=1)),
             "trees, two threads": rate(lambda: model.estimator.predict(matrix, num_threads=2)),
             "features and trees": rate(lambda: predict(model, records))}
    ours = middle["ours, everything on"]["hundred"][0]
    table(["100 records in the process", "a second", "the service reaches"], [[name, value, ours / value] for name, value in alone.items()])
    say(f"One record: features {1e6 / rate(lambda: build_features(records.slice(0, 1), model.features)):.0f} µs, "
          f"trees {1e6 / rate(lambda: scores(model.estimator, matrix[:1])):.0f} µs")


def half_rate(middle: dict) -> None:
    "Latency at half of the top rate."
    ours = contenders()["ours, everything on"]
    with running(*ours[:4]) as (process, _):
        time.sleep(8)
        rates = []
        for _ in range(ROUNDS):
            seen = undisturbed(process.pid, hey, ours[2] + "/predict", ONE, middle["ours, everything on"]["one"][0] / 2, SECONDS)
            rates.append([len(seen) / SECONDS, *(1e3 * np.percentile(seen[:, 0], p) for p in (50, 99))])
    rate, p50, p99 = (statistics.median(column) for column in zip(*rates, strict=True))
    table(["at half of the top rate", "requests/s", "p50 ms", "p99 ms", "p99 / p50"], [["ours", rate, p50, p99, p99 / p50]])


def durability() -> None:
    "What each guarantee costs."
    rows = []
    for guarantee in ("machine", "process"):
        command, _, url, *_ = contenders()["ours, everything on"]
        with running(command, site("ours", OG_JOURNAL__DURABILITY=guarantee) | {"OG_SERVE__PORT": "8301"}, url) as (process, _):
            time.sleep(8)
            wrk(url + "/predict", [ONE], 1)
            runs = [undisturbed(process.pid, wrk, url + "/predict", [ONE]) for _ in range(ROUNDS)]
            lone = [1e3 * np.percentile(hey(url + "/predict", ONE, 320, 3)[:, 0], (50, 99)) for _ in range(ROUNDS)]
        rows.append([guarantee, *(statistics.median(column) for column in zip(*runs, strict=True)), *np.median(lone, axis=0).tolist()])
    table(["journal.durability", "one record, requests/s", "p50 ms", "p99 ms", "at 320/s: p50 ms", "p99 ms"], rows)


def keys() -> None:
    "What an `Idempotency-Key` costs: with and without, in turn, in one process."
    (_, *command), env, url, *_ = contenders()["ours, everything on"]
    runs: dict[str, list] = {"without": [], "with": []}
    with running([sys.executable, *command], env, url) as (process, _):  # whose store can be asked for a key
        time.sleep(8)
        wrk(url + "/predict", [ONE], 1)
        for _ in range(ROUNDS):
            for name, found in runs.items():
                found.append(undisturbed(process.pid, wrk, url + "/predict", [ONE], SECONDS, name == "with"))
    middle = {name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in runs.items()}
    table(["Idempotency-Key", "one record, requests/s", "p50 ms", "p99 ms", "of without"],
          [[name, *of, of[0] / middle["without"][0]] for name, of in middle.items()])


POLL = """import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
while True:
    began = time.perf_counter()
    connection.request("GET", "/health/live")
    connection.getresponse().read()
    print(1e3 * (time.perf_counter() - began), flush=True)
    time.sleep(0.01)
"""


def million() -> None:
    "A million rows as an Arrow stream, beside the same rows in the process; and how long /health/live takes meanwhile."
    model = load(root() / "models/model")
    records = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields))
    records = pa.concat_tables([records] * 3).slice(0, 1_000_000).combine_chunks()
    body = io.BytesIO()
    with pa.ipc.new_stream(body, records.schema) as writer:
        writer.write_table(records, max_chunksize=65_536)
    ours = contenders()["ours, everything on"]
    inside, outside, live, memory = [], [], [], 0
    with ThreadPoolExecutor(1) as pool, running(*ours[:4]) as (process, _):
        time.sleep(8)
        headers = HEADERS | {"content-type": "application/vnd.apache.arrow.stream"}
        for _ in range(ROUNDS):
            began = time.perf_counter()
            [predict(model, records.slice(start, 65_536)) for start in range(0, len(records), 65_536)]
            inside.append(1e6 / (time.perf_counter() - began))
            poll = subprocess.Popen([sys.executable, "-c", POLL, "8301"], stdout=subprocess.PIPE, text=True)  # a process of its own
            began = time.perf_counter()
            asked_all = pool.submit(httpx.post, ours[2] + "/predict", content=body.getvalue(), headers=headers, timeout=300)
            while not asked_all.done():
                memory = max(memory, resident_kb(process.pid))
                time.sleep(0.1)
            assert pa.ipc.open_stream(asked_all.result().content).read_all().num_rows == len(records)
            outside.append(1e6 / (time.perf_counter() - began))
            poll.kill()
            live += [float(line) for line in poll.communicate()[0].splitlines()]
    a, b = statistics.median(inside), statistics.median(outside)
    table(["a million rows", "rows/s"],
          [["in the process", a], ["as an Arrow stream, recorded", b], ["ratio", b / a], ["memory of the worker at most, MB", memory / 1024],
          ["/health/live meanwhile, median ms", statistics.median(live)], ["p99 ms", float(np.percentile(live, 99))], ["at most, ms", max(live)]])


def start_and_size() -> None:
    "From process start to ready with the model on the disk; memory; the environment's size."
    ours = contenders()["ours, everything on"]
    seconds, memory = [], []
    for _ in range(max(ROUNDS, 3)):
        with running(*ours[:4]) as (process, ready):
            seconds.append(ready)
            time.sleep(3)
            memory.append(resident_kb(process.pid) / 1024)
    size = sum(f.lstat().st_size for f in (PLACE / "environments/serve").rglob("*") if f.is_file() and not f.is_symlink()) / 2**20
    table(["start and size", ""],
          [["from process start to ready, s", statistics.median(seconds)], ["memory of one worker, MB", statistics.median(memory)],
           ["serving environment, MB", size]])


def swap() -> None:
    "Another version takes the slot while requests come at half of the top rate."
    here = Path(sys.executable).parent
    env = site("ours", OG_MLFLOW__TRACKING_URI=f"sqlite:///{PLACE}/swap.db", OG_SERVE__WATCH_SECONDS="0.5") | {"OG_SERVE__PORT": "8301"}
    (PLACE / "swap.db").unlink(missing_ok=True)
    from mlflow import MlflowClient

    mlflow = MlflowClient(f"sqlite:///{PLACE}/swap.db")
    experiment = mlflow.create_experiment("swap", artifact_location=(PLACE / "swap_artifacts").as_uri())
    mlflow.create_registered_model("og_project")
    for _ in range(2):
        run = mlflow.create_run(experiment).info
        mlflow.log_artifacts(run.run_id, str(root() / "models/model"), "model/data/model")
        tags = {"fingerprint": load(root() / "models/model").fingerprint}
        mlflow.create_model_version("og_project", f"{run.artifact_uri}/model", run.run_id, tags=tags)
    mlflow.set_registered_model_alias("og_project", "champion", "1")
    rows = []
    start = "from og_project.config import settings; from og_project.serving.api import serve; serve(settings())"
    with running([here / "python", "-c", start], env, "http://127.0.0.1:8301"):
        time.sleep(15)  # the registry's library is there, and every first time is over
        for turn in range(ROUNDS):
            wanted = "2" if turn % 2 == 0 else "1"
            shutil.rmtree(PLACE / "ours/models/versions" / wanted, ignore_errors=wanted == "2")
            threading.Timer(4, mlflow.set_registered_model_alias, ("og_project", "champion", wanted)).start()
            seen = hey("http://127.0.0.1:8301/predict", ONE, 1500, 9)
            served = httpx.get("http://127.0.0.1:8301/model", headers=HEADERS).json()["version"]
            assert served == wanted, f"{served} serves, not {wanted}"
            before, during = seen[seen[:, 1] < 4], seen[(seen[:, 1] >= 4) & (seen[:, 1] < 7)]
            failed = float((seen[:, 2] != 200).sum())
            rows.append([1e3 * np.percentile(before[:, 0], 99), 1e3 * np.percentile(during[:, 0], 99), failed, float(len(seen))])
    before, during, failed, asked = (statistics.median(column) for column in zip(*rows, strict=True))
    table(["a swap under load", "p99 before, ms", "p99 during, ms", "ratio", "failed requests", "of"],
          [["ours", before, during, during / before, sum(row[2] for row in rows), asked * len(rows)]])


if __name__ == "__main__":
    for tool in ("wrk", "hey"):
        assert shutil.which(tool), f"{tool} is missing: apt-get install {tool}"
    contenders()
    middle = side_by_side()
    model_alone(middle)
    half_rate(middle)
    durability()
    keys()
    million()
    start_and_size()
    swap()
    say(f"{date.today()}, {ROUNDS} rounds of {SECONDS} s; {about(PLACE)}")
    if "--write" in sys.argv:
        into_page("serving", "\n\n".join(SAID))
