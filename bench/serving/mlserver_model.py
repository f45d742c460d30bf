"The same model behind MLServer, asked by the Open Inference Protocol v2."
import os
from pathlib import Path

import pandas as pd
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse

from og_project.data.contract import Record
from og_project.model.estimator import load, predict, rows_table


class Delay(MLModel):
    async def load(self) -> bool:
        self.fitted = load(Path(os.environ["BENCH_MODEL"]))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame: pd.DataFrame = PandasCodec.decode_request(payload)
        rows = [Record(**row) for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]
        found = predict(self.fitted, rows_table(rows))
        outputs = [NumpyCodec.encode_output(name, values) for name, values in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
