"What `og adopt` finds in notebooks of ten habits. (That they reach the end of a pipeline: tests/test_starters.py.)"
import os

import pytest
from habits import HABITS, STOPPED, written

from og_project.lifecycle.adopt import adopted
from og_project.lifecycle.notebooks import NotebookError

FOUND = {  # habit -> task, target, fields, features that the notebook makes, columns that are features as they are
    "tidy, with a scaler and pictures": ("multiclass", "kind", 13, 14, []),
    "dates, dummies and pop": ("binary", "churned", 4, 4, ["city"]),
    "data of a package, cross-validation": ("regression", "target", 10, 11, []),
    "functions": ("binary", "churned", 2, 3, []),
    "bare arrays and an encoded target": ("multiclass", "kind", 13, 13, []),
    "cells out of order": ("multiclass", "kind", 2, 2, []),
    "a pipeline of scikit-learn": ("binary", "churned", 3, 3, []),
    "an absolute path, a secret, an installation": ("binary", "churned", 2, 2, []),
}


@pytest.fixture
def look(tmp_path, monkeypatch):
    "Follow the notebook of a habit; it may change the working folder, and draw."
    monkeypatch.setenv("MPLBACKEND", "Agg")
    here = os.getcwd()
    yield lambda habit: adopted(written(habit, tmp_path))
    os.chdir(here)


@pytest.mark.parametrize("habit", FOUND)
def test_what_becomes_of_a_habit(look, habit):
    found = look(habit)
    assert (found.asked.task, found.asked.target, len(found.fields), len(found.features), list(found.plain)) == FOUND[habit]
    assert found.asked.target not in found.fields, "nobody can be asked for what is to be foretold"


@pytest.mark.parametrize("habit", STOPPED)
def test_what_stops_a_habit_is_said(look, habit):
    with pytest.raises(NotebookError, match="adopt again|name them so") as stopped:
        look(habit)
    assert STOPPED[habit] in str(stopped.value)


def test_every_habit_is_tried():
    assert {*FOUND, *STOPPED} == set(HABITS) and len(HABITS) == 10


@pytest.mark.parametrize("habit, words", [
    ("cells out of order", ["not run from top to bottom", "`Classifier` is not defined", "code cell 4 defines it"]),
    ("tidy, with a scaler and pictures", ["'centred' depends on other rows", "`df = df.dropna()` drops rows", "`%matplotlib inline`", "to_csv"]),
    ("an absolute path, a secret, an installation", ["is a place on one machine", "something like a secret", "`!pip install something`"])])
def test_its_owner_is_told(look, habit, words):
    told = "\n".join(map(str, look(habit).made.remarks))
    assert not [word for word in words if word not in told], told


def test_a_feature_that_needs_other_rows_is_left_out(look):
    "A mean over the table would be another one in a request, which comes alone."
    assert "centred" not in look("tidy, with a scaler and pictures").features
