"The Russian documents say what the English ones say, as far as a program sees: the same headings, commands and names, links that lead somewhere."
import re
from pathlib import Path

import pytest

from og_project.config import root

NAMES = ("your-own-problem.md", "deploy.md", "operations.md", "runbook.md")
PAIRS = {"README.md": "README.ru.md", **{f"docs/{name}": f"docs/ru/{name}" for name in NAMES}}
BLOCK = re.compile(r"(?ms)^```.*?^```$")


def text(name: str) -> str:
    "A document."
    return (root() / name).read_text()


@pytest.mark.parametrize("english", PAIRS)
def test_headings_agree(english):
    levels = [re.findall(r"(?m)^(#+) ", BLOCK.sub("", text(name))) for name in (english, PAIRS[english])]
    assert levels[0] == levels[1] and levels[0]


@pytest.mark.parametrize("english", PAIRS)
def test_commands_and_blocks_agree(english):
    ours, theirs = text(english), text(PAIRS[english])
    assert BLOCK.findall(ours) == BLOCK.findall(theirs)
    spans = [sorted(set(re.findall(r"`([^`\n]+)`", BLOCK.sub("", of)))) for of in (ours, theirs)]
    assert spans[0] == spans[1], set(spans[0]) ^ set(spans[1])
    rows = [len(re.findall(r"(?m)^\|", of)) for of in (ours, theirs)]
    assert rows[0] == rows[1]


def anchors(path: Path) -> set[str]:
    "What GitLab makes of a document's headings."
    heads = re.findall(r"(?m)^#+ (.*)$", BLOCK.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", [*PAIRS, *PAIRS.values()])
def test_links_lead_somewhere(name):
    here = root() / name
    for target in re.findall(r"\]\(([^)#:]*)(?:#[^)]*)?\)", BLOCK.sub("", text(name))):
        assert not target or (here.parent / target).exists(), f"{name}: {target}"
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text(name)):
        assert anchor in anchors(here.parent / target if target else here), f"{name}: {target}#{anchor}"
