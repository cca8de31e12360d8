"""The README is kept true: every command it shows is run against the embedded engine."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kit.paths import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("tailgate ")]
# Only what makes a command quicker is changed: how long it sends, and how many rows of the trace.
QUICKER = {"--duration": "1s", "--users": "4", "--rate": "5/s", "--step": "2"}
# ... and how many loads `calibrate` tries.
FEWER_STEPS = (
    "from tailgate.harness.calibrate import steps; steps.CHUNK_RATES = (20_000,); steps.REQUEST_RATES = (500,); "
)
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


def tailgate(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    before = FEWER_STEPS if words[0] == "calibrate" else ""
    return subprocess.run(
        [sys.executable, "-c", f"{before}from tailgate.harness.cli import main; raise SystemExit(main())", *words],
        capture_output=True, text=True, check=False, timeout=120, cwd=cwd, env={**os.environ},
    )  # fmt: skip


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
    said = tailgate(*words, cwd=ROOT)
    for _ in range(2):  # a moment in which the machine was too busy to be calibrated may pass
        if words[0] == "calibrate" and said.returncode == 2:
            said = tailgate(*words, cwd=ROOT)
    # 3: the sample is too small for the objective, which is what a quickened run must say; 4: this machine is busy.
    # Too busy to be calibrated at all is 2, and said in those words.
    busy = words[0] == "calibrate" and said.returncode == 2 and "the null server itself was late" in said.stderr
    assert said.returncode in (0, 3, 4) or busy, (said.returncode, said.stdout, said.stderr)


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_the_main_jobs_spec_is_the_one_the_readme_describes(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert summary["simulated"] is True
    assert "azure-2023-conv.yaml" in (ROOT / "Makefile").read_text()


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "workloads" / "data" / "README.md"]


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
