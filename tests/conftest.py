"What the tests share: real products, a real copy of the project, real servers."
import atexit
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import forkserver
import httpx
import numpy as np
import problem
import pyarrow.parquet as pq
import pytest
import yaml

from og_project import features
from og_project.config import root
from og_project.data.contract import TASK, Record
from og_project.lifecycle.gate import DECIDING
from og_project.model import estimator, train
from og_project.serving.journal import schema_sql
from og_project.store import connect, create, query

for _name in ("connect", "read", "write", "pool"):  # httpx gives up after 5 s; no test depends on the machine's speed
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 300.0)
ENVIRONMENT = {"PLOOMBER_STATS_ENABLED": "false", "DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
               "OMP_NUM_THREADS": "1"}  # a thread that waits for another spins: beside a busy process, twice the time
PARAMS = {"num_leaves": 31, "num_boost_round": 60, "num_threads": 1}
SPLIT = {name: value for name, value in yaml.safe_load((root() / "env.yaml").read_text()).items() if name in
         ("until", "valid_months", "test_months", "valid_percent", "test_percent")}


HEAVY = {"real", "site", "running", "registry", "clickhouse", "browser", "project", "cleaned", "small", "lab", "parts", "good"}  # fixtures


def pytest_collection_modifyitems(items) -> None:
    "`make quick` leaves out what needs a server or the whole year."
    for item in items:
        if HEAVY & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")


def pytest_terminal_summary(terminalreporter) -> None:
    "One line for each reason of skipping: what to install, or which command runs it."
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> dict[str, Path]:
    "The products of the stages on all the real data, with a small model, made by the exported functions: once for all processes that test."
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "real.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = (*problem.PRODUCTS, "fitted")
        if not (shared / "real").exists():
            make_real({name: shared / "real.draft" / name for name in names})
            (shared / "real.draft").rename(shared / "real")
    return {name: shared / "real" / name for name in names}


def make_real(made: dict[str, Path]) -> None:
    problem.make_products(made)
    parts = train.split_as_trained(pq.read_table(made["features"]), SPLIT)
    fitted, _ = estimator.fit(parts["train"], parts["valid"], PARAMS)
    save_model(made["fitted"], made, fitted, parts)


def save_model(folder: Path, real: dict[str, Path], fitted: Any, parts: dict, **about: Any) -> None:
    "Keep a model as Train does; its golden rows are the last twenty records."
    records = pq.read_table(real["records"])
    said = {"threshold": 0.3 if TASK == "binary" else 0.0, "windows": train.windows_of(parts), "seed": 1, "params": {}} | SPLIT
    estimator.save(folder, fitted, real["lookups"], records.slice(len(records) - 20), **said | about)


FORKED = ("og", "ploomber", "nbdev_export", "nbdev_clean")


@cache
def fork_server() -> Path:
    "A folder with commands that run in forks of one process (tests/forkserver.py), and with its socket."
    folder = Path(tempfile.mkdtemp(prefix="og-"))
    script = Path(forkserver.__file__)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
    process = subprocess.Popen([sys.executable, script, folder / "socket"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean | ENVIRONMENT)
    assert process.stdout.readline() == b"ready\n"
    atexit.register(lambda: (process.stdin.close(), process.wait(60), shutil.rmtree(folder)))
    for name in FORKED:
        call = f"import sys; sys.path.insert(0, {str(script.parent)!r}); import forkserver; "
        call += f"forkserver.stand_in({str(folder / 'socket')!r}, [{name!r}, *sys.argv[1:]])"
        (folder / name).write_text(f"#!{sys.executable} -IS\n{call}\n")
        (folder / name).chmod(0o755)
    return folder


class Forked:
    "A command that runs in a fork, with what `subprocess.Popen` has for it."

    def __init__(self, command: tuple[str, ...], folder: Path, environment: dict[str, str], out: IO[bytes]):
        with Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), out.fileno(), out.fileno())
            self.connection, self.pid = forkserver.ask(str(fork_server() / "socket"), list(command), str(folder), environment, streams)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.connection], [], [], 0)[0]:
            self.returncode = forkserver.number(self.connection)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self.connection], [], [], timeout)[0]:
            raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
        code = self.poll()
        assert code is not None
        return code


def begin(command: tuple[str, ...], folder: Path, environment: dict[str, str], log: Path, cold: bool = False) -> subprocess.Popen | Forked:
    "Start a command as the leader of its own group; `cold`: by a new interpreter, as its users do."
    with log.open("ab") as out:
        if command[0] in FORKED and not cold:
            return Forked(command, folder, environment, out)
        return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, stdout=out, stderr=out,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background job ignores it


