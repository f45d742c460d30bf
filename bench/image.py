"""The images: how long they take to build and how large they are, layer by layer.

usage: python bench/image.py [ROUNDS]      (a Docker engine with BuildKit, and the base image; the package index or its cache)

`from nothing` builds without a layer cache; `after a change` has one line of the package changed. Medians."""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from og_project.config import root

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
TARGETS = ("serve", "pipeline", "airflow")


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(command)}\n{done.stderr[-3000:]}"
    return done.stdout


def seconds(place: Path, target: str, *more: str) -> float:
    began = time.monotonic()
    docker("build", "-q", "--target", target, "-t", f"og-project-bench:{target}", *more, str(place))
    return time.monotonic() - began


def main() -> None:
    place = Path(tempfile.mkdtemp(prefix="og_bench_"))
    for name in subprocess.run(["git", "ls-files"], cwd=root(), capture_output=True, text=True, check=True).stdout.split():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root() / name, place / name)
    print("| image | from nothing, s | nothing changed, s | after a change, s | MB |\n|---|---|---|---|---|")
    for target in TARGETS:
        took: dict[str, list[float]] = {"nothing": [], "same": [], "change": []}
        for number in range(ROUNDS):
            took["nothing"].append(seconds(place, target, "--no-cache"))
            took["same"].append(seconds(place, target))
            with (place / "og_project/cli.py").open("a") as file:
                file.write(f"# {number}\n")
            took["change"].append(seconds(place, target))
        size = int(docker("image", "inspect", "-f", "{{.Size}}", f"og-project-bench:{target}")) / 1e6
        print(f"| `{target}` | {' | '.join(f'{statistics.median(times):.1f}' for times in took.values())} | {size:.0f} |")
    print("\n| layer of `serve` | size |\n|---|---|")
    for line in docker("history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", "og-project-bench:serve").splitlines():
        layer, made_by = line.split("\t", 1)
        if layer != "0B":
            print(f"| `{made_by.replace('|', ' ')[:90]}` | {layer} |")
    docker("rmi", *(f"og-project-bench:{target}" for target in TARGETS))
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
