"""How every stage grows: the pipeline's own stages, registration and gate on 1, 10, 30 and 100 times the flights of 2013 (34 million), each called
as its users call it, with its time and the peak memory of its largest process.

The year is repeated into the past (bench/problem/growth.py). The rounds of training are fixed: copies of a row never stop it early.
A measurement during which others used the machine is marked with a star. The test part is that of env.yaml (two months), whatever the rows;
`--test-months N` makes it longer, to see how judging grows.
usage: python bench/problem/stages.py [--rounds N] [--test-months N] [--write] [TIMES ...]   (`--write`: into docs/benchmarks.md)"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

from growth import repeat, since

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import MOST, about, into_page, watched

from og_project.config import root

LAST = date(2013, 1, 1) + timedelta(days=364)  # no flight at or after it
# its children's peak, from a process that is small itself
PEAK = ("import json, resource, subprocess, sys, time; start = time.perf_counter(); code = subprocess.call(sys.argv[1:], stdout=2); "
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3; "
        "print(json.dumps({'seconds': time.perf_counter() - start, 'memory': peak, 'code': code}))")
COMMANDS = {"ingest": "run ingest", "features": "run features", "train": "run train", "evaluate": "run evaluate",
            "register": "register --promote-first", "train again": "run train -p seed 2", "evaluate again": "run evaluate",
            "register again": "register", "gate": "gate"}
SHOWN = [name for name in COMMANDS if "again" not in name]


def project(folder: Path, times: int, rounds: int, test_months: int | None) -> dict[str, str]:
    "A copy of the project's notebooks and settings beside raw files of so many years; gives the environment of its commands."
    listed = subprocess.run(["git", "ls-files", "nbs", "og_project", "config", "db", "*.yaml", "*.ini", "*.toml", "requirements*.txt"], cwd=root(),
                            capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((root() / name).read_bytes())
    env = folder / "env.yaml"
    text = re.sub(r"(?m)^since: \S+", f'since: "{since(times):%Y-%m-%d}"', env.read_text())
    text = re.sub(r"(?m)^until: \S+", f'until: "{LAST}"', text)
    env.write_text(re.sub(r"(?m)^test_months: \d+", f"test_months: {test_months}", text) if test_months else text)
    fix_rounds(folder, rounds)
    repeat(folder / "raw", times)
    return os.environ | {"OG_ROOT": str(folder), "PYTHONPATH": str(folder), "OG_SOURCE": "raw"}


def fix_rounds(folder: Path, rounds: int) -> None:
    base = folder / "config/base.yml"
    text = re.sub(r"early_stopping_round: \d+", "early_stopping_round: 0", base.read_text())
    base.write_text(re.sub(r"num_boost_round: \d+", f"num_boost_round: {rounds}", text))


def measured(command: str, folder: Path, env: dict[str, str]) -> dict[str, float]:
    "Seconds and peak memory (MB) of an og command, and the share of a core that others used meanwhile."
    og = [str(Path(sys.executable).with_name("og")), *command.split()]
    with watched() as meanwhile:
        done = subprocess.run([sys.executable, "-c", PEAK, *og], cwd=folder, env=env, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1]) | {"others": meanwhile.share}
    if found["code"] not in (0, 3):  # 3: the gate refused
        sys.exit(f"og {command}: exit code {found['code']}\n{done.stderr[-3000:]}")
    return found


def shown(found: dict[str, float]) -> str:
    return f"{found['seconds']:,.0f} s, {found['memory']:,.0f} MB{'*' * (found['others'] > MOST)}"


def main(all_times: list[int], rounds: int, test_months: int | None, write: bool) -> None:
    rows = [["flights", "of them to test on", *SHOWN]]
    print(f"seconds / MB     {'  '.join(SHOWN)}")
    for times in all_times:
        with tempfile.TemporaryDirectory(dir="build") as place:
            folder = Path(place).resolve()
            env, found = project(folder, times, rounds, test_months), {}
            for name, command in COMMANDS.items():
                fix_rounds(folder, 10 if "again" in name else rounds)  # the second model is there to be compared
                found[name] = measured(command, folder, env)
                print(f"  {name:16} {found[name]['seconds']:8.1f} s {found[name]['memory']:8.0f} MB", file=sys.stderr, flush=True)
            flights = json.loads((folder / "models/model/encoder.json").read_text())["windows"]
            count = sum(rows for *_, rows in flights.values())
            rows.append([f"{count:,}", f"{flights['test'][-1]:,}", *(shown(found[name]) for name in SHOWN)])
            print(" | ".join(rows[-1]), flush=True)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    said = f"{time.strftime('%Y-%m-%d')}, {rounds} rounds; {about(root() / 'build')}"
    table = "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], "", said])
    print(table)
    if write:
        into_page("stages", table)


if __name__ == "__main__":
    given = sys.argv[1:]
    number = lambda name: int(given.pop(given.index(name) + 1)) if name in given else None  # noqa: E731
    rounds, test_months = number("--rounds") or 100, number("--test-months")
    main([int(word) for word in given if word.isdigit()] or [1, 10, 30, 100], rounds, test_months, "--write" in given)
