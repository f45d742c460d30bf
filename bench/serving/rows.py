"Real records for the callers of a benchmark: the same one again and again would be scored faster than anything that comes in."
import numpy as np
import pyarrow.parquet as pq

from og_project.config import root
from og_project.data.contract import Record


def real_records(count: int) -> list[dict]:
    "So many different records from the last tenth of the data, as JSON has them."
    table = pq.read_table(root() / "data/interim/records.parquet", columns=list(Record.model_fields))
    places = np.linspace(len(table) * 9 // 10, len(table) - 1, count).astype(int)
    return [Record(**row).model_dump(mode="json") for row in table.take(places).to_pylist()]
