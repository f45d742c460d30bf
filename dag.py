"""Retraining on Airflow 3: the stages of pipeline.yaml with a later `until`, then register, gate, promote, and a look at the service.

Airflow has an environment of its own with nothing of the project in it: this file reads the graph, and each task calls `og`.
What to set for Airflow's processes (docs/retraining.md): PROJECT_DIR, the checkout; PROJECT_OG, the command that is `og` there (".venv/bin/og", the
default, or "./setup.sh og" for the project's image in Docker); SERVICE_URL, to check the service after a promotion; MODELS_URL, MLflow's page;
TRAIN_MACHINES, "one:12400,two:12400", to train together: the Airflow worker of each of these hosts takes the tasks of the queue of its name;
FEATURE_SHARES, a number, to build the blocks of features in so many tasks, on whichever workers are free."""
import os
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote

import yaml
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

PROJECT = Path(os.environ.get("PROJECT_DIR", Path(__file__).parent)).resolve()
OG, SERVICE = f"cd {quote(str(PROJECT))} && {os.environ.get('PROJECT_OG', '.venv/bin/og')}", os.environ.get("SERVICE_URL")
STAGES = {stage["name"]: stage for stage in yaml.safe_load((PROJECT / "pipeline.yaml").read_text())["tasks"]}
UNTIL = "{{ params.until or (dag_run.logical_date or dag_run.run_after) | ds }}"  # nothing at or after this day is seen
SCHEDULE = os.environ.get("RETRAIN_SCHEDULE", "@monthly")  # `none` or nothing: by hand and by alert only
MACHINES = os.environ.get("TRAIN_MACHINES", "")
SHARES = int(os.environ.get("FEATURE_SHARES") or 1)
REFUSED = 3  # `og gate`'s exit code for no


SETTINGS = {"append_env": True, "env": {"RUN_ID": "{{ run_id }}"}, "retries": 1, "retry_delay": timedelta(seconds=10),
            "execution_timeout": timedelta(hours=2)}


def task(name: str, verb: str, **more) -> BashOperator:
    "A task that calls `og`."
    return BashOperator(task_id=name, bash_command=f"{OG} {verb}", **SETTINGS | more)


with DAG(
    "retrain",
    doc_md=f"{__doc__}\n\n[Models, with their runs and reports]({os.environ['MODELS_URL']})" if "MODELS_URL" in os.environ else __doc__,
    schedule=None if SCHEDULE.strip().lower() in ("", "none") else SCHEDULE,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["og"],
    params={"until": Param(None, type=["null", "string"], description="A day, YYYY-MM-DD; left out: the logical date")},
):
    of_run = {name: f" -p until {UNTIL}" if "until" in stage.get("params", {}) else "" for name, stage in STAGES.items()}
    hosts = [machine.rsplit(":", 1)[0] for machine in MACHINES.split(",") if machine]
    workers = [task(f"worker_{rank}", f"worker {rank}{of_run['train']} --workers {MACHINES}", queue=hosts[rank]) for rank in range(1, len(hosts))]
    of_run |= {"train": f"{of_run['train']} -p workers {MACHINES}"} if workers else {}
    at_home = {"train": {"queue": hosts[0]}} if workers else {}
    stages = {name: task(name, f"run {name}{more}", **at_home.get(name, {})) for name, more in of_run.items()}
    beside = {"train": workers}
    if SHARES > 1:
        calls = [f"{OG} run features --block {i}/{SHARES}{of_run['features']}" for i in range(1, SHARES + 1)]
        beside["features"] = [BashOperator.partial(task_id="features_share", **SETTINGS).expand(bash_command=calls)]
        beside["features"] >> stages["features"]
    for name, stage in STAGES.items():
        for before in stage.get("upstream") or []:
            stages[before] >> [stages[name], *beside.get(name, [])]
    register = task("register", "register")
    gate = task("gate", "gate", retries=0, skip_on_exit_code=REFUSED)  # refused: the rest is skipped, the champion stays
    promote = task("promote", "promote --reason 'retrained by {{ run_id }}'", retries=0)
    [*stages.values(), *workers] >> register >> gate >> promote
    if SERVICE:
        # One task, so that nothing but a failed check rolls back, and the run that had to is a failed one
        look = f"smoke --url {SERVICE} --version champion --watch {os.environ.get('SERVICE_WATCH_SECONDS', 30)}"
        back = f"{OG} rollback --reason 'the check after {{{{ run_id }}}} failed'"
        promote >> task("check", f"{look} || {{ {back}; exit 1; }}", retries=0)
