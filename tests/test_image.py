"""The serving image in a real Docker engine: as small a set of rights as it can have, and it still answers.

Needs an engine (`docker info`) and python:3.11-slim, from a registry or local; `make image-test` builds the image and runs this."""
import json
import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from processes import free_port, wait_until
from sites import model_folder

from og_project.config import root
from og_project.data.contract import EXAMPLE
from og_project.model import estimator
from og_project.serving.guard import new_key

IMAGE = os.environ.get("IMAGE", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IMAGE, reason="IMAGE names no image: make image-test")]
BASE = "python:3.11-slim"


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(command)}\n{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def volumes(real, tmp_path_factory) -> Path:
    "What a replica finds after a restart without a registry: the last good champion on its disk."
    place = tmp_path_factory.mktemp("volumes")
    made = model_folder(real, place / "models/versions/1")
    tags = f'{{"fingerprint": "{estimator.verify(made)}"}}'
    (place / "models/versions/champion.json").write_text(f'{{"name": "og_project", "version": "1", "run_id": "", "tags": {tags}}}')
    (place / "journal").mkdir()
    for path in [place, *place.rglob("*")]:
        os.chown(path, 10001, 10001)
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in place.parents:
        if path.stat().st_mode & 0o005 != 0o005 and "pytest" in str(path):
            path.chmod(0o755)
    return place


@pytest.fixture(scope="module")
def container(volumes):
    "A replica with a read-only root, no capability, no new privilege, and servers that are away."
    key, line = new_key("image-test", "predict")
    port = free_port()
    away = ["-e", "OG_STORE__URL=http://og@127.0.0.1:9/og", "-e", "OG_MLFLOW__TRACKING_URI=http://127.0.0.1:9"]
    mounts = ["-v", f"{volumes}/models:/app/models", "-v", f"{volumes}/journal:/app/journal"]
    rights = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "768m"]
    settings = ["-e", "OG_ENV=test", "-e", f"OG_SERVE__KEYS={line}", *away]
    name = docker("run", "-d", "-p", f"127.0.0.1:{port}:8080", *rights, *settings, *mounts, IMAGE)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    yield name, httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"})
    docker("rm", "-f", name)


def test_it_answers_with_a_read_only_root_and_no_rights(container):
    name, client = container
    assert client.post("/predict", json=EXAMPLE).json()["model_version"] == "1"
    assert docker("exec", name, "id", "-u") == "10001"
    assert httpx.post(f"{client.base_url}/predict", json=EXAMPLE).status_code == 401


def test_docker_sees_its_health(container):
    name, _ = container
    wait_until(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", name) == "healthy")


def test_a_killed_container_loses_no_answered_prediction(container, volumes):
    name, client = container
    before = sum(path.stat().st_size for path in (volumes / "journal").iterdir())
    assert client.post("/predict", json=[EXAMPLE] * 100).status_code == 200
    docker("kill", "-s", "KILL", name)
    assert sum(path.stat().st_size for path in (volumes / "journal").iterdir()) > before
    docker("start", name)
    wait_until(lambda: client.get("/health/ready").status_code == 200)
    from og_project.serving.journal import read_segment

    kept = [read_segment(path.open("rb")) for path in (volumes / "journal").glob("*.journal")]
    assert sum(rows.num_rows for rows in kept if rows is not None) >= 101


def test_it_says_what_it_is_and_holds_no_secret():
    labels = json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", IMAGE))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root(), capture_output=True, text=True, check=True).stdout.strip()
    assert labels["org.opencontainers.image.revision"] == head and labels["org.opencontainers.image.version"] == version("og_project")
    told = docker("history", "--no-trunc", IMAGE) + docker("inspect", "-f", "{{json .Config.Env}}", IMAGE)
    assert not any(word in told.lower() for word in ("password", "secret", "token", "key="))


def test_nothing_but_the_service_is_inside():
    there = docker("run", "--rm", "--entrypoint", "ls", IMAGE, "-A", "/app").split()
    assert not {"tests", ".git", ".env", "nbs", "mlflow.db", "bench"} & set(there)


def test_it_is_small():
    size = lambda image: int(docker("inspect", "-f", "{{.Size}}", image))
    above = (size(IMAGE) - size(BASE)) / 1e6
    assert above < 450, f"{above:.0f} MB above {BASE}"


def test_the_stop_signal_drains(container):
    name, _ = container
    docker("stop", "-t", "20", name)
    assert docker("inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", name) in ("0 false", "143 false")
