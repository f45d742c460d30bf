"""What setup.sh says before it needs an engine; what it does with one: tests/test_stack.py."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from og_project.config import root

TOOLS = ["bash", "cat", "sed", "grep", "tac", "tail", "head", "sort", "find", "xargs", "sha256sum", "cut", "touch", "dirname", "tr", "git"]


def setup(folder: Path, *words: str, tools: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess:
    "Call it in a copy, with an empty environment and these tools beside those that every Unix has."
    bin = folder / "bin"
    bin.mkdir(parents=True)
    for tool in (*TOOLS, *tools):
        (bin / tool).symlink_to(shutil.which(tool) or "/usr/bin/false")
    for name in ("setup.sh", "config.env", "docker-compose.yml"):
        shutil.copy(root() / name, folder)
    shutil.copytree(root() / "monitoring", folder / "monitoring")
    return subprocess.run(["bash", "setup.sh", *words], cwd=folder, env={"PATH": str(bin)} | env, capture_output=True, text=True)


def test_help_names_every_verb_and_an_unknown_one_is_a_wrong_call(tmp_path):
    text = (root() / "setup.sh").read_text()
    verbs = [line.split(")")[0].strip() for line in text[text.rindex("case "):].splitlines()[1:] if ")" in line and not line.startswith("print")]
    assert {"up", "upgrade", "rollback", "down"} <= set(verbs)
    told = setup(tmp_path / "a", "--help")
    assert told.returncode == 0 and all(f"\n  {verb}" in told.stdout for verb in verbs if verb.isalpha()), verbs
    assert setup(tmp_path / "b", "no-such-verb").returncode == 2


def test_what_is_missing_is_named(tmp_path):
    done = setup(tmp_path, tools=("curl",))
    assert done.returncode == 1 and "missing: docker openssl" in done.stderr


@pytest.mark.parametrize("script, said", [
    ("exit 1", "no Docker engine answers"),
    ("[ $1 = info ] || [ $1 = compose ] && echo 1.29.2", "Docker Compose 2.24 or newer is needed")])
def test_an_engine_that_is_away_or_a_compose_that_is_old_is_named(tmp_path, script, said):
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/bash\n{script}\n")
    docker.chmod(0o755)
    done = setup(tmp_path / "copy", tools=("openssl", "curl"), PATH=f"{tmp_path}:{tmp_path}/copy/bin")
    assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.mark.parametrize("words, said", [(("import", "none.tar"), "there is no file"), (("import",), "which file?"),
                                         (("export",), "into which file?")])
def test_an_archive_is_named_and_there(tmp_path, words, said):
    done = setup(tmp_path / "copy", *words)
    assert done.returncode == 1 and said in done.stderr, done.stderr


def test_without_secrets_compose_starts_nothing():
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/"}
    done = subprocess.run(["docker-compose", "--env-file", "/dev/null", "config", "-q"], cwd=root(), env=env, capture_output=True, text=True)
    assert done.returncode != 0 and "run ./setup.sh" in done.stderr


@pytest.mark.parametrize("standing, given, taken", [("", "", "commit"), ("a1b2c3", "", "old"), ("", "named", "named")])
def test_up_starts_what_is_checked_out_unless_something_stands(tmp_path, standing, given, taken):
    copy, engine = tmp_path / "copy", tmp_path / "engine"
    copy.mkdir()
    engine.mkdir()
    (copy / ".env").write_text("TAG='old'\n")  # as an `up` that failed leaves it
    for words in (["init", "-q"], ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "now", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=copy, check=True)
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=copy, text=True).strip()
    docker = engine / "docker"
    said = f'[[ "$*" != *--short ]] || echo 2.30\n[[ "$*" != *" ps "* ]] || echo {standing}'
    docker.write_text(f"#!/bin/bash\n{said}\n[[ $1 != image && $1 != pull ]]\n")
    docker.chmod(0o755)
    env = {"PATH": f"{engine}:{copy}/bin", "DOCKER_DATA": "/"} | ({"TAG": given} if given else {})
    done = setup(copy, tools=("openssl", "curl", "df", "awk"), **env)
    assert f"Images og-project:{commit if taken == 'commit' else taken}" in done.stdout, done.stdout + done.stderr
