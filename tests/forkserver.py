"""Commands of the environment, started in processes that have imported the large libraries already.

Half of what a test waits for is a new interpreter that imports MLflow, pandas, papermill and LightGBM: four seconds of processor time for each `og`.
`python forkserver.py SOCKET` imports them once. Whoever connects sends a command, its folder, its environment and its three standard streams;
it runs in a fork of its own, with the code of the project that PYTHONPATH names, and ends as any process does. What a cold start shows is left to
`make pipeline`, to the tests of the stack, and to the tests that ask for it."""
import json
import os
import signal
import socket
import sys
from collections.abc import Callable

# not chdb: its threads would be missing in a fork
PRELOAD = ("og_project.model.estimator",  # first: it imports LightGBM as the project does; the project's own modules are imported anew in each fork
           "numpy", "pandas", "pyarrow.parquet", "pyarrow.compute", "pyarrow.csv", "scipy.stats", "sklearn.linear_model", "sklearn.compose",
           "sklearn.metrics", "matplotlib.pyplot", "holidays", "fastapi", "uvicorn", "prometheus_client", "pydantic_settings", "mlflow",
           "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "execnb.shell", "nbconvert",
           "clickhouse_connect", "papermill", "ploomber.spec", "ploomber_cli.cli", "ploomber.cli.build", "nbdev.export", "nbdev.clean")


def number(connection: socket.socket) -> int:
    "Eight bytes. Raises `EOFError` if the other side is gone: nothing that was not said counts as an exit code of 0."
    data = connection.recv(8, socket.MSG_WAITALL)
    if len(data) < 8:
        raise EOFError("the fork server ended before the command did")
    return int.from_bytes(data, "big", signed=True)


def ask(address: str, command: list[str], folder: str, environment: dict[str, str], streams: tuple[int, int, int]) -> tuple[socket.socket, int]:
    "Start a command. Gives the connection that will bring its exit code, and its process id; it leads a group of its own."
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    socket.send_fds(connection, [b"x"], list(streams))
    text = json.dumps([command, folder, environment]).encode()
    connection.sendall(len(text).to_bytes(8, "big") + text)
    return connection, number(connection)


def stand_in(address: str, command: list[str]) -> None:
    "Be a command that runs in a fork: pass on signals, and end as it does."
    connection, pid = ask(address, command, os.getcwd(), dict(os.environ), (0, 1, 2))
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda kind, _: os.killpg(pid, kind))
    code = number(connection)  # negative: the signal that ended it
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(address: str) -> Callable[[], object] | None:
    "Fork for whoever asks, until standard input closes. Comes back in a fork, with what it has to call."
    import select

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
            return None
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return attend(connection)
        connection.close()


def attend(connection: socket.socket) -> Callable[[], object]:
    "Start one command, and tell its end; it is killed when whoever asked is gone. Comes back in the command's own process."
    import select

    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    command, folder, environment = json.loads(connection.recv(number(connection), socket.MSG_WAITALL))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    started, begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.close(begin)
        os.setsid()
        os.read(started, 1)
        return lambda: become(command, folder, environment, streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(pid.to_bytes(8, "big"))
    os.write(begin, b"x")
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if select.select([connection], [], [], 0.02)[0]:
            os.killpg(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
            break
    code = os.waitstatus_to_exitcode(ended[1])
    try:
        connection.sendall(code.to_bytes(8, "big", signed=True))
    except OSError:
        pass
    os._exit(0)


def become(command: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> object:
    "Be the command: its folder, environment, streams and code."
    import importlib
    from pathlib import Path

    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    for name in [name for name in sys.modules if name.split(".")[0] == "og_project"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    for engine in ENGINES:  # the engine of this project's code
        sys.modules["papermill.engines"].papermill_engines.register(engine.name, engine.load())
    return SCRIPTS[Path(command[0]).name].load()()


def warm() -> None:
    "Do once what every command does the first time: compile patterns and templates, find fonts, map MLflow's tables."
    import io

    import matplotlib.pyplot as plt
    import nbformat.v4 as v4
    from nbconvert import HTMLExporter
    from sqlalchemy.orm import configure_mappers

    figure, axes = plt.subplots()
    axes.plot([1, 10], label="one")
    axes.legend()
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)
    plt.close(figure)
    output = v4.new_output("execute_result", {"text/plain": "2", "text/html": "<b>2</b>"})
    cells = [v4.new_markdown_cell("# A title\n`code` and $x$, a [link](#a), a list:\n\n- one"), v4.new_code_cell("1 + 1", outputs=[output])]
    HTMLExporter().from_notebook_node(v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python", "pygments_lexer": "ipython3"}}))
    configure_mappers()


if __name__ == "__main__":
    import gc
    import importlib
    from importlib.metadata import entry_points

    del sys.path[0]  # this file's folder
    for module in PRELOAD:
        importlib.import_module(module)
    SCRIPTS = {script.name: script for script in entry_points(group="console_scripts")}
    ENGINES = [engine for engine in entry_points(group="papermill.engine") if engine.value.startswith("og_project")]
    warm()
    gc.freeze()
    if command := serve(sys.argv[1]):
        sys.exit(command())
