"""The features of nbs/04_features.ipynb in Polars, as an expert writes them: one lazy plan, running counts by key and hour, and `join_asof` at the
two ends of each window, on the different pairs of key and hour alone. It runs in an environment of its own (bench/problem/growth.py)."""
from datetime import timedelta
from pathlib import Path

import polars as pl

HOUR = pl.duration(hours=1)


def key_of(columns: list[str]) -> pl.Expr:
    return pl.concat_str(columns)


def events(rows: pl.LazyFrame, event: str, columns: list[str], about: dict) -> pl.LazyFrame:
    "Key, hour in which it became known, number and sum of the values: running, by key."
    minutes = pl.col("dep_delay") if event == "departed" else pl.col("dep_delay") + pl.col("air_time") + about["taxi_minutes"]
    value = pl.col("dep_delay") if event == "departed" else (pl.col("arr_delay") >= 15).cast(pl.Float64)
    hour = (pl.col("sched_dep") + pl.duration(minutes=minutes)).dt.truncate("1h")
    counted = (rows.select(hour.alias("hour"), value.alias("value"), key_of(columns).alias("key")).drop_nulls()
               .group_by("key", "hour").agg(pl.len().alias("flights"), pl.col("value").sum().alias("total")).sort("key", "hour"))
    return counted.with_columns(pl.col("flights", "total").cum_sum().over("key")).sort("hour")


def means(rows: pl.LazyFrame, event: str, columns: list[str], widths: dict[str, int], about: dict) -> pl.LazyFrame:
    "The mean of each window, for each different key and hour that is asked for."
    running = events(rows, event, columns, about)
    found = rows.select("asked", key_of(columns).fill_null("").alias("key")).unique().sort("asked")
    for place, hours in {"now": 0, **widths}.items():
        moved = found.with_columns((pl.col("asked") - pl.duration(hours=hours)).alias("hour")).sort("hour")
        at = moved.join_asof(running, on="hour", by="key", strategy="backward", allow_exact_matches=False, check_sortedness=False)
        found = at.drop("hour").rename({"flights": f"{place} flights", "total": f"{place} total"})
    between = lambda name, what: pl.col(f"now {what}").fill_null(0) - pl.col(f"{name} {what}").fill_null(0)  # noqa: E731
    return found.select("asked", "key", *(pl.when(between(name, "flights") > 0).then(between(name, "total") / between(name, "flights")).alias(name)
                                          for name in widths))


def build(records: Path, flights: Path, planes: Path, out: Path, about: dict) -> int:
    "All features, row by row as in `records`, written to a Parquet file."
    rows = pl.scan_parquet(records).with_columns((pl.col("sched_dep").dt.truncate("1h") - HOUR * about["horizon"]).alias("asked"))
    clock = pl.col("sched_dep").dt.convert_time_zone(about["zone"])
    routes = pl.scan_parquet(flights).group_by("origin", "dest").agg(pl.col("distance").max())
    owned = pl.scan_parquet(planes).select("tailnum", "seats", pl.col("year").alias("built"))
    days = pl.LazyFrame({"holiday": about["holidays"]}).with_columns(pl.col("holiday").str.to_date())
    minute, arrival = clock.dt.hour().cast(pl.Int32) * 60 + clock.dt.minute(), pl.col("sched_arr_time")
    table = rows.with_row_index("row").with_columns(
        clock.dt.date().alias("day"), minute.alias("minute"), (arrival // 100 * 60 + arrival % 100).alias("arrival_minute"),
        (clock.dt.weekday() - 1).alias("weekday"), clock.dt.year().alias("year now"))
    holidays = days.with_columns(pl.col("holiday").alias("day"))
    near = table.select("day").unique().sort("day").join_asof(holidays, on="day", strategy="nearest", check_sortedness=False)
    near = near.select("day", (pl.col("day") - pl.col("holiday")).dt.total_days().abs().clip(upper_bound=10).alias("holiday_distance"))
    table = table.join(near, on="day").join(routes, on=["origin", "dest"], how="left").join(owned, on="tailnum", how="left")
    table = table.with_columns(((pl.col("arrival_minute") - pl.col("minute")) % 1440).alias("duration"),
                               (pl.col("year now") - pl.col("built")).alias("age"))
    for event, of_event in about["keys"].items():
        for by, columns in of_event.items():
            widths = {name: width for name, (of, key, width) in about["windows"].items() if (of, key) == (event, by)}
            table = table.with_columns(key_of(columns).fill_null("").alias("key"))
            table = table.join(means(rows, event, columns, widths, about), on=["asked", "key"], how="left")
    first = rows.select(pl.col("sched_dep").min()).collect().item()
    whole = first.replace(minute=0, second=0, microsecond=0)
    first = whole if whole == first else whole + timedelta(hours=1)
    covered = lambda name: pl.when(pl.col("asked") - HOUR * about["windows"][name][2] >= first).then(pl.col(name))  # noqa: E731
    words = {name: rows.select(pl.col(name).unique().sort()).collect()[name].to_list() for name in about["categorical"]}
    coded = lambda name: pl.col(name).replace_strict(words[name], list(range(len(words[name]))), return_dtype=pl.Float32)  # noqa: E731
    column = lambda name: coded(name) if name in words else covered(name) if name in about["windows"] else pl.col(name)  # noqa: E731
    made = table.sort("row").select(column(name).cast(pl.Float32).alias(name) for name in about["features"])
    made.collect(engine="streaming").write_parquet(out)
    return pl.scan_parquet(out).select(pl.len()).collect().item()
