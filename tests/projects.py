"Copies of the project, each in a folder of its own."
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import problem
from processes import ENVIRONMENT, Forked, begin, fork_server, free_port, wait_until

from og_project.config import root


@dataclass(frozen=True)
class Project:
    "A copy of the project in a folder of its own, with its own git, DVC cache and registry."

    folder: Path

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        "The environment variables of a command in the copy."
        path = f"{fork_server()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
        return clean | ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(self.folder), "OG_ROOT": str(self.folder)} | more

    @contextmanager
    def start(self, *command: str, log: Path | None = None, end: int = signal.SIGTERM, **more: str) -> Iterator[subprocess.Popen | Forked]:
        "Run a command in the background, as the leader of its own group, until the block ends; then the group gets the signal `end`."
        process = begin(command, self.folder, self.environment(more), log or Path(os.devnull))
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, end)
                process.wait(600)

    @contextmanager
    def serving(self, log: Path | None = None, **more: str) -> Iterator[str]:
        "The service of the copy, ready to answer; gives its URL."
        port = free_port()
        with self.start("og", "serve", log=log, OG_SERVE__PORT=str(port), **more) as process:
            wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200, process)
            yield f"http://127.0.0.1:{port}"

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        "Run a command of the environment in the copy; its output is shown when it should have worked and did not."
        done = subprocess.run(command, cwd=self.folder, env=self.environment(environment), capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done


def copy_project(folder: Path) -> Project:
    "The committed and the new files of the project, without what it made."
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root(), capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (root() / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root() / name, folder / name)
    project = Project(folder)
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "copy")
    return project


def replace(file: Path, old: str, new: str) -> None:
    "Put one text in place of another, which must be there."
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new))


def small_project(folder: Path, every: int = 20) -> Project:
    "A copy whose data are a share of the real ones, and whose model is small."
    project = copy_project(folder)
    problem.shrink(project.folder, every)
    base = project.folder / "config/base.yml"
    base.write_text(re.sub(r"num_threads: \d+", "num_threads: 1", re.sub(r"num_boost_round: \d+", "num_boost_round: 30", base.read_text())))
    return project
