"A FastAPI endpoint that parses the body and does nothing: what the framework costs."
from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/predict")
async def predict(body: dict[str, Any] | list[dict[str, Any]]) -> dict[str, int]:
    return {"records": len(body) if isinstance(body, list) else 1}
