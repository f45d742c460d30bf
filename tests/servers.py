"Real servers beside the service: MLflow on S3-compatible storage, and ClickHouse."
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
from processes import ENVIRONMENT, free_port, wait_for, wait_until

from og_project.lifecycle.gate import DECIDING
from og_project.model import estimator


def storage_ports() -> dict[str, int]:
    "Of the storage's parts; for one that it is not told it looks itself, and ends if another was quicker."
    return {name: free_port() for name in ("s3", "master", "volume", "filer", "admin")}


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
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        off = ("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0")
        command = [Path(sys.executable).parent / "weed", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={self.folder}/storage", *ports,
                   f"-s3.config={self.folder}/s3.json", "-bucket=mlflow,dvc", *off]
        with (self.folder / "storage.log").open("wb") as log:
            self.storage = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        wait_until(lambda: "All enabled components are running" in (self.folder / "storage.log").read_text(), self.storage)

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


def write_clusters(path: Path, shards: tuple[tuple[str, ...], ...]) -> Path:
    "A server's configuration with the cluster `main`. A host that is this machine's counts as that server, so it is asked within its own process."
    replica = "<replica><host>{}</host><port>9000</port></replica>".format
    stands = "".join(f"<shard><internal_replication>true</internal_replication>{''.join(map(replica, hosts))}</shard>" for hosts in shards)
    path.write_text(f"<clickhouse><tcp_port>9000</tcp_port><remote_servers><main>{stands}</main></remote_servers></clickhouse>")
    return path


@dataclass
class Server:
    "A ClickHouse engine behind ClickHouse's own HTTP interface."

    folder: Path
    port: int
    host: str = "127.0.0.1"
    shards: tuple[tuple[str, ...], ...] = ()  # of the cluster `main`, each with its hosts; none: there is no cluster
    process: subprocess.Popen | None = None
    url = property(lambda self: f"http://og@{self.host}:{self.port}/default")

    def start(self) -> None:
        script = Path(__file__).parent / "clickhouse_stand_in.py"
        config = write_clusters(self.folder.with_name(f"{self.folder.name}.xml"), self.shards) if self.shards else ""
        env = os.environ | {"BIND": self.host, "CONFIG": str(config)}
        self.process = subprocess.Popen([sys.executable, script, self.folder, str(self.port), "og", "hunter2"], env=env)
        wait_for(self.port, self.process, self.host)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
