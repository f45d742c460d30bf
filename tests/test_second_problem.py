"""Another problem in place of the example: a regression, on another table, with other columns, types and metrics.

`tests/second_problem/` holds what an analyst would write: four notebooks, the parameters, the learner's objective, and the
graph with fewer products. It is laid over a copy of the project, and everything else runs as it is."""
import difflib
import json
import shutil
from pathlib import Path

import httpx
import pytest
from conftest import copy_project

from og_project.config import root

pytestmark = pytest.mark.slow
SECOND = Path(__file__).parent / "second_problem"
PLATFORM = [*(f"og_project/{name}.py" for name in ("config", "store", "cli")), "og_project/lifecycle", "og_project/serving", "app.py"]


def lines(path: Path) -> list[str]:
    "The lines that a person writes: of a notebook, those of its cells."
    if path.suffix != ".ipynb":
        return path.read_text().splitlines()
    return [line for cell in json.loads(path.read_text())["cells"] for line in "".join(cell["source"]).splitlines()]


def new_lines() -> dict[str, int]:
    "For each file of the second problem: how many of its lines do not stand in the example's."
    found = {}
    for path in sorted(p for p in SECOND.rglob("*") if p.is_file()):
        name = path.relative_to(SECOND)
        differing = difflib.ndiff(lines(root() / name), lines(path))
        found[str(name)] = sum(line.startswith("+ ") and bool(line[2:].strip()) for line in differing)
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = copy_project(tmp_path_factory.mktemp("second") / "copy")
    shutil.copytree(SECOND, made.folder, dirs_exist_ok=True)
    made.run("nbdev_export")
    made.run("og", "dag")
    return made


def platform(folder: Path) -> dict[str, str]:
    files = [f for name in PLATFORM for f in ([folder / name] if name.endswith(".py") else sorted((folder / name).glob("*.py")))]
    return {str(f.relative_to(folder)): f.read_text() for f in files}


def test_it_runs_through_pipeline_registry_and_service(project):
    project.run("dvc", "repro")
    metrics = json.loads((project.folder / "reports/metrics.json").read_text())
    assert metrics["model"]["rmse"] < metrics["as_it_is_now"]["rmse"]
    said = project.run("og", "register", "--promote-first").stdout
    assert "rmse" in said and "as_it_is_now" in said
    with project.serving() as url:
        example = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]["Record"]["examples"][0]
        reply = httpx.post(f"{url}/predict?explain=true", json=example)
        wrong = httpx.post(f"{url}/predict", json=example | {"temp": 1000})
        v2 = httpx.get(f"{url}/v2/models/og_project").json()
    assert reply.status_code == 200 and set(reply.json()["predictions"][0]) == {"id", "warmer", "reasons"}
    assert {tensor["name"] for tensor in v2["outputs"]} == {"id", "warmer"}
    assert wrong.status_code == 422 and wrong.json()["detail"][0]["loc"][-1] == "temp"


def test_no_platform_file_changed(project):
    assert platform(project.folder) == platform(root())


def test_little_had_to_be_written(capsys):
    found = new_lines()
    with capsys.disabled():
        print("\nlines of the second problem that are not the example's:", found, "in all", sum(found.values()))
    assert 0 < sum(found.values()) < 150
