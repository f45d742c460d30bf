"""The features of nbs/04_features.ipynb in pandas, in two ways that differ in how history is looked up.

`rolling` is what the documentation of pandas teaches: time-based windows by key, `groupby(...).rolling("24h", closed="left")`.
`asof` is what an expert makes of it: running counts by key and hour, two `merge_asof` for each window, their difference."""
from collections.abc import Callable
from pathlib import Path

import holidays
import numpy as np
import pandas as pd

from og_project.data.contract import ZONE
from og_project.features import CATEGORICAL, HORIZON, KEYS, TAXI_MINUTES, WEATHER, WINDOWS

HOUR = pd.Timedelta(hours=1)


def events(rows: pd.DataFrame, event: str, columns: tuple[str, ...]) -> pd.DataFrame:
    "Key, hour in which it became known, and value of each event."
    minutes = rows["dep_delay"] if event == "departed" else rows["dep_delay"] + rows["air_time"] + TAXI_MINUTES
    value = rows["dep_delay"] if event == "departed" else (rows["arr_delay"] >= 15).astype(float).where(rows["arr_delay"].notna())
    hour = (rows["sched_dep"] + pd.to_timedelta(minutes, unit="m")).dt.floor("h")
    return pd.DataFrame({"hour": hour, "value": value, "key": key_of(rows, columns)}).dropna()


def rolling(asked: pd.DataFrame, known: pd.DataFrame, widths: dict[str, int]) -> dict[str, np.ndarray]:
    "The mean of each window: events and questions in one frame, by key and time; a question has no value."
    both = pd.concat([known, asked.assign(row=np.arange(len(asked)))], ignore_index=True).sort_values(["key", "hour"])
    found, order = {}, both["row"].to_numpy()
    for name, width in widths.items():
        mean = both.groupby("key", sort=True)[["hour", "value"]].rolling(f"{width}h", on="hour", closed="left")["value"].mean().to_numpy()
        values = np.empty(len(asked))
        values[order[~np.isnan(order)].astype(int)] = mean[~np.isnan(order)]
        found[name] = values
    return found


def asof(asked: pd.DataFrame, known: pd.DataFrame, widths: dict[str, int]) -> dict[str, np.ndarray]:
    "The mean of each window: the difference of running counts at its two ends."
    counted = known.groupby(["key", "hour"], sort=True)["value"].agg(["size", "sum"]).reset_index()
    running = counted.groupby("key")[["size", "sum"]].cumsum()
    running = counted[["key", "hour"]].assign(flights=running["size"], total=running["sum"]).sort_values("hour")
    def at(shift: int) -> pd.DataFrame:
        moved = asked.assign(hour=asked["hour"] - shift * HOUR)
        return pd.merge_asof(moved, running, on="hour", by="key", allow_exact_matches=False)[["flights", "total"]].fillna(0)
    now, found = at(0), {}
    for name, width in widths.items():
        counts = now - at(width)
        found[name] = (counts["total"] / counts["flights"]).where(counts["flights"] > 0).to_numpy()
    return found


def key_of(rows: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    return rows[columns[0]] if len(columns) == 1 else rows[columns[0]] + rows[columns[1]]


def build(records: Path, flights: Path, planes: Path, means: Callable) -> pd.DataFrame:
    "All features, row by row as in `records`; `means` is `rolling` or `asof`."
    rows = pd.read_parquet(records)
    clock = rows["sched_dep"].dt.tz_convert(ZONE)
    found = pd.DataFrame(index=rows.index)
    for name in CATEGORICAL:
        found[name] = pd.Categorical(rows[name], categories=sorted(rows[name].unique())).codes
    found["minute"] = clock.dt.hour * 60 + clock.dt.minute
    found["arrival_minute"] = rows["sched_arr_time"] // 100 * 60 + rows["sched_arr_time"] % 100
    found["duration"] = (found["arrival_minute"] - found["minute"]) % 1440
    found["weekday"] = clock.dt.day_of_week
    federal = sorted(holidays.country_holidays("US", years=range(2000, 2051)))
    days = pd.DataFrame({"day": pd.to_datetime(federal)}).astype("datetime64[us]")
    day = clock.dt.tz_localize(None).dt.normalize().rename("day").astype("datetime64[us]")
    nearest = pd.merge_asof(day.to_frame(), days.assign(holiday=days["day"]), on="day", direction="nearest")["holiday"]
    found["holiday_distance"] = (nearest - day).abs().dt.days.clip(upper=10)
    routes = pd.read_parquet(flights, columns=["origin", "dest", "distance"]).groupby(["origin", "dest"]).max().reset_index()
    found["distance"] = rows[["origin", "dest"]].merge(routes, how="left")["distance"]
    plane = rows[["tailnum"]].merge(pd.read_parquet(planes, columns=["tailnum", "seats", "year"]), how="left")
    found["seats"], found["age"] = plane["seats"], clock.dt.year - plane["year"]
    for name in WEATHER:
        found[name] = rows[name]
    asked_at = rows["sched_dep"].dt.floor("h") - HORIZON * HOUR
    first = rows["sched_dep"].min().ceil("h")
    for event, of_event in KEYS.items():
        for by, columns in of_event.items():
            asked = pd.DataFrame({"hour": asked_at, "key": key_of(rows, columns).fillna("")})
            widths = {name: width for name, (of, key, width) in WINDOWS.items() if (of, key) == (event, by)}
            for name, values in means(asked, events(rows, event, columns), widths).items():
                covered = asked_at - widths[name] * HOUR >= first
                found[name] = np.where(covered, values, np.nan)
    return found
