"""Retraining on a real Airflow: API server, scheduler and DAG processor, in an environment that has nothing of the project in it.

`make airflow-test` makes that environment from requirements-airflow.txt, and runs this."""
import json
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import problem
import pytest
from processes import free_port, wait_until
from projects import Project, small_project

from og_project import features
from og_project.config import root
from og_project.lifecycle.pipeline import read_stages

DATED = next(name for name, stage in read_stages().items() if "until" in stage["params"])  # the first stage that is told a day
AIRFLOW = os.environ.get("AIRFLOW", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not AIRFLOW, reason="AIRFLOW names no environment: make airflow-test")]
ENDED = ("success", "failed")
SHARES = 2 if hasattr(features, "build_share") else 1  # tasks that build the blocks of features, where a problem has blocks


@dataclass
class Airflow:
    "A running Airflow, the project it retrains, and the service that it watches."

    project: Project
    url: str
    password: str
    service: str
    serving: ExitStack
    api: httpx.Client

    def trigger(self, name: str, **conf: str) -> str:
        "Begin a run, wait for its end, give its state."
        self.begin(name, **conf)
        return self.ended(name)

    def begin(self, name: str, day: str | None = None, **conf: str) -> None:
        reply = self.api.post("/api/v2/dags/retrain/dagRuns", json={"dag_run_id": name, "logical_date": day, "conf": conf})
        assert reply.status_code == 200, reply.text

    def state(self, name: str) -> str:
        return self.api.get(f"/api/v2/dags/retrain/dagRuns/{name}").json()["state"]

    def ended(self, name: str) -> str:
        wait_until(lambda: self.state(name) in ENDED)
        return self.state(name)

    def tasks(self, name: str) -> dict[str, dict]:
        found = self.api.get(f"/api/v2/dags/retrain/dagRuns/{name}/taskInstances").json()["task_instances"]
        return {task["task_id"]: task for task in found}

    def mapped(self, name: str, task: str) -> list[dict]:
        "The instances of a mapped task of a run, in their order."
        found = self.api.get(f"/api/v2/dags/retrain/dagRuns/{name}/taskInstances/{task}/listMapped").json()["task_instances"]
        return sorted(found, key=lambda one: one["map_index"])

    def command(self, name: str, task: str) -> str:
        "What a task of a run called."
        return self.tasks(name)[task]["rendered_fields"]["bash_command"]

    def changes(self) -> list[tuple[str, str]]:
        "The ledger: what was done, and the version that served then."
        return [(change["kind"], change["to_version"]) for change in json.loads(self.project.run("og", "history", "--json").stdout)]

    def champion(self) -> str:
        return self.changes()[-1][1]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Iterator[Airflow]:
    project = small_project(tmp_path_factory.mktemp("airflow") / "project", every=5)
    gate = project.folder / "config/gate.yml"
    wide = {"max_loss": 0.5, "max_gain": 0.5, "slice_loss": 1, "calibration": 1, "latency": 100, "size": 100, "traffic_moved": 100,
            "traffic_loss": 1}
    text = gate.read_text()
    for name, limit in wide.items():  # small models on a fifth of the data vary; the gate itself has its own tests
        text = re.sub(rf"^{name}: [\d.]+", f"{name}: {limit}", text, flags=re.M)
    gate.write_text(text)
    project.run("og", "run", "all", "-p", "until", problem.FIRST)
    project.run("og", "register", "--promote-first")
    home, port, password = tmp_path_factory.mktemp("home"), free_port(), secrets.token_urlsafe(16)
    (home / "passwords.json").write_text(json.dumps({"admin": password}))
    (home / "dags").mkdir()
    (home / "dags/dag.py").symlink_to(project.folder / "dag.py")
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as running:
        serving = running.enter_context(ExitStack())
        service = serving.enter_context(project.serving())
        og = home / "og"  # the command, with what the copy needs in its environment
        needed = {name: value for name, value in project.environment({}).items() if name in ("PATH", "PYTHONPATH", "OG_ROOT")}
        lines = [f"export {name}='{value}'" for name, value in (needed | {"OG_STORE__CACHE": "blocks"}).items()]
        og.write_text("\n".join(["#!/bin/bash", *lines, 'exec og "$@"', ""]))
        og.chmod(0o755)
        env = {
            "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"), "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/", "AIRFLOW__API__BASE_URL": url, "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32), "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin", "AIRFLOW__API__WORKERS": "1", "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"), "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "PROJECT_DIR": str(project.folder), "PROJECT_OG": str(og), "SERVICE_URL": service, "SERVICE_WATCH_SECONDS": "3",
            "RETRAIN_SCHEDULE": "none", "FEATURE_SHARES": str(SHARES), "MODELS_URL": "http://mlflow.invalid/models",
            "PATH": f"{AIRFLOW}:/usr/bin:/bin", "PYTHONPATH": ""}
        project.run(f"{AIRFLOW}/airflow", "db", "migrate", **env)
        for part in ("api-server", "scheduler", "dag-processor"):  # a scheduler that is asked to end waits for its workers, sometimes for ever
            running.enter_context(project.start(f"{AIRFLOW}/airflow", part, log=home / f"{part}.log", end=signal.SIGKILL, **env))
        wait_until(lambda: httpx.get(f"{url}/api/v2/monitor/health").json()["scheduler"]["status"] == "healthy")
        token = httpx.post(f"{url}/auth/token", json={"username": "admin", "password": password}).json()["access_token"]
        api = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=600)
        wait_until(lambda: api.get("/api/v2/dags/retrain").status_code == 200)
        assert api.patch("/api/v2/dags/retrain", json={"is_paused": False}).status_code == 200
        yield Airflow(project, url, password, service, serving, api)


