"Several processes train one model: the same trees each time, wherever they run, and an end for all when one of them dies."
import csv
import json
import os
import signal
from pathlib import Path

import pytest
from processes import free_port, wait_until
from projects import Project, replace, small_project

from og_project.lifecycle.pipeline import read_stages
from og_project.model import estimator

ALONE = not hasattr(getattr(estimator, "Worker", None), "params")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(ALONE, reason="this problem's learner trains alone")]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = small_project(tmp_path_factory.mktemp("workers") / "project")
    for stage in read_stages()["train"]["upstream"]:
        made.run("og", "run", stage)
    return made


def fitted(project: Project) -> bytes:
    return (project.folder / "models/fitted/booster.txt").read_bytes()


def train(project: Project, workers: int | str) -> tuple[bytes, float]:
    "The trees, and the smallest loss on the rows that stop the training."
    project.run("og", "run", "train", "-p", "workers", str(workers))
    with (project.folder / "reports/loss_by_round.csv").open() as file:
        return fitted(project), min(float(row["loss"]) for row in csv.DictReader(file))


def worker_processes(project: Project) -> list[int]:
    "Those that train for this project, by number."
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            inside = (path / "cwd").readlink() == project.folder
            if inside and b"import work" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:  # it has ended
            continue
    return sorted(found)


def test_the_trees_depend_on_the_number_of_workers_and_on_nothing_else(project):
    alone, loss = train(project, 1)
    two, loss_of_two = train(project, 2)
    assert json.loads((project.folder / "models/fitted/encoder.json").read_text())["workers"] == 2
    assert two == train(project, 2)[0] != alone
    three, loss_of_three = train(project, 3)
    assert three not in (alone, two)
    assert max(loss_of_two, loss_of_three) < 1.2 * loss, (loss, loss_of_two, loss_of_three)

    machines = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    with project.start("og", "worker", "1", "--workers", machines, log=project.folder / "worker.log") as other:
        assert train(project, machines)[0] == two
        assert other.wait(600) == 0, (project.folder / "worker.log").read_text()


def test_a_worker_that_is_killed_ends_all_and_leaves_the_product_alone(project):
    base, before, log = project.folder / "config/base.yml", fitted(project), project.folder / "train.log"
    text = base.read_text()
    replace(base, "num_boost_round: 30", "num_boost_round: 100000")
    with project.start("og", "run", "train", "-p", "workers", "3", log=log) as stage:
        wait_until(lambda: len(worker_processes(project)) == 3, stage)
        os.kill(worker_processes(project)[1], signal.SIGKILL)
        assert stage.wait(600) == 1
    assert "worker 1 of 3 ended with exit code -9" in log.read_text(), log.read_text()
    assert fitted(project) == before and not worker_processes(project)
    base.write_text(text)


@pytest.mark.parametrize("workers, said", [("0", "at least 1, is needed"), ("one,two", "host:port of each machine")])
def test_what_are_no_workers_is_said(project, workers, said):
    done = project.run("og", "run", "train", "-p", "workers", workers, check=False)
    assert done.returncode == 1 and said in done.stdout + done.stderr


def test_a_rank_that_is_none_is_said(project):
    done = project.run("og", "worker", "2", "--workers", "one:1,two:2", check=False)
    assert done.returncode == 1 and "number 0 to 1; 2 is none of them" in done.stderr