@dataclass(frozen=True)
class Project:
    "A copy of the project in a folder of its own, with its own git, DVC cache and registry."

    folder: Path

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        "The environment variables of a command in the copy."
        path = f"{fork_server()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
        return clean | ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(self.folder), "OG_ROOT": str(self.folder)} | more

    @contextmanager
    def start(self, *command: str, log: Path | None = None, **more: str) -> Iterator[subprocess.Popen | Forked]:
        "Run a command in the background, as the leader of its own group, until the block ends."
        process = begin(command, self.folder, self.environment(more), log or Path(os.devnull))
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)

    @contextmanager
    def serving(self, log: Path | None = None, **more: str) -> Iterator[str]:
        "The service of the copy, ready to answer; gives its URL."
        port = free_port()
        with self.start("og", "serve", log=log, OG_SERVE__PORT=str(port), **more) as process:
            wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200, process)
            yield f"http://127.0.0.1:{port}"

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        "Run a command of the environment in the copy; its output is shown when it should have worked and did not."
        done = subprocess.run(command, cwd=self.folder, env=self.environment(environment), capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done


def copy_project(folder: Path) -> Project:
    "The committed and the new files of the project, without what it made."
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root(), capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (root() / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root() / name, folder / name)
    project = Project(folder)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "copy")
    return project


def replace(file: Path, old: str, new: str) -> None:
    "Put one text in place of another, which must be there."
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new))


def small_project(folder: Path, every: int = 20) -> Project:
    "A copy whose data are a share of the real ones, and whose model is small."
    project = copy_project(folder)
    problem.shrink(project.folder, every)
    base = project.folder / "config/base.yml"
    base.write_text(re.sub(r"num_threads: \d+", "num_threads: 1", re.sub(r"num_boost_round: \d+", "num_boost_round: 30", base.read_text())))
    return project


@dataclass
class Site:
    "A place where the service runs: its own journal, store and models, with no registry to reach unless one is named."

    folder: Path
    settings: dict[str, str]
    port: int = 0
    process: subprocess.Popen | Forked | None = None
    url = property(lambda self: f"http://127.0.0.1:{self.port}")
    log = property(lambda self: self.folder / "log")

    def start(self, ready: bool = True, cold: bool = False, **more: str) -> "Site":
        "Start the service, and wait until it is ready to answer; `cold`: by a new interpreter, as its users do."
        self.port = self.port or free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
        env = clean | ENVIRONMENT | {"OG_ROOT": str(self.folder), "PYTHONPATH": str(root()), "OG_SERVE__PORT": str(self.port)} | self.settings | more
        self.process = begin((str(Path(sys.executable).parent / "og") if cold else "og", "serve"), self.folder, env, self.log, cold)
        path = "/health/ready" if ready else "/health/live"
        wait_until(lambda: httpx.get(self.url + path).status_code == 200, self.process)
        return self

    def kill(self, signal_: int = signal.SIGKILL) -> int:
        "Send a signal to all of its processes, and wait until they are gone."
        os.killpg(self.process.pid, signal_)
        return self.process.wait(60)

    def stop(self) -> int:
        "Let it drain."
        return self.kill(signal.SIGTERM) if self.process and self.process.poll() is None else 0

    def lines(self) -> list[dict]:
        "What it logged."
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stored(self, sql: str = "SELECT * FROM predictions") -> list[dict]:
        "What its store holds."
        store = connect(f"chdb://{self.folder / 'data'}")
        create(store, schema_sql())
        return query(store, sql).to_pylist()


