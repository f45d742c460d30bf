"Blocks of a stage that several processes build are those that one builds, byte by byte; and nothing else is ever taken for one."
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from processes import free_port
from projects import Project, small_project
from servers import Registry, storage_ports

from og_project import features
from og_project.config import root
from og_project.lifecycle.pipeline import read_stages
from og_project.store import BlockCache, StoreError, block_cache, read_block, write_block

pytestmark = pytest.mark.slow
ALONE = not hasattr(features, "build_share")
MADE = read_stages()["features"]["product"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Project:
    if ALONE:
        pytest.skip("this problem's features are built at once")
    made = small_project(tmp_path_factory.mktemp("blocks") / "project")
    for stage in read_stages()["features"]["upstream"]:
        made.run("og", "run", stage)
    return made


def built(project: Project, *more: str, **environment: str) -> dict[str, bytes]:
    "What the stage makes, by file."
    project.run("og", "run", "features", *more, **environment)
    lookups = {path.name: path.read_bytes() for path in (project.folder / MADE["lookups"]).iterdir()}
    return lookups | {"features": (project.folder / MADE["features"]).read_bytes()}


def test_shares_of_several_processes_make_the_same_bytes(parts, tmp_path):
    alone, place = built(parts), tmp_path / "a place"
    with ExitStack() as running:
        logs = [tmp_path / f"{i}.log" for i in (1, 2, 3)]
        shares = [running.enter_context(parts.start("og", "run", "features", "--block", f"{i}/3", log=log, OG_STORE__CACHE=str(place)))
                  for i, log in enumerate(logs, 1)]
        assert [share.wait(600) for share in shares] == [0, 0, 0], [log.read_text() for log in logs]
    blocks = sorted(place.rglob("*.parquet"))
    assert len(blocks) > 3 and len({path.parent for path in blocks}) == 1 and len(list(blocks[0].parent.iterdir())) == len(blocks)
    assert built(parts, OG_STORE__CACHE=str(place)) == alone

    again = parts.run("og", "run", "features", "--block", "1/3", OG_STORE__CACHE=str(place)).stdout
    assert "  0 rows" in again, again  # they are there
    for other, says in ((blocks[1].read_bytes(), "every record has its features"), (b"half of it", f"store.cache: {place}/{blocks[0].stem}")):
        blocks[0].write_bytes(other)  # that the stage sees it shows that it takes what is there
        said = parts.run("og", "run", "features", check=False, OG_STORE__CACHE=str(place))
        assert said.returncode == 1 and says in said.stderr, said.stderr
    with (parts.folder / "og_project/features.py").open("a") as code:
        code.write("# other code, other blocks\n")
    assert built(parts, OG_STORE__CACHE=str(place)) == alone


def test_a_block_is_named_by_all_that_it_is_made_of(tmp_path, monkeypatch):
    (tmp_path / "records").write_text("oak")
    (tmp_path / "report").write_text("at ten")
    products = {"records": str(tmp_path / "records"), "nb": str(tmp_path / "report")}
    assert block_cache(products, 15) is None
    monkeypatch.setenv("OG_STORE__CACHE", "shared")
    before = block_cache(products, 15)
    assert before.place == str(root() / "shared") and block_cache(products, 16).origin != before.origin
    (tmp_path / "report").write_text("at eleven")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "records").rename(tmp_path / "elsewhere/records")
    products["records"] = str(tmp_path / "elsewhere/records")
    assert block_cache(products, 15) == before
    (tmp_path / "elsewhere/records").write_text("ash")
    assert block_cache(products, 15).origin != before.origin


@pytest.mark.parametrize("stage, share, said", [("features", "1/2", "store.cache names no place"), ("features", "3/2", "the second of four shares"),
                                                ("train", "1/2", "train of this project is not made of blocks")])
def test_a_share_of_nothing_is_refused(parts, stage, share, said):
    done = parts.run("og", "run", stage, "--block", share, check=False)
    assert done.returncode and said in " ".join(done.stderr.split()), done.stderr


@pytest.fixture(scope="module")
def storage(tmp_path_factory, request):
    "S3-compatible storage, with its keys in the environment."
    made = Registry(tmp_path_factory.mktemp("storage"), free_port(), storage_ports())
    made.start_storage()
    with pytest.MonkeyPatch.context() as patch:
        keys = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{made.ports['s3']}", "AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": made.secret}
        for name, value in (keys | {"AWS_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        yield made
    made.stop()


def test_blocks_on_s3(storage, monkeypatch):
    cache, rows = BlockCache("s3://dvc/blocks", "0123"), pa.table({"key": ["a", "ä"], "value": pa.array([1.5, None], pa.float32())})
    assert read_block(cache, "2013-01-01") is None
    write_block(cache, "2013-01-01", rows)
    write_block(cache, "2013-01-01", rows)
    assert read_block(cache, "2013-01-01").equals(rows) and read_block(BlockCache("s3://dvc/blocks", "4567"), "2013-01-01") is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    for asked in (lambda: read_block(cache, "2013-01-01"), lambda: write_block(cache, "2013-01-02", rows)):
        with pytest.raises(StoreError, match="store.cache: s3://dvc/blocks/2013-01-0"):
            asked()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="store.cache: "):
        write_block(BlockCache(str(tmp_path / "file"), "0123"), "2013-01-01", pa.table({"a": [1]}))
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "file"]
