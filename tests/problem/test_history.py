"The history of the flights is counted on a server as it is here."
import pyarrow as pa

from og_project import features
from og_project.data.contract import moment
from og_project.store import append, connect, create, parquet, query


def test_the_features_sql_gives_the_same_on_a_server(clickhouse, real):
    "History is counted on the server as it is here: the same SQL, pushed down."
    server, here = connect(clickhouse.url, "hunter2"), connect()
    rows = query(here, f"SELECT * FROM {parquet(real['records'])} WHERE toYYYYMM(sched_dep) = 201307")
    columns = ", ".join(
        "sched_dep DateTime64(6, 'UTC')" if n == "sched_dep"
        else f"{n} Nullable({'String' if pa.types.is_string(t) else 'Int64' if pa.types.is_integer(t) else 'Float64'})"
        for n, t in zip(rows.schema.names, rows.schema.types, strict=True)
    )
    create(server, f"CREATE TABLE IF NOT EXISTS records ({columns}) ENGINE = MergeTree ORDER BY sched_dep;")
    append(server, "records", rows)
    window = (moment("2013-07-03"), moment("2013-07-10"), 15)
    counted = [features.history(server, "records", *window), features.history(here, parquet(real["records"]), *window)]
    of_server, of_here = (c["history"].sort_by([(name, "ascending") for name in ("event", "by", "key", "hour")]) for c in counted)
    assert of_server.equals(of_here) and of_here.num_rows > 1000
