"""What a start costs in processor time: imports without the optional libraries that they look for, beside the same with them; and a command in a
fork of the tests' server (tests/forkserver.py) beside one in a new interpreter. The two of a row take turns; the least of each counts.

    python bench/imports.py [ROUNDS]      # 5; `og history` needs `make pipeline` before
"""
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
WITHOUT = "from og_project.config import without\nwith without({}):\n    {}"
RUNNERS = "import papermill, nbconvert"
IMPORTS = {
    "lightgbm": ("import lightgbm", WITHOUT.format("'sklearn', 'pandas', 'matplotlib', 'dask'", "import lightgbm")),
    "papermill and nbconvert": (WITHOUT.format("'rfc3987_syntax'", RUNNERS),
                                WITHOUT.format("'rfc3987_syntax', 'boto3', 'pyarrow.fs', 'matplotlib'", RUNNERS)),
    "og_project.serving.service": ("import lightgbm, mlflow, og_project.serving.service", "import og_project.serving.service"),
}


def processor(code: str) -> float:
    "Processor seconds of a new interpreter that runs some code."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(folder: Path, *command: str) -> float:
    "How long a command takes that is looked for in a folder."
    start = time.perf_counter()
    env = os.environ | {"OG_ROOT": str(ROOT), "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([folder / command[0], *command[1:]], check=True, capture_output=True, cwd=tempfile.gettempdir(), env=env)
    return time.perf_counter() - start


def row(name: str, pairs: list[tuple[float, float]]) -> str:
    before, after = (min(values) for values in zip(*pairs, strict=True))
    return f"| {name} | {before:.1f} | {after:.1f} |"


def main(rounds: int) -> None:
    from processes import fork_server

    print("| import, processor s | with them | without them |\n|---|---|---|")
    for name, codes in IMPORTS.items():
        print(row(f"`{name}`", [(processor(codes[0]), processor(codes[1])) for _ in range(rounds)]), flush=True)
    print("\n| command, s | new interpreter | fork |\n|---|---|---|")
    places = Path(sys.executable).parent, fork_server()
    for command in (("og", "history"), ("og", "dag", "--check")):
        print(row(f"`{' '.join(command)}`", [(seconds(places[0], *command), seconds(places[1], *command)) for _ in range(rounds)]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
