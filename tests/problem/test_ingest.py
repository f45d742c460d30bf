"A broken source is one clear error or a counted rejection, and earlier products stay as they were."
import shutil
import zipfile
from hashlib import file_digest

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from og_project.cluster import on_all_hosts
from og_project.config import settings
from og_project.data import ingest
from og_project.data.contract import moment
from og_project.store import StoreError, append, connect, create, drafts, parquet, publish, query, store_of

SINCE, UNTIL = moment("2013-01-01"), moment("2014-01-01")


@pytest.fixture
def source(tmp_path):
    "A folder of raw files with the first thousand flights, to be broken."
    folder = tmp_path / "source"
    shutil.copytree(ingest.package_folder(), folder)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").decode().splitlines(keepends=True)[:1001]
    (folder / "flights.csv.zip").unlink()
    (folder / "flights.csv").write_text("".join(lines))
    return folder


def run(source, product) -> dict[str, int]:
    "The stage as its notebook runs it: draft everything, publish at the end."
    staging = drafts(product)
    ingest.keep(ingest.read_files(source), staging["raw"], staging["external"])
    flights, weather = (parquet(staging["raw"] / f"{table}.parquet") for table in ingest.EVENT_TABLES)
    counts = ingest.check(connect(), flights, weather, staging, SINCE, UNTIL)
    publish(staging)
    return counts


@pytest.fixture
def product(tmp_path):
    return {name: tmp_path / "made" / name for name in ("raw", "external", "records", "rejected")}


def edit(source, change) -> None:
    path = source / "flights.csv"
    path.write_text(change(path.read_text()))


