"CODEOWNERS has an owner for everything, and its check says which rule a change breaks."
import subprocess
import sys

import pytest

from og_project.config import root

LISTED = subprocess.run(["git", "ls-files"], cwd=root(), capture_output=True, text=True).stdout.split()


def check(group: str, *files: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, root() / ".ci/owners.py", "--group", group, *files], capture_output=True, text=True)
    return done.returncode, done.stdout


@pytest.mark.parametrize("path, group", [
    ("nbs/04_features.ipynb", "developers"), ("config/gate.yml", "developers"), ("docs/serving.md", "developers"), (".gitlab-ci.yml", "devops"),
    ("config.env", "devops"), ("docker-compose.yml", "devops"), ("docker-compose-test.yml", "devops"), ("Dockerfile", "devops"),
    ("setup.sh", "devops"), (".dvc/config", "devops"), ("monitoring/rules/alerts.yml", "devops"), ("test.py", "devops")])
def test_a_file_belongs_to_one_group(path, group):
    assert (root() / path).exists(), f"{path} is not there any more"
    other = {"developers": "devops", "devops": "developers"}[group]
    assert check(group, path)[0] == 0
    code, said = check(other, path)
    assert code == 1 and f"belongs to {group}" in said and path in said


@pytest.mark.parametrize("path, source", [("og_project/cli.py", "nbs/53_cli.ipynb"), ("dvc.yaml", "pipeline.yaml"), ("dvc.lock", "config/base.yml"),
                                          ("db/schema.sql", "nbs/02_contract.ipynb"), ("requirements.txt", "settings.ini")])
def test_what_is_made_changes_with_its_source_only(path, source):
    code, said = check("developers", path)
    assert code == 1 and "changed by hand" in said and "CODEOWNERS line" in said
    assert check("developers", path, source)[0] == 0


def test_every_file_has_an_owner():
    assert check("developers", *LISTED)[1].count("belongs to devops") > 10
