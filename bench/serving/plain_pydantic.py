"The same model behind FastAPI and pydantic as their tutorials show it, and nothing else: no journal, metrics, keys or logs."
import os
from pathlib import Path

from fastapi import FastAPI

from og_project.data.contract import Answer, Record
from og_project.model.estimator import answers, load, predict, rows_table

app = FastAPI()
model = load(Path(os.environ["BENCH_MODEL"]))


@app.post("/predict")
async def predict_one(record: Record) -> Answer:
    return Answer(**answers(predict(model, rows_table([record])))[0])


@app.post("/many")
async def predict_many(records: list[Record]) -> list[Answer]:
    return [Answer(**row) for row in answers(predict(model, rows_table(records)))]
