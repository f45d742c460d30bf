"The contract is read twice, by pydantic for JSON and by column for tables: both say the same of every record."
import json
import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from fields import LIMITED, named
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from og_project.data.contract import EXAMPLE, Record
from og_project.model.estimator import RECORD, rows_table
from og_project.serving.protocols import rows_of_mlflow, tensors, unpacked
from og_project.serving.records import PROPERTIES, BadRecords, read_json, read_table


def values(name: str) -> st.SearchStrategy:
    "Values for a field, good ones and bad ones, of the field's type in a table."
    spec, nullable = PROPERTIES[name]
    if spec["type"] == "integer":
        drawn = st.integers(-10, 10_050) | st.integers(-(2**62), 2**62)
    elif spec["type"] == "number":
        drawn = st.floats(-200, 1500) | st.floats(allow_nan=True, allow_infinity=True)
    elif spec.get("format") == "date-time":
        drawn = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
    else:
        drawn = st.sampled_from(spec.get("enum", ["N1", "N12345", "X"])) | st.text(max_size=7)
    return drawn | st.none()


rows = st.fixed_dictionaries({name: values(name) for name in PROPERTIES}) | st.fixed_dictionaries(
    {name: st.just(datetime.fromisoformat(EXAMPLE[name]) if spec.get("format") == "date-time" else EXAMPLE[name])
     for name, (spec, _) in PROPERTIES.items()})
one_changed = st.builds(lambda row, other, name: row | {name: other[name]},
                        st.just(Record(**EXAMPLE).model_dump()), rows, st.sampled_from(sorted(PROPERTIES)))


def by_pydantic(row: dict) -> set[str]:
    "The fields that are wrong; a table's NaN is what data frames call missing."
    try:
        Record(**{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()})
    except ValidationError as e:
        return {str(error["loc"][0]) for error in e.errors()}
    return set()


def by_column(row: dict) -> set[str]:
    "The first field that is wrong."
    try:
        table = pa.Table.from_pylist([row], schema=RECORD())
        read_table(table)
    except BadRecords as e:
        return {e.name}
    return set()


@settings(max_examples=600)
@given(rows | one_changed)
def test_a_table_is_judged_as_json_is(row):
    fields, first = by_pydantic(row), by_column(row)
    assert bool(fields) == bool(first) and first <= fields, (fields, first, row)


@settings(max_examples=200)
@given(st.lists(one_changed, min_size=1, max_size=5))
def test_the_row_that_is_named_is_the_first_bad_one_of_its_column(many):
    table = pa.Table.from_pylist(many, schema=RECORD())
    try:
        read_table(table)
    except BadRecords as e:
        bad = [i for i, row in enumerate(many) if e.name in by_pydantic(row)]
        assert e.row == bad[0]
    else:
        assert not any(by_pydantic(row) for row in many)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_record_or_a_clear_error(body):
    try:
        assert all(isinstance(row, Record) for row in read_json(body))
    except ValidationError as e:
        assert e.errors()


@settings(max_examples=300)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
                        ["inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data", "name", "shape", "datatype",
                         "parameters", "binary_data_size", LIMITED]), inner, max_size=4), max_leaves=12))
def test_any_json_in_a_dialect_is_rows_or_a_clear_error(body):
    if isinstance(body, dict):
        try:
            assert all(isinstance(row, dict) for row in rows_of_mlflow(body))
        except ValueError as e:
            assert str(e)
    try:
        tensors(json.dumps(body).encode(), None)
    except ValueError as e:
        assert str(e)


@given(st.binary(max_size=60), st.sampled_from(["BYTES", "FP64", "INT32", "BOOL"]))
def test_any_bytes_of_a_tensor_are_values_or_a_clear_error(data, kind):
    try:
        assert all(isinstance(v, bytes | float | int) for v in unpacked(memoryview(data), kind))
    except ValueError as e:
        assert "binary data" in str(e)


LOSSY = [*((name, pa.array(["35"])) for name in named("number", "integer")[:1]), *((name, pa.array([math.inf])) for name in named("number")[:1]),
         *((name, column) for name in named("integer")[:1] for column in (pa.array([1.5]), pa.array([True]))),
         *((name, pa.array([1])) for name in named("choice", "text")[:1]),
         *((name, pa.array([datetime(2013, 1, 1)])) for name in named("date-time")[:1])]
LOSSLESS = [*((name, pa.array([float(EXAMPLE[name])])) for name in named("integer")[:1]), *((name, pa.array([EXAMPLE[name]], pa.int16())) for name in
            named("integer")[:1]), *((name, pa.array([35], pa.int32())) for name in named("number")[:1]),
            *((name, pa.array([EXAMPLE[name]]).dictionary_encode()) for name in named("choice", "text")[:1]),
            *((name, pa.array([None])) for name in named("text", "number", nullable=True)[:1])]


@pytest.mark.parametrize("name, column", LOSSY, ids=str)
def test_types_that_lose_something_are_refused(name, column):
    with pytest.raises(BadRecords) as caught:
        read_table(changed(name, column))
    assert caught.value.name == name


@pytest.mark.parametrize("name, column", LOSSLESS, ids=str)
def test_types_that_lose_nothing_are_taken(name, column):
    read_table(changed(name, column))


def changed(name: str, column: pa.Array) -> pa.Table:
    table = rows_table([Record(**EXAMPLE)])
    return table.set_column(table.column_names.index(name), name, column)
