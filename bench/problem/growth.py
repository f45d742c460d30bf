"""How the data work grows: ingest and features on 1, 10 and 30 times the flights of 2013 (10 million), and the same features in pandas, Polars and
DuckDB. The last two run in an environment of their own, made by uv.

The year is repeated with dates shifted by whole weeks. Each measurement is a process of its own; memory is its peak resident set.
usage: python bench/problem/growth.py [ours] [TIMES ...]     (`ours`: without the others)"""
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from og_project import features
from og_project.data import ingest
from og_project.data.contract import ZONE, moment
from og_project.store import connect, parquet, query

DAYS = 364  # whole weeks
END = moment("2013-01-01") + timedelta(days=DAYS)


def years_and_copies(times: int) -> tuple[int, int]:
    "So many times one year, none of them before 1971, where the hours since 1970 begin."
    copies = next(copies for copies in range(1, times + 1) if times % copies == 0 and times / copies <= 40)
    return times // copies, copies


def since(times: int):
    "Years are repeated into the past: the two libraries' time zones disagree on the summers after 2037."
    return END - timedelta(days=DAYS * years_and_copies(times)[0])


def later(flights: pa.Table, minutes: int) -> pa.Table:
    "The same flights so many minutes later, within their hour."
    minute = pc.add(flights["minute"], minutes).to_numpy() % 60
    return flights.set_column(flights.schema.get_field_index("minute"), "minute", pa.array(minute, flights["minute"].type))


def repeat(folder: Path, times: int) -> None:
    "Raw CSV files with so many times the year's flights: years, and if those are not enough, each flight again a minute later."
    folder.mkdir(parents=True)
    years, copies = years_and_copies(times)
    for table, columns in ingest.SOURCE.items():
        year = pa.concat_tables(ingest.read_files(ingest.package_folder())(table))
        if table in ingest.EVENT_TABLES:
            year = year.filter(pc.field("time_hour") < END)
        with csv.CSVWriter(folder / f"{table}.csv", pa.schema(ingest.arrow_types(columns))) as writer:
            for number in range(years if table in ingest.EVENT_TABLES else 1):
                shifted = year
                if table in ingest.EVENT_TABLES:
                    moved = pc.add(year["time_hour"], pa.scalar(timedelta(days=DAYS * (number + 1 - years)), pa.duration("s")))
                    shifted = year.set_column(year.schema.get_field_index("time_hour"), "time_hour", moved)
                for copy in range(copies if table == "flights" else 1):
                    writer.write_table(later(shifted, copy) if copy else shifted)


def paths(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in ("raw", "external", "records", "rejected", "features", "lookups")}


def run_ingest(folder: Path, times: int) -> int:
    at = paths(folder)
    ingest.keep(ingest.read_files(folder), at["raw"], at["external"])
    flights, weather = (parquet(at["raw"] / f"{table}.parquet") for table in ingest.EVENT_TABLES)
    return ingest.check(connect(), flights, weather, at, since(times), END)["accepted"]


def run_features(folder: Path, times: int) -> int:
    at = paths(folder)
    tables = at["records"], at["raw"] / "flights.parquet", at["external"] / "planes.parquet"
    return features.build(connect(), features.Sources(*map(parquet, tables)), at, END, 15)


def run_pandas(folder: Path, times: int, how: str) -> int:
    import pandas_features

    at = paths(folder)
    tables = at["records"], at["raw"] / "flights.parquet", at["external"] / "planes.parquet"
    found = pandas_features.build(*tables, getattr(pandas_features, how))
    found.astype("float32").to_parquet(folder / how)
    return len(found)


OTHERS = ("polars", "duckdb")


def environment(folder: Path) -> Path:
    "Its Python."
    if not (folder / "bin/python").exists():
        subprocess.run(["uv", "venv", "-q", "-p", sys.executable, folder], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", folder, *OTHERS], check=True)
    return folder / "bin/python"


def about() -> dict:
    "What another library has to know of the features."
    days = [str(day) for day in np.array(features.holiday_days(), "datetime64[D]")]
    return {"zone": ZONE, "horizon": features.HORIZON, "taxi_minutes": features.TAXI_MINUTES, "keys": features.KEYS, "windows": features.WINDOWS,
            "categorical": features.CATEGORICAL, "features": features.FEATURES, "holidays": days}


def command_of(stage: str, folder: Path, times: int) -> list[str]:
    "What runs a stage in a process of its own."
    if stage not in OTHERS:
        return [sys.executable, __file__, "--stage", stage, str(folder), str(times)]
    at, said = paths(folder), folder / "about.json"
    said.write_text(json.dumps(about()))
    tables = at["records"], at["raw"] / "flights.parquet", at["external"] / "planes.parquet", folder / stage, said
    return [str(environment(Path("build/bench-features"))), str(Path(__file__).with_name("others.py")), stage, *map(str, tables)]


STAGES: dict[str, Callable[[Path, int], int]] = {"ingest": run_ingest, "features": run_features, "pandas rolling": partial(run_pandas, how="rolling"),
          "pandas asof": partial(run_pandas, how="asof")}


def same(folder: Path, how: str) -> bool:
    "Does it give our numbers?"
    ours, theirs = pq.read_table(paths(folder)["features"]), pq.read_table(folder / how)
    for name in features.FEATURES:
        a, b = ours[name].to_numpy(), theirs[name].to_numpy()
        if not np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True):
            bad = ~np.isclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
            print(f"{name} differs in {bad.sum()} rows: {a[bad][:3]} and {b[bad][:3]}")
            return False
    return True


def measured(stage: str, folder: Path, times: int) -> dict[str, Any]:
    "Seconds and peak memory (MB) of a stage in a process of its own."
    done = subprocess.run(command_of(stage, folder, times), capture_output=True, text=True)
    if done.returncode:
        return {"rows": 0, "seconds": float("nan"), "memory": float("nan"), "error": done.stderr[-300:]}
    return json.loads(done.stdout.splitlines()[-1])


def main(all_times: list[int], stages: list[str]) -> None:
    print("| flights | stage | seconds | million rows/s | peak memory, MB |\n|---|---|---|---|---|")
    for times in all_times:
        with tempfile.TemporaryDirectory(dir="build" if Path("build").exists() else None) as place:
            folder = Path(place) / "source"
            repeat(folder, times)
            for stage in stages:
                got = measured(stage, folder, times)
                rate = got["rows"] / got["seconds"] / 1e6
                print(f"| {got['rows']:,} | {stage} | {got['seconds']:.1f} | {rate:.3f} | {got['memory']:.0f} |", flush=True)
                if "error" in got:
                    print(got["error"])
            frame = pd.read_parquet(paths(folder)["records"])
            rows = query(connect(), f"SELECT count() AS n FROM {parquet(paths(folder)['records'])}")["n"][0].as_py()
            print(f"| {rows:,} | (the records as a pandas frame) | | | {frame.memory_usage(deep=True).sum() / 1e6:.0f} |")
            for how in ("rolling", "asof", *OTHERS):
                if (folder / how).exists():
                    print(f"the same features from {'pandas ' * (how not in OTHERS)}{how}: {same(folder, how)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        start = time.perf_counter()
        rows = STAGES[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))
        status = Path("/proc/self/status").read_text() # getrusage would count what the parent had before the exec
        memory = int(status.split("VmHWM:")[1].split()[0]) / 1e3
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - start, "memory": memory}))
    else:
        given = sys.argv[1:]
        main([int(n) for n in given if n != "ours"] or [1, 10, 30], ["ingest", "features"] if "ours" in given else [*STAGES, *OTHERS])
