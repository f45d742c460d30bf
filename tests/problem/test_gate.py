"The gate on real flights: a better model passes; each bad one is stopped by the check that is meant for it."
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sites import PARAMS, save_model

from og_project.config import GateSettings
from og_project.data.contract import Record, moment
from og_project.features import FEATURES
from og_project.lifecycle import gate
from og_project.lifecycle.gate import Candidate, Check, Unseen, check_latency, compare, fresh, trained_until
from og_project.model import estimator, train
from og_project.store import connect, parquet

LIMITS = GateSettings(repeats=40, most_rows=6_000)
SAID: dict[str, tuple[pa.Table, np.ndarray, np.ndarray]] = {}  # trees -> the fresh records, their outcomes, and what the trees say


def made(real: dict[str, Path], folder: Path, parts: dict[str, pa.Table], **params) -> Path:
    "A sealed model of these parts, which says what it was trained on."
    fitted, _ = estimator.fit(parts["train"], parts["valid"], PARAMS | params)
    save_model(folder, real, fitted, parts)
    return folder


@pytest.fixture(scope="module")
def parts(real) -> dict[str, pa.Table]:
    return train.split(pq.read_table(real["features"]), moment("2014-01-01"))


@pytest.fixture(scope="module")
def good(real, parts, tmp_path_factory) -> Path:
    "What serves: a decent model."
    return made(real, tmp_path_factory.mktemp("gate") / "champion", parts)


def asked(real: dict[str, Path], folder: Path, version: str) -> tuple[pa.Table, np.ndarray, Candidate]:
    model, trees = estimator.load(folder), (folder / "booster.txt").read_text()
    if trees not in SAID:
        SAID[trees] = fresh(connect(), parquet(real["records"]), model, Unseen(trained_until(model), moment("2014-01-01")), LIMITS.most_rows)
    rows, target, score = SAID[trees]
    return rows, target, Candidate(version, model, folder, score)


def checks(real, ours: Path, theirs: Path, **changes) -> dict[str, Check]:
    (rows, target, new), (_, _, old) = (asked(real, folder, version) for folder, version in ((ours, "2"), (theirs, "1")))
    return {check.name: check for check in compare(rows, target, replace(new, **changes), old, LIMITS)}


def refused(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if not check.passed}


def test_both_are_asked_about_the_same_records_later_than_their_training(real, good):
    rows, target, model = asked(real, good, "1")
    assert len(rows) == len(target) == len(model.score) == LIMITS.most_rows
    assert pc.min(rows["sched_dep"]).as_py() > trained_until(model.model) > moment("2013-10-31")


def test_what_the_gate_shows_a_model_is_what_training_showed_it(real, parts, good):
    model = estimator.load(good)
    _, _, score = fresh(connect(), parquet(real["records"]), model, Unseen(moment("2013-12-01"), moment("2013-12-03")), 10**9)
    days = parts["test"].filter((pc.field("sched_dep") > moment("2013-12-01")) & (pc.field("sched_dep") < moment("2013-12-03")))
    matrix = np.stack([days[name].to_numpy() for name in FEATURES], axis=1)
    np.testing.assert_array_equal(score, estimator.scores(model.estimator, matrix))


def test_a_better_model_passes(real, parts, good, tmp_path):
    weak = made(real, tmp_path / "weak", parts, num_boost_round=6)
    found = checks(real, good, weak)
    assert refused(found) - {"latency", "size"} == set()   # ten times the trees: larger and slower, and better
    assert found["quality"].numbers["low"] > 0 and 0 < found["leak"].numbers["gain"] < LIMITS.max_gain


def test_the_same_model_passes_every_check(real, good, tmp_path):
    assert refused(checks(real, shutil.copytree(good, tmp_path / "same"), good)) == set()


def test_a_worse_one_is_stopped_by_quality(real, parts, good, tmp_path):
    found = checks(real, made(real, tmp_path / "worse", parts, num_boost_round=8), good)
    assert "quality" in refused(found) and re.search(r"roc_auc changes by -\d", found["quality"].said)


