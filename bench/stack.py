"""A stack that stands: memory at rest, throughput through the proxy with one and two replicas, the price of being watched, an upgrade under load.

usage: python bench/stack.py [ROUNDS [SECONDS]]     (./setup.sh before; apt-get install wrk; `docker`, `docker-compose` or its plugin)

It stops and starts a replica of that stack, and pauses Prometheus and the monitor. The price of being watched is the median of pairs of a minute, one
watched and one not, in turns: Prometheus scrapes every 5 s, the monitor looks every MONITOR_SECONDS."""
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from og_project.config import root
from og_project.data.contract import EXAMPLE

ROUNDS, SECONDS = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 3), (2, 8)))
VALUES = {name: value.strip("'") for file in ("config.env", ".env") for name, _, value in
          (line.partition("=") for line in (root() / file).read_text().splitlines() if re.match(r"[A-Z0-9_]+=", line))} | dict(os.environ)
URL = f"https://127.0.0.1:{VALUES['PORT']}/predict"
SCRIPT = """wrk.method = "POST"; wrk.body = '%s'
wrk.headers["content-type"] = "application/json"; wrk.headers["authorization"] = "Bearer %s"
"""


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=root(), env=VALUES, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def compose(*command: str) -> str:
    return run("docker-compose", "-p", VALUES["PROJECT"], *command)


@contextmanager
def asking(seconds: int) -> Iterator[subprocess.Popen]:
    "wrk, asking for one record over 16 connections for so many seconds, or until it is interrupted."
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(SCRIPT % (json.dumps(EXAMPLE), VALUES["SERVICE_KEY"]))
        file.flush()
        command = ["wrk", "-t1", "-c16", f"-d{seconds}", "--timeout", "20", "--latency", "-s", file.name, URL]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            yield process


def told(said: str) -> tuple[float, float, int]:
    "What wrk says: requests a second, p99 in ms, and answers that were no 2xx or did not come."
    rate, p99 = re.search(r"Requests/sec: *([\d.]+)", said), re.search(r"^\s+99%\s+([\d.]+)(us|ms|s)$", said, re.M)
    assert rate and p99, said
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed = sum(map(int, (bad.groups() if bad else ()) + (errors.groups() if errors else ())))
    return float(rate[1]), float(p99[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[p99[2]], failed


def wrk(seconds: int = SECONDS) -> tuple[float, float, int]:
    with asking(seconds) as process:
        return told(process.communicate()[0])


def memory() -> dict[str, float]:
    "MB of each service."
    lines = run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
    unit = {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}
    found = (re.match(rf"{VALUES['PROJECT']}-(\S+)-\d+ ([\d.]+)(\w+)", line) for line in lines)
    return {m[1]: float(m[2]) * unit[m[3]] * 1.048576 for m in found if m}


def median(rounds: list[tuple[float, float, int]]) -> str:
    return " | ".join(f"{statistics.median(values):,.1f}" for values in list(zip(*rounds, strict=True))[:2]) + f" | {sum(r[2] for r in rounds)} |"


def upgrade() -> None:
    for target in ("", "-pipeline"):
        run("docker", "tag", f"{VALUES['IMAGE']}{target}:{VALUES['TAG']}", f"{VALUES['IMAGE']}{target}:bench")
    with asking(600) as load:
        began = time.monotonic()
        run("./setup.sh", "upgrade", "bench")
        seconds = time.monotonic() - began
        load.send_signal(signal.SIGINT)
        rate, p99, failed = told(load.communicate()[0])
    print("\n| an upgrade under load | seconds | requests/s | p99 ms | failed |\n|---|---|---|---|---|")
    print(f"| two replicas, one by one | {seconds:.0f} | {rate:,.1f} | {p99:,.1f} | {failed} |")


def main() -> None:
    time.sleep(10)
    print("| service | memory at rest, MB |\n|---|---|")
    used = memory()
    for name, size in sorted(used.items(), key=lambda item: -item[1]):
        print(f"| {name} | {size:.0f} |")
    print(f"| together | {sum(used.values()):.0f} |\n")

    print("| through the proxy, one record, 16 connections | requests/s | p99 ms | failed |\n|---|---|---|---|")
    found: dict[str, list] = {"two replicas": [], "one replica": []}
    for _ in range(ROUNDS):
        found["two replicas"].append(wrk())
        compose("stop", "api-2")
        time.sleep(5)  # until the proxy has noticed
        found["one replica"].append(wrk())
        compose("up", "-d", "--wait", "api-2")
        time.sleep(5)
    for name, rounds in found.items():
        print(f"| {name} | {median(rounds)}")

    watched: list[tuple[float, float, int]] = []
    alone: list[tuple[float, float, int]] = []
    for number in range(ROUNDS):
        for paused in ((True, False), (False, True))[number % 2]:
            if paused:
                compose("pause", "prometheus", "monitor")
            (alone if paused else watched).append(wrk(60))
            if paused:
                compose("unpause", "prometheus", "monitor")
            time.sleep(5)
    print(f"| two replicas, a minute, watched | {median(watched)}\n| two replicas, a minute, not watched | {median(alone)}")
    pairs = [100 * (1 - with_[0] / without[0]) for with_, without in zip(watched, alone, strict=True)]
    print(f"\nBeing watched costs {statistics.median(pairs):.1f}% of the requests a second (pairs: {', '.join(f'{p:.1f}' for p in pairs)}).")

    upgrade()


if __name__ == "__main__":
    main()
