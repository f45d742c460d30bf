"""Which rule of CODEOWNERS a change breaks.

python .ci/owners.py --base main --group developers      what a developer changed since main
python .ci/owners.py --group developers FILE ...         the same for files by name

A file belongs to the group of the last rule that fits it. A file of @og/nobody may change only together with what it is made from (the comment
`made from:` above its rule). Exit code 1: a rule is broken; it says which, and what to do."""
import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec


class Rule(NamedTuple):
    line: int
    pattern: str
    owner: str
    made_from: tuple[str, ...]

    def fits(self, path: str) -> bool:
        return GitIgnoreSpec.from_lines([self.pattern]).match_file(path)


def rules(text: str) -> list[Rule]:
    "The rules of a CODEOWNERS file, in order."
    found, made_from = [], ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# made from:"):
            made_from = tuple(line.removeprefix("# made from:").split())
        elif line.strip() and not line.startswith("#"):
            pattern, owner = line.split()
            found.append(Rule(number, pattern, owner.removeprefix("@og/"), made_from))
            made_from = ()
    return found


def owner(path: str, known: list[Rule]) -> Rule:
    "The rule that counts for a file."
    return next(rule for rule in reversed(known) if rule.fits(path))


def broken(paths: list[str], group: str, known: list[Rule]) -> list[str]:
    "What a change of these files by one of a group breaks."
    said = []
    for path in paths:
        rule = owner(path, known)
        where = f"{path}: CODEOWNERS line {rule.line} ({rule.pattern})"
        if rule.owner == "nobody" and not any(other.startswith(source) for other in paths for source in rule.made_from):
            said.append(f"{where}: changed by hand. It is made from {', '.join(rule.made_from)}: change that, and say make export dag lock")
        if rule.owner not in ("nobody", group):
            said.append(f"{where}: belongs to {rule.owner}. Ask one of them to make or to approve this change")
    return said


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--base", help="a commit or branch: the files that changed since")
    asked.add_argument("--group", required=True, choices=["developers", "devops"], help="of whoever makes the change")
    asked.add_argument("files", nargs="*")
    given = asked.parse_args()
    root = Path(__file__).resolve().parents[1]
    paths = given.files
    if given.base:
        listed = subprocess.run(["git", "diff", "--name-only", f"{given.base}...HEAD"], cwd=root, capture_output=True, text=True, check=True)
        paths = paths + listed.stdout.split()
    said = broken(paths, given.group, rules((root / "CODEOWNERS").read_text()))
    print("\n".join(said) or f"{len(paths)} files: no rule is broken")
    sys.exit(bool(said))


if __name__ == "__main__":
    main()
