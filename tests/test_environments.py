"The environments test and production with everything over the network: ClickHouse, MLflow, S3; and what a second clone gets."
import hashlib
from pathlib import Path

import problem
import pytest
from projects import Project, small_project

from og_project.store import connect, query

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not problem.TABLE, reason="this problem has no tables to read from")]


def sums(project: Project) -> dict[str, str]:
    "SHA-256 of every product that is data."
    files = [path for name in ("data", "models/model") for path in sorted((project.folder / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(project.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if not path.name.startswith(".")}


@pytest.mark.parametrize("environment", ["test", "production"])
def test_the_whole_loop_over_the_network(environment, clickhouse, registry, tmp_path):
    project = small_project(tmp_path / "first", every=40)
    model = f"og_{environment}"
    servers = {"OG_ENV": environment, "OG_STORE__URL": clickhouse.url, "OG_STORE__PASSWORD": "hunter2",  # pragma: allowlist secret
               "OG_MLFLOW__TRACKING_URI": registry.url, "OG_MLFLOW__MODEL": model,
               "AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": registry.secret, "AWS_DEFAULT_REGION": "us-east-1"}
    project.run("og", "tables", **servers)
    loaded = project.run("og", "load", "sample", **servers).stdout
    assert "rows" in loaded and "had rows already" in project.run("og", "load", "sample", **servers).stdout
    rows = query(connect(clickhouse.url, "hunter2"), f"SELECT count() AS rows FROM {problem.TABLE}")["rows"][0].as_py()
    assert rows > 0

    if environment == "production":  # what differs is in its settings; DVC's part is the same
        project.run("og", "run", "all", **servers)
        assert f"registered as {model} version 1" in project.run("og", "register", "--promote-first", **servers).stdout
        return
    project.run("dvc", "repro", **servers)
    assert f"registered as {model} version 1" in project.run("og", "register", "--promote-first", **servers).stdout
    project.run("dvc", "remote", "add", "-d", "storage", f"s3://dvc/{environment}")
    project.run("dvc", "remote", "modify", "storage", "endpointurl", f"http://127.0.0.1:{registry.ports['s3']}")
    project.run("dvc", "push", "-q", **servers)
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "run")

    pulled, again = (clone(project, tmp_path / name) for name in ("pulled", "again"))
    pulled.run("dvc", "pull", "-q", **servers)
    assert sums(pulled) == sums(project)
    assert "version 1" in pulled.run("og", "register", **servers).stdout, "the same model is registered once"
    again.run("dvc", "repro", "features", **servers)  # what follows reads files alone (tests/test_pipeline.py)
    made = sums(again)
    assert len(made) > 8 and made.items() <= sums(project).items()
    assert (again.folder / "dvc.lock").read_text() == (project.folder / "dvc.lock").read_text()


def clone(project: Project, folder: Path) -> Project:
    project.run("git", "clone", "-q", str(project.folder), str(folder))
    return Project(folder)
