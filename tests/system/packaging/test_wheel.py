"""What people install works as it does here: wheel and sdist hold everything, under one name, and run anywhere."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.kit.paths import ROOT

FOLDERS = ("harness", "loadgen", "reports", "workloads")
DATA = {
    "tailgate/py.typed",
    "tailgate/harness/engine/presets/gpus.yaml",
    "tailgate/harness/engine/presets/models.yaml",
    "tailgate/reports/cost/prices.json",
    "tailgate/reports/documents/assets/report.css",
    "tailgate/reports/documents/assets/report.js",
    "tailgate/workloads/data/azure-2023-conv.yaml",
    "tailgate/workloads/data/azure-2023-conv-excerpt.csv",
    "tailgate/workloads/data/quantiles.json",
}
LOAD = ["--rate", "4/s", "--duration", "2s", "--prompt-tokens", "16", "--output-tokens", "4", "--no-settle"]
LOCUSTFILE = """
from reports import QUESTION
from tailgate import LLMUser, task


class Asks(LLMUser):
    @task
    def ask(self):
        self.client.chat(QUESTION, max_tokens=4)
"""


def done(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=180
    )


def pip(*words: object, cwd: Path) -> None:
    result = done(sys.executable, "-m", "pip", "--disable-pip-version-check", *words, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is checked out: nothing built, nothing installed."""
    copy = tmp_path_factory.mktemp("tree") / "tailgate"
    unbuilt = shutil.ignore_patterns(".*", "*.so", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unbuilt)
    return copy


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    out = tree.parent / "sdist"
    backend = f"import setuptools.build_meta as backend; backend.build_sdist({str(out)!r})"
    result = done(sys.executable, "-c", backend, cwd=tree)
    assert result.returncode == 0, result.stderr
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return built(tree, tree.parent / "wheel")


def built(source: Path, out: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, source, cwd=out.parent)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The bin folder of a clean environment with this wheel; its dependencies are those of the tests."""
    env = wheel.parent.parent / "env"
    assert done(sys.executable, "-m", "venv", "--without-pip", env, cwd=wheel.parent).returncode == 0
    pip("--python", env / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=wheel.parent)
    (site,) = env.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return env / "bin"


@pytest.fixture
def own_packages(tmp_path: Path) -> Path:
    """A directory of a user who has packages called like our folders, and a `sitecustomize` that writes who ran it."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("QUESTION = 'Why?'\n")
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nopen({str(tmp_path / 'customized')!r}, 'a').write(' '.join(sys.orig_argv) + '\\n')\n"
    )
    (tmp_path / "asks.py").write_text(LOCUSTFILE)
    return tmp_path


def test_the_wheel_holds_data_and_extensions_under_one_name_and_no_tests(wheel: Path) -> None:
    held = names(wheel)
    profiles = {f"tailgate/workloads/profiles/{file.name}" for file in (ROOT / "workloads/profiles").glob("*.yaml")}
    assert len(profiles) == 11
    assert held >= DATA | profiles
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"tailgate"}
    http = [name.rsplit("/", 1)[1] for name in held if name.startswith("tailgate/loadgen/injector/http/")]
    assert any(name.startswith("_intake.") and name.endswith(".so") for name in http)
    assert any(name.startswith("_events.") and name.endswith(".so") for name in http)
    assert [name for name in held if name.startswith("tailgate/harness/engine/virtual/_kernel.") and ".so" in name]
    assert not [name for name in held if "test" in name.split("/")[1] or name.endswith("conftest.py")]


def test_every_module_of_the_repository_is_in_the_wheel(wheel: Path) -> None:
    ours = {f"tailgate/{file.relative_to(ROOT)}" for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
    ours |= {f"tailgate/{file.name}" for file in (ROOT / "src/tailgate").glob("*.py")}
    assert {name for name in names(wheel) if name.endswith(".py")} == ours


def test_the_wheel_of_the_sdist_is_the_same(wheel: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
    assert names(built(sdist, sdist.parent / "again")) == names(wheel)


def test_an_installed_tailgate_says_its_version_and_is_not_this_checkout(installed: Path, own_packages: Path) -> None:
    said = done(installed / "python", "-m", "tailgate", "--version", cwd=own_packages, PYTHONPATH=".")
    assert (said.returncode, said.stdout) == (0, "tailgate 0.1.0\n"), said.stderr
    file = "import tailgate.harness.cli as cli; print(cli.__file__)"
    where = Path(done(installed / "python", "-c", file, cwd=own_packages).stdout.strip())
    assert where.is_relative_to(installed.parent)


@pytest.mark.parametrize("python_path", [None, "."])
@pytest.mark.parametrize("load", [LOAD, ["--locustfile", "asks.py", "--users", "1", "--requests", "4"]])
def test_it_runs_where_the_user_has_packages_called_like_ours(
    installed: Path, own_packages: Path, python_path: str | None, load: list[str]
) -> None:
    environment = {} if python_path is None else {"PYTHONPATH": python_path}
    words = ["run", "--target", "sim:h100-sxm/llama-3.1-8b", *load, "--out", "out", "--json"]
    ran = done(installed / "tailgate", *words, cwd=own_packages, **environment)
    assert ran.returncode in (0, 4), ran.stderr  # 4: a busy machine
    summary = json.loads(ran.stdout)
    assert summary["load"]["requests"]["ok"] >= 4
    manifest = json.loads((own_packages / "out" / "manifest.json").read_text())
    assert manifest["versions"]["reads"] == "compiled"
    customized = own_packages / "customized"
    # The user's own PYTHONPATH holds for the command that was typed, never for the processes that it starts.
    assert (customized.read_text().splitlines() if customized.exists() else []) == (
        [] if python_path is None else [" ".join([str(installed / "python"), str(installed / "tailgate"), *words])]
    )
