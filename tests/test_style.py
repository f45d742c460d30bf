"Beauty is checked, not hoped for: the rules of CONTRIBUTING.md that a program can see."
import ast
import importlib.util
import json
import re
import subprocess
import tokenize
from pathlib import Path
from statistics import median

import problem
import pytest

from og_project.config import Settings, root
from og_project.lifecycle.pipeline import imported, read_stages, run_cells

NOTEBOOKS = sorted((root() / "nbs").glob("*.ipynb"))
STAGES = {stage["source"]: name for name, stage in read_stages().items()}
PLATFORM = ["config.py", "files.py", "store.py", "cluster.py", "commands.py", "cli.py", "lifecycle", "serving"]
LAYERS = ["config", "files", "store", "cluster", "data", "features", "model", "lifecycle", "serving", "replay", "timeline", "commands", "cli"]


def cells(path: Path) -> list[dict]:
    return [cell | {"source": "".join(cell["source"])} for cell in json.loads(path.read_text())["cells"]]


def code_cells(path: Path) -> list[str]:
    return [cell["source"] for cell in cells(path) if cell["cell_type"] == "code"]


def exported(path: Path) -> list[str]:
    return [source for source in code_cells(path) if source.startswith("#| export")]


def definitions(source: str) -> list[ast.stmt]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_begins_with_a_title_and_a_promise(path):
    assert re.match(r"# .+\n> .+\.$", cells(path)[0]["source"]), "first cell: `# Title`, then `> one line that promises something.`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_short_and_explained(path):
    for source in code_cells(path):
        lines = [line for line in source.splitlines() if line.strip()]
        if all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(source).body):
            continue
        a_class = len(definitions(source)) == 1 and isinstance(definitions(source)[0], ast.ClassDef)  # its methods cannot stand apart
        most = (60 if a_class else 30) if source.startswith("#| export") else 20
        assert len(lines) <= most, f"{len(lines)} lines:\n{source[:200]}"
    assert sum(len(source.splitlines()) - 1 for source in exported(path)) <= 430, "what is exported is more than one sitting: split the notebook"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_cell_defines_one_thing(path):
    for source in exported(path):
        names = [node.name for node in definitions(source)]
        assert len(names) <= 1, f"{', '.join(names)}: a cell for each"


def test_what_is_defined_is_shown_or_tested_at_once():
    "The limits are those at which somebody reads on without scrolling back; nine in ten, since some need a server or the whole pipeline."
    near, sizes = [], []
    for path in NOTEBOOKS:
        code = code_cells(path)
        for i, source in enumerate(code):
            if source.startswith("#| export") and definitions(source):
                near.append(any(not after.startswith("#|") for after in code[i + 1 : i + 3]))
                sizes.append(len([line for line in source.splitlines() if line.strip()]) - 1)
    assert sum(near) / len(near) >= 0.9, f"{near.count(False)} of {len(near)} definitions have no example within the next two cells"
    assert median(sizes) <= 10


