"The contract's example is a real record, and every row of the source is accepted."
import pyarrow.parquet as pq
import pytest

from og_project.data.contract import EXAMPLE, Record


def test_the_example_is_a_real_record(real):
    example = Record(**EXAMPLE).model_dump()
    rows = pq.read_table(real["records"], columns=list(example)).to_pylist()
    same = lambda row: all(row[name] == (pytest.approx(value, abs=0.01) if isinstance(value, float) else value) for name, value in example.items())
    assert sum(map(same, rows)) == 1


def test_every_row_of_the_source_is_accepted(real):
    read, kept, refused = (pq.read_metadata(real[name]).num_rows for name in ("raw", "records", "rejected"))
    assert (kept, refused) == (read, 0)
