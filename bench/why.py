"""What it costs to rebuild a past answer, to look whether the ledger is whole, and to ask who vouches for a version.

usage: python bench/why.py [--rebuild] [--write]      (after `make pipeline`; `--rebuild`: depth 3, too; `--write`: into docs/benchmarks.md)

In one process, on embedded parts, with the project's own registry; medians. `og` as a command takes its start beside that."""
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from machine import about, into_page

from og_project.config import root, settings
from og_project.data.contract import EXAMPLE, Record, answer
from og_project.features import build_features
from og_project.lifecycle.attestation import check_statement, new_signer, opened, read_signers, sign, statement
from og_project.lifecycle.ledger import Change, faults, link
from og_project.lifecycle.lookups import lookups_hash
from og_project.lifecycle.registry import expect_champion, fetch
from og_project.model.estimator import load, rows_table, scores, verify
from og_project.serving.journal import Entry, batch_of, journal_schema, new_ids, tables_sql
from og_project.serving.slot import open_model
from og_project.serving.why import SAME, why
from og_project.store import append, connect, create


def median(what: Callable, times: int) -> float:
    "Milliseconds."
    took = []
    for _ in range(times):
        start = time.perf_counter()
        what()
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)


def rows(rebuild: bool) -> list[tuple[str, float]]:
    config, place = settings(), Path(tempfile.mkdtemp(dir=root() / "build"))
    version = expect_champion(config)
    folder = fetch(config, version, root() / "models/versions")
    store, model = connect(f"chdb://{place}"), load(folder)
    create(store, tables_sql())
    record = rows_table([Record(**EXAMPLE)])
    matrix, ids = build_features(record, model.features), new_ids(1)
    given = answer(scores(model.estimator, matrix), model.encoder["threshold"])
    entry = Entry(ids, ids, str(version.version), None, record, matrix, given, lookups_hash=lookups_hash(folder / "lookups"))
    append(store, "predictions", pa.Table.from_batches([batch_of(entry, journal_schema(), b"key")]))
    found = why(config, ids[0].as_py(), store=store)
    assert [depth.verdict for depth in found.rebuilt] == [SAME, SAME], found.rebuilt
    shown = [("depth 1 and 2, ms", median(lambda: why(config, ids[0].as_py(), store=store), 20))]
    if rebuild:
        start = time.perf_counter()
        deep = why(config, ids[0].as_py(), model=True, store=store)
        shown.append((f"depth 3 ({deep.rebuilt[2].verdict}), the first time, s", time.perf_counter() - start))
    chain: list[Change] = []
    for number in range(1000):
        chain.append(link(chain, Change(datetime.now(UTC), "demo", "promote", "", str(number), "ada", "passed", "")))
    shown.append(("a ledger of 1,000 rows looked at, ms", median(lambda: faults(chain), 10)))
    new_signer(place / "ada")
    keys, fingerprint = read_signers((place / "ada.pub").read_text()), verify(folder)
    envelope = sign(statement("demo", "1", fingerprint, version.tags, {}), place / "ada")
    shown.append(("an attestation looked at, ms", median(lambda: check_statement(opened(envelope, keys), "demo", "1", fingerprint), 200)))
    shown.append(("the files held against their manifest, ms", median(lambda: verify(folder), 20)))
    shown.append(("a version opened and warmed up, ms", median(lambda: open_model(folder, "1", {}), 5)))
    return shown


if __name__ == "__main__":
    os.chdir(root())
    found = rows("--rebuild" in sys.argv)
    lines = ["| what | median |", "|---|---|", *(f"| {name} | {value:,.2f} |" for name, value in found)]
    table = "\n".join([*lines, "", f"{time.strftime('%Y-%m-%d')}; {about(root() / 'build')}"])
    print(table)
    if "--write" in sys.argv:
        into_page("why", table)
