"""Where the time of a prediction goes, step by step, in the process and without HTTP: microseconds for a batch, medians.

usage: python bench/serving/steps.py    (`make pipeline` before)"""
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import orjson
import pyarrow as pa
from rows import real_records

from og_project.config import JournalSettings, root
from og_project.data.contract import answer
from og_project.features import build_features
from og_project.model.estimator import load, rows_table, scores
from og_project.serving.journal import Entry, Journal, batch_of, journal_schema, new_ids
from og_project.serving.metrics import Distribution
from og_project.serving.records import read_json
from og_project.serving.scorer import Scored, answers_of
from og_project.serving.slot import Served

SIZES = (1, 16, 100, 1000)


def micros(work, seconds: float = 0.4) -> float:
    "The median time of one call."
    work()
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        taken.append(1e6 * (time.perf_counter() - began))
    return statistics.median(taken)


def steps(count: int, model, folder: Path) -> dict[str, float]:
    "Step -> microseconds for a batch of so many records."
    body = json.dumps(real_records(count)).encode()
    rows = read_json(body)
    table = rows_table(rows)
    matrix = build_features(table, model.features)
    score = scores(model.estimator, matrix)
    given, schema = answer(score, model.encoder["threshold"]), journal_schema()
    entry = Entry(new_ids(count), pa.repeat("0" * 32, count), "1", datetime.now(UTC), table, matrix, given)
    journals = {name: Journal(JournalSettings(folder=str(folder / name), durability=name, budget_mb=1e6)) for name in ("machine", "process")}
    distribution = Distribution(json.loads((root() / "models/model/reference.json").read_text()), "1")
    scored = Scored(cast(Served, None), table, matrix, score, given)  # who serves is not asked
    found = {
        "JSON to checked records": micros(lambda: read_json(body)), "records to columns": micros(lambda: rows_table(rows)),
        "features": micros(lambda: build_features(table, model.features)), "trees": micros(lambda: scores(model.estimator, matrix)),
        "ids": micros(lambda: new_ids(count)), "journal: columns to a batch": micros(lambda: batch_of(entry, schema)),
        "journal: written (process)": micros(lambda: journals["process"].write(entry)),
        "journal: on the disk (machine)": micros(lambda: journals["machine"].write(entry)),
        "distributions": micros(lambda: distribution.add(matrix, score)),
        "answers to JSON": micros(lambda: orjson.dumps(answers_of(scored, entry.ids))),
    }
    for journal in journals.values():
        journal.rotate()
    return found


if __name__ == "__main__":
    model = load(root() / "models/model")
    with tempfile.TemporaryDirectory(dir=root()) as folder:
        columns = [steps(count, model, Path(folder)) for count in SIZES]
    print("| step, µs for a batch | " + " | ".join(f"{count:,} records" for count in SIZES) + " |\n|" + "---|" * (len(SIZES) + 1))
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(f"{column[name]:,.1f}" for column in columns) + " |")
    assert np.isfinite([list(column.values()) for column in columns]).all()
