"""The monitor's window over many predictions: seconds and memory of counting every feature inside ClickHouse.

usage: python bench/monitor.py [MILLIONS ...]      (default 1 10)

The rows are simulated inside the engine, a MergeTree in a temporary folder: as many features as the model has, each uniform over the
quantiles of its reference. Beside it: a query that only reads the same column, which is as fast as this engine can be (`read`)."""
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from clickhouse_connect import get_client

from og_project.config import root
from og_project.lifecycle.monitor import WORDS, drift
from og_project.model.estimator import SCORE, read_reference
from og_project.store import Store

REPEATS = 3


def simulate(place: Path, reference: dict, rows: int) -> None:
    "Make a table of so many predictions of version 1."
    client = get_client(interface="chdb", path=str(place))
    words = "".join(f", {name} Nullable(String)" for name in WORDS)
    client.command(f"CREATE TABLE predictions (predicted_at DateTime64(6, 'UTC'), model_version LowCardinality(String), "
                   f"{''.join(f'{name} Float64, ' for name in SCORE)}"
                   f"features Array(Float32){words}) ENGINE = MergeTree ORDER BY predicted_at")
    edges = [part["edges"] or [0.0] for part in reference["features"].values()]
    values = ", ".join(f"{of[0]!r} + ({of[-1] - of[0]!r}) * rand({i}) / 4294967295" for i, of in enumerate(edges))
    chance = "rand(99) / 4294967295, " * len(SCORE)
    nothing = ", NULL" * len(WORDS)
    client.command(f"INSERT INTO predictions SELECT now64(6) - rand() % 80000, '1', {chance}[{values}]{nothing} FROM numbers({rows})")
    client.close()


def peak() -> float:
    "The most memory that this process had, in MB."
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def seconds_of(what) -> float:
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        what()
        took.append(time.perf_counter() - start)
    return median(took)


if __name__ == "__main__":
    reference = read_reference(root() / "models/model") or sys.exit("models/model has no reference: make pipeline")
    if sys.argv[1:2] == ["--make"]:  # in a process of its own, so that its memory is not counted
        simulate(Path(sys.argv[2]), reference, int(sys.argv[3]))
        sys.exit()
    print(f"{'million rows':>14}{'drift, s':>12}{'read, s':>12}{'ratio':>8}{'peak MB':>10}")
    for millions in [float(arg) for arg in sys.argv[1:]] or [1, 10]:
        place = Path(tempfile.mkdtemp(prefix="og_bench_"))
        subprocess.run([sys.executable, __file__, "--make", place, str(int(millions * 1e6))], check=True)
        store = Store(get_client(interface="chdb", path=str(place)), f"chdb://{place}", place)
        now = datetime.now(UTC)
        window = now - timedelta(days=1), now + timedelta(hours=1)
        assert drift(store, reference, "1", *window)[0] == int(millions * 1e6)
        ours = seconds_of(lambda s=store, w=window: drift(s, reference, "1", *w))
        read = seconds_of(lambda s=store: s.client.command("SELECT sum(arraySum(features)) FROM predictions"))
        print(f"{millions:14g}{ours:12.2f}{read:12.2f}{ours / read:8.1f}{peak():10.0f}")
        store.client.close()
        shutil.rmtree(place)
