"""What the platform's tests need to know of the problem. The tests beside this file are of the problem alone."""
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from og_project import features
from og_project.data import ingest
from og_project.data.contract import KEY, Record, moment
from og_project.store import connect, write

PRODUCTS = ("raw", "records", "rejected", "features", "lookups")  # what `make_products` makes
WORDS = r"Stocks\.csv|symbol = |Nasdaq|AAPL|price_1"  # not in the platform
FIRST, EARLIER, BETWEEN, WHOLE = "2019-06-01", "2020-06-01", "2021-06-01", "2022-06-01"  # `until` of four trainings; the last one sees all
TABLE = ""  # a table of the source on a server: there is none
REPLAY = {"start": "2020-01-01", "until": "2022-01-01", "watch_days": 365, "retrain_days": 365}  # two years, with a retraining between them
STRANGE = {"price": 1000.0, "price_1": 1.0}  # what the reference never saw
MOVED = "move_1"  # a feature that notices
BASELINE = "as_before"  # stands in the report
PLOTS = ("said_and_seen.png",)  # stand on the page of `dvc plots show`
FEATURE = ("pc.multiply(100.0,", "pc.multiply(99.0,")  # a line of 04_features, and another
PROSE = ("Shares do not change while the service runs", "Shares never change while the service runs")  # a sentence of 04_features, and another


def make_products(made: dict[str, Path]) -> None:
    "The products of the stages before Train, made by the exported functions."
    write(made["raw"], ingest.read(moment(WHOLE)))
    for name, rows in zip(("records", "rejected"), ingest.check(connect(), made["raw"]), strict=True):
        write(made[name], rows)
    features.build(made["records"], made["features"], made["lookups"])


def shrink(folder: Path, every: int) -> None:
    "Let a copy of the project take a share of the data: this table is small as it is."


def last_predictions(folder: Path) -> tuple[list[dict], list[float]]:
    "The last records of the test, as JSON, and the score that the evaluation notebook gave each."
    test = pq.read_table(folder / "data/processed/predictions.parquet")
    records = pq.read_table(folder / "data/interim/records.parquet").sort_by([(name, "ascending") for name in KEY])
    rows = records.filter(pc.is_valid(records["price_next"]))
    rows = rows.slice(len(rows) - 100)
    assert rows["month"].equals(test["month"].slice(len(test) - 100))
    asked = [Record(**row).model_dump(mode="json") for row in rows.select(list(Record.model_fields)).to_pylist()]
    return asked, test["said_score"].to_pylist()[-100:]
