"One declaration, two checkers: pydantic for requests, SQL for tables. They must agree on every record."
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from fields import LIMITED, TOO_MUCH
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from og_project.data.contract import EXAMPLE, LabelledRecord, Record
from og_project.store import arrow_schema, conditions, connect, parquet, properties, query, reasons, write

moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
texts = st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=8)


def numbers(low: float, high: float) -> st.SearchStrategy:
    "Good and bad: within, at and beyond the limits, and what is no number."
    edges = st.sampled_from([low, high, low - 1, high + 1, low - 1e-9, high + 1e-9, float("nan"), float("inf"), -float("inf")])
    return st.one_of(st.floats(low - 10, high + 10), edges)


def counts(low: int, high: int) -> st.SearchStrategy:
    return st.one_of(st.integers(low - 3, high + 3), st.integers(-(2**62), 2**62))


def values() -> dict[str, st.SearchStrategy]:
    "What may stand in each column of a table: right type, any value."
    found = {}
    for name, spec in LabelledRecord.model_json_schema()["properties"].items():
        kinds = spec.get("anyOf", [spec])
        kind = next(k for k in kinds if k["type"] != "null")
        if kind.get("format") == "date-time":
            found[name] = moments
        elif kind["type"] == "string":
            valid = st.sampled_from(kind["enum"]) if "enum" in kind else st.from_regex(kind.get("pattern", "[a-z]{1,5}"), fullmatch=True)
            found[name] = st.one_of(valid, texts, valid.map(lambda v: v + "\n"))
        elif kind["type"] == "boolean":
            found[name] = st.booleans()
        else:
            low, high = (next((kind[key] for key in keys if key in kind), default) for keys, default in
                         ((("minimum", "exclusiveMinimum"), -1000), (("maximum", "exclusiveMaximum"), 1000)))
            found[name] = (numbers if kind["type"] == "number" else counts)(low, high)
        found[name] = st.one_of(found[name], st.none()) if len(kinds) > 1 else st.one_of(*[found[name]] * 9, st.none())
    return found


def typed() -> dict[str, Any]:
    "The example as a table has it: a moment is no text."
    return {name: value for name, value in Record(**EXAMPLE).model_dump().items() if name in EXAMPLE}


def outcome() -> dict[str, Any]:
    "What a table has beside a record: not known where it may be missing."
    more = {name: of for name, of in properties(LabelledRecord).items() if name not in Record.model_fields}
    return {name: None if nullable else spec.get("minimum", 0) for name, (spec, nullable) in more.items()}


# mostly good records with one or two odd values: a record that is wrong everywhere tells nothing about one condition
good = st.just(typed() | outcome())
odd = st.sampled_from(sorted(values())).flatmap(lambda name: values()[name].map(lambda value: {name: value}))
records = st.builds(lambda base, changes: {**dict.fromkeys(LabelledRecord.model_fields), **base, **{k: v for c in changes for k, v in c.items()}},
                    good, st.lists(odd, max_size=2))


def accepted_by_pydantic(record: dict) -> bool:
    try:
        LabelledRecord.model_validate(record)
    except ValidationError:
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contract")


@settings(max_examples=25)
@given(st.lists(records, min_size=20, max_size=60))
def test_pydantic_and_sql_accept_the_same_records(folder, rows):
    store, path = connect(), folder / "rows.parquet"
    write(path, pa.Table.from_pylist(rows, schema=arrow_schema(LabelledRecord)))
    found = query(store, f"SELECT {reasons(conditions(LabelledRecord))} AS reasons FROM {parquet(path)}")["reasons"].to_pylist()
    for row, why in zip(rows, found, strict=True):
        assert accepted_by_pydantic(row) == (why == ""), (row, why)


def test_the_property_can_fail(folder):
    "With one condition left out, a bad record is accepted: the comparison above would notice."
    left_out = {name: sql for name, sql in conditions(LabelledRecord).items() if not name.startswith(f"{LIMITED}: above")}
    row = typed() | outcome() | {LIMITED: TOO_MUCH}
    write(folder / "row.parquet", pa.Table.from_pylist([row], schema=arrow_schema(LabelledRecord)))
    why = query(connect(), f"SELECT {reasons(left_out)} AS reasons FROM {parquet(folder / 'row.parquet')}")["reasons"][0].as_py()
    assert why == "" and not accepted_by_pydantic(row)


@pytest.mark.parametrize("name", Record.model_fields)
def test_every_field_says_what_it_means(name):
    assert Record.model_fields[name].description, f"{name} has no description"
    assert name in EXAMPLE or not Record.model_fields[name].is_required()


def test_the_data_contract_is_one_of_the_open_standard(tmp_path):
    "By the standard's own schema, as its package ships it."
    from importlib.resources import files

    from og_project.config import settings as of
    from og_project.lifecycle.odcs import as_yaml

    (tmp_path / "contract.odcs.yaml").write_text(as_yaml(of("local")))
    schema = files("open_data_contract_standard").joinpath("schema.json")
    command = [Path(sys.executable).with_name("check-jsonschema"), "--schemafile", str(schema), tmp_path / "contract.odcs.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    found = yaml.safe_load((tmp_path / "contract.odcs.yaml").read_text())
    assert found["apiVersion"] == "v3.2.0" and [part["name"] for part in found["schema"]] == ["records", "request", "answer"]
    assert {rule["name"] for rule in found["schema"][0]["quality"]} == set(conditions(LabelledRecord))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), st.integers(-3, 3)),
       st.dictionaries(st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), st.integers(-3, 3)))
def test_a_field_that_is_said_to_take_what_it_took_does(now, was):
    from og_project.lifecycle.gate import takes

    inside = lambda spec, value: (spec.get("minimum", -9) <= value <= spec.get("maximum", 9)  # noqa: E731
                                  and spec.get("exclusiveMinimum", -99) < value < spec.get("exclusiveMaximum", 99))
    if takes({"type": "number"} | now, {"type": "number"} | was):
        values = [value / 2 for value in range(-16, 17)]
        assert all(inside(now, value) for value in values if inside(was, value))