def test_nothing_of_the_project_is_in_airflows_environment():
    assert not list(Path(AIRFLOW).parent.glob("lib/*/site-packages/og_project*"))
    assert not list(Path(AIRFLOW).parent.glob("lib/*/site-packages/lightgbm"))


def test_machines_that_train_together_are_tasks_beside_the_stage(tmp_path):
    shown = "import dag, json; print(json.dumps({t.task_id: [t.bash_command, t.queue, sorted(t.upstream_task_ids)] for t in dag.register.dag.tasks}))"
    env = {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(root()), "TRAIN_MACHINES": "one:12400,two:12400,three:12400"}
    found = subprocess.run([f"{AIRFLOW}/python", "-c", shown], env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    tasks = json.loads(found.stdout.splitlines()[-1])
    before, said = sorted(read_stages()["train"]["upstream"]), " --workers one:12400,two:12400,three:12400"
    for name, host, rank in (("worker_1", "two", 1), ("worker_2", "three", 2)):
        command, queue, upstream = tasks[name]
        assert f"og worker {rank}" in command and command.endswith(said) and queue == host and upstream == before
    command, queue, _ = tasks["train"]
    assert command.endswith(" -p workers one:12400,two:12400,three:12400") and queue == "one"
    assert {"train", "worker_1", "worker_2"} <= set(tasks["register"][2]) and tasks["register"][1] == "default"


def test_shares_of_the_features_are_mapped_tasks_before_the_stage(tmp_path):
    shown = ("import dag, json; tasks = dag.register.dag.task_dict; share = tasks['features_share']; print(json.dumps([share.expand_input.value"
             "['bash_command'], sorted(share.upstream_task_ids), sorted(tasks['features'].upstream_task_ids), share.execution_timeout.seconds]))")
    env = {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(root()), "FEATURE_SHARES": "3"}
    found = subprocess.run([f"{AIRFLOW}/python", "-c", shown], env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    commands, before_shares, before, seconds = json.loads(found.stdout.splitlines()[-1])
    first = sorted(read_stages()["features"]["upstream"])
    assert [f"og run features --block {i}/3" in command for i, command in enumerate(commands, 1)] == [True] * 3 and len(commands) == 3
    assert before_shares == first and before == sorted([*first, "features_share"]) and seconds == 7200
    assert all(("-p until" in command) == ("until" in read_stages()["features"]["params"]) for command in commands)


@pytest.mark.parametrize("value, schedule", [("", None), ("None", None), (" none ", None), ("@daily", "@daily")])
def test_a_schedule_that_is_none_in_any_spelling_is_none(value, schedule, tmp_path):
    env = {"AIRFLOW_HOME": str(tmp_path), "RETRAIN_SCHEDULE": value, "PYTHONPATH": str(root())}
    found = subprocess.run([f"{AIRFLOW}/python", "-c", "import dag; print(repr(dag.register.dag.schedule))"], env=env, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.splitlines()[-1] == repr(schedule), found.stdout + found.stderr


def test_one_run_at_a_time_every_task_has_an_end_and_the_page_leads_to_the_models(airflow):
    about = airflow.api.get("/api/v2/dags/retrain/details").json()
    assert about["max_active_runs"] == 1 and "(http://mlflow.invalid/models)" in about["doc_md"]
    tasks = airflow.api.get("/api/v2/dags/retrain/tasks").json()["tasks"]
    assert len(tasks) == 8 + (SHARES > 1) and all(task["execution_timeout"] for task in tasks)


def test_the_page_of_the_dag_opens_in_a_browser(airflow, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(f"{airflow.url}/dags/retrain")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", airflow.password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dags/retrain**")
    page.wait_for_selector("text=retrain")
    for task in ("ingest", "gate", "promote"):
        page.wait_for_selector(f"text={task}")
    page.close()


def test_a_run_over_rest_ends_with_a_new_champion_served(airflow):
    assert airflow.champion() == "1"
    assert airflow.trigger("good", until=problem.EARLIER) == "success", airflow.tasks("good")
    states = {name: task["state"] for name, task in airflow.tasks("good").items()}
    assert set(states.values()) == {"success"}, states
    assert airflow.champion() == "2"
    assert httpx.get(f"{airflow.service}/model").json()["version"] == "2"


def test_the_stage_took_the_blocks_that_the_mapped_tasks_left(airflow):
    if SHARES == 1:
        pytest.skip("this problem's features are built at once")
    shares = airflow.mapped("good", "features_share")
    assert [share["state"] for share in shares] == ["success"] * SHARES and [share["map_index"] for share in shares] == [*range(SHARES)]
    assert max(share["end_date"] for share in shares) <= airflow.tasks("good")["features"]["start_date"]
    blocks = list((airflow.project.folder / "blocks").rglob("*.parquet"))
    ended = [datetime.fromisoformat(share["end_date"]).timestamp() for share in shares]
    assert blocks and len({block.parent for block in blocks}) == 1 and max(block.stat().st_mtime for block in blocks) <= max(ended)


def test_a_refused_model_changes_nothing_and_is_no_failure(airflow):
    gate = airflow.project.folder / "config/gate.yml"
    before = gate.read_text()
    gate.write_text(re.sub(r"min_rows: \d+", "min_rows: 1000000", before))
    try:
        assert airflow.trigger("refused", until=problem.BETWEEN) == "success"
    finally:
        gate.write_text(before)
    states = {name: task["state"] for name, task in airflow.tasks("refused").items()}
    assert states["gate"] == states["promote"] == states["check"] == "skipped" and states["register"] == "success", states
    assert airflow.champion() == "2"


def test_a_stage_is_tried_again_and_a_failed_check_brings_the_champion_back(airflow):
    before, raw = airflow.changes(), airflow.project.folder / "nbs/03_ingest.ipynb"
    staging = raw.with_suffix(".away")
    airflow.serving.close()  # nobody will answer to the check
    raw.rename(staging)
    airflow.begin("unlucky", until=problem.WHOLE)
    wait_until(lambda: airflow.tasks("unlucky")["ingest"]["state"] == "up_for_retry")
    staging.rename(raw)
    assert airflow.ended("unlucky") == "failed"
    tasks = airflow.tasks("unlucky")
    assert tasks["ingest"]["try_number"] == 2 and tasks["promote"]["state"] == "success" and tasks["check"]["state"] == "failed", tasks
    assert [kind for kind, _ in airflow.changes()[len(before):]] == ["promote", "rollback"] and airflow.champion() == before[-1][1]


def test_a_run_without_until_goes_up_to_its_logical_date(airflow):
    airflow.begin("scheduled", "2026-02-01T00:00:00Z")
    wait_until(lambda: airflow.tasks("scheduled")[DATED]["rendered_fields"])
    assert airflow.command("scheduled", DATED).endswith(f"og run {DATED} -p until 2026-02-01")
    airflow.api.patch("/api/v2/dags/retrain/dagRuns/scheduled", json={"state": "failed"}).raise_for_status()


def test_an_alert_begins_one_run_and_a_young_run_is_let_be(airflow):
    port, key = free_port(), secrets.token_urlsafe(16)
    notice = {"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "ScoreDrift", "action": "retrain"},
                                          "startsAt": "2026-01-02T03:04:05Z", "annotations": {}}]}
    about = {"OG_TRIGGER__PORT": str(port), "OG_TRIGGER__KEY": key, "OG_TRIGGER__AIRFLOW_URL": airflow.url,
             "OG_TRIGGER__AIRFLOW_PASSWORD": airflow.password}

    def told(**more: str) -> dict:
        with airflow.project.start("og", "trigger", **about | more) as process:
            wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200, process)
            assert httpx.post(f"http://127.0.0.1:{port}/alerts", json=notice).status_code == 401
            reply = httpx.post(f"http://127.0.0.1:{port}/alerts", json=notice, headers={"authorization": f"Bearer {key}"}, timeout=600)
            assert reply.status_code == 200, reply.text
            return reply.json()

    notebook = airflow.project.folder / "nbs/03_ingest.ipynb"
    notebook.rename(notebook.with_suffix(".away"))  # from now on every run fails
    assert told()["status"] == "cooling down"  # the runs of the tests before
    assert told(OG_TRIGGER__COOLDOWN_HOURS="0") == {"status": "started", "run": "alert__ScoreDrift__2026-01-02T03-04-05"}
    assert told(OG_TRIGGER__COOLDOWN_HOURS="0")["status"] == "already started"

    # a stage that fails for good takes no champion from duty
    before, name = airflow.changes(), "alert__ScoreDrift__2026-01-02T03-04-05"
    assert airflow.ended(name) == "failed"
    assert "og run ingest" in airflow.command(name, "ingest")
    assert DATED != "ingest" or airflow.command(name, DATED).endswith(f"-p until {datetime.now(UTC):%Y-%m-%d}")
    tasks = airflow.tasks(name)
    assert [task["try_number"] for task in tasks.values() if task["state"] == "failed"] == [2], tasks
    assert tasks["promote"]["state"] == tasks["check"]["state"] == "upstream_failed" and airflow.changes() == before
