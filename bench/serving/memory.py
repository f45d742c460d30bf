"""Where a worker's memory goes in the local environment: resident megabytes after each of its parts was loaded, in their order, in one process.

usage: python bench/serving/memory.py [--write]      (after `make pipeline`; `--write`: into docs/benchmarks.md)

The serving environment has neither pandas nor the embedded engine, and asks the registry over HTTP."""
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))


def resident() -> float:
    return psutil.Process().memory_info().rss / 1e6


def opened() -> Any:
    from og_project.config import root
    from og_project.serving.slot import open_model

    return open_model(root() / "models/model", "1", {})


def asked() -> Any:
    from og_project.config import settings
    from og_project.lifecycle.registry import champion

    return champion(settings())


def engine() -> Any:
    from og_project.store import connect

    return connect(f"chdb://{tempfile.mkdtemp()}")


STEPS = {"Python": lambda: None, "NumPy": lambda: import_module("numpy"), "Arrow": lambda: import_module("pyarrow.parquet"),
         "LightGBM, contract, features": lambda: import_module("og_project.model.estimator"),
         "the web part": lambda: import_module("og_project.serving.api"),
         "pandas (Arrow loads it where it is installed)": lambda: import_module("pandas"), "a model, opened and warmed up": opened,
         "MLflow and its SQLite registry": asked, "the embedded ClickHouse": engine}


def main() -> list[str]:
    lines, before, kept = ["| what | MB more | MB in all |", "|---|---|---|"], 0.0, []
    for name, load in STEPS.items():
        kept.append(load())
        now = resident()
        lines.append(f"| {name} | {now - before:.0f} | {now:.0f} |")
        before = now
    library = sum(part.rss for part in psutil.Process().memory_maps() if "chdb" in part.path) / 1e6
    return [*lines, f"| (of the embedded ClickHouse: pages of its library, which the kernel may drop) | {library:.0f} | |"]


if __name__ == "__main__":
    lines = main()
    from machine import about, into_page

    table = "\n".join([*lines, "", f"{time.strftime('%Y-%m-%d')}; {about(Path())}"])
    print(table)
    if "--write" in sys.argv:
        into_page("memory", table)
