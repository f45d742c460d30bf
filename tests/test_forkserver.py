"A command that runs in a fork is the command: its code, its streams, its end. The other tests rely on that (tests/forkserver.py)."
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import begin, fork_server, wait_until
from projects import Project

from og_project.config import root


@pytest.fixture
def project(tmp_path) -> Project:
    "A copy of the package whose `og` is another one: it notes its process id, and does what it is told."
    shutil.copytree(root() / "og_project", tmp_path / "og_project", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "og_project/cli.py").write_text("""
import os, sys, time
def og():
    open("pid", "w").write(str(os.getpid()))
    print(os.environ["MINE"], sys.argv[1:], "og_project.model.estimator" in sys.modules, flush=True)
    print("to the other stream", file=sys.stderr)
    return eval(sys.argv[1])
""")
    return Project(tmp_path)


def test_it_has_its_own_code_folder_environment_streams_and_exit_code(project):
    done = project.run("og", "7", check=False, MINE="value")
    assert (done.returncode, done.stdout, done.stderr) == (7, "value ['7'] False\n", "to the other stream\n")
    done = project.run("og", "1/0", check=False, MINE="value")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_it_says_what_a_process_of_its_own_says():
    here = Project(root())
    for words in (("--help",), ("no-such-verb",), ("gate", "--help")):
        own = subprocess.run([Path(sys.executable).parent / "og", *words], capture_output=True, text=True, cwd=root(), env=here.environment({}))
        forked = here.run("og", *words, check=False)
        assert (forked.returncode, forked.stdout, forked.stderr) == (own.returncode, own.stdout, own.stderr)


def alive(project: Project) -> bool:
    return Path(f"/proc/{(project.folder / 'pid').read_text()}/cmdline").exists()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it_and_is_told(project, kind):
    process = begin(("og", "time.sleep(600)"), project.folder, project.environment({"MINE": ""}), project.folder / "log")
    wait_until(lambda: (project.folder / "pid").exists() and (project.folder / "pid").read_text())
    os.killpg(process.pid, kind)
    assert process.wait(600) == -kind and not alive(project)


def test_it_does_not_outlive_whoever_called_it(project):
    with subprocess.Popen([fork_server() / "og", "time.sleep(600)"], cwd=project.folder, env=project.environment({"MINE": ""})) as caller:
        wait_until(lambda: (project.folder / "pid").exists() and (project.folder / "pid").read_text())
        caller.kill()
    wait_until(lambda: not alive(project))
