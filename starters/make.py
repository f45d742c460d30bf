"""What is made of each starter is kept beside it, since a new project is made with nothing installed: the modules that its notebooks
export, dvc.yaml, db/schema.sql, and what the platform's examples show on its problem (outputs.json).

usage: python starters/make.py [--check] [STARTER ...]      (in the environment)"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from og_project.lifecycle.template import content, files_of, laid

ROOT = Path(__file__).resolve().parents[1]
OWN = json.loads((ROOT / "starters/starters.json").read_text())
TEMPLATES = [name for name in OWN["problems"] if (ROOT / "starters" / name).is_dir()]


def lay(name: str, folder: Path) -> None:
    "The files of a project with this starter, under the template's own name."
    files = laid(ROOT, name)
    for place, source in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / place)
        if place.endswith(".ipynb"):
            (folder / place).write_text(content(place, source.read_text(), files, []))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def run(folder: Path, *command: str) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OG_")}
    env = clean | {"OG_ROOT": str(folder), "PYTHONPATH": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def outputs(path: Path) -> dict[str, list]:
    "Cell id -> what it shows."
    return {cell["id"]: cell["outputs"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"}


def made(name: str) -> dict[str, str]:
    "Path within the starter -> text."
    starter = ROOT / "starters" / name
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lay(name, folder)
        (folder / "og_project/_modidx.py").unlink(missing_ok=True)
        run(folder, "nbdev_export")
        run(folder, "og", "dag")
        run(folder, "og", "outputs")
        found = {}
        for path in [*sorted((folder / "og_project").rglob("*.py")), folder / "dvc.yaml", folder / "db/schema.sql"]:
            inside = path.relative_to(folder).as_posix()
            if not (ROOT / inside).exists() or path.read_text() != (ROOT / inside).read_text():
                found[inside] = path.read_text()
        shown = {}
        for path in sorted((folder / "nbs").glob("*.ipynb")):
            if (starter / "nbs" / path.name).exists():
                found[f"nbs/{path.name}"] = path.read_text()
            else:
                before = outputs(ROOT / "nbs" / path.name)
                differing = {cell: now for cell, now in outputs(path).items() if now != before[cell]}
                shown |= {path.name: differing} if differing else {}
        found["outputs.json"] = json.dumps(shown, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        return found


def main() -> None:
    check = "--check" in sys.argv
    stale = []
    for name in [arg for arg in sys.argv[1:] if not arg.startswith("-")] or TEMPLATES:
        starter, now = ROOT / "starters" / name, made(name)
        for place, text in now.items():
            if not (starter / place).exists() or (starter / place).read_text() != text:
                stale.append(f"starters/{name}/{place}")
                if not check:
                    (starter / place).parent.mkdir(parents=True, exist_ok=True)
                    (starter / place).write_text(text)
        before = [p for p in files_of(ROOT) if p.startswith(f"starters/{name}/og_project/")]
        for place in before:  # of a notebook that is gone
            if place.removeprefix(f"starters/{name}/") not in now:
                stale.append(place)
                if not check:
                    (ROOT / place).unlink()
    if check and stale:
        sys.exit(f"not as their notebooks make them: {', '.join(stale)}; run python starters/make.py")
    print(f"{len(stale)} files written" if not check else "the starters are in step")


if __name__ == "__main__":
    main()
