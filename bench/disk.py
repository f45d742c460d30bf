"""What a prediction takes on the disk: in the journal until it is shipped, and in the embedded store afterwards.

usage: python bench/disk.py    (`make pipeline` before)
The records are the last ones of the pipeline; they are asked for one by one, a hundred at a time, and as an Arrow stream."""
import io
import json
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent / "serving"))
from machine import about
from run import HEADERS, PLACE, running, site

from og_project.config import root
from og_project.data.contract import Record
from og_project.store import connect, parquet, query

START = "from og_project.config import settings; from og_project.serving.api import serve; serve(settings())"
URL, PORT = "http://127.0.0.1:8301", {"OG_SERVE__PORT": "8301"}


def size(folder: Path) -> int:
    "The bytes of a folder's files."
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def as_json(rows: list[dict]) -> list[bytes]:
    return [json.dumps([Record(**row).model_dump(mode="json") for row in rows]).encode()]


def as_stream(table: pa.Table) -> bytes:
    body = io.BytesIO()
    with pa.ipc.new_stream(body, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)
    return body.getvalue()


def bodies(each: int, count: int) -> tuple[list[bytes], str]:
    "Requests of so many records each, and what they are; real records, the last ones."
    records = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields))
    records = records.slice(len(records) - each * count)
    parts = [records.slice(start, each) for start in range(0, len(records), each)]
    if each > 1000:
        return [as_stream(part) for part in parts], "application/vnd.apache.arrow.stream"
    return [body for part in parts for body in as_json(part.to_pylist())], "application/json"


def measure(each: int, count: int) -> tuple[float, float]:
    "Bytes of a prediction in the journal, and in the store."
    env = site("disk") | PORT
    folder, (asked, kind) = PLACE / "disk", bodies(each, count)
    with running([sys.executable, "-c", START], env | {"OG_STORE__URL": "http://nobody@127.0.0.1:9/default"}, URL), ThreadPoolExecutor(16) as pool:
        post = partial(httpx.post, URL + "/predict", headers=HEADERS | {"content-type": kind}, timeout=600)
        for reply in pool.map(lambda body: post(content=body), asked):
            reply.raise_for_status()
        held = size(folder / "journal")
        assert not (folder / "data/predictions").exists(), "some were shipped already"
    with running([sys.executable, "-c", START], env | {"OG_JOURNAL__SHIP_SECONDS": "0.2"}, URL):
        table, shipped = f"{folder}/data/predictions/*.parquet", 0
        while shipped < each * count:
            time.sleep(1)
            there = list((folder / "data/predictions").glob("*.parquet"))
            shipped = query(connect(), f"SELECT count() AS n FROM {parquet(table)}")["n"][0].as_py() if there else 0
    stored = size(folder / "data/predictions")
    shutil.rmtree(folder)
    return held / (each * count), stored / (each * count)


if __name__ == "__main__":
    print("| predictions | bytes of one in the journal | in the embedded store |\n|---|---|---|")
    for each, count, what in ((1, 5_000, "one in a request"), (100, 500, "a hundred in a request"), (200_000, 1, "a stream of 200,000")):
        held, stored = measure(each, count)
        print(f"| {what} | {held:,.0f} | {stored:,.0f} |", flush=True)
    print(f"\n{about(PLACE)}")
