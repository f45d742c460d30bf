"""What the runners cost: `ploomber build` and `dvc repro` from nothing, and with nothing to do, against one plain Python
process that calls the same exported functions in the same order. Every run is on all 336,776 flights.

usage: python bench/problem/pipeline.py [ROUNDS]"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAIN = Path(__file__).with_name("plain.py")
ENV = os.environ | {"PLOOMBER_STATS_ENABLED": "false", "DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def copy(folder: Path) -> Path:
    "The project without its products, with a git of its own."
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def seconds(folder: Path, *command: str) -> float:
    "How long a command takes in a folder."
    start = time.perf_counter()
    own = {"OG_ROOT": str(folder), "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=ENV | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return time.perf_counter() - start


def main(rounds: int) -> None:
    runs: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, first, again in (("plain Python", [sys.executable, str(PLAIN)], None),
                                   ("ploomber build", ["ploomber", "build"], ["ploomber", "build"]),
                                   ("dvc repro", ["dvc", "repro"], ["dvc", "repro"])):
            with tempfile.TemporaryDirectory() as place:
                folder = copy(Path(place))
                runs.setdefault(name, []).append(seconds(folder, *first))
                if again:
                    runs.setdefault(f"{name}, nothing to do", []).append(seconds(folder, *again))
        print(f"round {number + 1}: " + ", ".join(f"{name} {times[-1]:.1f} s" for name, times in runs.items()), flush=True)
    plain = statistics.median(runs["plain Python"])
    print("\n| run | median, s | times plain Python |\n|---|---|---|")
    for name, times in runs.items():
        print(f"| {name} | {statistics.median(times):.1f} | {statistics.median(times) / plain:.2f} |")
    print(json.dumps(runs))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
