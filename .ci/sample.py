"""What a change does to the model: its metrics on a sample beside those of another branch, as a table in Markdown.

python .ci/sample.py origin/main

Both run the whole pipeline on the same early part of the data (half a year from `since`, where env.yaml has one) with a small model."""
import json
import os
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"OG_MODEL__NUM_BOOST_ROUND": "200", "OG_MODEL__LEARNING_RATE": "0.1"}
OG = Path(sys.executable).with_name("og")


def window(env: dict) -> dict[str, str]:
    "Half a year of a problem that has a window; all of another."
    if "since" not in env:
        return {}
    return {"since": env["since"], "until": str(date.fromisoformat(env["since"]) + timedelta(days=184))}


def measured(folder: Path, params: dict[str, str]) -> dict[str, float]:
    "Run the pipeline of a checkout in a place of its own; its model's metrics."
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(f"cd '{folder}' && tar c --exclude=./data --exclude=./models --exclude=./reports --exclude=./.venv --exclude=./.git "
                       f"--exclude=./.dvc --exclude=./build . | tar x -C '{place}'", shell=True, check=True)
        env = os.environ | SMALL | {"OG_ROOT": place, "PYTHONPATH": place, "OG_ENV": "local"}
        command = [OG, "run", "all", *(part for name, value in params.items() for part in ("-p", name, value))]
        subprocess.run(command, cwd=place, env=env, check=True, stdout=sys.stderr)
        return json.loads(Path(place, "reports/metrics.json").read_text())["model"]


def main() -> None:
    base = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    params = window(yaml.safe_load((ROOT / "env.yaml").read_text()))
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place, "base")
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, base], cwd=ROOT, check=True)
        try:
            before = measured(tree, params)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    now = measured(ROOT, params)
    print(f"Metrics on a sample ({' to '.join(params.values()) or 'all records'}, a small model), this change beside `{base}`:\n")
    print("| metric | before | now | change |\n|---|---|---|---|")
    for name in now:
        if isinstance(now[name], float):
            old = before.get(name)
            print(f"| {name} | {'-' if old is None else f'{old:.4f}'} | {now[name]:.4f} | {'new' if old is None else f'{now[name] - old:+.4f}'} |")


if __name__ == "__main__":
    main()