@pytest.mark.parametrize("path", [root() / source for source in STAGES], ids=lambda p: p.stem)
def test_a_stage_has_one_parameters_cell_and_a_run(path):
    tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0]["source"]).body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant), "the parameters cell holds literals only"
    run = [cell["source"] for cell in run_cells(cells(path))]
    assert not any(re.search(r"^\s*(def|class) ", source, re.M) for source in run), "no definition below ## Run"
    names = {target.id for statement in ast.parse(tagged[0]["source"]).body for target in statement.targets}
    assert names == {"upstream", "product"} | set(read_stages()[STAGES[path.relative_to(root()).as_posix()]]["params"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_public_functions_say_what_they_do(path):
    for source in exported(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
                assert ast.get_docstring(node), f"{node.name} has no docstring"
                if isinstance(node, ast.FunctionDef):
                    assert node.returns is not None, f"{node.name} does not say what it returns"


def test_what_cells_show_is_stored_above_the_run_and_small():
    "`og outputs --check` compares it with what they show now."
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 2 * 2**20
    for path in NOTEBOOKS:
        stored = cells(path)
        shown = [i for i, cell in enumerate(stored) if cell.get("outputs")]
        run = next((i for i, cell in enumerate(stored) if cell["cell_type"] == "markdown" and cell["source"].startswith("## Run")), len(stored))
        assert all(i < run for i in shown), f"{path.name}: outputs below ## Run"
        assert shown, f"{path.name} shows nothing"


def test_imports_run_one_way():
    for path in (root() / "og_project").rglob("*.py"):
        layer = path.relative_to(root() / "og_project").parts[0].removesuffix(".py")
        if layer.startswith("_"):
            continue
        module = ".".join(path.relative_to(root()).with_suffix("").parts)
        for name in imported(path.read_text(), module):
            other = name.split(".")[1]
            assert LAYERS.index(other) <= LAYERS.index(layer), f"{path.name} ({layer}) imports {other}"


def module_of(path: Path) -> str:
    "The module that a notebook is exported to, without the package."
    return next(found[1] for source in code_cells(path) if (found := re.match(r"#\| default_exp (\S+)", source)))


NUMBERS = {module_of(path): int(path.stem[:2]) for path in NOTEBOOKS if path.stem != "index"}  # module -> the number of its notebook


def test_numbers_tell_and_names_are_those_of_the_modules():
    "00 the problem and its base, 10 the lifecycle, 20 recording, 30 serving, 40 operations, 50 the commands."
    for path in NOTEBOOKS:
        assert path.stem == "index" or path.stem[2:] == "_" + module_of(path).split(".")[-1]
    for number in NUMBERS.values():
        assert number % 10 == 0 or number - 1 in NUMBERS.values(), f"nothing stands before {number}"


def test_every_import_is_from_a_lower_number():
    for module, number in NUMBERS.items():
        path = root() / "og_project" / (module.replace(".", "/") + ".py")
        for name in imported(path.read_text(), f"og_project.{module}"):
            parts = name.split(".")[1:]
            other = next((".".join(parts[:n]) for n in (2, 1) if ".".join(parts[:n]) in NUMBERS), None)
            assert other is None or NUMBERS[other] < number, f"{number} {module} imports {NUMBERS[other]} {other}"


def test_benchmarks_import_what_is_there():
    "They are not run here; a name that is gone would not be noticed for months."
    for path in (root() / "bench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("og_project"):
                module = importlib.import_module(node.module)
                gone = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert all(is_module(f"{node.module}.{name}") for name in gone), f"{path.relative_to(root())}: {node.module} has no {gone[0]}"


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def test_nothing_happens_at_import():
    "Modules define; they do not run. (A cell that was exported with its demo once trained a model at import.)"
    for path in (root() / "og_project").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            bare_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                names = {target.id for target in node.targets if isinstance(target, ast.Name)}
                bare_call = not all(name.isupper() or name == "log" for name in names)  # a constant, or a logger
            imports = isinstance(node, ast.With) and all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)
            assert not bare_call and (imports or not isinstance(node, ast.For | ast.While | ast.With)), f"{path.name}:{node.lineno} runs at import"


def listed(*places: str) -> list[Path]:
    "What git keeps, or would keep, under these places."
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *places]
    names = subprocess.run(command, cwd=root(), capture_output=True, text=True, check=True)
    return [root() / name for name in names.stdout.splitlines() if (root() / name).is_file()]


OF_THE_PROBLEM = re.compile(r"(tests|bench)/problem/|tests/test_template|starters/|nbs/(0[23457]|index)|og_project/(data|model|features|_modidx)|"
                            r"docs/(benchmarks|note|replay|decisions/)|README|CHANGELOG|requirements|settings.ini|env.yaml|pipeline.yaml|dvc\.|db/schema|config/base")


def test_the_platform_never_names_the_problem():
    "Neither its code nor its tests, notebooks, documents or delivery; what its examples show is of the problem."
    for path in listed():
        if OF_THE_PROBLEM.match(path.relative_to(root()).as_posix()) or path.suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
            continue
        try:
            text = path.read_text() if path.suffix != ".ipynb" else "\n".join(cell["source"] for cell in cells(path))
        except UnicodeDecodeError:
            continue
        text = re.sub(r"(?ms)^<!-- template -->$.*?^<!-- /template -->$", "", text)  # says which starters there are
        found = re.search(problem.WORDS, text, re.I)
        assert not found, f"{path.relative_to(root())} speaks of the problem: {found[0]!r}"


def test_no_vague_names():
    "In the platform: how analysts call their frames is theirs."
    for path in [found for name in PLATFORM for found in sorted((root() / "og_project" / name).rglob("*.py")) or [root() / "og_project" / name]]:
        assert not re.search(r"utils|helper|manager|misc", path.name)
        assert not re.search(r"\bdf\d?\b|\bdef process", path.read_text())


def test_the_glossary_names_what_is_there_and_old_words_do_not_come_back():
    lines = [line for line in (root() / "docs/glossary.md").read_text().splitlines() if line.startswith("| ")]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
    names: set[str] = set()
    for path in (root() / "og_project").rglob("*.py"):
        if path.name != "_modidx.py":
            with path.open() as file:
                names |= {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}
    terms = [row[0] for row in rows if row[0] != "term"]
    assert len(terms) > 30 and len(terms) == len(set(terms))
    for row in rows:
        for place, there in ((2, True), (3, False)):
            for word in re.findall(r"`(\w+)`", row[place] if len(row) > place else ""):
                assert (word in names) is there, f"{word} is {'gone' if there else 'back'}: docs/glossary.md, {row[0]}"


def test_no_line_of_the_documents_is_longer_than_one_reads():
    "300 characters are two lines of a wide window."
    for path in [root() / "README.md", root() / "CONTRIBUTING.md", *(root() / "docs").rglob("*.md")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.replace("og_project", "").replace("og-project", "")  # a longer name makes longer lines
            assert len(line) <= 300, f"{path.relative_to(root())}:{number} has {len(line)} characters"


def test_every_verb_is_explained():
    text = (root() / "Makefile").read_text()
    verbs = set(re.findall(r"^([a-z][a-z-]*):", text, re.M))
    helped = set(re.findall(r"^([a-z][a-z-]*):.*## ", text, re.M))
    assert verbs == helped
    told = (root() / "docs/commands.md").read_text()
    for verb in helped - {"help"}:
        assert f"`make {verb}`" in told, verb
    readme = (root() / "README.md").read_text()
    for verb in ("pipeline", "test", "serve", "lab", "export", "lint", "mlflow", "dag", "lock"):
        assert f"make {verb}" in readme, verb


def test_every_command_and_setting_is_documented():
    docs = (root() / "README.md").read_text() + "".join(p.read_text() for p in (root() / "docs").glob("*.md"))
    from og_project.cli import og

    for name, command in og.commands.items():
        assert f"og {name}" in docs, f"og {name} is not documented"
        assert command.help and len(command.help) > 30
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for key in [f"{name}.{part}" for part in inner] if inner else [name]:
            assert f"`{key}`" in docs, f"setting {key} is not documented"


def test_no_number_of_this_machine():
    for path in listed():
        text = path.read_text(errors="ignore")
        assert str(root()) not in text or str(root()) == "/", f"{path.relative_to(root())} holds the absolute path of this checkout"
