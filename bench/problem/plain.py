"The pipeline without notebooks: the exported functions in their order, in one process. For `bench/problem/pipeline.py`."
import json
import tempfile
import time
from pathlib import Path

start = time.perf_counter()
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from og_project.config import settings
from og_project.data import ingest
from og_project.data.contract import TARGET, moment
from og_project import features
from og_project.model import estimator, evaluate, train
from og_project.store import connect, parquet, write

since, until, store = moment("2013-01-01"), moment("2014-01-01"), connect()
place = Path(tempfile.mkdtemp())
made = {name: place / name for name in ("raw", "external", "records", "rejected", "features", "lookups", "fitted", "model")}
clock = {"imports": time.perf_counter() - start}


def lap(name: str) -> None:
    clock[name] = time.perf_counter() - start - sum(clock.values())


ingest.keep(ingest.reader(settings(), since, until), made["raw"], made["external"])
flights, weather = (parquet(made["raw"] / f"{table}.parquet") for table in ingest.EVENT_TABLES)
ingest.check(store, flights, weather, made, since, until)
lap("ingest")
planes = parquet(made["external"] / "planes.parquet")
features.build(store, features.Sources(parquet(made["records"]), flights, planes), made, until, 15)
lap("features")
parts = train.split(pq.read_table(made["features"]), until)
booster, loss = estimator.fit(parts["train"], parts["valid"], settings().model)
valid = np.stack([parts["valid"][name].to_numpy() for name in features.FEATURES], axis=1)
threshold = train.best_threshold(parts["valid"][TARGET].to_numpy().astype(bool), estimator.scores(booster, valid))
records = pq.read_table(made["records"])
estimator.save(made["fitted"], booster, made["lookups"], records.slice(records.num_rows - 20), threshold=threshold, windows={})
lap("train")
frames = {name: part.to_pandas() for name, part in parts.items()}
target = frames["test"][TARGET].to_numpy(dtype=bool)
model = estimator.load(made["fitted"])
matrix = np.stack([parts["test"][name].to_numpy() for name in features.FEATURES], axis=1)
given = {"model": estimator.scores(model.estimator, matrix)}
given |= {name: baseline(frames["train"])(frames["test"]) for name, baseline in evaluate.BASELINES.items()}
quality = {name: evaluate.score(target, p) for name, p in given.items()}
evaluate.bootstrap(roc_auc_score, target, given)
evaluate.reliability(target, given["model"])
evaluate.precision_recall(target, given["model"])
by_slice = evaluate.slices(frames["test"][["carrier", "origin"]], target, given["model"])
write(place / "predictions.parquet", parts["test"].append_column("probability", pa.array(given["model"])))
evaluate.complete(made["fitted"], made["model"], evaluate.card(model.encoder, quality, by_slice), matrix, given["model"])
lap("evaluate")
print(json.dumps({name: round(seconds, 2) for name, seconds in clock.items()}))
