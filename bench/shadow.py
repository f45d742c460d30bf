"""The price of a shadow: how long requests take with and without a challenger that answers them, too, in a process beside the service.

usage: python bench/shadow.py [--write] [ROUNDS [SECONDS]]      (apt-get install hey; `make pipeline` before; `--write`: into docs/benchmarks.md)

One worker on embedded parts, asked at a steady rate over eight connections; with and without take turns; medians over the rounds."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from machine import about, into_page

from og_project.config import root, settings
from og_project.data.contract import EXAMPLE
from og_project.lifecycle.ledger import promote
from og_project.lifecycle.registry import only, register
from og_project.model.estimator import seal
from og_project.replay import lay_out, serving
from og_project.serving.rescore import opened_store
from og_project.store import query
from og_project.timeline import elsewhere

RATE, CONNECTIONS = 200, 8  # requests in a second


def two_versions() -> None:
    "The pipeline's model, promoted, and the same one under another fingerprint."
    for folder in ("data/interim", "data/processed", "models", "reports"):
        shutil.copytree(PROJECT / folder, root() / folder, ignore=shutil.ignore_patterns("versions"))
    promote(settings(), str(register(settings()).version), "a benchmark")
    encoder = only("model") / "encoder.json"
    encoder.write_text(json.dumps(json.loads(encoder.read_text()) | {"seed": 999}))
    seal(only("model"))
    register(settings())


def asked(url: str, seconds: float) -> np.ndarray:
    "Milliseconds that requests took."
    with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
        body.write(json.dumps(EXAMPLE))
        body.flush()
        command = ["hey", "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-q", str(RATE / CONNECTIONS), "-m", "POST", "-T", "application/json",
                   "-D", body.name, "-o", "csv", f"{url}/predict"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    assert all(line.split(",")[6] == "200" for line in lines), "a request failed"
    return 1e3 * np.array([float(line.split(",")[0]) for line in lines])


def measure(url: str, beside: bool, seconds: float) -> tuple[float, ...]:
    "Median and 99th percentile, share of the requests that were shadowed, and the shadow's share of a core."
    count = lambda: query(STORE, "SELECT (SELECT count() FROM predictions) AS p, (SELECT count() FROM shadows) AS s").to_pylist()[0]
    og = Path(sys.executable).with_name("og")
    process = subprocess.Popen([og, "shadow"], cwd=root(), env=os.environ, stdout=subprocess.DEVNULL) if beside else None
    if process:
        while count()["s"] == 0 and count()["p"] > 0:  # it has started, and answered what was there
            time.sleep(0.5)
        time.sleep(12)
    before, used = count(), sum(psutil.Process(process.pid).cpu_times()[:2]) if process else 0.0
    took = asked(url, seconds)
    time.sleep(12 if process else 3)  # what was asked last is shipped, and looked at
    after, now = count(), sum(psutil.Process(process.pid).cpu_times()[:2]) if process else 0.0
    if process:
        process.terminate()
        process.wait()
    shadowed = (after["s"] - before["s"]) / max(1, after["p"] - before["p"])
    return float(np.percentile(took, 50)), float(np.percentile(took, 99)), shadowed, (now - used) / (seconds + 12)


def main(rounds: int, seconds: float, write: bool) -> None:
    two_versions()
    found: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
    with serving(root() / "service.log") as url:
        asked(url, 3)
        for _ in range(rounds):
            for beside in found:
                found[beside].append(measure(url, beside, seconds))
                print(beside, [f"{value:.2f}" for value in found[beside][-1]], flush=True)
    lines = [f"| {RATE} requests a second | median, ms | 99th percentile, ms | shadowed | its share of a core |", "|---|---|---|---|---|"]
    for beside, name in ((False, "without"), (True, "with `og shadow` (`shadow.cpu` 0.25)")):
        p50, p99, shadowed, cpu = np.median(np.array(found[beside]), axis=0)
        lines.append(f"| {name} | {p50:.2f} | {p99:.2f} | {shadowed:.0%} | {cpu:.2f} |")
    table = "\n".join([*lines, "", f"{rounds} rounds of {seconds:g} s; {time.strftime('%Y-%m-%d')}; {about(PROJECT / 'build')}"])
    print(table)
    if write:
        into_page("shadow", table)


if __name__ == "__main__":
    numbers = [float(word) for word in sys.argv[1:] if not word.startswith("-")]
    PROJECT, place = root(), root() / "build/bench-shadow"
    lay_out(PROJECT, place)
    with elsewhere(place):
        STORE = opened_store(settings())
        main(int(numbers[0]) if numbers else 5, numbers[1] if len(numbers) > 1 else 15, "--write" in sys.argv)
