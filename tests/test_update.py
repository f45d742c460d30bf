"What the template learns reaches a project; the problem stays, an own change of the platform is kept or shown in its cell; all can be taken back."
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from og_project.config import root
from og_project.lifecycle.template import TemplateError, check_name, files_of, git, new, starters
from og_project.lifecycle.update import NOTES, PROBLEM, abort, changed, finish, notes_of, project_of, update

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")
LEARNED = "nbs/40_smoke.ipynb"  # a notebook of the platform
OLDEST = "c781ce3"  # the first template that projects could be updated from


def commit(folder: Path, what: str) -> None:
    git(folder, "add", "-A")
    git(folder, *WHO, "commit", "-q", "--no-verify", "-m", what)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def source(folder: Path, cell: int) -> str:
    return "".join(json.loads((folder / LEARNED).read_text())["cells"][cell]["source"])


def change_cell(folder: Path, number: int, text: str) -> None:
    notebook = json.loads((folder / LEARNED).read_text())
    notebook["cells"][number]["source"] = text.splitlines(keepends=True)
    (folder / LEARNED).write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    "A clone of the template with two tags: v2 has another paragraph, a new file, other notebooks of the starters, and another Dockerfile."
    folder = tmp_path_factory.mktemp("template") / "template"
    for name in files_of(root()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((root() / name).read_bytes())
        (folder / name).chmod((root() / name).stat().st_mode)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "as it is")
    git(folder, "tag", "v1")
    change_cell(folder, 0, "# Smoke test\n> The template says it in another way.")
    (folder / "docs/learned.md").write_text("# What og learned\n")
    edit(folder / "starters/number/nbs/02_contract.ipynb", "# Contract", "# Contract of the starter, rewritten")
    (folder / "Dockerfile").write_text((folder / "Dockerfile").read_text() + "# learned\n")
    notes = folder / NOTES
    learned = "- {id: minutes, kind: setting, says: OG_MINUTES is OG_SECONDS now, todo: rename it, names: [OG_MINUTES, Our ingest]}\n"
    notes.write_text(notes.read_text() + learned)
    commit(folder, "learned")
    git(folder, "tag", "v2")
    return folder


@pytest.fixture
def project(template, tmp_path) -> Path:
    "A project of the first tag, with a problem of its own and a change in the platform."
    folder = tmp_path / "rides"
    git(template, "checkout", "-q", "v1")
    new("rides", "number", folder, template)
    git(template, "checkout", "-q", "main")
    git(folder, "config", "merge.notebook.driver", f"{root()}/.venv/bin/nbdev_merge %O %A %B %P")
    edit(folder / "nbs/02_contract.ipynb", "# Contract", "# Contract of our rides")
    (folder / "nbs/03_ingest.ipynb").write_text((folder / "nbs/03_ingest.ipynb").read_text().replace("Ingest", "Our ingest"))
    edit(folder / "page/page.css", "color-scheme: light dark;", "color-scheme: light dark; /* our colours */")
    change_cell(folder, 5, source(folder, 5) + "\n# ours")
    commit(folder, "our problem")
    return folder


