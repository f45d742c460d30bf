"The contract's example is a real record."
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from og_project.data.contract import EXAMPLE, Record


def test_the_example_is_a_real_flight(real):
    example = Record(**EXAMPLE).model_dump()
    rows = pq.read_table(real["records"]).filter((pc.field("flight") == EXAMPLE["flight"]) & (pc.field("carrier") == EXAMPLE["carrier"]))
    (flight,) = [row for row in rows.to_pylist() if row["sched_dep"] == example["sched_dep"]]
    assert {name: flight[name] for name in example} == {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in example.items()
    }
