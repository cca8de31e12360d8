"""A gate's page, as a person opens it: from disk, with the network off."""

from pathlib import Path

import pytest
from tests.browser.chromium import visit
from tests.kit.gate_runs import campaign, noisy, pairs, phase, policy

from tailgate.reports.documents.gate.history import Entry, entry_of
from tailgate.reports.documents.gate.write import html
from tailgate.reports.verdicts.gate.result import Verdict
from tailgate.reports.verdicts.gate.verdict import judge

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "runs" / "screenshots"
ALL_DRAWN = "document.documentElement.dataset.drawn !== undefined"
DRAWN = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('.main-svg').length)"
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
QUIET = {"pairs": 5, "extension": None}
SERVER = {"running": {"mean": 3.0}, "max_num_seqs": 16}


def failed() -> Verdict:
    runs = pairs(noisy(0.3, 0.02, 5))
    for one in runs:
        slow = one.label == "candidate"
        phases = {"queue": phase(600.0 if slow else 2.0)}
        one.figures["server"] = SERVER | {"phases": phases, "max_num_seqs": 1 if slow else 16}
    return judge(runs, policy(metrics={"ttft.p50": "5%", "tpot.mean": "5%", "itl.p99": "10%"}, **QUIET), campaign(5))


def invalid() -> Verdict:
    runs = pairs([1.0] * 5)
    runs[3].figures["checks"][0] |= {"status": "fail", "value": 30.0}
    return judge(runs, policy(**QUIET), campaign(5))


def history(found: Verdict) -> list[Entry]:
    return [entry_of(found, f"2026-01-{day:02}T06:00:00+00:00") for day in range(1, 9)]


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_it_opens_without_errors_or_requests_and_draws_the_pairs_and_the_trend(tmp_path: Path, width: int, dark: bool):
    found = failed()
    path = tmp_path / "gate.html"
    path.write_text(html(found, history(found)))
    shot = SHOTS / f"gate-{width}-{'dark' if dark else 'light'}.png"
    ask = [DRAWN, "document.body.innerText", OVERFLOW]
    seen = visit(path, width=width, dark=dark, until=ALL_DRAWN, ask=ask, screenshot=shot)
    drawn, text, overflow = seen.values
    assert seen.errors == [] and seen.requests == []
    assert len(drawn) == 2 and all(drawn)
    assert "FAIL" in text and "Where to look first" in text and "TTFT p50" in text
    assert overflow <= 0


def test_an_invalid_verdict_says_so_on_top_and_shows_no_figure(tmp_path: Path):
    path = tmp_path / "gate.html"
    path.write_text(html(invalid()))
    shot = SHOTS / "gate-invalid.png"
    seen = visit(path, until=ALL_DRAWN, ask=[DRAWN, "document.body.innerText"], screenshot=shot)
    drawn, text = seen.values
    assert drawn == [] and seen.errors == []
    assert text.startswith("INVALID: nothing can be said") and "dispatch lag 30 ms" in text
