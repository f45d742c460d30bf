"""The ledger and the commands around it, on a registry of their own: register, gate, promote, roll back."""
import json
from datetime import UTC, datetime

import problem
import pytest
from click.testing import CliRunner
from processes import wait_until
from projects import small_project

from og_project.cli import og
from og_project.commands import REFUSED
from og_project.config import GateSettings

QUICK = {"OG_GATE__MIN_ROWS": "20", "OG_GATE__MAX_LOSS": "0.05", "OG_GATE__CALIBRATION": "3", "OG_GATE__LATENCY": "3", "OG_GATE__SIZE": "3",
         "OG_GATE__REPEATS": "20", "OG_GATE__MOST_ROWS": "3000"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    "A champion of an earlier training, and what comes after."
    made = small_project(tmp_path_factory.mktemp("lifecycle") / "copy")
    made.run("og", "run", "all", "-p", "until", problem.EARLIER)
    assert "none yet: og promote 1" in made.run("og", "register").stdout
    made.run("og", "promote", "--reason", "the first")
    return made


def said(project, *command: str, code: int = 0, **more: str):
    done = project.run("og", *command, "--json", check=False, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_retrain_gate_promote_and_roll_back_under_load(project):
    import httpx

    before = said(project, "history")
    project.run("og", "run", "all", "-p", "until", problem.WHOLE)
    new = said(project, "register")["version"]
    # given: nobody has asked the gate
    assert "has no verdict" in project.run("og", "promote", check=False).stderr
    # when: it is asked
    verdict = said(project, "gate", **QUICK)
    assert verdict["passed"] and verdict["against"] == "1" and {check["name"] for check in verdict["checks"]} >= {"quality", "slices", "latency"}
    assert "<svg" not in (page := (project.folder / "reports/gate.html").read_text()) and "data:image/svg+xml" in page
    from mlflow import MlflowClient

    version = MlflowClient(f"sqlite:///{project.folder}/mlflow.db").get_model_version("og_project", new)
    assert version.tags["verdict"] == "passed" and version.tags["report"].endswith(".html")
    assert version.tags["verdict_data"] == version.tags["data_sha256"], "judged on the very records that it was registered with"
    assert {"gate.quality.low"} <= MlflowClient(f"sqlite:///{project.folder}/mlflow.db").get_run(version.run_id).data.metrics.keys()
    # then: the service takes it, and gives it back, and fails nobody
    with project.serving(OG_SERVE__WATCH_SECONDS="0.5") as url:
        example = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]["Record"]["examples"][0]

        def asked() -> str:
            reply = httpx.post(f"{url}/predict", json=example)
            assert reply.status_code == 200, reply.text
            return reply.json()["model_version"]

        assert asked() == "1"
        assert said(project, "promote", "--reason", "retrained")["to_version"] == new
        wait_until(lambda: asked() == new)
        assert said(project, "rollback", "--reason", "a test")["to_version"] == "1"
        wait_until(lambda: asked() == "1")
    past = said(project, "history")[len(before) :]
    assert [(c["kind"], c["from_version"], c["to_version"]) for c in past] == [("promote", "1", new), ("rollback", new, "1")]
    between = datetime.fromisoformat(past[0]["at"]).astimezone(UTC)
    assert said(project, "history", "--at", between.isoformat())["to_version"] == new
    assert "nothing served then" in project.run("og", "history", "--at", "2001-01-01").stdout


@pytest.mark.slow
def test_a_refused_version_is_not_promoted_unless_somebody_says_why(project):
    project.run("og", "run", "train", "-p", "until", problem.WHOLE, OG_MODEL='{"num_boost_round": 1, "num_leaves": 3, "learning_rate": 0.001}')
    project.run("og", "run", "evaluate")
    worst = said(project, "register")["version"]
    strict = QUICK | {"OG_GATE__MAX_LOSS": "0"}
    refusal = project.run("og", "gate", check=False, **strict)
    assert refusal.returncode == REFUSED and "REFUSED quality" in refusal.stdout and "needed:" in refusal.stdout
    verdict = json.loads((project.folder / "reports/gate.json").read_text())
    assert verdict["version"] == worst and "quality" in {check["name"] for check in verdict["checks"] if not check["passed"]}
    assert f"version {worst} was refused" in project.run("og", "promote", check=False).stderr
    assert said(project, "gate", OG_GATE__MODE="dry-run", **strict)["passed"] is False
    assert said(project, "gate", OG_GATE__MODE="off")["passed"] is True
    assert "say why" in project.run("og", "promote", "--force", check=False).stderr
    assert said(project, "promote", "--force", "--reason", "to see what happens")["verdict"] == "refused"
    assert said(project, "rollback")["to_version"] == "1"


def test_every_limit_has_its_reason():
    from og_project.config import root

    lines = [line for line in (root() / "config/gate.yml").read_text().splitlines() if not line.startswith("#")]
    assert {line.split(":")[0] for line in lines} == set(GateSettings.model_fields)
    assert all(len(line.split("#")[1]) > 30 for line in lines)


@pytest.mark.parametrize("verb", ["register", "gate", "promote", "rollback", "history"])
def test_help_teaches(verb):
    text = CliRunner().invoke(og, [verb, "--help"]).output
    assert "--json" in text and len(text) > 250
