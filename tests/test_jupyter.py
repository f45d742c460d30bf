"""JupyterLab and Notebook as an analyst opens them: in a real browser, on a copy of the project, from the environment as `make setup` left it."""
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import free_port, wait_until
from projects import Project, small_project

from og_project.config import root
from og_project.lifecycle.pipeline import read_stages

NOTEBOOKS = sorted(path.name for path in (root() / "nbs").glob("*.ipynb"))
STAGES = [Path(stage["source"]).name for stage in read_stages().values()]


MODEL = "window.jupyterapp.shell.currentWidget.content.model.toJSON()"
READY = "() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
ENDED = "() => {const notebook = " + MODEL + """;
  const cells = notebook.cells.filter(cell => cell.cell_type === 'code' && [].concat(cell.source).join('').trim());
  return cells.every(cell => cell.execution_count) || cells.some(cell => cell.outputs.some(output => output.output_type === 'error'));
}"""


def whole(file: Path) -> bool:
    "Is all of a notebook there?"
    try:
        return bool(json.loads(file.read_text()))
    except ValueError:
        return False


@dataclass
class Jupyter:
    "A Jupyter server over a copy of the project, and a page on it."

    project: Project
    url: str
    page: Any
    token = {"authorization": "token for-a-test"}

    def open(self, notebook: str) -> None:
        "Open a notebook by a double click in the list of files."
        item = self.page.locator(f'.jp-DirListing-item:has-text("{notebook}")')
        item.scroll_into_view_if_needed()
        item.dblclick()
        self.page.wait_for_selector(f'.lm-TabBar-tab.lm-mod-current:has-text("{notebook}")')
        self.shown()

    def shown(self) -> None:
        "Wait until a notebook is there, and no message in its place."
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell", timeout=60_000)
        assert not self.page.locator(".jp-Dialog").count(), self.page.locator(".jp-Dialog").inner_text()

    def view(self, notebook: str) -> None:
        "Open a notebook without a kernel: thirty of them would take a minute to start and to stop."
        self.page.evaluate("async path => { await window.jupyterapp.commands.execute('docmanager:open', "  # no value: it would be the whole page
                           "{path, factory: 'Notebook', kernelPreference: {shouldStart: false, canStart: false}}); }", f"nbs/{notebook}")
        self.page.wait_for_selector(f'.lm-TabBar-tab.lm-mod-current:has-text("{notebook}")')
        self.shown()

    def cells(self) -> list[dict]:
        "The code cells of the notebook in front, as the page has them."
        return [cell for cell in self.page.evaluate(MODEL)["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]

    def run_all(self) -> None:
        "Run every cell from top to bottom, and wait for the last."
        self.page.wait_for_function(READY)  # whoever runs a notebook that has no kernel yet is asked for one; the indicator says idle before, too
        self.page.click('.lm-MenuBar-itemLabel:text-is("Run")')
        self.page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        self.page.wait_for_function(ENDED, polling=500, timeout=300_000)
        assert [output["evalue"] for cell in self.cells() for output in cell["outputs"] if output["output_type"] == "error"] == []

    def add(self, text: str) -> None:
        "Type a line at the end of the second code cell."
        self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .cm-content").nth(1).click()
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(f"\n{text}")

    def save(self, notebook: str) -> None:
        "Save, and wait until the file is written."
        file = self.project.folder / "nbs" / notebook
        before = file.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        wait_until(lambda: file.stat().st_mtime_ns != before and whole(file), seconds=30)  # Jupyter empties the file, then writes it
        assert not self.page.locator(".jp-Dialog").count()

    def changed(self) -> list[str]:
        "The lines that git sees added, removed or new."
        lines = self.project.run("git", "diff", "--no-textconv", "--unified=0").stdout.splitlines()
        return [line for line in lines if line[:1] in "+-" and not line.startswith(("+++", "---"))]


def serve(folder: Path, project: Project, browser, command: str, path: str, *options: str) -> Iterator[Jupyter]:
    "A server started in a folder as a newcomer starts it: nothing in its environment or home tells it where the project is, or what was open."
    port = free_port()
    alone = ("--no-browser", "--IdentityProvider.token=for-a-test", "--allow-root", f"--port={port}")
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    home = project.folder.parent / f"home-{command}"
    home.mkdir()
    bare = {"OG_ROOT": "", "PYTHONPATH": "", "HOME": str(home)}
    with Project(folder).start("jupyter", command, *alone, *options, log=project.folder.parent / f"{command}.log", **bare) as process:
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/api/status", headers=Jupyter.token).status_code == 200, process)
        page.goto(f"http://127.0.0.1:{port}{path}?token=for-a-test")
        yield Jupyter(project, f"http://127.0.0.1:{port}", page)
        page.close()
        os.killpg(process.pid, signal.SIGKILL)  # asked to end while a kernel starts, it waits for ever; its kernels look whether it lives
        process.wait(600)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = small_project(tmp_path_factory.mktemp("jupyter") / "a copy", every=40)
    made.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qam", "small")
    return made


@pytest.fixture(scope="module")
def lab(project, browser) -> Iterator[Jupyter]:
    "JupyterLab as `make lab` starts it."
    for made in serve(project.folder, project, browser, "lab", "/lab", "--ServerApp.preferred_dir=nbs", "--LabApp.expose_app_in_browser=True"):
        made.page.wait_for_selector(".jp-DirListing-item")
        yield made


@pytest.mark.parametrize("notebook", STAGES)
def test_a_stage_runs_from_top_to_bottom_and_git_sees_the_edit_alone(lab, notebook):
    lab.open(notebook)
    lab.run_all()
    lab.add("# a note of mine")
    lab.save(notebook)
    removed, kept, added = lab.changed()
    assert (removed[:1], kept[:1], added[:1]) == ("-", "+", "+") and removed.strip(' -"') in kept and "# a note of mine" in added
    cells = json.loads((lab.project.folder / "nbs" / notebook).read_text())["cells"]
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1
    assert "are clean" in lab.project.run("og", "clean").stdout and len(lab.changed()) == 3
    lab.project.run("git", "checkout", "-q", "nbs")
    lab.page.click('.lm-MenuBar-itemLabel:text-is("File")')
    lab.page.click('.lm-Menu-itemLabel:text-is("Close and Shut Down Notebook…")')
    lab.page.click('.jp-Dialog button.jp-mod-warn, .jp-Dialog button.jp-mod-accept')
    lab.page.wait_for_selector(f'.lm-TabBar-tab:has-text("{notebook}")', state="detached")


def test_the_list_shows_every_notebook_and_each_of_them_opens(lab):
    wait_until(lambda: "index.ipynb" in lab.page.locator(".jp-DirListing-itemName").all_inner_texts())
    listed = lab.page.locator(".jp-DirListing-itemName").all_inner_texts()
    assert [name for name in listed if name.endswith(".ipynb")] == NOTEBOOKS
    running = lambda: len(httpx.get(f"{lab.url}/api/kernels", headers=lab.token).json())
    before = running()
    for notebook in NOTEBOOKS:  # those of the stages are opened by a double click, and run, above
        lab.view(notebook)
        stored = json.loads((lab.project.folder / "nbs" / notebook).read_text())
        assert stored["metadata"]["kernelspec"]["name"] == "python3", "the kernel that a double click would start"
        title = stored["cells"][0]["source"][0].strip("# \n")
        assert lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) h1").first.inner_text().startswith(title)
        assert lab.changed() == []
        lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.dispose()")
    assert running() <= before


def test_plain_jupyter_notebook_from_the_folder_of_the_notebooks(project, browser):
    for notebook in serve(project.folder / "nbs", project, browser, "notebook", "/notebooks/06_train.ipynb"):
        notebook.shown()
        notebook.page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        notebook.add("# a note of mine")
        notebook.save("06_train.ipynb")
        assert len(notebook.changed()) == 3
        project.run("git", "checkout", "-q", "nbs")


def test_nothing_of_ploomber_is_loaded(lab):
    "Its server extension made every `GET /api/contents` a 500; jupytext's put another manager in place of Jupyter's."
    log = (lab.project.folder.parent / "lab.log").read_text()
    assert "ploomber" not in log.lower() and "jupytext" not in log and "nbclassic" not in log
    assert not [line for line in log.splitlines() if line.startswith("[E") or "Traceback" in line]


def test_git_shows_a_change_of_a_notebook_as_code_and_merges_by_cells(project):
    "What `make setup` teaches a clone."
    (project.folder / ".venv").symlink_to(root() / ".venv")
    project.run(".ci/hooks")
    path = project.folder / "nbs/06_train.ipynb"
    good = path.read_text()
    path.write_text(good.replace("def months_before(", "def months_ago("))
    assert "+def months_ago(" in project.run("git", "diff").stdout.splitlines()
    # given two branches that change the same line
    start = project.run("git", "rev-parse", "HEAD").stdout.strip()
    commit = ("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "--no-verify", "-qam")
    project.run("git", "branch", "other")
    project.run(*commit, "ours")
    project.run("git", "checkout", "-q", "other")
    path.write_text(good.replace("def months_before(", "def earlier("))
    project.run(*commit, "theirs")
    # when they are merged, then the notebook opens still, with the conflict in its cell
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "merge", "-q", "-", check=False)
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    assert any("months_ago" in cell for cell in cells) and any("earlier" in cell for cell in cells)
    project.run("git", "checkout", "-qfB", "main", start)
