"""What the platform's tests need to know of the problem. The tests beside this file are of the problem alone.

Another problem brings this folder, with another `make_products`, `shrink` and the rest."""
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from og_project import features
from og_project.data import ingest
from og_project.data.contract import Record, moment
from og_project.store import connect, parquet

PRODUCTS = ("raw", "external", "records", "rejected", "features", "lookups")  # what `make_products` makes
WORDS = r"flight|carrier|airport|airline|tailnum|weather|dep_delay|arr_delay|sched_dep|\bdest\b|nycflights|New York"  # not in the platform
FIRST, EARLIER, BETWEEN, WHOLE = "2013-11-01", "2013-12-01", "2013-12-15", "2014-01-01"  # `until` of four trainings; the last one sees all
TABLE = "flights"  # a table of the source on a server
REPLAY = {"start": "2013-07-01", "until": "2013-07-15", "watch_days": 7, "retrain_days": 7}  # two weeks of the past, with a retraining between them
STRANGE = {"tailnum": None, "dest": "XXX", "temp": 100.0}  # what the reference never saw
MOVED = "temp"  # a feature that notices
BASELINE = "rate_table"  # stands in the report
PLOTS = ("observed by predicted", "reliability.png")  # stand on the page of `dvc plots show`
FEATURE = ("np.minimum(distance, 10)", "np.minimum(distance, 9)")  # a line of 04_features, and another
PROSE = ("The model thinks in New York's clock", "The model thinks in New York's own clock")  # a sentence of 04_features, and another


def make_products(made: dict[str, Path]) -> None:
    "The products of the stages before Train on all the real data, made by the exported functions."
    since, until, store = moment("2013-01-01"), moment("2014-01-01"), connect()
    ingest.keep(ingest.read_files(ingest.package_folder()), made["raw"], made["external"])
    flights, weather = (parquet(made["raw"] / f"{table}.parquet") for table in ingest.EVENT_TABLES)
    ingest.check(store, flights, weather, made, since, until)
    planes = parquet(made["external"] / "planes.parquet")
    features.build(store, features.Sources(parquet(made["records"]), flights, planes), made, until, 15)


def shrink(folder: Path, every: int) -> None:
    "Let a copy of the project take each so-many-th flight, from a folder of raw files."
    place = folder / "sample"
    place.mkdir()
    for table, columns in ingest.SOURCE.items():
        with csv.CSVWriter(place / f"{table}.csv", pa.schema(ingest.arrow_types(columns))) as writer:
            for block in ingest.read_files(ingest.package_folder(), every)(table):
                writer.write_table(block)
    local = folder / "config/config_local.yml"
    local.write_text(local.read_text().replace("source: package", "source: sample"))


def last_predictions(folder: Path) -> tuple[list[dict], list[float]]:
    "Three hundred records of the test, as JSON, and the score that the evaluation notebook gave each."
    test = pq.read_table(folder / "data/processed/predictions.parquet")
    records = pq.read_table(folder / "data/interim/records.parquet")
    known = records.filter(pc.is_valid(records["arr_delay"]))
    rows = known.slice(len(known) - 300)
    assert rows["flight"].equals(test.slice(len(test) - 300)["flight"])
    asked = [Record(**row).model_dump(mode="json") for row in rows.select(list(Record.model_fields)).to_pylist()]
    return asked, test.slice(len(test) - 300)["probability"].to_pylist()
