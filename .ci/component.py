"""GitLab's pipeline as a CI/CD component, so that many projects include one version of it: templates/service.yml, made from .gitlab-ci.yml.

usage: python .ci/component.py [--check]

A project that has it from elsewhere keeps these lines as its .gitlab-ci.yml (docs/gitlab.md):

    include:
      - component: $CI_SERVER_FQDN/GROUP/TEMPLATE/service@1.0.0
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "templates/service.yml"
HEAD = """# Made from .gitlab-ci.yml by .ci/component.py: a CI/CD component, which projects include by its version.
spec:
  inputs:
    image:
      description: The image of the jobs that run the project's verbs
      default: python:3.11
    docker:
      description: The image of the job that builds, and its service
      default: docker:27
    watch_seconds:
      description: For how long errors and latency are watched after a deployment to test
      default: "30"
---
"""


def made() -> str:
    text = (ROOT / ".gitlab-ci.yml").read_text()
    for old, new in (("image: python:3.11", "image: $[[ inputs.image ]]"), ("image: docker:27", "image: $[[ inputs.docker ]]"),
                     ("services: [docker:27-dind]", 'services: ["$[[ inputs.docker ]]-dind"]'),
                     ('WATCH_SECONDS: "30"', 'WATCH_SECONDS: "$[[ inputs.watch_seconds ]]"')):
        text, count = re.subn(re.escape(old), lambda _, new=new: new, text)
        if count != 1:
            sys.exit(f".gitlab-ci.yml has {old!r} {count} times, and .ci/component.py expects it once")
    return HEAD + text


def main() -> None:
    if "--check" not in sys.argv:
        PLACE.parent.mkdir(exist_ok=True)
        PLACE.write_text(made())
    elif not PLACE.exists() or PLACE.read_text() != made():
        sys.exit("templates/service.yml is not what .gitlab-ci.yml makes: python .ci/component.py")


if __name__ == "__main__":
    main()
