"""The report of the main job, as a person opens it: from disk, with the network off."""

import subprocess
from pathlib import Path

import pytest
from tests.browser.chromium import visit

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "runs" / "screenshots"
ALL_DRAWN = "document.documentElement.dataset.drawn !== undefined"
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('.main-svg').length)"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a few seconds of the packaged trace against the embedded engine."""
    out = tmp_path_factory.mktemp("report") / "run"
    command = [
        ROOT / ".venv/bin/tailgate", "run", ROOT / "workloads/data/azure-2023-conv.yaml",
        "--duration", "6s", "--out", out, "--quiet",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (out / "report.html").exists(), ran.stderr
    return out / "report.html"


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_errors_or_requests_and_draws_every_plot(report: Path, width: int, dark: bool):
    shot = SHOTS / f"report-{width}-{'dark' if dark else 'light'}.png"
    ask = [DRAWN, "document.body.innerText", OVERFLOW]
    seen = visit(report, width=width, dark=dark, until=ALL_DRAWN, ask=ask, screenshot=shot)
    drawn, text, overflow = seen.values
    assert seen.errors == [] and seen.requests == []
    assert len(drawn) >= 3 and all(drawn)
    assert "SIMULATED" in text and "TTFT" in text
    assert overflow <= 0
    assert shot.stat().st_size > 20_000
