"The lookups of the flights: made anew from the store, and old without it."
from datetime import UTC, datetime, timedelta

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from processes import wait_until
from test_journal import on_server
from test_slot import settled

from og_project.data import ingest
from og_project.data.contract import EXAMPLE
from og_project.serving.journal import tables_sql
from og_project.serving.why import DIFFERS, SAME, depths_here, lookups_of
from og_project.store import append, connect, create, query


def test_lookups_are_made_anew_from_the_store_and_age_without_it(site, clickhouse, real, tmp_path):
    store = connect(clickhouse.url, "hunter2")
    create(store, ingest.schema() + "\n" + tables_sql())
    flights = pq.read_table(real["raw"] / "flights.parquet", filters=pc.field("time_hour") >= datetime(2013, 12, 10, tzinfo=UTC))
    later = pc.add(flights["time_hour"], pa.scalar(timedelta(days=14)))  # the same fortnight, two weeks on
    append(store, "flights", flights.set_column(flights.column_names.index("time_hour"), "time_hour", later.cast(flights["time_hour"].type)))
    site.start(OG_SOURCE="store", OG_SERVE__LOOKUPS_SECONDS="0.5", OG_SERVE__WATCH_SECONDS="0.5", **on_server(clickhouse))
    until = lambda: httpx.get(site.url + "/model").json()["lookups_until"]
    wait_until(lambda: until() > "2014-01-12")
    answered = httpx.post(site.url + "/predict", json=EXAMPLE)
    clickhouse.stop()
    wait_until(lambda: any("the lookups stay as of" in line["message"] for line in site.lines()))
    assert httpx.post(site.url + "/predict", json=EXAMPLE).json()["predictions"][0]["probability"] == answered.json()["predictions"][0]["probability"]
    assert until() > "2014-01-12" and "og_lookups_age_seconds" in settled(site, "og_lookups_fresh 0.0")
    clickhouse.start()
    wait_until(lambda: len(query(connect(clickhouse.url, "hunter2"), "SELECT * FROM predictions")) == 2)
    store = connect(clickhouse.url, "hunter2")
    rows = query(store, "SELECT * FROM predictions")
    assert str(rows["lookups_until"][0].as_py()) > "2014-01-12", "the journal says which lookups gave the answer"
    folder = site.folder / "models/versions/1"
    found = lookups_of(store, rows.slice(0, 1), folder, tmp_path)
    assert found == tmp_path / "lookups", "they were kept, and are not those of the model"
    assert [depth.verdict for depth in depths_here(folder, found, rows.slice(0, 1))["rebuilt"]] == [SAME, SAME]
    kept = lambda: query(store, "SELECT count() AS n FROM lookups")["n"][0].as_py()
    before = kept()
    for _ in range(3):
        httpx.post(site.url + "/admin/reload").raise_for_status()
    assert kept() == before == len(list((folder / "lookups").iterdir())) + 1, "nothing has changed since: each file once, and their list"
    assert depths_here(folder, folder / "lookups", rows.slice(0, 1))["rebuilt"][1].verdict == DIFFERS