def problem(folder: Path) -> dict[str, bytes]:
    "The bytes of the problem's files."
    paths = [path for name in PROBLEM for path in (folder / name, *sorted((folder / name).rglob("*"))) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_an_update_brings_the_platform_and_leaves_the_problem(project, template):
    before, ran = problem(project), []
    (project / "settings.env").write_text("RIDES_MINUTES=3\n")
    said = update(project, str(template), "v2", lambda: ran.append(1))
    assert "Template v2" in said and ran and git(project, "status", "--porcelain") == ""
    told = "setting: RIDES_MINUTES is RIDES_SECONDS now\n    rename it\n    still in nbs/03_ingest.ipynb, settings.env"
    assert said.count("setting: ") == 1 and told in said and told in git(project, "log", "-1", "--format=%B"), "what is new to know, and no more"
    assert problem(project) == before, "no byte of the problem"
    assert source(project, 0).endswith("in another way.") and source(project, 5).endswith("# ours")
    assert (project / "docs/learned.md").read_text() == "# What rides learned\n"
    assert "our colours" in (project / "page/page.css").read_text() and (project / "Dockerfile").read_text().endswith("# learned\n")
    assert project_of(project).template == "v2"
    assert "nothing is new" in update(project, str(template), "v2", lambda: None)
    assert {"page/page.css": "silently", LEARNED: "silently"}.items() <= changed(project).items() and "Dockerfile" not in changed(project)


def test_the_notes_can_be_read_and_each_has_its_name():
    notes = notes_of((root() / NOTES).read_text())
    assert len(notes) > 5 and len({note.id for note in notes}) == len(notes)
    assert all(note.says and (note.todo or note.kind == "behaviour") for note in notes)


def test_a_change_on_both_sides_is_a_conflict_in_its_cell(project, template):
    change_cell(project, 0, "# Smoke test\n> We say it so.")
    commit(project, "our words")
    at = git(project, "rev-parse", "HEAD")
    with pytest.raises(Exception, match=f"both sides changed {LEARNED}"):
        update(project, str(template), "v2", lambda: None)
    notebook = json.loads((project / LEARNED).read_text())  # readable by JupyterLab as it is
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    assert "We say it so." in text and "in another way." in text and "<<<<<<<" in text
    with pytest.raises(Exception, match="conflicts are left in"):
        finish(project_of(project), lambda: None)
    abort(project)
    assert git(project, "rev-parse", "HEAD") == at and git(project, "status", "--porcelain") == ""
    with pytest.raises(Exception, match="both sides changed"):
        update(project, str(template), "v2", lambda: None)
    git(project, "checkout", "-q", "--ours", "--", LEARNED)
    git(project, "add", LEARNED)
    assert "Template v2" in finish(project_of(project), lambda: None) and "We say it so." in source(project, 0)


def test_what_does_not_pass_is_not_committed(project, template):
    def fails() -> None:
        raise RuntimeError("a test is red")

    at = git(project, "rev-parse", "HEAD"), git(project, "rev-parse", "template")
    with pytest.raises(RuntimeError):
        update(project, str(template), "v2", fails)
    assert (git(project, "rev-parse", "HEAD"), git(project, "rev-parse", "template")) == at
    abort(project)
    assert git(project, "status", "--porcelain") == "" and project_of(project).template == "v1"


def test_an_update_that_is_killed_before_the_merge_changed_nothing(project, template, monkeypatch):
    from og_project.lifecycle import update as module

    at = git(project, "rev-parse", "HEAD", "template")
    monkeypatch.setattr(module, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        update(project, str(template), "v2", lambda: None)
    assert git(project, "rev-parse", "HEAD", "template") == at and git(project, "status", "--porcelain") == ""
    assert subprocess.run(["git", "worktree", "prune"], cwd=project, capture_output=True).returncode == 0


def test_uncommitted_work_is_not_touched(project, template):
    (project / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match="not committed"):
        update(project, str(template), "v2", lambda: None)
    assert (project / "notes.txt").read_text() == "mine"


def test_it_is_rendered_where_it_is_installed(project, monkeypatch):
    "An update runs in the project's own environment, which has a package of that name: its own, and no stranger."
    monkeypatch.syspath_prepend(str(project))
    assert check_name("rides") == "rides"
    (project / ".template.json").unlink()
    with pytest.raises(TemplateError, match="is the name of a Python module already"):
        check_name("rides")


@pytest.mark.slow
@pytest.mark.parametrize("problem_of", list(starters(root())["problems"])[1:])
def test_a_project_of_the_oldest_template_comes_to_this_one(tmp_path, problem_of):
    if subprocess.run(["git", "cat-file", "-e", f"{OLDEST}^{{commit}}"], cwd=root(), capture_output=True).returncode:
        pytest.skip(f"the template's history is not here ({OLDEST})")
    folder, old = tmp_path / "rides", tmp_path / "old"
    git(tmp_path, "clone", "-q", str(root()), str(old))
    git(old, "checkout", "-q", OLDEST)
    command = [sys.executable, "-m", "og_project.lifecycle.template", "rides", "--problem", problem_of, "--at", str(folder)]
    subprocess.run(command, cwd=old, env={**os.environ, "PYTHONPATH": str(old)}, check=True, capture_output=True)
    git(folder, "config", "merge.notebook.driver", f"{root()}/.venv/bin/nbdev_merge %O %A %B %P")
    edit(folder / "page/page.css", "color-scheme: light dark;", "color-scheme: light dark; /* our colours */")
    change_cell(folder, 0, source(folder, 0) + "\n\nWe call it from our own monitor.")
    edit(folder / "nbs/02_contract.ipynb", "# Contract", "# Contract of our rides")
    commit(folder, "ours")
    before = problem(folder)

    def passes() -> None:
        env = {**os.environ, "PYTHONPATH": str(folder), "OG_ROOT": "", "RIDES_ROOT": str(folder)}
        for command in ([str(Path(sys.executable).with_name("nbdev_export"))], [sys.executable, "-c", "import rides.cli, rides.serving.api"]):
            subprocess.run(command, cwd=folder, env=env, check=True)

    assert "sql: " in update(folder, str(root()), "HEAD", passes), "what is new to know"
    assert problem(folder) == before, "no byte of the problem"
    assert "our colours" in (folder / "page/page.css").read_text() and source(folder, 0).endswith("from our own monitor.")
    assert changed(folder) == {"page/page.css": "silently", LEARNED: "silently"}, "all else is the template's of today"
