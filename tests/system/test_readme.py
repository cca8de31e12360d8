"""The README is kept true: every command it shows is run against the embedded engine."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.kit.docs import commands, requires_no_excuse, tailgate
from tests.kit.paths import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = commands(ROOT / "README.md")
# Only what makes a command quicker is changed: how long it sends, and how many rows of the trace.
QUICKER = {"--duration": "1s", "--users": "4", "--rate": "5/s", "--step": "2"}
POLICY = """
baseline: {sim: h100-sxm/llama-3.1-8b}
candidate: {sim: h100-sxm/llama-3.1-8b}
spec:
  workload: {prompt_tokens: 32, output_tokens: 8, arrivals: {process: poisson, rate: 400/s}, duration: 2s}
metrics: {ttft.p50: 5%}
"""


def quicker(command: str, target: str, run: Path) -> list[str]:
    command = command.replace("runs/RUN", str(run)).replace("runs/", f"{run.parent}/")
    command = command.replace("policy.yaml", str(run.parent / "policy.yaml"))
    words = shlex.split(command.replace("http://localhost:8000", target))
    for place, word in enumerate(words[:-1]):
        if word in QUICKER:
            words[place + 1] = QUICKER[word]
    if "--trace" in words:
        words += ["--requests", "10", "--speed", "10"]
    return words[1:]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("readme") / "run"
    load = ["--rate", "20/s", "--duration", "1s", "--prompt-tokens", "32", "--output-tokens", "8"]
    said = tailgate("run", "--target", "sim:h100-sxm/llama-3.1-8b", *load, "--out", str(out), "--quiet", cwd=out.parent)
    assert said.returncode in (0, 4), said.stderr
    (out.parent / "policy.yaml").write_text(POLICY)
    for name in ("bf16-1", "fp8-1"):
        shutil.copytree(out, out.parent / name)
    return out


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize(
    "command", [pytest.param(c, marks=pytest.mark.alone) if c.startswith("tailgate calibrate") else c for c in COMMANDS]
)
def test_a_command_of_the_readme_works(command: str, run: Path) -> None:
    words = quicker(command, "sim:h100-sxm/llama-3.1-8b", run)
    if words[0] == "run":
        words += ["--out", str(run.parent / f"again-{COMMANDS.index(command)}")]
    if words[0] == "compare":
        words += ["--anyway", "--out", str(run.parent / "compare.html")]
    requires_no_excuse(words, ROOT)


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_main_jobs_spec_is_the_one_the_readme_describes(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["simulated"] is True
    assert "azure-2023-conv.yaml" in (ROOT / "Makefile").read_text()


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "workloads/data/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue  # of another house
        name, _, heading = link.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document.name}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{document.name}: {link}"
