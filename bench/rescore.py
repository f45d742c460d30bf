"""What the gate's look at real traffic costs as the journal grows: seconds and memory of answering ten thousand requests again by two versions.

usage: python bench/rescore.py [--write] [MILLIONS ...]      (default 1 10 100; `--write`: into docs/benchmarks.md)

The pipeline's model is asked beside itself with fewer trees. The rows are real records with their answers, copied inside the engine under new ids,
a MergeTree in a temporary folder; one in a hundred has an outcome."""
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from clickhouse_connect import get_client
from machine import about, into_page
from monitor import peak

from og_project.config import root, settings
from og_project.data.contract import CLASSES, TASK, Record, answer
from og_project.features import build_features
from og_project.lifecycle.gate import Candidate
from og_project.model.estimator import load, scores
from og_project.serving.journal import Entry, batch_of, journal_schema, new_ids, schema_sql
from og_project.serving.rescore import Period, compared, drawn, judged
from og_project.store import Store, parquet, statements

BASE = 100_000  # rows that are copied
MODEL = root() / "models/model"


def simulate(place: Path, rows: int) -> None:
    "Make the tables with so many predictions of version 1."
    client, model = get_client(interface="chdb", path=str(place)), load(MODEL)
    for statement in statements(schema_sql()):
        client.command(statement)
    records = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields))
    records = records.take(pa.array(np.linspace(0, len(records) - 1, BASE).astype(int)))
    matrix, ids = build_features(records, model.features), new_ids(BASE)
    entry = Entry(ids, ids, "1", None, records, matrix, answer(scores(model.estimator, matrix), model.encoder["threshold"]))
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.Table.from_batches([batch_of(entry, journal_schema(), b"key")]), f"{folder}/rows.parquet")
        fresh = "toString(generateUUIDv4(copy)) AS prediction_id, now64(6, 'UTC') - toIntervalSecond(rand() % 500000) AS predicted_at"
        names, some = ", ".join(journal_schema().names), f"(SELECT *, arrayJoin(range(5)) AS copy FROM {parquet(f'{folder}/rows.parquet')})"
        for _ in range(max(1, rows // (5 * BASE))):  # a few copies at a time: all at once would be one block
            client.command(f"INSERT INTO predictions ({names}) SELECT {names} FROM (SELECT * EXCEPT (copy) REPLACE ({fresh}) FROM {some})")
    kinds = {"binary": "rand() % 4 = 0", "regression": "rand() / 4294967295", "multiclass": f"{list(CLASSES)}[1 + rand() % {len(CLASSES) or 1}]"}
    client.command(f"INSERT INTO feedback (prediction_id, outcome, received_at) SELECT prediction_id, {kinds[TASK]}, now64(6, 'UTC') "
                   "FROM predictions WHERE cityHash64(prediction_id, 1) % 100 = 0")
    client.close()


def asked(place: Path) -> list[str]:
    "One look at what lies there: time of drawing the rows, of all of it, and memory."
    store = Store(get_client(interface="chdb", path=str(place)), f"chdb://{place}")
    ours, theirs = load(MODEL), load(MODEL)
    ours.estimator.best_iteration = max(1, theirs.estimator.current_iteration() // 2)
    until = datetime.now(UTC) + timedelta(hours=1)
    period, start = Period(until - timedelta(days=8), until), time.perf_counter()
    drawn(store, period)
    draw, start = time.perf_counter() - start, time.perf_counter()
    found = compared(settings(), store, Candidate("2", ours, MODEL, np.zeros(0)), Candidate("1", theirs, MODEL, np.zeros(0)), period)
    assert judged(found, settings().gate).passed is not None
    return [f"{found.rows / 1e6:g}", f"{found.outcomes:,}", f"{draw:.1f}", f"{time.perf_counter() - start:.1f}", f"{peak():,.0f}"]


def main(millions: list[float], write: bool) -> None:
    lines = ["| million predictions | outcomes looked at | drawing the requests, s | all of it, s | peak MB |", "|---|---|---|---|---|"]
    for count in millions:
        with tempfile.TemporaryDirectory(dir="build") as place:
            subprocess.run([sys.executable, __file__, "--make", place, str(int(count * 1e6))], check=True)
            done = subprocess.run([sys.executable, __file__, "--ask", place], check=True, capture_output=True, text=True)
        lines.append(done.stdout.splitlines()[-1])
        print(lines[-1], flush=True)
    table = "\n".join([*lines, "", f"{time.strftime('%Y-%m-%d')}; {about(root() / 'build')}"])
    print(table)
    if write:
        into_page("rescore", table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:  # each in a process of its own, so that memory is that of the look alone
        simulate(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--ask"]:
        print(f"| {' | '.join(asked(Path(sys.argv[2])))} |")
    else:
        main([float(word) for word in sys.argv[1:] if not word.startswith("-")] or [1, 10, 100], "--write" in sys.argv)
