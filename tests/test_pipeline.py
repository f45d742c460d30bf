"""The pipeline as its users run it, on a copy of the project with a share of the real data. Each test leaves the copy as it was."""
import hashlib
import json
import os
import re
import shutil
import signal
import time

import httpx
import pandas as pd
import problem
import pytest
from fields import DECIDING, REQUIRED, VALUE
from processes import free_port, wait_until
from projects import Project, small_project

from og_project.config import root
from og_project.data.contract import Record
from og_project.lifecycle.pipeline import read_stages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    "Made by Ploomber, taken over by DVC, kept by git."
    made = small_project(tmp_path_factory.mktemp("pipeline") / "copy")
    made.run("ploomber", "build")
    made.run("dvc", "commit", "-f")
    made.run("git", "add", "-A")
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "state")
    return made


@pytest.fixture(scope="module")
def registered(project) -> str:
    "What the first registration says."
    return project.run("og", "register", "--promote-first").stdout


def products(project: Project) -> dict[str, str]:
    "Path -> SHA-256 of every product; reports carry times and are none."
    paths = [path for stage in read_stages().values() for kind, path in stage["product"].items() if kind != "nb"]
    files = [f for path in paths for f in ([project.folder / path] if "." in path else sorted((project.folder / path).rglob("*")))]
    return {f.relative_to(project.folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


def edit(project: Project, notebook: str, old: str, new: str) -> None:
    "Change the text of a notebook, which must be there once."
    path = project.folder / "nbs" / notebook
    text = path.read_text()
    old, new = (json.dumps(part, ensure_ascii=False)[1:-1] for part in (old, new))  # as it stands in the file
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {notebook}"
    path.write_text(text.replace(old, new))


def test_ploomber_build_makes_every_product(project):
    made = products(project)
    assert len(made) > 12 and "models/model/manifest.json" in made
    assert all((project.folder / stage["product"]["nb"]).exists() for stage in read_stages().values())


def test_dvc_takes_over_what_ploomber_made(project):
    before = products(project)
    assert "up to date" in project.run("dvc", "repro").stdout
    assert "up to date" in project.run("dvc", "status").stdout and products(project) == before


def test_a_downloaded_archive_in_an_odd_folder_makes_the_same_bytes_by_dvc(project, tmp_path):
    "No git, and a path with a blank, an apostrophe and a letter outside ASCII. (DVC itself fails where a folder has braces in its name.)"
    again = small_project(tmp_path / "a folder of Zoë's")
    shutil.rmtree(again.folder / ".git")
    (again.folder / ".venv").symlink_to(root() / ".venv")
    again.run(".ci/hooks")
    again.run("dvc", "repro")
    assert products(again) == products(project)
    assert "version 1" in again.run("og", "register", "--promote-first").stdout
    with again.serving() as url:
        example = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]["Record"]["examples"][0]
        assert httpx.post(f"{url}/predict/", json=example).status_code == 200, "with a slash at its end"


def test_the_commands_work_as_their_users_know_them(project):
    assert "ingest" in project.run("ploomber", "status").stdout
    assert "evaluate" in project.run("dvc", "dag").stdout
    assert DECIDING in project.run("dvc", "metrics", "show").stdout
    project.run("dvc", "plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert all(plot in page for plot in problem.PLOTS)


def test_the_graph_can_be_seen(project):
    project.run("ploomber", "plot", "--backend", "d3", "--output", "graph.html")
    assert (project.folder / "graph.html").stat().st_size > 1000


def test_reports_open_with_what_was_found_and_fold_the_code(project, browser):
    for stage in read_stages().values():
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda e, errors=errors: errors.append(str(e)))
        page.goto((project.folder / stage["product"]["nb"]).as_uri(), wait_until="domcontentloaded")  # MathJax's server is not reached from here
        assert page.locator("h2").first.inner_text().startswith("What was found")
        code = page.locator(".jp-CodeCell .jp-Cell-inputWrapper").first
        assert code.is_hidden()
        page.check("#code")
        assert code.is_visible() and not errors, errors
        page.close()


def test_editing_prose_re_runs_nothing_in_ploomber(project):
    project.run("ploomber", "build")  # whatever ran by other means before
    edit(project, "04_features.ipynb", *problem.PROSE)
    built = project.run("ploomber", "build").stdout
    edit(project, "04_features.ipynb", *reversed(problem.PROSE))
    assert "True" not in built, built


def test_editing_a_feature_re_runs_what_follows_and_nothing_before(project):
    edit(project, "04_features.ipynb", *problem.FEATURE)
    project.run("nbdev_export")
    assert "Source code" in project.run("ploomber", "status").stdout
    stale = project.run("dvc", "status", "--json").stdout
    assert set(json.loads(stale)) == {"features", "train", "evaluate"}
    edit(project, "04_features.ipynb", *reversed(problem.FEATURE))
    project.run("nbdev_export")
    assert "up to date" in project.run("dvc", "status").stdout


@pytest.mark.parametrize("runner", [("og", "run", "train"), ("ploomber", "build"), ("dvc", "repro")])
def test_a_failing_cell_is_in_plain_sight_and_changes_nothing(project, runner):
    before, notebook = products(project), project.folder / "nbs/06_train.ipynb"
    good = notebook.read_text()
    edit(project, "06_train.ipynb", "rounds, loss on the validation months", "{1/0} rounds, loss on the validation months")
    try:
        done = project.run(*runner, check=False)
    finally:
        notebook.write_text(good)
    told = done.stdout + done.stderr
    assert done.returncode != 0 and "ZeroDivisionError" in told and "06_train" in told and "{1/0} rounds, loss on" in told
    half = json.loads((project.folder / "reports/06_train.ipynb").read_text())
    assert any(o.get("ename") == "ZeroDivisionError" for cell in half["cells"] for o in cell.get("outputs", []))
    assert products(project) == before


def test_interrupting_is_safe(project):
    before = products(project)
    draft = project.folder / "data/processed/.features.parquet.draft"
    with project.start("og", "run", "features") as run:
        while not list(draft.parent.glob(f".{draft.name}*")) and not draft.exists():
            if run.poll() == 0:
                pytest.skip("this problem's stage is over before it can be interrupted")
            assert run.poll() is None, "the stage ended before it wrote anything"
            time.sleep(0.01)  # until it is in the middle of its work
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(600) != 0
    assert products(project) == before
    project.run("og", "run", "features")  # what was left behind is in nobody's way
    assert products(project) == before


def test_parameters_are_set_on_the_command_line_and_recorded(project):
    before = products(project)
    project.run("og", "run", "train", "-p", "seed", "2")
    other = products(project)
    assert other["models/fitted/encoder.json"] != before["models/fitted/encoder.json"]
    assert json.loads((project.folder / "models/fitted/encoder.json").read_text())["seed"] == 2
    project.run("ploomber", "build", "--env--seed", "2", "--partially", "train", "--force")
    assert products(project)["models/fitted/encoder.json"] == other["models/fitted/encoder.json"]
    project.run("dvc", "checkout", "--force")
    project.run("dvc", "exp", "run", "--set-param", "env.yaml:seed=2", "train")
    assert products(project)["models/fitted/encoder.json"] == other["models/fitted/encoder.json"]
    assert "seed: 2" in (project.folder / "dvc.lock").read_text()
    project.run("git", "checkout", "-q", "env.yaml", "dvc.lock")
    project.run("dvc", "checkout", "--force")
    assert products(project) == before


def test_a_registered_version_says_where_it_came_from(project, registered):
    from mlflow import MlflowClient

    assert problem.BASELINE in registered and "make serve" in registered
    mlflow = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    version = mlflow.get_model_version_by_alias("og_project", "champion")
    assert {"git_commit", "data_sha256", "until", "fingerprint", DECIDING} <= version.tags.keys()
    parent = mlflow.get_run(version.run_id)
    assert DECIDING in parent.data.metrics and parent.data.params["until"] == problem.WHOLE and parent.inputs.dataset_inputs
    nested = mlflow.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
    assert {run.data.tags["stage"] for run in nested} == set(read_stages())
    files = {item.path for run in nested for item in mlflow.list_artifacts(run.info.run_id)}
    assert {"03_ingest.html", "04_features.html", "06_train.html", "07_evaluate.html", "pictures"} <= files
    # what was set on a command line is recorded as it was, whatever env.yaml says
    project.run("og", "run", "train", "-p", "seed", "3")
    project.run("og", "run", "evaluate")
    project.run("og", "register")
    newest = mlflow.search_model_versions("name='og_project'", order_by=["version_number DESC"])[0]
    assert mlflow.get_run(newest.run_id).data.params["seed"] == "3" and parent.data.params["seed"] == "1"
    project.run("dvc", "checkout", "--force")
    # the same model again is the same version
    assert f"version {version.version}" in project.run("og", "register").stdout
    assert len(mlflow.search_model_versions("name='og_project'")) == 2


def test_the_note_says_the_same_in_both_languages_and_opens(project, browser):
    project.run("og", "note")
    texts = [(project.folder / f"docs/{name}").read_text() for name in ("note.md", "note.ru.md")]
    numbers = [re.findall(r"\d+(?:\.\d+)?", text) for text in texts]
    assert numbers[0] == numbers[1] and len(numbers[0]) > 20 and DECIDING in texts[1]
    heads = [re.findall(r"(?m)^#+ ", text) for text in texts]
    assert heads[0] == heads[1] and "import" not in texts[0]
    page = browser.new_page()
    page.goto((project.folder / "reports/note.html").as_uri())
    assert page.locator("section").count() == 2 and page.locator("table").count() >= 6
    assert page.locator("h1").all_inner_texts()[0] == "Analytical note"
    page.close()


def test_mlflows_pages_of_run_and_version_say_what_the_model_is(project, registered, browser):
    from mlflow import MlflowClient

    version = MlflowClient(f"sqlite:///{project.folder}/mlflow.db").get_model_version_by_alias("og_project", "champion")
    port, page = free_port(), browser.new_page()
    page.set_default_timeout(90_000)
    at = f"http://127.0.0.1:{port}/"
    command = ("mlflow", "server", "--backend-store-uri", "sqlite:///mlflow.db", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    with project.start(*command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as server:
        wait_until(lambda: httpx.get(at + "health").status_code == 200, server, 90)
        page.goto(f"{at}#/models/og_project/versions/{version.version}")
        page.wait_for_selector(f"text=Inputs ({len(Record.model_fields)})")
        page.wait_for_selector(f"text={Record.model_fields[REQUIRED].description[:19]}")  # of the contract
        run = MlflowClient(at).get_run(version.run_id).info
        page.goto(f"{at}#/experiments/{run.experiment_id}/runs/{run.run_id}")
        page.wait_for_selector("text=Model card")
        page.goto(f"{at}#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts")
        page.get_by_text("model", exact=True).last.click()
        page.wait_for_selector("text=input_example.json")
    page.close()


def test_everybody_gives_the_same_answer_bit_by_bit(project, registered):
    "The service, the exported function, MLflow's python function, `mlflow models serve`, and the evaluation notebook."
    asked, expected = problem.last_predictions(project.folder)
    # the exported function on the fetched folder, and MLflow's python function
    code = """
import json, sys, mlflow, pandas as pd
from og_project.config import settings
from og_project.data.contract import Record
from og_project.lifecycle.registry import champion, fetch
from og_project.model.estimator import load, predict, rows_table
from og_project.model.estimator import SCORE
from pathlib import Path
VALUE = SCORE[0]
mlflow.set_tracking_uri("sqlite:///mlflow.db")
asked = json.load(open("asked.json"))
folder = fetch(settings(), champion(settings()), Path("models/versions"))
function = predict(load(folder), rows_table(Record(**row) for row in asked))[VALUE].tolist()
pyfunc = mlflow.pyfunc.load_model("models:/og_project@champion").predict(pd.DataFrame(asked))[VALUE].tolist()
json.dump([function, pyfunc], open("answers.json", "w"))
"""
    (project.folder / "asked.json").write_text(json.dumps(asked))
    project.run("python", "-c", code)
    assert json.loads((project.folder / "answers.json").read_text()) == [expected, expected]
    # the service
    with project.serving() as url:
        many = httpx.post(f"{url}/predict", json=asked, timeout=600).json()
        one = httpx.post(f"{url}/predict", json=asked[0], timeout=600).json()["predictions"]
    assert [row[VALUE] for row in many["predictions"]] == expected and many["model_version"] == "1"
    assert one[0][VALUE] == expected[0]
    # MLflow's own server
    port = free_port()
    frame = pd.DataFrame(asked).astype(object).where(lambda f: f.notna(), None)
    body = {"dataframe_split": {"columns": list(frame), "data": frame.to_numpy().tolist()}}
    command = ("mlflow", "models", "serve", "-m", "models:/og_project@champion", "--env-manager", "local", "-p", str(port))
    with project.start(*command, MLFLOW_TRACKING_URI="sqlite:///mlflow.db") as server:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200, server)
        reply = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=600)
    assert reply.status_code == 200, reply.text
    assert [row[VALUE] for row in reply.json()["predictions"]] == expected
