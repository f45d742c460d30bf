"""Every starter, made into a project under another name, goes through what its owner would do: set up, pipeline, lint, the notebooks' tests, the
quick tests (of one starter, all of them), the sample of a change, the service, drift and the gate. `make starters-test` runs it: STARTERS says so."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from habits import HABITS, STOPPED, written
from processes import free_port, wait_until

from og_project.config import root
from og_project.lifecycle.template import new, render, starters

OTHERS = list(starters(root())["problems"])[1:]
WHOLE = OTHERS[-1]  # the last one: where the time ends too early, the rest was seen
pytestmark = pytest.mark.skipif("STARTERS" not in os.environ, reason="make starters-test sets STARTERS")


@pytest.fixture(scope="module", params=OTHERS)
def project(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("starters") / request.param
    new("bike-rides", request.param, folder, root())
    return folder


def run(folder: Path, *command: str, check: bool = True, both: bool = True, **more: str) -> str:
    "What a command says, as in a fresh shell, on both streams or on the first alone; what was installed for the template is not on its path."
    kept = ("HOME", "LANG", "PATH", "UV_CACHE_DIR", "PIP_CACHE_DIR", "DOCKER_HOST")
    clean = {name: value for name, value in os.environ.items() if name in kept or "proxy" in name.lower()}
    path = ":".join(part for part in clean["PATH"].split(":") if not part.startswith(str(root())))
    env = clean | {"PATH": f"{folder}/.venv/bin:{path}", "OMP_NUM_THREADS": "1"} | more
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr * both


def test_the_main_job(project):
    assert "champion    version 1" in run(project, "make", "pipeline")


def test_lint(project):
    assert "All checks passed" in run(project, "make", "lint")
    assert run(project, "git", "status", "--porcelain", "--", "nbs", "bike_rides", "db").strip() == ""


def test_the_notebooks(project, tmp_path):
    if project.name == WHOLE:
        pytest.skip("all of its tests are run below")
    run(project, "nbdev_test", "--n_workers", "2", TMPDIR=str(tmp_path))


def test_the_quick_tests(project):
    if project.name == WHOLE:
        pytest.skip("all of its tests are run below")
    assert re.search(r"^\d+ passed", run(project, "pytest", "-m", "not slow and not server"), re.M)


def test_the_sample_of_a_change(project):
    run(project, "git", "add", "-A")
    run(project, "git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "run")
    said = run(project, "python", ".ci/sample.py", "template")
    assert "| metric | before | now | change |" in said and "+0.0000" in said


def test_its_image_answers(project):
    if project.name != "classes":
        pytest.skip("once is enough")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers")
    assert re.search(r"^\d+ passed", run(project, "make", "image-test"), re.M)
    image = "bike-rides:" + run(project, "git", "rev-parse", "--short", "HEAD").strip()
    assert "Usage: bike_rides" in run(project, "docker", "run", "--rm", image, "--help")


def test_service_feedback_drift_and_gate(project):
    port = str(free_port())
    env = {"BIKE_RIDES_SERVE__PORT": port, "BIKE_RIDES_JOURNAL__SHIP_SECONDS": "0.2"}
    with (project / "service.log").open("wb") as log:
        server = subprocess.Popen([project / ".venv/bin/bike_rides", "serve"], cwd=project, env=os.environ | env, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
            wait_until(lambda: client.get("/health/ready").status_code == 200, server)
            example = client.get("/openapi.json").json()["components"]["schemas"]["Record"]["examples"][0]
            answers = client.post("/predict?explain=true", json=[example] * 3).json()["predictions"]
            assert len(answers[0]["reasons"]) > 0
            ids = [row["id"] for row in client.post("/predict", json=[example] * 300).json()["predictions"]]
            outcome = {"regression": 3.5, "binary": True, "multiclass": "3"}[task(project)]
            reports = [{"id": name, "outcome": outcome} for name in ids[:9]]
            reply = client.post("/feedback", json=[*reports, {"id": ids[9], "outcome": ["no", "outcome"]}])
            assert reply.status_code == 207 and [item["status"] for item in reply.json()["results"]] == ["recorded"] * 9 + ["refused"]
            for path in ("/invocations",):
                assert client.post(path, json={"dataframe_records": [example]}).status_code == 200
            wait_until(lambda: client.get("/drift").json()["quality"].get("outcomes") == 9)
    finally:
        server.terminate()
        server.wait(600)
    report = json.loads(run(project, "bike_rides", "monitor", "--once", "--json", both=False))
    assert report["rows"] >= 300 and max(d["psi"] for d in report["drift"]) > 1
    for command in (["run", "train", "-p", "seed", "2"], ["run", "evaluate"], ["register"]):
        run(project, "bike_rides", *command)
    said = run(project, "bike_rides", "gate", check=False)
    assert "version 2 passed" in said or "version 2 refused" in said or "is the champion already" in said, said


def task(project: Path) -> str:
    return run(project, "python", "-c", "from bike_rides.data.contract import TASK; print(TASK)").strip()


def test_what_is_made_of_it_is_in_step(project):
    "In the template: what a project is made of with nothing installed is what its notebooks make."
    done = subprocess.run([sys.executable, "starters/make.py", "--check", project.name], cwd=root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_of_its_tests(project):
    "The README's second command, on a clean checkout."
    if project.name != WHOLE:
        pytest.skip("once is enough")
    said = run(project, "make", "test")
    assert re.search(r"\b\d+ passed", said) and " failed" not in said.splitlines()[-1], said


def test_another_problem_takes_the_place_of_the_starters(project, tmp_path):
    "As an owner does it: the notebooks of another problem, then the main job; its first model serves, whatever the starter's champion was."
    if project.name != "number":
        pytest.skip("once is enough")
    render(root(), tmp_path / "other", "bike-rides", "classes")
    for name in ("nbs", "config", "tests/problem", "bike_rides", "pipeline.yaml", "env.yaml"):
        source = tmp_path / "other" / name
        shutil.copytree(source, project / name, dirs_exist_ok=True) if source.is_dir() else shutil.copy(source, project / name)
    said = run(project, "make", "export", "dag", "pipeline")
    assert "is of another contract and cannot serve" in said and "champion    version 1\n" not in said
    found = run(project, "bike_rides", "check", check=False)
    assert "the notebooks of the problem fit" in found or "still the starter's" in found


@pytest.mark.parametrize("habit", [habit for habit in HABITS if habit not in STOPPED])
def test_an_adopted_notebook_reaches_the_end(project, habit, tmp_path):
    "As its owner does it: adopt, mend what a program can, and run the main job; nothing is touched by hand."
    if project.name != "classes":
        pytest.skip("once is enough")
    commit = ("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "--no-verify", "-qam", "as it is")
    run(project, *commit, check=False)
    start = run(project, "git", "rev-parse", "HEAD").strip()
    try:
        assert "next    read 02_contract" in run(project, "bike_rides", "adopt", str(written(habit, tmp_path)))
        lock = ["lock"] if habit == next(iter(HABITS)) else []  # asks the package index: once is enough
        said = run(project, "make", *lock, "fix", "export", "pipeline")
        assert "always_the_same" in said and "champion" in said
        found = run(project, "bike_rides", "check", check=False)
        assert "still the starter's" in found and found.count("\nnbs/") == 2 - len(lock), f"its prose is left to be replaced: {found}"
        assert lock or "it imports pandas, which the service's image does not have" in found
    finally:
        run(project, "git", "reset", "-q", "--hard", start)
        run(project, "git", "clean", "-fdq", "raw")
