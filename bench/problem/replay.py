"""Put the last replay (`make replay`) into docs/replay.md: its picture, what it found, and how fast it was.

usage: python bench/problem/replay.py [--write]"""
import json
import re
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import about

from og_project.config import root
from og_project.replay import Event
from og_project.store import one_line
from og_project.timeline import Result, Window, lines_of


def found() -> Result:
    "The last replay."
    kept = json.loads((root() / "reports/replay.json").read_text())
    kept |= {"events": [Event(**one) for one in kept["events"]], "windows": [Window(**one) for one in kept["windows"]]}
    return Result(**kept)


def main(write: bool) -> None:
    last = found()
    rows = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in lines_of(last)), "", "| day | | version | |", "|---|---|---|---|"]
    judged = [event for event in last.events if event.kind in ("promoted", "refused")]
    rows += [f"| {event.at} | {event.kind} | {event.version} | {one_line(event.said, 160)} |" for event in judged]
    text = "\n".join([*rows, "", f"{time.strftime('%Y-%m-%d')}; {about(root() / 'build')}"])
    print(text)
    if not write:
        return
    page = root() / "docs/replay.md"
    page.write_text(re.sub(r"(?s)(?<=<!-- replay -->\n).*(?=<!-- /replay -->)", lambda _: f"{text}\n", page.read_text()))
    shutil.copy(root() / "reports/replay.svg", root() / "docs/replay.svg")


if __name__ == "__main__":
    main("--write" in sys.argv)
