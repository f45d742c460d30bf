"""A project that is made from the template bears its own name and the starter's problem, and nothing else; nobody has to install anything for it."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from og_project.config import root
from og_project.lifecycle.template import render, starters

PROBLEMS = list(starters(root())["problems"])
OTHERS = PROBLEMS[1:]
BEGINS = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
FOREIGN = re.compile(rf"flight|nycflights|airline|carrier|New York|\bOG\b|{BEGINS}og(?![A-Za-z0-9])|{BEGINS}(og|OG)[_-]", re.I)


def texts(folder: Path) -> dict[str, str]:
    "The text files of a project; a notebook without its pictures."
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".git" not in p.relative_to(folder).parts):
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found[path.relative_to(folder).as_posix()] = re.sub(r'"image/png": ".*"', "", text) if path.suffix == ".ipynb" else text
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    "Problem -> a project with it, made by an interpreter that has no package installed."
    place = tmp_path_factory.mktemp("made")
    for problem in OTHERS:
        code = (f"import runpy, sys; sys.path.insert(0, {str(root())!r}); sys.argv = ['new', 'bike-rides', '--problem', {problem!r}, "
                f"'--at', {str(place / problem)!r}]; runpy.run_module('og_project.lifecycle.template', run_name='__main__')")
        command = [sys.executable, "-IS", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and "next" in done.stdout, done.stderr
    return {problem: place / problem for problem in OTHERS}


@pytest.mark.parametrize("problem", OTHERS)
def test_nothing_in_it_speaks_of_the_template_or_its_problem(made, problem):
    for name, text in texts(made[problem]).items():
        found = FOREIGN.search(text) or FOREIGN.search(name)
        assert not found, f"{name}: {text[max(0, found.start() - 80):found.end() + 80]!r}"


@pytest.mark.parametrize("problem", OTHERS)
def test_it_is_a_repository_with_what_it_began_as(made, problem):
    git = lambda *command: subprocess.run(["git", *command], cwd=made[problem], capture_output=True, text=True, check=True).stdout.strip()  # noqa: E731
    assert git("status", "--porcelain") == "" and git("rev-parse", "main") == git("rev-parse", "template")
    about = json.loads((made[problem] / ".template.json").read_text())
    assert (about["name"], about["problem"]) == ("bike-rides", problem) and about["template"]
    assert (made[problem] / "setup.sh").stat().st_mode & 0o111 and (made[problem] / ".ci/run").stat().st_mode & 0o111


@pytest.mark.slow
@pytest.mark.parametrize("problem", OTHERS)
def test_no_page_of_it_links_to_what_was_left_out(made, tmp_path, problem):
    done = subprocess.run([sys.executable, made[problem] / "docs/site.py", tmp_path / "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_same_name_and_problem_make_the_same_files(tmp_path, problem):
    for name in ("a", "b"):
        render(root(), tmp_path / name, "churn", problem)
    assert texts(tmp_path / "a") == texts(tmp_path / "b")


def test_what_is_there_is_left_alone(made, tmp_path):
    (tmp_path / "mine").write_text("precious")
    command = [sys.executable, "-m", "og_project.lifecycle.template", "bike-rides", "--at", tmp_path]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True)
    assert done.returncode == 1 and "is not empty" in done.stderr and [p.name for p in tmp_path.iterdir()] == ["mine"]
    done = subprocess.run([sys.executable, "-m", "bike_rides.lifecycle.template", "again"], cwd=made[OTHERS[0]], capture_output=True, text=True)
    assert done.returncode == 1 and "has no starters" in done.stderr and "Traceback" not in done.stderr
