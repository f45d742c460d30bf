"""The features of nbs/04_features.ipynb in DuckDB, as an expert writes them: one statement, running counts by key and hour as window functions, and
`ASOF JOIN` at the two ends of each window, on the different pairs of key and hour alone. It runs in an environment of its own
(bench/problem/growth.py)."""
from pathlib import Path

import duckdb


def key_of(columns: list[str]) -> str:
    return " || ".join(columns)


def window_sql(event: str, by: str, columns: list[str], widths: dict[str, int], about: dict) -> str:
    "Common table expressions: running counts, the pairs that are asked for, and the mean of each window for each of them."
    minutes = "dep_delay" if event == "departed" else f"dep_delay + air_time + {about['taxi_minutes']}"
    value = "dep_delay" if event == "departed" else "(arr_delay >= 15)::INT"
    name = f"{event}_{by}"
    ends = {"now": 0, **widths}
    joins = " ".join(f"ASOF LEFT JOIN running_{name} r_{end} ON a.key = r_{end}.key AND a.asked - INTERVAL {hours} HOUR > r_{end}.hour"
                     for end, hours in ends.items())
    between = lambda end, what: f"coalesce(r_now.{what}, 0) - coalesce(r_{end}.{what}, 0)"  # noqa: E731
    means = ", ".join(f"({between(end, 'total')}) / nullif({between(end, 'flights')}, 0) AS {end}" for end in widths)
    return f"""
        counted_{name} AS (
            SELECT {key_of(columns)} AS key, date_trunc('hour', sched_dep + to_minutes(({minutes})::BIGINT)) AS hour,
                   count(*) AS flights, sum({value}) AS total
            FROM rows WHERE {value} IS NOT NULL AND ({minutes}) IS NOT NULL AND {key_of(columns)} IS NOT NULL GROUP BY ALL),
        running_{name} AS (
            SELECT key, hour, sum(flights) OVER w AS flights, sum(total) OVER w AS total
            FROM counted_{name} WINDOW w AS (PARTITION BY key ORDER BY hour)),
        asked_{name} AS (SELECT DISTINCT asked, coalesce({key_of(columns)}, '') AS key FROM rows),
        means_{name} AS (SELECT a.asked, a.key, {means} FROM asked_{name} a {joins})"""


def build(records: Path, flights: Path, planes: Path, out: Path, about: dict) -> int:
    "All features, row by row as in `records`, written to a Parquet file."
    engine = duckdb.connect()
    engine.execute("SET TimeZone = 'UTC'")
    kinds = {(event, by): columns for event, of_event in about["keys"].items() for by, columns in of_event.items()}
    widths = {kind: {name: width for name, (*of, width) in about["windows"].items() if tuple(of) == kind} for kind in kinds}
    windows = ", ".join(window_sql(*kind, columns, widths[kind], about) for kind, columns in kinds.items())
    joined = lambda name, columns: (  # noqa: E731
        f"LEFT JOIN means_{name} m_{name} ON m_{name}.asked = t.asked AND m_{name}.key = coalesce({key_of(columns)}, '')")
    joins = " ".join(joined(f"{event}_{by}", [f"t.{column}" for column in columns]) for (event, by), columns in kinds.items())
    words = {name: f"(SELECT list(DISTINCT {name} ORDER BY {name}) FROM rows)" for name in about["categorical"]}
    where = {name: f"m_{event}_{by}.{name}" for name, (event, by, _) in about["windows"].items()}
    special = {"duration": "(arrival_minute - minute + 1440) % 1440", "age": "year_now - planes.year", "seats": "planes.seats",
               "distance": "routes.distance"}

    def column(name: str) -> str:
        if name in words:
            return f"list_position({words[name]}, t.{name}) - 1"
        if name in where:
            return f"CASE WHEN t.asked - INTERVAL {about['windows'][name][2]} HOUR >= (SELECT hour FROM beginning) THEN {where[name]} END"
        return special.get(name, name)

    selected = ", ".join(f"({column(name)})::FLOAT AS {name}" for name in about["features"])
    engine.execute(f"""
        COPY (WITH rows AS (
                SELECT *, date_trunc('hour', sched_dep) - INTERVAL {about['horizon']} HOUR AS asked, timezone('{about['zone']}', sched_dep) AS clock
                FROM read_parquet('{records}', file_row_number = true)),
              beginning AS (SELECT date_trunc('hour', min(sched_dep) + INTERVAL 1 HOUR - INTERVAL 1 MICROSECOND) AS hour FROM rows),
              routes AS (SELECT origin, dest, max(distance) AS distance FROM read_parquet('{flights}') GROUP BY ALL),
              planes AS (SELECT tailnum, year, seats FROM read_parquet('{planes}')),
              days AS (SELECT unnest({about['holidays']})::DATE AS holiday),
              near AS (SELECT d.day, least(10, min(abs(d.day - holiday))) AS holiday_distance
                       FROM (SELECT DISTINCT clock::DATE AS day FROM rows) d, days GROUP BY d.day),
              t AS (SELECT *, hour(clock) * 60 + minute(clock) AS minute, sched_arr_time // 100 * 60 + sched_arr_time % 100 AS arrival_minute,
                           isodow(clock) - 1 AS weekday, year(clock) AS year_now, clock::DATE AS day FROM rows),
              {windows}
              SELECT {selected} FROM t JOIN near ON near.day = t.day LEFT JOIN routes ON routes.origin = t.origin AND routes.dest = t.dest
              LEFT JOIN planes ON planes.tailnum = t.tailnum {joins} ORDER BY t.file_row_number)
        TO '{out}' (FORMAT parquet)""")
    return engine.execute(f"SELECT count(*) FROM read_parquet('{out}')").fetchone()[0]