def cut_zip(source) -> None:
    "A truncated archive."
    with zipfile.ZipFile(source / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source / "flights.csv", "flights.csv")
    whole = (source / "flights.csv.zip").read_bytes()
    (source / "flights.csv.zip").write_bytes(whole[: len(whole) // 2])
    (source / "flights.csv").unlink()


def flip_zip(source) -> None:
    "An archive with a damaged byte in the middle."
    with zipfile.ZipFile(source / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source / "flights.csv", "flights.csv")
    damaged = bytearray((source / "flights.csv.zip").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (source / "flights.csv.zip").write_bytes(damaged)
    (source / "flights.csv").unlink()


def zip_of_two(source) -> None:
    with zipfile.ZipFile(source / "flights.csv.zip", "w") as archive:
        for part in ("flights-1.csv", "flights-2.csv"):
            archive.write(source / "flights.csv", part)
    (source / "flights.csv").unlink()


def zip_with(source, offset: int, value: int) -> None:
    "An archive whose headers say something else: encrypted, or packed in a way that Python does not know."
    with zipfile.ZipFile(source / "flights.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source / "flights.csv", "flights.csv")
    changed = bytearray((source / "flights.csv.zip").read_bytes())
    for signature, at in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        changed[changed.find(signature) + at] |= value
    (source / "flights.csv.zip").write_bytes(changed)
    (source / "flights.csv").unlink()


BREAKS = {
    "an archive of two files": (zip_of_two, "2 files"),
    "an encrypted archive": (lambda s: zip_with(s, 6, 1), "flights.csv.zip"),
    "deflate64": (lambda s: zip_with(s, 8, 9), "flights.csv.zip"),
    "a column twice": (lambda s: edit(s, lambda t: t.replace("sched_arr_time", "arr_delay", 1)), "'arr_delay' stands twice"),
    "both forms": (lambda s: shutil.copy(ingest.package_folder() / "flights.csv.zip", s), "leave the one"),
    "not UTF-8": (lambda s: (s / "flights.csv").write_bytes((s / "flights.csv").read_text().encode("utf-16")), "flights.csv"),
    "missing column": (lambda s: edit(s, lambda t: t.replace("arr_delay", "arrival_delay", 1)), "'arr_delay'"),
    "wrong type": (lambda s: edit(s, lambda t: t.replace(",UA,1545,", ",UA,many,", 1)), "'many'"),
    "empty file": (lambda s: (s / "flights.csv").write_text(""), "Empty CSV file"),
    "header only": (lambda s: edit(s, lambda t: t.splitlines(keepends=True)[0]), "no row"),
    "file missing": (lambda s: (s / "weather.csv").unlink(), "no weather.csv"),
    "truncated archive": (cut_zip, "flights.csv.zip"),
    "damaged archive": (flip_zip, "flights.csv.zip"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_file_is_one_error_and_changes_nothing(source, product, name):
    # given good products
    assert run(source, product) == {"read": 1000, "accepted": 1000, "rejected": 0}
    before = {path: path.read_bytes() for path in product["raw"].parent.rglob("*.parquet") if not path.name.startswith(".")}
    # when the source breaks
    how, told = BREAKS[name]
    how(source)
    # then the error says where and what
    with pytest.raises(ingest.SourceError, match=told) as error:
        run(source, product)
    assert "\n" not in str(error.value).strip()
    # and the products are as they were
    assert {path: path.read_bytes() for path in before} == before


def test_bad_rows_are_counted_with_their_reasons(source, product):
    def spoil(text: str) -> str:
        lines = text.splitlines(keepends=True)
        lines[1] = lines[1].replace("UA", "XX", 1)  # an airline that nobody knows
        lines[2] = lines[2].replace("2013-01-01T", "2031-01-01T")  # a future date
        lines[4] = lines[3]  # a duplicate
        lines[5] = lines[5].replace("DL,461", "DL,99999", 1)  # out of range
        return "".join(lines)

    edit(source, spoil)
    counts = run(source, product)
    assert counts == {"read": 1000, "accepted": 996, "rejected": 4}
    why = ingest.summary(connect(), product["rejected"])["reason"].to_pylist()
    told = ("carrier: none of", "sched_dep: not before 2014-01-01", "duplicate of another row", "flight: above 9999")
    assert len(why) == 4 and all(any(reason.startswith(t) for reason in why) for t in told)


def changed(source, **values: str) -> list[str]:
    "The lines of the raw file, the first flight's fields changed."
    header, first, *rest = (source / "flights.csv").read_text().splitlines()
    fields = dict(zip(header.split(","), first.split(","), strict=True)) | values
    return [header, ",".join(fields.values()), *rest]


@pytest.mark.parametrize("field, value, reason", [
    ("time_hour", "NA", "sched_dep: missing"), ("flight", "NA", "flight: missing"), ("carrier", "NA", "carrier: missing"),
    ("minute", "1540", "minute: not 0 to 59"), ("tailnum", "NULL", "tailnum: not like"), ("tailnum", "NONE", "tailnum: not like"),
    ("time_hour", "2013-01-01T10:30:00Z", "time_hour: not a full hour"),
    ("time_hour", "2199-05-01T10:00:00Z", "sched_dep: not before"), ("origin", "NA", "origin: missing"),
])
def test_a_row_that_means_nothing_is_rejected_and_never_guessed(source, product, field, value, reason):
    (source / "flights.csv").write_text("\n".join(changed(source, **{field: value})) + "\n")
    assert run(source, product) == {"read": 1000, "accepted": 999, "rejected": 1}
    assert ingest.summary(connect(), product["rejected"])["reason"][0].as_py().startswith(reason)


def test_a_bad_row_and_its_correction_are_one_rejected_and_one_accepted(source, product):
    lines = changed(source)
    bad = changed(source, arr_delay="9999")[1]
    for order in ([bad, lines[1]], [lines[1], bad]):
        (source / "flights.csv").write_text("\n".join([lines[0], *order, *lines[2:]]) + "\n")
        assert run(source, product) == {"read": 1001, "accepted": 1000, "rejected": 1}


def test_a_quoted_line_break_at_the_edge_of_a_block_is_read(source, product):
    "Blocks have 16 MB: one text is longer than that, and of 200,000 lines some stand where a block ends."
    lines = changed(source, tailnum='"' + "x\n" * (9 * 2**20) + '"')
    (source / "flights.csv").write_text("\n".join([lines[0], *lines[2:], lines[1]]) + "\n")
    assert run(source, product) == {"read": 1000, "accepted": 999, "rejected": 1}
    short = changed(source, tailnum='"a\nb"')
    (source / "flights.csv").write_text("\n".join([short[0], *[short[1]] * 200_000]) + "\n")
    assert run(source, product)["read"] == 200_000


def test_what_has_no_value_has_none_on_a_server_either(clickhouse, source, product, tmp_path, monkeypatch):
    "ClickHouse would write 1970, 0 and an empty text in its place."
    for field in ("time_hour", "flight", "carrier"):
        (source / "flights.csv").write_text("\n".join(changed(source, **{field: "NA"})) + "\n")
    monkeypatch.setenv("OG_STORE__URL", clickhouse.url)
    monkeypatch.setenv("OG_STORE__PASSWORD", "hunter2")
    server = connect(clickhouse.url, "hunter2")
    create(server, ingest.schema())
    config = settings("test")
    assert ingest.load(config.model_copy(update={"source": str(source)}))["flights"] == 1000
    assert query(server, "SHOW TABLES")["name"].to_pylist().count("flights_loading") == 0
    ingest.keep(ingest.reader(config, SINCE, UNTIL), tmp_path / "raw", tmp_path / "external")
    flights, weather = (parquet(tmp_path / "raw" / f"{table}.parquet") for table in ingest.EVENT_TABLES)
    counts = ingest.check(connect(), flights, weather, {name: tmp_path / name for name in ("records", "rejected")}, SINCE, UNTIL)
    assert counts == run(source, product) == {"read": 1000, "accepted": 999, "rejected": 1}


def test_an_interrupted_load_is_said_again(clickhouse, source, monkeypatch):
    monkeypatch.setenv("OG_STORE__URL", clickhouse.url)
    monkeypatch.setenv("OG_STORE__PASSWORD", "hunter2")
    server = connect(clickhouse.url, "hunter2")
    create(server, ingest.schema())
    config = settings("test").model_copy(update={"source": str(source)})
    honest = ingest.append
    monkeypatch.setattr(ingest, "append", lambda store, table, *rest: 1 / 0 if table.startswith("planes") else honest(store, table, *rest))
    with pytest.raises(ZeroDivisionError):
        ingest.load(config)
    monkeypatch.setattr(ingest, "append", honest)
    assert ingest.load(config)["planes"] == 3322
    assert query(server, "SELECT count() AS n FROM flights")["n"][0].as_py() == 1000


def test_the_real_year_is_read_whole(real):
    "All 336,776 flights; the four rejected ones carry a registration that no plane of this airline has (D942DN for N942DN)."
    accepted, rejected = (pq.read_table(real[name]) for name in ("records", "rejected"))
    assert (accepted.num_rows, rejected.num_rows) == (336_772, 4)
    assert set(rejected["tailnum"].to_pylist()) == {"D942DN"}


SPRING = moment("2013-03-01"), moment("2013-05-01")


def in_april(block: pa.Table) -> pa.Table:
    return block.filter(pc.equal(pc.month(block["time_hour"]), 4))


@pytest.fixture(params=["clickhouse", "cluster"])
def filled(request, monkeypatch):
    "A server with the demo sample, in which a flight and an hour's weather stand twice, a flight is wrong, and one has no time; the settings."
    server = request.getfixturevalue(request.param)
    named = "main" if request.param == "cluster" else ""
    for name, value in {"URL": server.url, "PASSWORD": "hunter2", "CLUSTER": named}.items():  # pragma: allowlist secret
        monkeypatch.setenv(f"OG_STORE__{name}", value)
    store = on_all_hosts(store_of(settings("test")))
    create(store, ingest.schema())
    for table in ingest.SOURCE:
        for block in ingest.demo_reader()(table):
            append(store, table, block)
            if table == "flights":
                row = in_april(block).slice(0, 1)
                wrong = row.set_column(row.schema.get_field_index("carrier"), row.schema.field("carrier"), [["XX"]])
                timeless = row.set_column(0, row.schema.field(0), pa.array([None], row.schema.field(0).type))
                for more in (row, wrong, timeless):
                    append(store, table, more)
            if table == "weather":
                for degrees in (1.0, 2.0):
                    append(store, table, block.set_column(2, block.schema.field(2), pa.repeat(degrees, len(block))))
    return settings("test")


def digests(product) -> dict[str, str]:
    files = [path for place in product.values() for path in [*place.glob("*"), place] if path.is_file()]
    return {path.name: file_digest(path.open("rb"), "sha256").hexdigest() for path in files}


def test_a_server_makes_the_same_products_as_the_embedded_engine(filled, tmp_path, product):
    "To the byte; and what others see on the server is what was there before."
    made = {name: tmp_path / "server" / name for name in product}
    [(tmp_path / folder).mkdir() for folder in ("server", "made")]
    before = query(store_of(filled), "SHOW TABLES").to_pylist()
    rows, counts = ingest.ingest(filled, made, *SPRING)
    assert counts["read"] == rows["flights"] > 1000
    reasons = pq.read_table(made["rejected"])["reasons"].to_pylist()
    assert {reason[:9] for reason in reasons} == {"duplicate", "carrier: ", "sched_dep"}, reasons
    kept = ingest.keep(lambda table: iter([pq.read_table(made["external" if table not in ingest.EVENT_TABLES else "raw"] / f"{table}.parquet")]),
                       product["raw"], product["external"])
    flights, weather = (parquet(product["raw"] / f"{table}.parquet") for table in ingest.EVENT_TABLES)
    assert kept == rows and ingest.check(connect(), flights, weather, product, *SPRING) == counts
    for name in ("records", "rejected"):
        assert made[name].read_bytes() == product[name].read_bytes(), name
    assert query(store_of(filled), "SHOW TABLES").to_pylist() == before
    again = {name: tmp_path / "again" / name for name in product}
    (tmp_path / "again").mkdir()
    ingest.ingest(filled, again, *SPRING)
    assert digests(again) == digests(made) and len(digests(made)) == 7


def test_rows_that_come_in_while_a_run_reads_are_not_seen(filled, tmp_path, product, monkeypatch):
    (tmp_path / "made").mkdir()
    honest = ingest.keep

    def keep(read, *places):
        found = honest(read, *places)
        block = next(ingest.demo_reader()("flights"))
        append(store_of(filled), "flights", in_april(block))
        return found

    monkeypatch.setattr(ingest, "keep", keep)
    rows, counts = ingest.ingest(filled, product, *SPRING)
    assert rows["flights"] == counts["read"]


def test_a_run_that_fails_leaves_nothing_on_the_server(clickhouse, monkeypatch):
    monkeypatch.setenv("OG_STORE__URL", clickhouse.url)
    monkeypatch.setenv("OG_STORE__PASSWORD", "hunter2")
    create(connect(clickhouse.url, "hunter2"), ingest.schema())
    store = ingest.snapshot(store_of(settings("test")), *SPRING)
    assert query(store, "SELECT count() AS n FROM run_flights")["n"][0].as_py() == 0
    clickhouse.stop()
    clickhouse.start()
    with pytest.raises(StoreError, match="run_flights"):  # not the table of all, without a word
        query(store, "SELECT count() FROM run_flights")
    other = connect(clickhouse.url, "hunter2")
    assert query(other, "SHOW TABLES")["name"].to_pylist() == sorted(ingest.SOURCE)
