"""The same features by another library, in an environment of its own: seconds and peak memory as JSON.

usage: python bench/problem/others.py polars|duckdb RECORDS FLIGHTS PLANES OUT ABOUT.json     (growth.py calls it)"""
import importlib
import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    library, *paths, about = sys.argv[1:]
    module = importlib.import_module(f"{library}_features")
    begun = time.perf_counter()
    rows = module.build(*map(Path, paths), json.loads(Path(about).read_text()))
    memory = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - begun, "memory": memory}))
