"What the tests share: real products, a real copy of the project, real servers."
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from og_project.config import root
from og_project.data import ingest
from og_project.data.contract import moment
from og_project.features import build
from og_project.model import estimator, train
from og_project.store import connect, parquet

ENVIRONMENT = {"PLOOMBER_STATS_ENABLED": "false", "DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
PARAMS = {"objective": "binary", "num_leaves": 31, "num_boost_round": 60, "num_threads": 2}


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> dict[str, Path]:
    "The products of the stages on all the real flights, with a small model, made by the exported functions."
    place = tmp_path_factory.mktemp("real")
    made = {name: place / name for name in ("raw", "external", "records", "rejected", "features", "lookups", "fitted")}
    since, until, store = moment("2013-01-01"), moment("2014-01-01"), connect()
    ingest.keep(ingest.read_files(ingest.package_folder()), made["raw"], made["external"])
    flights, weather = (parquet(made["raw"] / f"{table}.parquet") for table in ingest.EVENTS)
    ingest.check(store, flights, weather, made["records"], made["rejected"], since, until)
    planes = parquet(made["external"] / "planes.parquet")
    build.build(store, parquet(made["records"]), flights, planes, made["features"], made["lookups"], until, 15)
    parts = train.split(pq.read_table(made["features"]), until)
    booster, _ = estimator.fit(parts["train"], parts["valid"], PARAMS)
    records = pq.read_table(made["records"])
    estimator.save(made["fitted"], booster, made["lookups"], records.slice(records.num_rows - 20), threshold=0.3, windows={})
    return made


@dataclass(frozen=True)
class Project:
    "A copy of the project in a folder of its own, with its own git, DVC cache and registry."

    folder: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        "Run a command of the environment in the copy; its output is shown when it should have worked and did not."
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
        env = clean | ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(self.folder), "OG_ROOT": str(self.folder)} | environment
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done


def sample(folder: Path, every: int) -> None:
    "Raw files with each so-many-th flight."
    folder.mkdir()
    for table, columns in ingest.SOURCE.items():
        with csv.CSVWriter(folder / f"{table}.csv", pa.schema(ingest.arrow_types(columns))) as writer:
            for block in ingest.read_files(ingest.package_folder(), every)(table):
                writer.write_table(block)


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


def small_project(folder: Path, every: int = 5) -> Project:
    "A copy whose data are every fifth flight, and whose model is small."
    project = copy_project(folder)
    sample(project.folder / "sample", every)
    base = project.folder / "config/base.yml"
    base.write_text(base.read_text().replace("num_boost_round: 1500", "num_boost_round: 30"))
    local = project.folder / "config/config_local.yml"
    local.write_text(local.read_text().replace("source: package", "source: sample"))
    return project


def free_port() -> int:
    "A port that nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
