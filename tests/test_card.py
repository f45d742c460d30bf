"The model card: whole, readable by programs, and where people look for it."
import json
import shutil
from pathlib import Path

import httpx
import yaml
from processes import wait_until
from sites import model_folder

from og_project.config import settings
from og_project.data.contract import Answer, Record
from og_project.lifecycle import ledger
from og_project.lifecycle.card import MOST, card, quality
from og_project.lifecycle.gate import DECIDING
from og_project.lifecycle.registry import publish_card, versioned

PARTS = {"Data": "- train: 9 rows", "Quality": "| of | value |", "Limits": "- Old.", "Not for": "- Bets."}
WRITTEN = "\n\n".join(["# Model card", "What it says.", *(f"## {name}\n\n{text}" for name, text in PARTS.items())]) + "\n"
SECTIONS = ["## Model Details", "## Uses", "## Bias, Risks, and Limitations", "## Training Details", "## Evaluation"]  # of Hugging Face's template


def carded(real, folder):
    "A model whose card Evaluate has written."
    from og_project.model.estimator import seal

    made = model_folder(real, folder)
    (made / "card.md").write_text(WRITTEN)
    seal(made)
    return made


def test_its_head_is_read_by_programs_and_its_text_has_everything(real, tmp_path):
    tags = {DECIDING: "0.75", "git_commit": "ab" * 20, "data_sha256": "ab" * 32, "verdict": "refused", "verdict_reason": "size: 9 MB"}
    text = card(carded(real, tmp_path / "model"), "demo", "3", tags)
    _, head, body = text.split("---\n", 2)
    result = yaml.safe_load(head)["model-index"][0]["results"][0]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]}[DECIDING] == 0.75 and result["dataset"]["revision"] == "ab" * 32
    assert [line for line in body.splitlines() if line.startswith("## ")] == SECTIONS
    assert all(f"| `{name}` |" in body for name in (*Record.model_fields, *Answer.model_fields))
    where = {"### Out-of-Scope Use": "Not for", "## Bias, Risks, and Limitations": "Limits", "### Training Data": "Data"}
    for heading, said in ((heading, PARTS[name]) for heading, name in where.items()):
        assert body[body.index(heading) :].split("\n\n")[1] == said
    assert "**refused**" in body and "size: 9 MB" in body and quality(tags)[DECIDING] == 0.75


def test_people_find_it_in_mlflow_and_on_the_page(registry, real, site, monkeypatch, tmp_path, browser):
    shutil.rmtree(site.folder / "models")
    of = {"OG_MLFLOW__TRACKING_URI": registry.url, "OG_SERVE__WATCH_SECONDS": "0.3", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false"}
    for name, value in (of | {"OG_ROOT": str(site.folder), "OG_STORE__URL": f"chdb://{site.folder / 'data'}"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(site.folder)
    version, config = registry.publish(folder := carded(real, tmp_path / "model")), settings("local")
    text = publish_card(config, versioned(config, version), folder)
    from mlflow import MlflowClient

    there = MlflowClient(registry.url).get_model_version("og_project", version)
    assert there.description.startswith("# Model Card for og_project") and "- Bets." in there.description and len(there.description) <= MOST
    kept = MlflowClient(registry.url).download_artifacts(there.run_id, "card/README.md", str(tmp_path))
    assert Path(kept).read_text() == text

    site.start(ready=False, **of)
    assert httpx.get(site.url + "/model/card").status_code == 503
    ledger.promote(config, version, "a test", force=True)
    wait_until(lambda: httpx.get(site.url + "/model").json()["version"] == version)
    served = httpx.get(site.url + "/model/card")
    assert served.text == text and served.headers["content-type"].startswith("text/plain")
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(site.url)
    page.click("#card summary")
    page.wait_for_selector("#card-text:has-text('Out-of-Scope Use')")
    assert "- Bets." in page.inner_text("#card-text") and "model-index" not in page.inner_text("#card-text") and not errors
    page.close()
    assert json.loads(httpx.get(site.url + "/openapi.json").text)["paths"]["/model/card"]
