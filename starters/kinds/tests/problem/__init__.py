"""What the platform's tests need to know of the problem. The tests beside this file are of the problem alone."""
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from og_project import features
from og_project.data import ingest
from og_project.data.contract import Record
from og_project.store import connect, write

PRODUCTS = ("raw", "records", "rejected", "features", "lookups")  # what `make_products` makes
WORDS = r"scanner|written digit|load_digits"  # not in the platform
FIRST, EARLIER, BETWEEN, WHOLE = "2020-01-01", "2021-01-01", "2022-01-01", ""  # `until` of four trainings; the last one sees all
TABLE = ""  # a table of the source on a server: there is none
STRANGE = {"row_1": 128}  # what the reference never saw
MOVED = "row_1"  # a feature that notices
BASELINE = "nearest_mean"  # stands in the report
PLOTS = ("said_and_seen.png",)  # stand on the page of `dvc plots show`
FEATURE = ("axis=1)", "axis=-1)")  # a line of 04_features, and another
PROSE = ("nothing is made of the counts", "nothing at all is made of the counts")  # a sentence of 04_features, and another


def make_products(made: dict[str, Path]) -> None:
    "The products of the stages before Train, made by the exported functions."
    write(made["raw"], ingest.read())
    for name, rows in zip(("records", "rejected"), ingest.check(connect(), made["raw"]), strict=True):
        write(made[name], rows)
    features.build(made["records"], made["features"], made["lookups"])


def shrink(folder: Path, every: int) -> None:
    "Let a copy of the project take a share of the data: this table is small as it is."


def last_predictions(folder: Path) -> tuple[list[dict], list[float]]:
    "Records of the test, as JSON, and the score that the evaluation notebook gave each."
    test = pq.read_table(folder / "data/processed/predictions.parquet")
    records = pq.read_table(folder / "data/interim/records.parquet")
    rows = records.take(pc.index_in(test["sample"], value_set=records["sample"].combine_chunks()))
    return [Record(**row).model_dump(mode="json") for row in rows.select(list(Record.model_fields)).to_pylist()], test["said_0"].to_pylist()
