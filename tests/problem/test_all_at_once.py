"A hundred answers across everything that changes: promotions, a rollback, new lookups, another lock of the libraries, a contract with a field more."
import json
import subprocess
import sys
from contextlib import ExitStack

import httpx
import pyarrow.parquet as pq
import pytest
from processes import wait_until
from projects import Project, small_project
from test_why import upgrade

from og_project.data.contract import Record
from og_project.serving.why import SAME

SERVICE = {"OG_SOURCE": "store", "OG_SERVE__WATCH_SECONDS": "0.3", "OG_SERVE__LOOKUPS_SECONDS": "0.5", "OG_JOURNAL__SHIP_SECONDS": "0.2"}
DELIVER = """
import sys
from datetime import UTC, datetime
from og_project.config import root, settings
from og_project.lifecycle.pipeline import read_stages
from og_project.replay import deliver
from og_project.serving.rescore import opened_store
made = {name: root() / path for name, path in next(iter(read_stages().values()))["product"].items() if name != "nb"}
deliver(opened_store(settings()), made, *(datetime.fromisoformat(day).replace(tzinfo=UTC) for day in sys.argv[1:]))
"""  # a window of flights comes into the store's tables
WHY = """
import json, sys
from og_project.config import settings
from og_project.serving.rescore import opened_store
from og_project.serving.why import why
config = settings()
store = opened_store(config)
found = [why(config, name, store=store) for name in json.loads(sys.stdin.read())]
print(json.dumps([(one.prediction_id, one.version, [depth.verdict for depth in one.rebuilt]) for one in found]))
"""


def commit(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "a test")


def train(project: Project, seed: int) -> None:
    "A version more, of a commit of its own."
    asked = ["-p", "seed", str(seed), "-p", "until", "2013-11-01"]
    for words in (["all", *asked],) if seed == 1 else (["train", *asked], ["evaluate", *asked[:3]]):
        project.run("og", "run", *words)
    project.run("dvc", "commit", "--quiet", "--force")
    commit(project)
    project.run("og", "register")


@pytest.mark.slow
def test_a_hundred_answers_are_made_again_whatever_changed(tmp_path):
    project = small_project(tmp_path / "project", every=40)
    commit(project)
    given: dict[str, str] = {}  # id -> version
    with ExitStack() as ended:
        for number in (1, 2, 3):
            train(project, number)
            project.run("og", "promote", str(number), "--force", "--reason", "a test")
            if number == 1:
                project.run(sys.executable, "-c", DELIVER, "2013-10-01", "2013-11-01")
                url = ended.enter_context(project.serving(**SERVICE))
                rows = pq.read_table(project.folder / "data/interim/records.parquet", columns=list(Record.model_fields)).slice(0, 100).to_pylist()
                asked = [Record(**row).model_dump(mode="json") for row in rows]
            ask(url, str(number), asked[len(given) : len(given) + 25], given)
        project.run("og", "rollback", "--reason", "a test")
        project.run(sys.executable, "-c", DELIVER, "2013-11-01", "2013-11-20")
        wait_until(lambda: httpx.get(url + "/model").json()["lookups_until"] > "2013-11-19")
        ask(url, "2", asked[75:], given)
        wait_until(lambda: httpx.get(f"{url}/why/{list(given)[-1]}").status_code == 200)
    upgrade(project)

    done = subprocess.run([sys.executable, "-c", WHY], input=json.dumps(list(given)), cwd=project.folder, env=project.environment({}),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[name, version, [SAME, SAME]] for name, version in given.items()]
    for version in ("1", "2", "3"):
        name = next(name for name, served in given.items() if served == version)
        found = json.loads(project.run("og", "why", name, "--rebuild", "--json").stdout)
        assert [depth["verdict"] for depth in found["rebuilt"]] == [SAME, SAME, SAME], found["rebuilt"]


def ask(url: str, version: str, records: list[dict], given: dict[str, str]) -> None:
    "Ask the service when it has changed to a version, and note what it said."
    wait_until(lambda: httpx.get(url + "/model").json()["version"] == version)
    said = httpx.post(url + "/predict", json=records).raise_for_status().json()
    given |= {answered["id"]: said["model_version"] for answered in said["predictions"]}
    assert len(records) == 25 and said["model_version"] == version
