"""What a benchmark says of the machine that it ran on, and whether others used it meanwhile."""
import importlib.metadata
import os
import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

MOST = 0.15  # of a core, that others may use meanwhile; the kernel's own work is some 0.05
LIBRARIES = ("lightgbm", "numpy", "pyarrow", "pandas", "chdb", "scikit-learn")


def busy() -> float:
    "Seconds of processor time of everybody so far, what the hypervisor took included."
    total = psutil.cpu_times()
    return sum(total) - total.idle - total.iowait - total.guest - total.guest_nice


def own(server: int | None = None) -> float:
    "Seconds of processor time of this process, of its children that have ended, and of a server (its process id) with its own children."
    mine = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    family = [psutil.Process(server), *psutil.Process(server).children(recursive=True)] if server else []
    return mine + sum(sum(process.cpu_times()[:2]) for process in family)


class Watched:
    "What was measured while it was watched: `share` of a core that others used."

    share = 0.0

    def __str__(self) -> str:
        return f" (DISTURBED: others used {self.share:.0%} of a core)" if self.share > MOST else ""


@contextmanager
def watched(server: int | None = None) -> Iterator[Watched]:
    "How much others used while the block ran; children count as one's own when they have ended by then."
    found, before, mine, began = Watched(), busy(), own(server), time.perf_counter()
    yield found
    found.share = max(0.0, (busy() - before - (own(server) - mine)) / (time.perf_counter() - began))


def undisturbed(server: int | None, measure: Callable, *args, tries: int = 5):
    "A measurement during which others left the machine alone; if they never do, the least disturbed, and it is said."
    found: list[tuple[float, Any]] = []
    while not found or (found[-1][0] > MOST and len(found) < tries):
        with watched(server) as others:
            result = measure(*args)
        found.append((others.share, result))
        if others.share > MOST:
            print(f"others used {others.share:.0%} of a core: measured again", flush=True)
    share, result = min(found, key=lambda one: one[0])
    if share > MOST:
        print(f"DISTURBED: others used {share:.0%} of a core in the best of {tries} tries", flush=True)
    return result


def flush_ms(folder: Path) -> float:
    "Milliseconds until the disk has confirmed four kilobytes (`fdatasync`): the median of fifty."
    took = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)


def about(folder: Path) -> str:
    "Processor, memory, kernel, disk and libraries, in a line."
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (f"{psutil.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, fdatasync {flush_ms(folder):.2f} ms; "
            f"Python {platform.python_version()}, {versions}")


def into_page(name: str, text: str) -> None:
    "Put what was measured into docs/benchmarks.md, between the comments of a name, and show what stood there."
    page = Path(__file__).parents[1] / "docs/benchmarks.md"
    before, old, after = re.split(rf"(?s)(?<=<!-- {name} -->\n)(.*)(?=<!-- /{name} -->)", page.read_text())
    print(f"\nbefore:\n{old}")
    page.write_text(f"{before}{text}\n{after}")


if __name__ == "__main__":
    print(about(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
