"""The trees alone, in other engines: what it would bring to compile them.

    python bench/serving/trees.py [ROUNDS]      # 5; after `make pipeline`; needs a C compiler

Every engine scores the same real rows in one thread; they take turns, and the least of the rounds counts, in processor time. An engine that cannot
take the model says so, and each says how far its scores are from LightGBM's."""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
BATCHES = (1, 16, 100, 1600)
PACKAGES = ("lightgbm", "lleaves", "llvmlite<0.45", "treelite", "tl2cgen", "onnxruntime", "onnxmltools")


def engines(model: str) -> dict[str, Callable]:
    "Name -> matrix -> scores; made and compiled here."
    import lightgbm

    booster = lightgbm.Booster(model_file=model)
    columns = booster.num_feature()

    def lleaves() -> Callable:
        import lleaves

        compiled = lleaves.Model(model_file=model)
        compiled.compile()
        return lambda rows: compiled.predict(rows, n_jobs=1)

    def tl2cgen() -> Callable:
        import tl2cgen
        import treelite

        library = Path(tempfile.mkdtemp()) / "trees.so"
        tl2cgen.export_lib(treelite.frontend.load_lightgbm_model(model), toolchain="gcc", libpath=str(library), params={"parallel_comp": 2})
        compiled = tl2cgen.Predictor(str(library), nthread=1)
        return lambda rows: compiled.predict(tl2cgen.DMatrix(rows)).ravel()

    def gtil() -> Callable:
        import treelite

        read = treelite.frontend.load_lightgbm_model(model)
        return lambda rows: treelite.gtil.predict(read, rows, nthread=1).ravel()

    def onnx() -> Callable:
        import onnxruntime
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        made = convert_lightgbm(booster, initial_types=[("rows", FloatTensorType([None, columns]))], zipmap=False, target_opset=15)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(made.SerializeToString(), options)
        return lambda rows: session.run(None, {"rows": rows.astype(np.float32)})[-1][:, 1]

    found: dict[str, Callable] = {"LightGBM": lambda rows: booster.predict(rows, num_threads=1)}
    for make in (lleaves, tl2cgen, gtil, onnx):
        began = time.perf_counter()
        try:
            found[make.__name__] = make()
            print(f"{make.__name__}: made in {time.perf_counter() - began:.1f} s", flush=True)
        except Exception as e:  # whatever a library says of a model that it cannot take
            print(f"{make.__name__}: left out: {str(e).splitlines()[0][:200]}", flush=True)
    return found


def measure(model: str, rows: np.ndarray, rounds: int) -> None:
    "Print µs for each batch."
    found = engines(model)
    truth = found["LightGBM"](rows)
    for name, score in found.items():
        print(f"{name}: at most {np.abs(score(rows) - truth).max():.1g} beside LightGBM", flush=True)
    taken: dict[str, dict[int, list[float]]] = {name: {count: [] for count in BATCHES} for name in found}
    for _ in range(rounds):
        for count in BATCHES:
            for name, score in found.items():
                part, repeats = np.ascontiguousarray(rows[:count]), max(3, 2000 // count)
                score(part)
                began = time.process_time()
                for _ in range(repeats):
                    score(part)
                taken[name][count].append(1e6 * (time.process_time() - began) / repeats)
    least = {name: {count: min(runs) for count, runs in of.items()} for name, of in taken.items()}
    heads = ["engine", *(f"{count:,} record{'s' * (count > 1)}, µs" for count in BATCHES), "of LightGBM at 100"]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, of in least.items():
        print(f"| {name} |" + "".join(f" {value:,.0f} |" for value in of.values()) + f" {of[100] / least['LightGBM'][100]:.2f} |")
    spread = statistics.median(max(runs) / min(runs) for of in taken.values() for runs in of.values())
    print(f"\nthe slowest round of a cell took {spread:.2f} times the fastest (median)")


def main() -> None:
    sys.argv[1:] = sys.argv[1:] or ["5"]
    rounds = int(sys.argv[1])
    from run import environment

    sys.path.insert(0, str(HERE.parent))
    import pyarrow.parquet as pq
    from machine import about

    from og_project.config import root
    from og_project.features import FEATURES

    table = pq.read_table(root() / "data/processed/features.parquet", columns=list(FEATURES))
    rows = np.stack([table[name].to_numpy()[-max(BATCHES):] for name in FEATURES], axis=1).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/rows.npy", rows)
        asked = json.dumps({"model": str(root() / "models/model/booster.txt"), "rows": f"{folder}/rows.npy", "rounds": rounds})
        env = os.environ | {"BENCH_TREES": asked, "OMP_NUM_THREADS": "1"}
        subprocess.run([environment("trees", *PACKAGES) / "python", __file__], check=True, env=env)
    print(about(root()))


if __name__ == "__main__":
    if asked := os.environ.get("BENCH_TREES"):
        given = json.loads(asked)
        measure(given["model"], np.load(given["rows"]), given["rounds"])
    else:
        main()
