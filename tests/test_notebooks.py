"Notebooks are stored clean, in step with the package, and cleaning them takes nothing away that a pipeline needs."
import json
import shutil

import problem
import pytest
from projects import Project, copy_project, small_project

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


def test_an_import_that_the_services_image_lacks_is_found(cleaned):
    place = cleaned.folder / "og_project/features.py"
    before = place.read_text()
    place.write_text(before.replace("\nimport numpy as np\n", "\nimport numpy as np\nimport pandas\n", 1))
    done = cleaned.run("og", "check", check=False)
    place.write_text(before)
    assert done.returncode == 1 and "nbs/04_features.ipynb: it imports pandas, which the service's image does not have" in done.stderr, done.stderr


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


# --- as people have them ----------------------------------------------------------------------------------------------------

CODE = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("people") / "a folder of Zoë's", every=40)


def change(path, edit) -> None:
    notebook = json.loads(path.read_text())
    edit(notebook)
    path.write_text(json.dumps(notebook))


def add(*sources: str):
    "Cells right below the parameters."
    def edit(notebook) -> None:
        at = next(i for i, cell in enumerate(notebook["cells"]) if cell["metadata"].get("tags") == ["parameters"])
        notebook["cells"][at + 1:at + 1] = [CODE | {"source": source} for source in sources]
    return edit


def without_kernel(notebook) -> None:
    notebook["metadata"].pop("kernelspec")


def older(notebook) -> None:
    notebook["nbformat_minor"] = 4
    [cell.pop("id", None) for cell in notebook["cells"]]


def with_outputs(notebook) -> None:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 3, "outputs": [{"output_type": "stream", "name": "stdout", "text": ["old"]}]}


EVERYTHING = [add("%matplotlib inline", "!ls", "%%time\nx = 1", "sorted?", "# nothing but a comment", "found = !ls", "", "%%bash\nls | wc"),
              without_kernel, older, with_outputs]


@pytest.mark.slow
def test_a_notebook_as_people_have_it_runs_everywhere(small):
    path = small.folder / "nbs/03_ingest.ipynb"
    good = path.read_text()
    for edit in EVERYTHING:
        change(path, edit)
    small.run("og", "dag")
    small.run("og", "run", "ingest")
    report = (small.folder / "reports/03_ingest.html").read_text()
    assert str(small.folder) not in report and "What was found" in report and "show the code" in report
    small.run("ploomber", "build", "--partially", "ingest", "--force")
    small.run("nbdev_export")
    small.run("og", "clean")
    cells = json.loads(path.read_text())["cells"]
    run = next(i for i, cell in enumerate(cells) if "".join(cell["source"]).startswith("## Run"))
    assert not any(cell.get("outputs") for cell in cells[run:]), "what a run shows is in its report"
    path.write_text(good)


@pytest.mark.parametrize("edit, said", [
    (lambda notebook: [cell.update(metadata={}) for cell in notebook["cells"]], "no cell is tagged `parameters`"),
    (lambda notebook: notebook["cells"].append(CODE | {"metadata": {"tags": ["parameters"]}, "source": "a = 1"}), "2 cells are tagged"),
    (lambda notebook: notebook.update(cells=[c for c in notebook["cells"] if "## Run" not in "".join(c["source"])]), "no text cell that begins"),
    (add("a = = 1"), "line 1 of the cell"),
    (lambda notebook: notebook.pop("cells"), "no list of cells"),
])
def test_what_cannot_run_is_one_line_that_says_where_and_what_to_do(small, edit, said):
    path = small.folder / "nbs/06_train.ipynb"
    good = path.read_text()
    change(path, edit)
    for command in (("og", "run", "train"), ("og", "dag", "--check"), ("ploomber", "status")):
        if command[1] == "run" and not (small.folder / "data/processed/lookups").exists():
            (small.folder / "data/processed/lookups").mkdir(parents=True)
        done = small.run(*command, check=False)
        told = done.stdout + done.stderr
        assert done.returncode and ("Traceback" not in told), told[-500:]
        assert said in told or (command[1] == "run" and "which is not there" in told), told[-500:]
    path.write_text(good)


@pytest.mark.skipif(not problem.WHOLE, reason="this problem has no days")
def test_a_day_without_quotes_is_one_line_that_says_so(small):
    env = small.folder / "env.yaml"
    good = env.read_text()
    env.write_text(good.replace(f'"{problem.WHOLE}"', problem.WHOLE))
    for command in (("og", "run", "ingest"), ("og", "run", "all"), ("ploomber", "build")):
        done = small.run(*command, check=False)
        assert done.returncode and f'write until: "{problem.WHOLE}"' in done.stdout + done.stderr and "Traceback" not in done.stderr
    env.write_text(good)


@pytest.mark.slow
def test_braces_in_the_name_of_a_folder_are_no_pattern(small, tmp_path):
    braces = Project(shutil.copytree(small.folder, tmp_path / "a {b} and {c,d}"))
    braces.run("og", "run", "ingest")
    braces.run("ploomber", "build", "--partially", "features", "--force")
    assert (braces.folder / "data/processed/features.parquet").exists()
