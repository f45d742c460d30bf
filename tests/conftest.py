"What the tests share: real products, a real copy of the project, real servers."
import fcntl
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import problem
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from processes import free_port
from servers import Registry, Server, storage_ports
from sites import Site, make_real, make_site

from og_project.data.contract import Record

# no test depends on the machine's speed: httpx gives up after 5 s, and Hypothesis after 0.2 s for an example
for _name in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 300.0)
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
HEAVY = {"real", "site", "running", "registry", "clickhouse", "cluster", "browser", "project", "cleaned", "small", "lab", "parts", "good"}  # fixtures


def pytest_collection_modifyitems(items) -> None:
    "`make quick` leaves out what needs a server or the whole year."
    for item in items:
        if HEAVY & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")


def pytest_terminal_summary(terminalreporter) -> None:
    "One line for each reason of skipping: what to install, or which command runs it."
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> dict[str, Path]:
    "The products of the stages on all the real data, with a small model, made by the exported functions: once for all processes that test."
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "real.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = (*problem.PRODUCTS, "fitted")
        if not (shared / "real").exists():
            make_real({name: shared / "real.draft" / name for name in names})
            (shared / "real.draft").rename(shared / "real")
    return {name: shared / "real" / name for name in names}


@pytest.fixture
def site(real, tmp_path) -> Iterator[Site]:
    "A place with a model on its disk, not started yet."
    made = make_site(real, tmp_path / "site")
    yield made
    if made.process and made.process.poll() is None:
        made.kill()


@pytest.fixture(scope="module")
def running(real, tmp_path_factory) -> Iterator[Site]:
    "One running service for the tests of a module."
    made = make_site(real, tmp_path_factory.mktemp("running") / "site").start(cold=True)
    yield made
    assert made.stop() in (0, -signal.SIGTERM)  # uvicorn drains, then ends by the signal that it was sent


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry"), free_port(), storage_ports()).start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def browser():
    "A real one."
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture(scope="session")
def records(real) -> list[dict]:
    "A thousand real records, as JSON."
    table = pq.read_table(real["records"], columns=list(Record.model_fields))
    rows = table.take((np.arange(1000) + len(table) * 9 // 10) % len(table)).to_pylist()
    return [Record(**row).model_dump(mode="json") for row in rows]


@pytest.fixture
def clickhouse(tmp_path) -> Iterator[Server]:
    "A running server; its password is `hunter2`."
    server = Server(tmp_path / "clickhouse", free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cluster(tmp_path) -> Iterator[Server]:
    "A running server that is the only shard of the cluster `main`; its password is `hunter2`."
    server = Server(tmp_path / "cluster", free_port(), shards=(("127.0.0.1",),))
    server.start()
    yield server
    server.stop()