def test_one_that_is_better_overall_and_worse_on_a_slice_is_stopped_by_slices(real, good, tmp_path):
    rows, target, old = asked(real, good, "1")
    there = np.flatnonzero(np.array(rows["origin"].to_pylist()) == "LGA")  # it guesses there, and knows a little more elsewhere
    score = np.clip(old.score + 0.12 * (target - target.mean()), 0, 1)
    score[there] = np.random.default_rng(1).permutation(old.score[there])
    found = checks(real, shutil.copytree(good, tmp_path / "uneven"), good, score=score)
    assert "slices" in refused(found) and "origin=LGA" in found["slices"].said
    assert not {"quality", "leak"} & refused(found), found["quality"].said


def test_a_leak_is_stopped_by_leak(real, good, tmp_path):
    rows, target, _ = asked(real, good, "1")
    known = pc.fill_null(rows["dep_delay"], 0).to_numpy()  # known only after departure
    found = checks(real, shutil.copytree(good, tmp_path / "leaky"), good, score=1 / (1 + np.exp(-known / 20)))
    assert "leak" in refused(found) and "gain" in found["leak"].needed


def test_a_miscalibrated_one_is_stopped_by_calibration_alone(real, good, tmp_path):
    _, _, old = asked(real, good, "1")
    found = checks(real, shutil.copytree(good, tmp_path / "sure"), good, score=old.score**3)  # the order is the same
    assert refused(found) == {"calibration"}


def test_a_slow_and_large_one_is_stopped_by_latency_and_size(real, parts, good, tmp_path):
    few = parts | {"train": parts["train"].slice(0, 20_000)}  # how good it is, is not asked here
    found = checks(real, made(real, tmp_path / "slow", few, num_boost_round=200, num_leaves=63), good)
    assert {"latency", "size"} <= refused(found)


@pytest.mark.parametrize("change, said", [
    (lambda record: record["properties"].pop("temp"), "temp is gone"),
    (lambda record: record["required"].append("temp"), "temp has to be given"),
    (lambda record: record["properties"]["flight"].update(maximum=99), "flight has another type or range"),
])
def test_another_contract_is_stopped_by_contract(real, good, tmp_path, change, said):
    ours = shutil.copytree(good, tmp_path / "other")
    contract = json.loads((ours / "contract.json").read_text())
    change(contract["record"])
    (ours / "contract.json").write_text(json.dumps(contract))
    estimator.seal(ours)
    found = checks(real, ours, good)
    assert refused(found) == {"contract"} and said in found["contract"].said


def test_other_answers_to_golden_rows_are_stopped_by_golden(real, good, tmp_path):
    ours = shutil.copytree(good, tmp_path / "other")
    golden = json.loads((ours / "golden.json").read_text())
    golden[0]["answer"]["probability"] += 0.01
    (ours / "golden.json").write_text(json.dumps(golden))
    estimator.seal(ours)
    assert refused(checks(real, ours, good)) == {"golden"}


def test_a_handful_of_fresh_records_is_stopped_by_fresh(real, good, tmp_path):
    (rows, target, new), (_, _, old) = (asked(real, folder, "1") for folder in (good, good))
    few = compare(rows[:50], target[:50], replace(new, score=new.score[:50]), replace(old, score=old.score[:50]), LIMITS)
    assert refused({check.name: check for check in few}) == {"fresh"}


# --- beside busy neighbours ------------------------------------------------------------------------------------------


@pytest.fixture
def busy():
    "Two processes that take all the processor they can get."
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def test_two_copies_of_one_model_are_equally_fast_whatever_else_the_machine_does(real, good, busy):
    records = pq.read_table(real["records"], columns=list(Record.model_fields)).slice(0, 500)
    for _ in range(5):
        check = check_latency(estimator.load(good), estimator.load(good), records, LIMITS)
        assert check.passed and "too close" not in check.said, check.said


def test_one_that_is_really_half_as_slow_again_is_found_whatever_else_the_machine_does(real, good, busy, monkeypatch):
    records = pq.read_table(real["records"], columns=list(Record.model_fields)).slice(0, 500)
    ours, theirs = estimator.load(good), estimator.load(good)
    honest = gate.predict

    def predict(model, rows):
        if model is ours:
            honest(model, rows.slice(0, (len(rows) + 1) // 2))  # half of the work once more
        return honest(model, rows)

    monkeypatch.setattr(gate, "predict", predict)
    for _ in range(3):
        assert not check_latency(ours, theirs, records, LIMITS).passed
