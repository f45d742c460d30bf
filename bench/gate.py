"""How often the gate refuses a model that is as good as the champion, by check and as a whole; and how often it finds one that is not.

Two models of equal quality are the truth with independent noise of the same size on the log-odds; the records are real, their outcomes are drawn
from the truth. 0.18 is what a model of the pipeline and one trained a month later are apart (the standard deviation of the difference is 0.26).
Latency is measured on two copies of the pipeline's own model, alone and beside two busy processes.

    python bench/gate.py [SEEDS]      # 40; about ten seconds each
"""
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq

from og_project.config import root, settings
from og_project.data.contract import Record
from og_project.lifecycle import gate
from og_project.model.estimator import load

ROWS = 10_000
CHECKS = ("quality", "leak", "slices", "calibration")


def shaken(truth: np.ndarray, noise: float, draw: np.random.Generator) -> np.ndarray:
    "The truth as a model sees it: noise on the log-odds."
    return 1 / (1 + np.exp(-(np.log(truth / (1 - truth)) + draw.normal(0, noise, len(truth)))))


def once(job: tuple[int, float, float]) -> list[str]:
    "The checks that refuse one challenger; the noise is the champion's and the challenger's."
    seed, of_theirs, of_ours = job
    draw, limits = np.random.default_rng(seed), settings().gate
    table = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields))
    rows = table.take(np.sort(draw.choice(table.num_rows, ROWS, replace=False)))
    truth = draw.beta(1.2, 4, ROWS).clip(0.01, 0.99)  # a quarter is late, as in the data
    target = draw.random(ROWS) < truth
    theirs, ours = shaken(truth, of_theirs, draw), shaken(truth, of_ours, draw)
    checks = [gate.check_quality(target, ours, theirs, limits), gate.check_leak(target, ours, theirs, limits),
              gate.check_slices(rows, target, ours, theirs, limits), gate.check_calibration(target, ours, theirs, limits)]
    return [check.name for check in checks if not check.passed]


@contextmanager
def busy(processes: int):
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    yield
    for loop in loops:
        loop.kill()


def latency(runs: int, extra: float) -> int:
    "How many of so many challengers are refused that take so much more processor time."
    records = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields)).slice(0, 500)
    ours, theirs = load(root() / "models/model"), load(root() / "models/model")
    honest = gate.predict

    def predict(model, rows):
        if model is ours and extra:
            honest(model, rows.slice(0, max(1, int(len(rows) * extra))))
        return honest(model, rows)

    gate.predict = predict
    try:
        return sum(not gate.check_latency(ours, theirs, records, settings().gate).passed for _ in range(runs))
    finally:
        gate.predict = honest


CHALLENGERS = {"as good as the champion, both with noise 0.18": (0.18, 0.18), "as good as the champion, both with noise 0.5": (0.5, 0.5),
               "0.65 in place of 0.5": (0.5, 0.65), "0.8 in place of 0.5": (0.5, 0.8)}


def quality_table(seeds: int) -> None:
    print("| challenger | " + " | ".join(CHECKS) + " | any |\n|---|" + "---|" * (len(CHECKS) + 1))
    with ProcessPoolExecutor(2) as pool:
        for name, noise in CHALLENGERS.items():
            found = list(pool.map(once, [(seed, *noise) for seed in range(seeds)]))
            counts = Counter(check for refused in found for check in refused)
            shown = [*(counts[check] for check in CHECKS), sum(map(bool, found))]
            print(f"| {name} | " + " | ".join(f"{count} of {seeds}" for count in shown) + " |", flush=True)


def traffic_once(job: tuple[int, float, float, int]) -> bool:
    "Does `traffic` refuse a challenger on so many outcomes? Its rule: the whole interval lies beyond the limit."
    seed, of_theirs, of_ours, outcomes = job
    draw, limits = np.random.default_rng(seed), settings().gate
    truth = draw.beta(1.2, 4, outcomes).clip(0.01, 0.99)
    target = draw.random(outcomes) < truth
    theirs, ours = shaken(truth, of_theirs, draw), shaken(truth, of_ours, draw)
    return gate.interval(target, ours, theirs, limits.repeats)[2] < -limits.traffic_loss


def traffic_table(seeds: int) -> None:
    "The same challengers on the outcomes of what callers sent."
    counts = (300, 1_000, 10_000)
    print("| challenger | " + " | ".join(f"`traffic`, {count:,} outcomes" for count in counts) + " |\n|---|" + "---|" * len(counts))
    with ProcessPoolExecutor(2) as pool:
        for name, noise in CHALLENGERS.items():
            found = [sum(pool.map(traffic_once, [(seed, *noise, count) for seed in range(seeds)])) for count in counts]
            print(f"| {name} | " + " | ".join(f"{count} of {seeds}" for count in found) + " |", flush=True)


def latency_table() -> None:
    print("| challenger | latency refuses | beside two busy processes |\n|---|---|---|")
    for name, extra in {"a copy of the champion": 0.0, "1.5 times the processor time for many records": 0.5}.items():
        alone = latency(20, extra)
        with busy(2):
            print(f"| {name} | {alone} of 20 | {latency(20, extra)} of 20 |")


if __name__ == "__main__":
    quality_table(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
    print()
    traffic_table(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
    print()
    latency_table()
