"""The limits of docs/architecture.md: small folders that say what lives in them, small modules, names that mean one
thing, and no text that names a module which isn't there."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import pytest
from tests.kit.paths import ROOT

PACKAGES = ("workloads", "loadgen", "reports", "harness")
MODULES = [
    *sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")),
    *sorted((ROOT / "src" / "tailgate").glob("*.py")),
]
FOLDERS = sorted({path.parent for path in MODULES})
TREES = {path: ast.parse(path.read_text()) for path in MODULES}
OF_USERS_PACKAGES = "test_import_paths.py"  # writes packages that are called like ours
TEXTS = [
    *sorted(path for suffix in ("*.md", "*.yml", "*.yaml", "*.toml") for path in ROOT.glob(suffix)),
    *(ROOT / name for name in ("Makefile", ".ci/run", ".pre-commit-config.yaml") if (ROOT / name).exists()),
    *sorted(path for folder in ("docs", "ci", "examples") for path in (ROOT / folder).rglob("*.*")),
    *sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.[ch]")),
    *MODULES,
    *sorted(path for path in (ROOT / "tests").rglob("*.py") if path.name != OF_USERS_PACKAGES),
]
DOTTED = re.compile(rf"(?<![\w./-])(?:tailgate\.)?((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)(?![\w/])")
SLASHED = re.compile(rf"(?<![\w./{{-])(?:src/tailgate/)?((?:{'|'.join(PACKAGES)}|tests)/(?>[\w/.-]*\w))(?![*{{<])")
SUFFIXES_OF_FILES = {"md", "html", "json", "yaml", "csv", "parquet"}  # `harness.md` names a page, not a module


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public_classes(tree: ast.Module) -> Iterator[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))


def prose(path: Path) -> str:
    """What a file says to people and to other programs: of Python its strings and comments, of others everything."""
    text = path.read_text(errors="replace")
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in (tokenize.STRING, tokenize.COMMENT))


def defined(module: Path, name: str) -> bool:
    return re.search(rf"\b{name}\b", module.read_text()) is not None


def exists(dotted: str) -> bool:
    """Whether a name leads to a package, to a module (in Python or C), or to something that its text mentions."""
    place = ROOT
    for name in dotted.split("."):
        if (place / name).is_dir():
            place /= name
        elif modules := [path for path in (place / f"{name}.py", place / f"{name}.c") if path.exists()]:
            (place,) = modules
        elif place.is_file():
            return defined(place, name)
        else:
            return defined(place / "__init__.py", name)
    return True


def named_modules(text: str) -> Iterable[str]:
    return (name for name in DOTTED.findall(text) if name.rpartition(".")[2] not in SUFFIXES_OF_FILES)


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_a_folder_holds_at_most_fifteen_modules_and_rooms(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
    rooms = [path.parent.name for path in folder.glob("*/__init__.py") if not path.parent.is_symlink()]
    assert len(modules + rooms) <= 15, sorted(modules + rooms)


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_a_folder_says_in_one_or_two_sentences_what_lives_there(folder: Path) -> None:
    says = ast.get_docstring(TREES[folder / "__init__.py"])
    assert says, "no docstring"
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", says.strip())
    assert len(sentences) <= 2 and says.strip().endswith("."), says


def test_no_module_is_longer_than_350_lines_and_half_have_at_most_130() -> None:
    lines = {short(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: n for name, n in lines.items() if n > 350} == {}
    assert median(n for name, n in lines.items() if not name.endswith("__init__.py")) <= 130


def test_no_public_class_name_means_two_things() -> None:
    places = [(name, short(path)) for path, tree in TREES.items() for name in set(public_classes(tree))]
    often = {name for name, n in Counter(name for name, _ in places).items() if n > 1}
    assert sorted(place for place in places if place[0] in often) == []


def test_every_module_that_a_text_names_exists() -> None:
    gone = {short(path): sorted({name for name in named_modules(prose(path)) if not exists(name)}) for path in TEXTS}
    assert {path: names for path, names in gone.items() if names} == {}


def test_every_file_of_ours_that_a_text_names_exists() -> None:
    gone = {}
    for path in TEXTS:
        names = set(SLASHED.findall(prose(path)))
        if "tests" in path.parts:  # they also name files that they make
            names = {name for name in names if name.endswith((".py", ".c"))}
        gone[short(path)] = sorted(name for name in names if not (ROOT / name).exists())
    assert {path: names for path, names in gone.items() if names} == {}