def model_folder(real: dict[str, Path], folder: Path, **encoder: Any) -> Path:
    "A complete model: the fitted one with its reference, and what its encoder shall say."
    table = pq.read_table(real["features"])
    rows = table.slice(len(table) * 3 // 10, 5000)
    matrix = np.stack([rows[name].to_numpy() for name in features.FEATURES], axis=1)
    shutil.copytree(real["fitted"], folder)
    estimator.write_reference(folder, matrix, estimator.scores(estimator.load(real["fitted"]).estimator, matrix))
    if encoder:
        (folder / "encoder.json").write_text(json.dumps(json.loads((folder / "encoder.json").read_text()) | encoder))
        estimator.seal(folder)
        asked, _ = estimator.golden_records(folder)
        given = estimator.answers(estimator.predict(estimator.load(folder), estimator.rows_table(asked)))
        rows = [{"record": record.model_dump(mode="json"), "answer": answer} for record, answer in zip(asked, given, strict=True)]
        (folder / "golden.json").write_text(json.dumps(rows))
    estimator.seal(folder)
    return folder


@pytest.fixture
def site(real, tmp_path) -> Iterator[Site]:
    "A place with a model on its disk, not started yet."
    made = make_site(real, tmp_path / "site")
    yield made
    if made.process and made.process.poll() is None:
        made.kill()


def make_site(real: dict[str, Path], folder: Path, **settings: str) -> Site:
    "A folder that the service can start in."
    for name in ("config", "page"):
        shutil.copytree(root() / name, folder / name)
    shutil.copy(root() / "settings.ini", folder)
    made = model_folder(real, folder / "models/versions/1")
    about = {"name": "og_project", "version": "1", "run_id": "", "tags": {DECIDING: "0.7", "fingerprint": estimator.verify(made)}}
    (folder / "models/versions/champion.json").write_text(json.dumps(about))
    quick = {"OG_MLFLOW__TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "OG_JOURNAL__SHIP_SECONDS": "0.2",
             "OG_MONITOR__SECONDS": "2"}
    return Site(folder, quick | settings)


@pytest.fixture(scope="module")
def running(real, tmp_path_factory) -> Iterator[Site]:
    "One running service for the tests of a module."
    made = make_site(real, tmp_path_factory.mktemp("running") / "site").start(cold=True)
    yield made
    assert made.stop() in (0, -signal.SIGTERM)  # uvicorn drains, then ends by the signal that it was sent


@dataclass
class Registry:
    "MLflow's server, with its artifacts on S3-compatible storage: both real, both on this machine."

    folder: Path
    port: int
    ports: dict[str, int]
    storage: subprocess.Popen | None = None
    server: subprocess.Popen | None = None
    url = property(lambda self: f"http://127.0.0.1:{self.port}")
    secret: str = "s3-for-a-test"

    def start(self) -> "Registry":
        self.start_storage()
        s3 = {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}", "AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": self.secret}
        command = [Path(sys.executable).parent / "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--artifacts-destination", "s3://mlflow/art"]
        env = os.environ | ENVIRONMENT | s3 | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "mlflow.log").open("ab") as log:
            self.server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        wait_until(lambda: httpx.get(self.url + "/health").status_code == 200, self.server, 90)
        return self

    def start_storage(self) -> None:
        (self.folder / "storage").mkdir(parents=True, exist_ok=True)
        rights = {"name": "mlflow", "credentials": [{"accessKey": "mlflow", "secretKey": self.secret}], "actions": ["Admin", "Read", "Write", "List"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [rights]}))
        ports = [f"-{name}={port}" for name, port in {"s3.port": self.ports["s3"], "master.port": self.ports["master"],
                                                      "volume.port": self.ports["volume"], "filer.port": self.ports["filer"]}.items()]
        command = [Path(sys.executable).parent / "weed", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}/storage", *ports,
                   f"-s3.config={self.folder}/s3.json", "-bucket=mlflow,dvc", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0"]
        with (self.folder / "storage.log").open("ab") as log:
            self.storage = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        wait_for(self.ports["s3"], self.storage)

    def stop(self, *what: subprocess.Popen | None) -> None:
        for process in what or (self.server, self.storage):
            if process and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def publish(self, folder: Path) -> str:
        "Register a model folder as a new version."
        from mlflow import MlflowClient

        mlflow = MlflowClient(self.url)
        found = mlflow.get_experiment_by_name("og_project")
        experiment = found.experiment_id if found else mlflow.create_experiment("og_project")
        run = mlflow.create_run(experiment).info
        mlflow.log_artifacts(run.run_id, str(folder), "model/data/model")
        if not mlflow.search_registered_models("name='og_project'"):
            mlflow.create_registered_model("og_project")
        tags = {"fingerprint": estimator.verify(folder), DECIDING: "0.71"}
        return str(mlflow.create_model_version("og_project", f"{run.artifact_uri}/model", run.run_id, tags=tags).version)

    def promote(self, version: str) -> None:
        from mlflow import MlflowClient

        MlflowClient(self.url).set_registered_model_alias("og_project", "champion", version)


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Registry]:
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    made = Registry(tmp_path_factory.mktemp("registry"), free_port(), ports).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def browser():
    "A real one."
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def records(real) -> list[dict]:
    "A thousand real records, as JSON."
    table = pq.read_table(real["records"], columns=list(Record.model_fields))
    rows = table.take((np.arange(1000) + len(table) * 9 // 10) % len(table)).to_pylist()
    return [Record(**row).model_dump(mode="json") for row in rows]


def free_port() -> int:
    "A port that nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(true: Callable[[], bool], process: subprocess.Popen | Forked | None = None, seconds: float = 600) -> None:
    "Wait until something holds, as long as a busy machine may need; a server that does not answer yet is no error, one that has ended is."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process is None or process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"not within {seconds} s")


def wait_for(port: int, process: subprocess.Popen, seconds: float = 60) -> None:
    "Wait until a server listens."
    for _ in range(int(seconds / 0.1)):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on {port} after {seconds} s")


@dataclass
class Server:
    "A ClickHouse engine behind ClickHouse's own HTTP interface."

    folder: Path
    port: int
    process: subprocess.Popen | None = None
    url = property(lambda self: f"http://og@127.0.0.1:{self.port}/default")

    def start(self) -> None:
        script = Path(__file__).parent / "clickhouse_stand_in.py"
        self.process = subprocess.Popen([sys.executable, script, self.folder, str(self.port), "og", "hunter2"])
        wait_for(self.port, self.process)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def clickhouse(tmp_path) -> Iterator[Server]:
    "A running server; its password is `hunter2`."
    server = Server(tmp_path / "clickhouse", free_port())
    server.start()
    yield server
    server.stop()
