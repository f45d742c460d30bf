"Places where the service runs, and the models that it serves there."
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import problem
import pyarrow.parquet as pq
import yaml
from processes import ENVIRONMENT, Forked, begin, free_port, wait_until

from og_project import features
from og_project.config import root
from og_project.data.contract import TASK
from og_project.lifecycle.gate import DECIDING
from og_project.model import estimator, train
from og_project.serving.journal import schema_sql
from og_project.store import connect, create, query

PARAMS = {"num_leaves": 31, "num_boost_round": 60, "num_threads": 1}
SPLIT = {name: value for name, value in yaml.safe_load((root() / "env.yaml").read_text()).items() if name in
         ("until", "valid_months", "test_months", "valid_percent", "test_percent")}


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
        return self.process.wait(600)

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
