"""The jobs of .gitlab-ci.yml that need no GitLab, run by gitlab-ci-local: by the shell, and in a container.

`make gitlab-test` installs it with npm; the container needs a Docker engine and an image python:3.11 (GITLAB_DOCKER says that both are there)."""
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from processes import free_port, wait_until
from projects import Project, copy_project

from og_project.config import root

LOCAL = os.environ.get("GITLAB_CI_LOCAL", "")
SPEC = yaml.load((root() / ".gitlab-ci.yml").read_text(), yaml.SafeLoader)
JOBS = {name: job for name, job in SPEC.items() if isinstance(job, dict) and "stage" in job and not name.startswith(".")}
needs_local = pytest.mark.skipif(not LOCAL, reason="GITLAB_CI_LOCAL names no command: make gitlab-test")


def test_the_stages_are_the_five_and_every_job_is_in_one():
    assert SPEC["stages"] == ["lint", "test", "build", "deploy", "monitor"]
    assert {job["stage"] for job in JOBS.values()} >= {"lint", "test", "build", "deploy"}


def test_every_script_is_one_that_shellcheck_takes():
    command = ["gitlab-ci-verify", "--no-lint-api", "--gitlab-base-url", "https://gitlab.invalid"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # ShellCheck is there, too
    done = subprocess.run(command, cwd=root(), env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_production_is_deployed_by_hand_from_the_default_branch_one_at_a_time():
    for name in ("deploy-production", "rollback-production"):
        (rule,) = JOBS[name]["rules"]
        assert rule["when"] == "manual" and rule["if"] == "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"
        assert JOBS[name]["resource_group"] == "production" and JOBS[name]["environment"]["name"] == "production"


def test_what_is_delivered_is_tested_before_and_named_as_setup_sh_names_it():
    (tested,), (delivered,) = SPEC[".code"], SPEC[".image"]
    assert set(delivered["changes"]) <= set(tested["changes"]) and "config.env" in delivered["changes"]
    script = JOBS["build-image"]["script"][0]
    fake = 'docker() { for word; do case "$word" in registry*) echo "$1 $word" ;; VERSION=* | COMMIT=*) echo "$word" ;; esac; done; }'
    env = {"PATH": os.environ["PATH"], "CI_REGISTRY_IMAGE": "registry.invalid/og", "CI_COMMIT_SHORT_SHA": "abc", "CI_COMMIT_SHA": "abcdef"}
    done = subprocess.run(["sh", "-euc", f"{fake}\n{script}"], cwd=root(), env=env, capture_output=True, text=True, check=True)
    pushed = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("push")}
    assert pushed == {f"registry.invalid/og/service{target}:{tag}" for target in ("", "-pipeline", "-airflow") for tag in ("abc", "latest")}
    assert done.stdout.count("COMMIT=abcdef") == 3 and done.stdout.count(f"VERSION={version('og_project')}") == 3


def git(project: Project, *command: str) -> None:
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", *command)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Project:
    "A clone with an origin, as a runner has it; a branch `change` that changes a parameter, and one, `words`, that changes the README."
    project = copy_project(tmp_path_factory.mktemp("gitlab") / "og-project")
    shutil.copytree(root() / "tests", project.folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    git(project, "add", "-A")
    git(project, "commit", "-qm", "tests")
    git(project, "branch", "-M", "main")
    origin = project.folder.parent / "origin/og/og-project.git"
    project.run("git", "clone", "-q", "--bare", ".", str(origin))
    project.run("git", "remote", "add", "origin", "https://gitlab.invalid/og/og-project.git")
    project.run("git", "config", f"url.{origin.parents[1]}/.insteadOf", "https://gitlab.invalid/")
    project.run("git", "fetch", "-q", "origin")
    project.run("git", "remote", "set-head", "origin", "main")
    for branch, path in (("words", "README.md"), ("change", "env.yaml")):
        project.run("git", "checkout", "-qb", branch, "main")
        with (project.folder / path).open("a") as file:
            file.write("# \n")
        git(project, "commit", "-qam", branch)
    return project


def local(project: Project, branch: str, *options: str, merge_request: bool = False) -> str:
    project.run("git", "checkout", "-qf", branch)
    source = ["--variable", "CI_PIPELINE_SOURCE=merge_request_event"] if merge_request else []
    base = ["--variable", "CI_MERGE_REQUEST_DIFF_BASE_SHA=main", "--variable", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME=main"]
    cache = ["--variable", f"UV_CACHE_DIR={os.environ.get('UV_CACHE_DIR', Path.home() / '.cache/uv')}"]
    return project.run(LOCAL, *source, *base, *cache, *options).stdout


@pytest.mark.parametrize("branch, merge_request, expected", [
    ("words", False, {"lint", "secrets"}),
    ("words", True, {"lint", "secrets", "owners"}),
    ("change", True, {"lint", "secrets", "owners", "notebooks", "tests", "pipeline", "sample"})])
@pytest.mark.slow
@needs_local
def test_a_change_runs_what_it_needs(checkout, branch, merge_request, expected):
    listed = local(checkout, branch, "--list", merge_request=merge_request)
    names = {line.split()[0] for line in listed.splitlines() if line.split() and line.split()[0] in JOBS}
    assert names == expected


@pytest.mark.slow
@needs_local
def test_the_component_has_the_same_jobs(checkout):
    "A project that includes it, with an image of its own."
    whole = local(checkout, "change", "--list", merge_request=True)
    checkout.run("git", "checkout", "-qb", "included", "change")
    include = {"include": [{"local": "templates/service.yml", "inputs": {"image": "python:3.11-slim"}}]}
    (checkout.folder / ".gitlab-ci.yml").write_text(yaml.safe_dump(include))
    git(checkout, "commit", "-qam", "included")
    listed = lambda text: {line.split()[0] for line in text.splitlines() if line.split() and line.split()[0] in JOBS}  # noqa: E731
    found = listed(local(checkout, "included", "--list", merge_request=True)) - {"vulnerabilities"}  # asked because the file itself changed
    assert found == listed(whole) and len(found) > 4
    assert "python:3.11-slim" in local(checkout, "included", "--preview", merge_request=True)
    checkout.run("git", "checkout", "-q", "change")


@pytest.mark.skipif("GITLAB_DOCKER" not in os.environ, reason="GITLAB_DOCKER says that a Docker engine is there")
@pytest.mark.parametrize("job, merge_request", [("tests", True), ("secrets", False)])
@pytest.mark.slow
@needs_local
def test_a_job_passes_in_a_container(checkout, job, merge_request):
    few = ["--variable", "PYTEST_ADDOPTS=tests/test_style.py tests/test_validation.py"]  # all of them are what `make test` runs
    said = local(checkout, "change", "--pull-policy", "if-not-present", "--helper-image", "python:3.11", *few, job, merge_request=merge_request)
    assert f"PASS  {job}" in said, said[-3000:]
    if job == "tests":
        assert all(list(checkout.folder.rglob(f"reports/{report}")) for report in ("junit.xml", "coverage.xml"))


@pytest.mark.parametrize("job, merge_request", [
    ("sample", True), ("lint", False), ("secrets", False), ("lint-lock", False), ("owners", True)])
@pytest.mark.slow
@needs_local
def test_a_job_passes_in_the_shell(checkout, job, merge_request):
    said = local(checkout, "change", "--force-shell-executor", "--shell-isolation", job, merge_request=merge_request)
    assert f"PASS  {job}" in said, said[-3000:]


@pytest.mark.slow
@needs_local
def test_a_secret_fails_its_job(checkout):
    checkout.run("git", "checkout", "-qf", "-B", "leak", "change")
    (checkout.folder / "leak.py").write_text('AWS = "AKIA' + 'IOSFODNN7EXAMPL0"\n')
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "leak")
    done = checkout.run(LOCAL, "--force-shell-executor", "--shell-isolation", "secrets", check=False)
    assert done.returncode != 0 and "leak.py" in done.stdout + done.stderr


RECORDER = """#!/bin/sh
echo "$IMAGE $*" >>said
! grep -qsx "$1" fails
"""


@dataclass(frozen=True)
class Host:
    "Where is deployed to. Its setup.sh notes what it was told, and fails for a verb that the file `fails` names; the real one: tests/test_stack.py."

    folder: Path
    checkout: Project
    options: list[str]
    env: dict[str, str]

    def job(self, name: str, check: bool = True) -> str:
        command = [LOCAL, "--force-shell-executor", "--shell-isolation", "--evaluate-rule-changes=false", *self.options, name]
        done = self.checkout.run(*command, check=check, **self.env)
        return done.stdout + done.stderr

    def said(self) -> list[str]:
        return (self.folder / "said").read_text().splitlines()


@pytest.fixture
def host(checkout, tmp_path) -> Iterator[Host]:
    "A checkout on a host with a real sshd, and a runner's variables for it. The runner's image has apk; here ssh is there already."
    checkout.run("git", "checkout", "-qf", "-B", "main", "origin/main")
    (checkout.folder / "setup.sh").write_text(RECORDER)
    git(checkout, "commit", "-qam", "a setup.sh that notes what it was told")
    checkout.run("git", "clone", "-q", str(checkout.folder), str(tmp_path / "host"))
    for key in ("host_key", "id"):
        checkout.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key))
    port, home = free_port(), tmp_path / "home"
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host_key.pub').read_text()}")
    (tmp_path / "bin").mkdir()
    home.mkdir()
    ssh = f"#!/bin/sh\nexec {shutil.which('ssh')} -p {port} -o UserKnownHostsFile={home}/.ssh/known_hosts -o BatchMode=yes \"$@\"\n"
    for name, script in (("apk", "#!/bin/sh\n"), ("ssh", ssh)):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    # GitLab's registry takes images below the project's name, and no others
    given = {"DEPLOY_TO": f"{getpass.getuser()}@127.0.0.1", "DEPLOY_FOLDER": tmp_path / "host", "DEPLOY_KEY": tmp_path / "id",
             "DEPLOY_KNOWN_HOSTS": tmp_path / "known", "SERVICE_HOST": "127.0.0.1", "CI_REGISTRY_IMAGE": "registry.invalid/og"}
    options = [part for name, value in given.items() for part in ("--variable", f"{name}={value}")]
    sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", str(port)]
    keys = f"HostKey={tmp_path}/host_key", f"AuthorizedKeysFile={tmp_path}/id.pub"
    for option in (*keys, "ListenAddress=127.0.0.1", "StrictModes=no", "PidFile=none"):
        sshd += ["-o", option]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it
    with checkout.start(*sshd, log=tmp_path / "sshd.log"):
        wait_until(lambda: "listening" in (tmp_path / "sshd.log").read_text())
        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        yield Host(tmp_path / "host", checkout, options, {"HOME": str(home), "PATH": path})


@pytest.mark.slow
@needs_local
def test_a_deployment_goes_over_ssh_and_a_bad_one_goes_back(host):
    short = host.checkout.run("git", "rev-parse", "--short=8", "HEAD").stdout.strip()
    of = "registry.invalid/og/service "
    host.job("deploy-test")
    assert host.said() == [of + f"deploy {short}", of + "test"]
    host.job("watch-test")
    assert host.said()[2:] == [of + "og smoke --watch 30"]
    (host.folder / "fails").write_text("og\n")
    assert "FAIL  watch-production" in host.job("watch-production", check=False)
    assert host.said()[3:] == [of + "og smoke --watch 120", of + "rollback"]
    host.job("deploy-production")
    host.job("rollback-production")
    assert host.said()[5:] == [of + f"deploy {short}", of + "rollback"]


@pytest.mark.slow
@needs_local
def test_a_host_that_is_not_the_known_one_is_told_nothing(host):
    known = host.folder.parent / "known"
    known.write_text(known.read_text().replace((host.folder.parent / "host_key.pub").read_text(), (host.folder.parent / "id.pub").read_text()))
    assert "Host key verification failed" in host.job("deploy-test", check=False)
    assert not (host.folder / "said").exists()
