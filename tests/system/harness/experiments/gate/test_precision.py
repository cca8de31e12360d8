"""A gate asks for more than this machine can tell: refused before any load, unless it is to be measured anyway."""

import subprocess
from pathlib import Path

import pytest
from tests.kit.command import command

pytestmark = pytest.mark.alone

# No machine is expected to measure to less than 0.3 ms.
POLICY = """
baseline: sim:h100-sxm/llama-3.1-8b
candidate: sim:h100-sxm/llama-3.1-8b
spec:
  workload:
    {prompt_tokens: 16, output_tokens: 4, arrivals: {rate: 100/s}, duration: 1s, warmup: 300ms}
pairs: 3
extension: null
repeat_invalid: 0
restart: never
metrics: {ttft.p50: 20%}
thresholds: {itl: p95 < 0.1ms}
"""


def gate(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "p.yaml").write_text(POLICY)
    line = command("gate", "--policy", "p.yaml", "--out", "out", *flags)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=200, check=False)


def test_what_can_not_be_told_here_is_refused_before_any_load(tmp_path: Path) -> None:
    done = gate(tmp_path)
    assert done.returncode == 2, done.stderr
    assert "the limit is itl: p95 < 0.1ms, and this machine's own error of itl.p95 will be about ±" in done.stderr
    assert "--anyway" in done.stderr and not (tmp_path / "out").exists()


def test_anyway_it_is_measured(tmp_path: Path) -> None:
    done = gate(tmp_path, "--anyway", "--quiet")
    assert done.returncode in (1, 3, 4), done.stderr
    assert len(list((tmp_path / "out").glob("pair*"))) >= 2
