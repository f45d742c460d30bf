"The site of notebooks and documents: built, and opened in a browser."
import http.server
import json
import subprocess
import sys
import threading
from functools import partial

import pytest
from processes import free_port

from og_project.config import root


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    "The site, built as `make docs` does and served."
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run([sys.executable, root() / "docs/site.py", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_every_page_opens_and_shows_what_cells_show(address, browser):
    page, missing, seen = browser.new_page(), [], 0
    page.on("response", lambda reply: reply.status >= 400 and missing.append(reply.url))
    page.goto(f"{address}/index.html", wait_until="domcontentloaded")
    names = sorted(path.stem for path in (root() / "nbs").glob("*.ipynb"))
    linked = page.evaluate("() => [...document.querySelectorAll('nav a')].map(a => a.href)")
    assert {f"{address}/nbs/{name}.html" for name in names} <= set(linked)
    for name in ("05_estimator", "16_gate"):
        page.goto(f"{address}/nbs/{name}.html", wait_until="domcontentloaded")
        cells = [cell for cell in json.loads((root() / f"nbs/{name}.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]
        exported = sum("#| export" in "".join(cell["source"]) for cell in cells) - 1  # the first holds imports alone
        assert page.locator("h1").inner_text() and page.locator("pre code").count() >= exported > 0
        shown = [(kind, "".join(data)) for cell in cells for output in cell["outputs"] for kind, data in output.get("data", {}).items()]
        pictures = sum(1 if kind.startswith("image/") else data.count("<img") for kind, data in shown)
        assert page.locator("article img").count() == pictures, "pictures of the examples"
        seen += pictures
    page.close()
    assert seen and not missing, missing


@pytest.mark.slow
def test_it_is_searched_and_turns_dark(address, browser):
    page = browser.new_page()
    page.goto(f"{address}/nbs/00_config.html")
    scheme = "() => document.body.dataset.mdColorScheme"
    page.wait_for_function(f"({scheme})() == 'default'")
    page.locator("label[title=dark]:visible, label[title=light]:visible").first.click()
    page.wait_for_function(f"({scheme})() == 'slate'")
    page.keyboard.press("Control+k")
    page.keyboard.type("idempotency")
    page.wait_for_selector("a[href*='36_idempotency']:visible")
    page.close()
