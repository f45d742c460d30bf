"Commands and servers that a test starts: forks of one prepared process, ports, and waiting without a clock."
import atexit
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO

import forkserver
import httpx

ENVIRONMENT = {"PLOOMBER_STATS_ENABLED": "false", "DVC_NO_ANALYTICS": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
               "OMP_NUM_THREADS": "1"}  # a thread that waits for another spins: beside a busy process, twice the time
FORKED = ("og", "ploomber", "nbdev_export", "nbdev_clean")


@cache
def fork_server() -> Path:
    "A folder with commands that run in forks of one process (tests/forkserver.py), and with its socket."
    folder = Path(tempfile.mkdtemp(prefix="og-"))
    script = Path(forkserver.__file__)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OG_")}
    process = subprocess.Popen([sys.executable, script, folder / "socket"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean | ENVIRONMENT)
    assert process.stdout.readline() == b"ready\n"
    atexit.register(lambda: (process.stdin.close(), process.wait(600), shutil.rmtree(folder)))
    for name in FORKED:
        call = f"import sys; sys.path.insert(0, {str(script.parent)!r}); import forkserver; "
        call += f"forkserver.stand_in({str(folder / 'socket')!r}, [{name!r}, *sys.argv[1:]])"
        (folder / name).write_text(f"#!{sys.executable} -IS\n{call}\n")
        (folder / name).chmod(0o755)
    return folder


class Forked:
    "A command that runs in a fork, with what `subprocess.Popen` has for it."

    def __init__(self, command: tuple[str, ...], folder: Path, environment: dict[str, str], out: IO[bytes]):
        with Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), out.fileno(), out.fileno())
            self.connection, self.pid = forkserver.ask(str(fork_server() / "socket"), list(command), str(folder), environment, streams)
        self.returncode: int | None = None

    def ended(self, seconds: float | None) -> bool:
        "Is its exit code there, or does it come within so many seconds?"
        waiting = select.poll()  # `select.select` knows no descriptor above 1023
        waiting.register(self.connection, select.POLLIN)
        return bool(waiting.poll(None if seconds is None else 1000 * seconds))

    def poll(self) -> int | None:
        if self.returncode is None and self.ended(0):
            self.returncode = forkserver.number(self.connection)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self.ended(timeout):
            raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
        code = self.poll()
        assert code is not None
        return code


def begin(command: tuple[str, ...], folder: Path, environment: dict[str, str], log: Path, cold: bool = False) -> subprocess.Popen | Forked:
    "Start a command as the leader of its own group; `cold`: by a new interpreter, as its users do."
    with log.open("ab") as out:
        if command[0] in FORKED and not cold:
            return Forked(command, folder, environment, out)
        return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, stdout=out, stderr=out,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background job ignores it


def free_port() -> int:
    "A port that nobody listens on."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(true: Callable[[], bool], process: subprocess.Popen | Forked | None = None, seconds: float = 600) -> None:
    "Wait until something holds, as long as a busy machine may need; a server that does not answer yet is no error, one that has ended is."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process is None or process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"not within {seconds} s")


def wait_for(port: int, process: subprocess.Popen, host: str = "127.0.0.1", seconds: float = 60) -> None:
    "Wait until a server listens."
    for _ in range(int(seconds / 0.1)):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as s:
            if s.connect_ex((host, port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on {port} after {seconds} s")
