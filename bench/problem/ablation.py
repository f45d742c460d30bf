"""What helped and what did not: the model of nbs/06_train.ipynb with parts left out or added, on the features that the pipeline left.

usage: python bench/problem/ablation.py     (after make pipeline)"""
import numpy as np
import pyarrow.parquet as pq
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from og_project.config import root, settings
from og_project.data.contract import TARGET, moment
from og_project.features import FEATURES, WEATHER, WINDOWS
from og_project.model import estimator
from og_project.model.evaluate import expected_calibration_error, reliability, score
from og_project.model.train import split

PARTS = split(pq.read_table(root() / "data/processed/features.parquet"), moment("2014-01-01"))
TARGETS = {name: part[TARGET].to_numpy().astype(bool) for name, part in PARTS.items()}
RECENT = [name for name, (event, key, _) in WINDOWS.items() if event == "departed" and key != "plane"]
PLANE = [name for name, (_, key, _) in WINDOWS.items() if key == "plane"]
DAYS = [name for name, (event, *_) in WINDOWS.items() if event == "arrived"]


def probabilities(without: list[str], **params) -> tuple[np.ndarray, np.ndarray]:
    "Of the validation and of the test rows, by a model that does not see some features (they are made constant)."
    def seen(table):
        for name in without:
            table = table.set_column(table.schema.get_field_index(name), name, [np.zeros(len(table), np.float32)])
        return table

    tables = {name: seen(part) for name, part in PARTS.items()}
    booster, _ = estimator.fit(tables["train"], tables["valid"], settings().model | params)
    matrix = lambda part: np.stack([tables[part][name].to_numpy() for name in FEATURES], axis=1)
    return np.asarray(booster.predict(matrix("valid"))), np.asarray(booster.predict(matrix("test")))


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))[:, None]


def show(name: str, valid: np.ndarray | None, test: np.ndarray) -> None:
    quality, error = score(TARGETS["test"], test), expected_calibration_error(reliability(TARGETS["test"], test))
    of_valid = "" if valid is None else f"{score(TARGETS['valid'], valid)['roc_auc']:.4f}"
    print(f"| {name} | {of_valid} | {quality['roc_auc']:.4f} | {quality['brier']:.4f} | {error:.4f} |", flush=True)


print("| model | ROC AUC, validation | ROC AUC, test | Brier, test | calibration error, test |\n|---|---|---|---|---|")
valid, test = probabilities([])
show("all features", valid, test)
show("no history", *probabilities([*RECENT, *PLANE, *DAYS]))
show("history of days and weeks only", *probabilities([*RECENT, *PLANE]))
show("without where the plane was last seen", *probabilities(PLANE))
show("without the last hours", *probabilities(RECENT))
show("without weather", *probabilities(list(WEATHER)))
show("without the destination's code", *probabilities(["dest"]))
show("steps of 0.03, 31 leaves", *probabilities([], learning_rate=0.03, num_leaves=31))
show("extra trees", *probabilities([], extra_trees=True))
platt = LogisticRegression(C=1e6).fit(logit(valid), TARGETS["valid"])
show("Platt calibration on the validation months", None, platt.predict_proba(logit(test))[:, 1])
isotonic = IsotonicRegression(out_of_bounds="clip").fit(valid, TARGETS["valid"])
show("isotonic calibration on the validation months", None, isotonic.predict(test))
