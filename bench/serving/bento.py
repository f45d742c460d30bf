"The same model as a BentoML service."
import os
from pathlib import Path

import bentoml

from og_project.data.contract import Answer, Record
from og_project.model.estimator import answers, load, predict, rows_table


@bentoml.service(workers=1)
class Delay:
    def __init__(self) -> None:
        self.model = load(Path(os.environ["BENCH_MODEL"]))

    @bentoml.api(route="/predict", input_spec=Record)
    def one(self, **record) -> Answer:
        return Answer(**answers(predict(self.model, rows_table([Record(**record)])))[0])

    @bentoml.api(route="/many")
    def many(self, records: list[Record]) -> list[Answer]:
        return [Answer(**row) for row in answers(predict(self.model, rows_table(records)))]
