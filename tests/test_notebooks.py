"Notebooks are stored clean, in step with the package, and cleaning them takes nothing away that a pipeline needs."
import json

import pytest
from conftest import copy_project

from og_project.config import root
from og_project.lifecycle.pipeline import read_stages


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    project = copy_project(tmp_path_factory.mktemp("notebooks") / "copy")
    project.run("nbdev_clean")
    project.run("nbdev_export")
    return project


def test_the_parameters_tag_survives_cleaning(cleaned):
    for stage in read_stages().values():
        cells = json.loads((cleaned.folder / stage["source"]).read_text())["cells"]
        assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1, stage["source"]


def test_committed_notebooks_are_clean_and_the_package_is_what_they_export(cleaned):
    for folder in ("nbs", "og_project"):
        for path in sorted((root() / folder).rglob("*")):
            if path.suffix in (".ipynb", ".py") and ".ipynb_checkpoints" not in path.parts:
                same = (cleaned.folder / path.relative_to(root())).read_text() == path.read_text()
                assert same, f"{path.relative_to(root())}: run `make export`"


def test_the_generated_files_follow_the_graph(cleaned):
    cleaned.run("og", "dag", "--check")


def test_a_change_of_the_graph_is_noticed(cleaned, tmp_path):
    changed = cleaned.folder / "pipeline.yaml"
    good = changed.read_text()
    changed.write_text(good.replace("data/interim/records.parquet", "data/interim/rows.parquet"))
    assert cleaned.run("og", "dag", "--check", check=False).returncode == 1
    changed.write_text(good)


def test_a_notebook_with_output_is_not_clean(cleaned):
    path = cleaned.folder / "nbs/00_config.ipynb"
    notebook = json.loads(path.read_text())
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["execution_count"] = 7
    path.write_text(json.dumps(notebook))
    cleaned.run("nbdev_clean")
    assert '"execution_count": 7' not in path.read_text()
