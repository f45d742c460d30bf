"A piece of the past is sent through a service of its own: two versions serve, nothing is lost, and what goes wrong is noticed."
import json
import os
import shutil
from types import SimpleNamespace

import problem
import pytest
import yaml
from click.testing import CliRunner
from projects import small_project

import og_project.replay as replay
import og_project.timeline as timeline
from og_project.cli import og
from og_project.config import ReplaySettings, root, settings
from og_project.data.contract import TIME
from og_project.lifecycle.ledger import changes
from og_project.serving.journal import tables_sql
from og_project.serving.why import SAME
from og_project.store import connect, create, query, write

QUICK = {"OG_GATE__MIN_ROWS": "20", "OG_GATE__MAX_LOSS": "0.5", "OG_GATE__MAX_GAIN": "9", "OG_GATE__CALIBRATION": "9", "OG_GATE__SLICE_LOSS": "0.9",
         "OG_GATE__LATENCY": "9", "OG_GATE__SIZE": "9", "OG_GATE__REPEATS": "10", "OG_GATE__TRAFFIC_MOVED": "9", "OG_GATE__TRAFFIC_LOSS": "0.9"}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    "A short replay in a copy of the project, with a small model and a gate that lets it pass. Gives the copy and the settings."
    made = small_project(tmp_path_factory.mktemp("replay") / "copy")
    (made.folder / "service.log").write_text("somebody's own")  # what a replay writes too must not go through a link
    (made.folder / "source").mkdir()
    asked = {f"OG_REPLAY__{name.upper()}": str(value) for name, value in problem.REPLAY.items() if name != "until"}
    made.run("og", "replay", "--until", problem.REPLAY["until"], **QUICK, **asked)
    return made, asked


@pytest.fixture
def inside(replayed, monkeypatch):
    "The folder in which it was replayed, as this process's own; gives its settings and its store."
    place = replayed[0].folder / "build/replay"
    monkeypatch.chdir(place)
    with timeline.elsewhere(place):
        store = connect(f"chdb://{place / 'data'}")
        create(store, tables_sql())
        yield settings(), store


needs_time = pytest.mark.skipif(TIME is None, reason="records without a time have no past to replay")


@pytest.mark.slow
@needs_time
def test_everything_is_there_once_by_the_right_version(replayed, inside):
    config, store = inside
    found = json.loads((replayed[0].folder / "reports/replay.json").read_text())
    count = lambda table, what="*": query(store, f"SELECT count({what}) AS n FROM {table}")["n"][0].as_py()
    assert count("predictions") == count("predictions", "DISTINCT prediction_id") == found["checked"]["answers"] > 50
    assert count("predictions", "DISTINCT model_version") == 2, "both versions answered"
    assert count("feedback") == count("feedback", "DISTINCT prediction_id") == found["checked"]["outcomes"] > 20
    past = changes(config, store)
    assert [change.kind for change in past] == ["promote", "promote"] and past[1].verdict == "passed"
    assert {event["kind"] for event in found["events"]} >= {"first", "watched", "promoted"} and found["windows"]
    early = query(store, "SELECT count() AS n FROM predictions WHERE model_version = {v:String} AND predicted_at < {at:DateTime64(6, 'UTC')}",
                  {"v": past[1].to_version, "at": past[1].at})
    assert early["n"][0].as_py() == 0, "nobody was answered by a version before it was promoted"
    assert "is whole" in CliRunner().invoke(og, ["history", "--verify"]).output
    for version in {change.to_version for change in past}:
        ids = query(store, "SELECT prediction_id AS id FROM predictions WHERE model_version = {v:String} LIMIT 1", {"v": version})
        told = CliRunner().invoke(og, ["why", ids["id"][0].as_py()])
        assert told.exit_code == 0 and told.output.count(SAME) == 2, told.output


