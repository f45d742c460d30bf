"Past answers are rebuilt: across promotions, a rollback and other code; what was changed differs, and what is missing is said."
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import problem
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from processes import wait_until
from projects import copy_project, replace, small_project
from sites import model_folder

from og_project.cli import og
from og_project.config import settings
from og_project.data.contract import EXAMPLE, Answer, Record, answer
from og_project.features import build_features
from og_project.lifecycle import ledger
from og_project.lifecycle.lookups import keep, lookups_hash
from og_project.model.estimator import SCORE, load, rows_table, scores
from og_project.serving.journal import Entry, batch_of, demo_outcomes, journal_schema, new_ids, personal, tables_sql
from og_project.serving.why import DIFFERS, NOT, SAME, depths, depths_here, lookups_of, package_at, why
from og_project.store import connect, create, query

pytestmark = pytest.mark.skipif(bool(personal()), reason="a record with personal fields is not kept whole")


def of(registry) -> dict[str, str]:
    return {"OG_MLFLOW__TRACKING_URI": registry.url, "OG_SERVE__WATCH_SECONDS": "0.3", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}


@pytest.fixture
def place(registry, real, site, monkeypatch, tmp_path):
    "A service beside a registry with three versions; nothing is promoted yet. Gives the site, the settings, and the versions."
    shutil.rmtree(site.folder / "models")
    for name, value in (of(registry) | {"OG_ROOT": str(site.folder), "OG_STORE__URL": f"chdb://{site.folder / 'data'}"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    folders = [model_folder(real, tmp_path / str(number), threshold=threshold) for number, threshold in enumerate((0.3, 0.01, 0.99))]
    return site, settings("local"), [registry.publish(folder) for folder in folders]


def test_every_answer_comes_out_the_same_whatever_served(registry, place, records, browser):
    site, config, versions = place
    given: dict[str, str] = {}  # id -> version
    site.start(ready=False, **of(registry))
    moves = [lambda version=version: ledger.promote(config, version, "a test", force=True) for version in versions]
    for move in [*moves, lambda: ledger.rollback(config, "a test")]:
        change = move()
        wait_until(lambda change=change: httpx.get(site.url + "/model").json()["version"] == change.to_version)
        said = httpx.post(site.url + "/predict", json=records[len(given) : len(given) + 25]).raise_for_status().json()
        given |= {answered["id"]: said["model_version"] for answered in said["predictions"]}
    assert list(given.values()) == [version for version in (*versions, versions[1]) for _ in range(25)]
    one = next(iter(given))
    httpx.post(site.url + "/feedback", json=[{"id": one, "outcome": demo_outcomes(1)[0]}]).raise_for_status()
    store = connect(config.store.url)
    create(store, tables_sql())
    wait_until(lambda: query(store, "SELECT count() AS n FROM predictions")["n"][0].as_py() == 100)
    for name, version in given.items():
        found = why(config, name, store=store)
        assert [depth.verdict for depth in found.rebuilt] == [SAME, SAME], found
        assert found.version == version == found.champion["to_version"] and found.reasons and found.chain["model"] and found.chain["ledger"]
    assert len(why(config, one, store=store).outcomes) == 1

    shown = httpx.get(f"{site.url}/why/{one}").raise_for_status().json()
    assert shown["prediction_id"] == one and {depth["verdict"] for depth in shown["rebuilt"]} == {SAME}
    assert httpx.get(f"{site.url}/why/nobody").status_code == 404
    told = CliRunner().invoke(og, ["why", one])
    assert told.exit_code == 0 and told.output.count(SAME) == 2 and "outcome" in told.output
    assert json.loads(CliRunner().invoke(og, ["why", one, "--json"]).stdout)["record"].keys() == Record.model_fields.keys()
    assert "no prediction 'nobody'" in CliRunner().invoke(og, ["why", "nobody"]).output
    look(browser, site)


def look(browser, site) -> None:
    "Ask on the service's page, follow its link, and read why."
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(site.url)
    page.wait_for_selector("#fields input")
    page.click("#ask button")
    page.wait_for_selector("#answer svg rect")
    wanted = page.inner_text("#answer .hint").split("recorded as ")[1].split(" ")[0]
    wait_until(lambda: httpx.get(f"{site.url}/why/{wanted}").status_code == 200)
    page.click("#answer a")
    page.wait_for_selector("#rebuilt table")
    assert page.inner_text("#rebuilt").count(SAME) == 2 and page.locator("#answer svg rect").count() > 0
    assert page.input_value("#id") == wanted and not errors
    page.close()


def row_of(folder: Path, record: dict | None = None, lookups: str | None = None) -> pa.Table:
    "A journaled prediction of a model."
    model, asked = load(folder), rows_table([Record(**(record or EXAMPLE))])
    matrix = build_features(asked, model.features)
    given = answer(scores(model.estimator, matrix), model.encoder["threshold"])
    ids, named = new_ids(1), lookups_hash(folder / "lookups") if lookups is None else lookups
    return pa.Table.from_batches([batch_of(Entry(ids, ids, "1", None, asked, matrix, given, lookups_hash=named), journal_schema(), b"key")])


def test_one_bit_that_differs_is_seen(real):
    folder, name = real["fitted"], (SCORE or list(Answer.model_fields))[0]
    row = row_of(folder)
    assert [depth.verdict for depth in depths_here(folder, folder / "lookups", row)["rebuilt"]] == [SAME, SAME]
    place, said = row.column_names.index(name), row[name][0].as_py()
    other = np.nextafter(said, 2) if isinstance(said, float) else next(value for value in (*row[name].unique().to_pylist(), "other") if value != said)
    changed = row.set_column(place, name, pa.array([other], row.schema.field(name).type))
    found = depths_here(folder, folder / "lookups", changed)["rebuilt"]
    assert [depth.verdict for depth in found] == [DIFFERS, SAME] and name in found[0].how
    features = row["features"][0].as_py()
    features[0] = float(np.nextafter(np.float32(features[0]), np.float32(2)))
    changed = row.set_column(row.column_names.index("features"), "features", pa.array([features], pa.list_(pa.float32())))
    assert depths_here(folder, folder / "lookups", changed)["rebuilt"][1].verdict == DIFFERS


@pytest.mark.parametrize("engine", ["embedded", "server", "cluster"])
def test_lookups_that_were_kept_are_found_and_those_that_were_not_are_told(request, engine, real, tmp_path):
    server = None if engine == "embedded" else request.getfixturevalue("clickhouse" if engine == "server" else "cluster")
    store = connect(f"chdb://{tmp_path / 'data'}") if server is None else connect(server.url, "hunter2")
    create(store, tables_sql())
    folder = tmp_path / "model"
    shutil.copytree(real["fitted"], folder)
    named = keep(store, load(folder).lookups, 90)
    assert keep(store, load(folder).lookups, 90) == named
    files = len(list((folder / "lookups").iterdir()))
    assert query(store, "SELECT count() AS n FROM lookups")["n"][0].as_py() == files + 1  # each once, and their list
    (folder / "lookups" / "more.txt").touch()  # the model's own are others
    into = lookups_of(store, row_of(real["fitted"], lookups=named), folder, tmp_path / "found")
    assert isinstance(into, Path) and lookups_hash(into) == named
    gone = lookups_of(store, row_of(real["fitted"], lookups="0" * 32), folder, tmp_path / "gone")
    assert isinstance(gone, str) and "never kept" in gone
    found = depths_here(real["fitted"], gone, row_of(real["fitted"]))["rebuilt"]
    assert [depth.verdict for depth in found] == [SAME, NOT] and found[1].how == gone


def test_an_answer_of_other_code_is_rebuilt_by_that_code(real, tmp_path, monkeypatch):
    "A service of an older commit computed a feature otherwise."
    project = copy_project(tmp_path / "copy")
    replace(project.folder / "og_project/features.py", *problem.FEATURE)
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qam", "another feature")
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    code_of_then = tmp_path / "then"
    project.run("git", "worktree", "add", "-q", str(code_of_then), commit)
    project.run("git", "checkout", "-q", "HEAD~1")  # what runs here is another code
    code = ("import json, sys; from pathlib import Path; import pyarrow.parquet as pq; from test_why import row_of; "
            "import pyarrow as pa; folder, asked, to = sys.argv[1:]; "
            "pq.write_table(pa.concat_tables([row_of(Path(folder), record) for record in json.loads(Path(asked).read_text())]), to)")
    table, folder = pq.read_table(real["records"], columns=list(Record.model_fields)), real["fitted"]
    asked = [Record(**row).model_dump(mode="json") for row in table.take(np.linspace(0, len(table) - 1, 200).astype(int)).to_pylist()]
    (tmp_path / "records.json").write_text(json.dumps(asked))
    paths = f"{code_of_then}:{Path(__file__).parent}"
    project.run(sys.executable, "-P", "-c", code, str(folder), str(tmp_path / "records.json"), str(tmp_path / "rows"), PYTHONPATH=paths)
    rows = pq.read_table(tmp_path / "rows")
    monkeypatch.setenv("OG_ROOT", str(project.folder))
    here = lambda row: depths_here(folder, folder / "lookups", row)["rebuilt"]
    row = next(rows.slice(i, 1) for i in range(len(rows)) if here(rows.slice(i, 1))[1].verdict == DIFFERS)
    found = depths(commit, folder, folder / "lookups", row)["rebuilt"]
    assert [depth.verdict for depth in found] == [SAME, SAME] and f"by the code of commit {commit[:12]}" in found[1].how
    assert depths("0" * 40, folder, folder / "lookups", row)["rebuilt"] == here(row)  # nobody has that code
    strange = tmp_path / "strange"  # a tag in the registry says where else code could be had
    project.run("git", "init", "-q", str(strange))
    for commit in (f"--remote=file://{strange}", "HEAD", "main", "--output=/dev/null"):
        assert package_at(commit, tmp_path / "code") is None


def upgrade(project) -> None:
    "Commit another lock of the libraries, and a contract with a field more."
    lock = project.folder / "requirements-dev.txt"
    lock.write_text(re.sub(r"(?m)^tabulate==\S+", "tabulate==0.8.10", lock.read_text()))
    contract = project.folder / "og_project/data/contract.py"
    contract.write_text(re.sub(r"(?m)^(class Record\(BaseModel\):(?:\n.*)*?\n    model_config = .*)$", r"\1\n    added_later: int | None = None",
                               contract.read_text(), count=1))
    changed = project.run("git", "diff", "--name-only").stdout.split()
    assert changed == ["og_project/data/contract.py", "requirements-dev.txt"]
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qam", "an upgrade")


@pytest.mark.slow
def test_a_version_is_made_again_to_the_byte_in_a_folder_of_its_own(tmp_path):
    "From a commit, with a parameter that the run had set otherwise; an environment and data of its own; after an upgrade of the code that is here."
    project = small_project(tmp_path / "project", every=40)
    commit = lambda: project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qam", "small")
    project.run("git", "add", "-A")
    commit()
    project.run("og", "run", "all", "-p", "seed", "2")
    project.run("dvc", "commit", "--quiet", "--force")
    commit()
    project.run("og", "register", "--promote-first")
    with project.serving() as url:
        name = httpx.post(url + "/predict", json=EXAMPLE).raise_for_status().json()["predictions"][0]["id"]
        wait_until(lambda: httpx.get(f"{url}/why/{name}").status_code == 200)
    of_then = (project.folder / "requirements-dev.txt").read_bytes()
    upgrade(project)
    done = project.run("og", "why", name, "--rebuild", "--json")
    found = json.loads(done.stdout)
    assert [depth["verdict"] for depth in found["rebuilt"]] == [SAME, SAME, SAME], found["rebuilt"]
    lock = "requirements-dev.txt"
    assert (project.folder / "build/checkout/1" / lock).read_bytes() == of_then != (project.folder / lock).read_bytes()
    assert "data from DVC's cache" in done.stderr and "from the source" not in done.stderr
    there = project.folder / "build/checkout/1"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=there, capture_output=True, text=True)
    assert (there / ".venv/bin/og").exists() and status.stdout == ""
    assert "is there already" in project.run("og", "checkout", "1", str(there), check=False).stderr
    shutil.rmtree(project.folder / ".dvc/cache")
    shutil.rmtree(there)
    again = project.run("og", "checkout", "1", str(tmp_path / "again"))
    assert "from the source" in again.stderr and (tmp_path / "again/data/interim/records.parquet").exists()

    project.run("git", "reset", "-q", "--hard", "HEAD~1")
    replace(project.folder / "config/base.yml", "learning_rate: ", "learning_rate: 0")  # never committed
    for stage in ("train", "evaluate"):
        project.run("og", "run", stage)
    project.run("og", "register")
    refused = project.run("og", "checkout", "2", str(tmp_path / "second"), check=False)
    assert refused.returncode == 1 and "never committed" in refused.stderr and not (tmp_path / "second").exists()
