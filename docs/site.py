"""The notebooks, with what their cells show, and these pages as a site with a search, made without a network:

    make docs                       # build/site/index.html
    python docs/site.py FOLDER      # the same, FOLDER/index.html

nbconvert makes Markdown of the notebooks, Zensical makes the pages; a link that leads nowhere fails the build (docs/decisions/site.md)."""
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = ("docs/your-own-problem.md", "docs/commands.md", "docs/settings.md", "docs/glossary.md", "CONTRIBUTING.md")
CONFIG = """\
site_name: {name}
docs_dir: pages
site_dir: site
use_directory_urls: false
theme:
  variant: modern
  font: false
  features: [navigation.indexes, navigation.top, content.code.copy, search.highlight]
  palette:
    - {{scheme: default, media: "(prefers-color-scheme: light)", toggle: {{icon: lucide/sun, name: dark}}}}
    - {{scheme: slate, media: "(prefers-color-scheme: dark)", toggle: {{icon: lucide/moon, name: light}}}}
markdown_extensions:
  - tables
  - toc:
      permalink: true
      slugify: !!python/object/apply:pymdownx.slugs.slugify {{kwds: {{case: lower}}}}
  - pymdownx.superfences:
      custom_fences:
        - name: mermaid
          class: mermaid
          format: !!python/name:pymdownx.superfences.fence_code_format
nav: {nav}
"""


def imports_alone(source: str) -> bool:
    "Is a cell nothing but imports, or nothing at all?"
    try:
        return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body)
    except SyntaxError:  # IPython's own
        return False


def converted(path: Path, folder: Path) -> None:
    "A notebook as Markdown, its pictures beside it; without imports and the lines that are for nbdev alone."
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"(?m)^#\| .*\n?", "", cell.source).strip()
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or not imports_alone(cell.source)]
    notebook.metadata["language_info"] = {"name": "python"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, {"output_files_dir": f"{path.stem}_files"})
    for name, picture in resources["outputs"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture)
    (folder / f"{path.stem}.md").write_text(text)


def relinked(text: str, place: str, pages: set[str]) -> str:
    "A page's links as they are in the site: to pages; a link to another file of the project becomes plain text."
    def link(found: re.Match) -> str:
        words, target, rest = found[1], found[2], found[3] or ""
        if "://" in target or not target:
            return found[0]
        named = re.sub(r"\.ipynb$", ".md", re.sub(r"(^|/)README\.md$", r"\1index.md", target))
        there = (Path("/") / Path(place).parent / named).resolve().relative_to("/").as_posix()
        return f"[{words}]({named}{rest})" if there in pages else words
    return re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)", link, text)


def title(page: Path) -> str:
    "The first heading."
    return re.search(r"(?m)^# (.*)$", page.read_text())[1].strip("`")


def navigation(folder: Path, pages: list[str]) -> list[dict]:
    "What stands at the left: where to begin, then everything by its kind."
    of = lambda names: [{title(folder / name): name} for name in names]
    guide = [name for name in pages if re.fullmatch(r"docs/[^/]+\.md", name) and name not in FIRST and not name.endswith(".ru.md")]
    russian = [name for name in pages if ".ru." in name or name.startswith("docs/ru/")]
    kinds = {"Begin": ["index.md", *FIRST], "Notebooks": [name for name in pages if name.startswith("nbs/")], "Guide": guide,
             "Decisions": [name for name in pages if name.startswith("docs/decisions/")], "По-русски": russian}
    return [{kind: of(name for name in names if name in pages)} for kind, names in kinds.items() if set(names) & set(pages)]


def build(site: Path) -> None:
    "Make the site in a folder, which is replaced."
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "pages")
        (source / "nbs").mkdir(parents=True)
        for notebook in sorted((ROOT / "nbs").glob("*.ipynb")):
            converted(notebook, source / "nbs")
        for page in [ROOT / "CONTRIBUTING.md", *ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]:
            there = source / re.sub(r"(^|/)README\.md$", r"\1index.md", page.relative_to(ROOT).as_posix())
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text(page.read_text())
        for picture in (ROOT / "docs").glob("*.svg"):
            shutil.copy(picture, source / "docs" / picture.name)
        pages = sorted(page.relative_to(source).as_posix() for page in source.rglob("*.md"))
        for name in pages:
            (source / name).write_text(relinked((source / name).read_text(), name, set(pages)))
        nav = json.dumps(navigation(source, pages), ensure_ascii=False)
        name = json.dumps(title(ROOT / "README.md"))
        Path(place, "mkdocs.yml").write_text(CONFIG.format(name=name, nav=nav))
        done = subprocess.run([Path(sys.executable).with_name("zensical"), "build", "--strict"], cwd=place, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}\nthe site was not built")
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(Path(place, "site"), site)
    print(f"{len(pages)} pages: {site}/index.html")


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/site").resolve())