@pytest.mark.slow
@needs_time
def test_the_project_itself_is_left_alone(replayed):
    project = replayed[0]
    assert not any((project.folder / name).exists() for name in ("mlflow.db", "models", "journal", "data/predictions"))
    before = {"config/base.yml", "config/config_local.yml", "service.log"}  # changed by the test
    assert set(project.run("git", "diff", "--name-only").stdout.split()) <= before
    assert (project.folder / "service.log").read_text() == "somebody's own" and not list((project.folder / "source").iterdir())


@pytest.mark.slow
@needs_time
def test_its_page_opens(replayed, browser):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto((replayed[0].folder / "reports/replay.html").as_uri())
    assert page.evaluate("document.images[0].naturalWidth") > 300 and not errors
    text = page.inner_text("body")
    assert "none failed, none lost, none doubled" in text and "promoted" in text


@pytest.mark.slow
@needs_time
def test_what_goes_wrong_is_noticed(inside, tmp_path):
    config, store = inside
    rows = query(store, "SELECT prediction_id, model_version FROM predictions ORDER BY predicted_at").to_pylist()
    ids, versions = [row["prediction_id"] for row in rows], [row["model_version"] for row in rows]
    known = query(store, "SELECT count() AS n FROM feedback")["n"][0].as_py()
    past = changes(config, store)
    moved = past[1].at.timestamp()
    asked = [moved - 60 if version == past[0].to_version else moved + 60 for version in versions]
    run = lambda store=store, ids=ids, versions=versions, asked=asked, switches=((moved, moved + 1, past[1].to_version),): SimpleNamespace(
        config=config, store=store, outcomes=known, first=past[0].to_version, switches=list(switches), settled=lambda: None,
        answers=SimpleNamespace(ids=ids, versions=versions, asked=asked))
    assert replay.checked(run())["answers"] == len(ids)
    wrong = {"answered, and not in the store": run(ids=[*ids, "lost"], versions=[*versions, "1"], asked=[*asked, moved - 60]),
             "in the store, and never asked": run(ids=ids[1:], versions=versions[1:], asked=asked[1:]),
             "recorded with another version": run(versions=[past[1].to_version, *versions[1:]], asked=[moved + 60, *asked[1:]]),
             "was not in force": run(asked=[moved + 60, *asked[1:]]), "the ledger does not have": run(switches=())}
    for message, broken in wrong.items():
        with pytest.raises(replay.ReplayError, match=message):
            replay.checked(broken)
    doubled = connect(f"chdb://{tmp_path}")
    shutil.copytree(store.folder, tmp_path, dirs_exist_ok=True)
    create(doubled, tables_sql())
    write(tmp_path / "predictions/again.parquet", query(store, "SELECT * FROM predictions LIMIT 1"))
    with pytest.raises(replay.ReplayError, match="in the store twice"):
        replay.checked(run(store=doubled))


def test_the_rule_is_that_of_the_alerts():
    groups = yaml.safe_load((root() / "monitoring/rules/alerts.yml").read_text())["groups"]
    asking = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if rule["labels"].get("action") == "retrain"}
    assert asking.keys() == replay.LIMITS.keys()
    for name, limit in replay.LIMITS.items():
        assert f" {'<' if limit < 0 else '>'} {limit:g} and" in asking[name] and asking[name].endswith(f"> {replay.ENOUGH}"), name
    recorded = (root() / "monitoring/rules/recording.yml").read_text()
    assert f"> bool {replay.MOVED:g}" in recorded


def test_where_there_is_nothing_to_replay_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("OG_REPLAY__START", "2999-01-01")
    found = CliRunner().invoke(og, ["replay", "--folder", str(tmp_path / "place")])
    assert found.exit_code == 1 and ("nothing at or after" in found.output or "have no time" in found.output), found.output
    assert os.environ.get("OG_ROOT") != str(tmp_path / "place")
    if TIME:
        with pytest.raises(replay.ReplayError, match="replay.start is not set"):
            replay.steps_of(ReplaySettings(), problem.WHOLE)
