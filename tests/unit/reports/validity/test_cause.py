"""An invalid run says in plain words what happened, and of several failed checks names the one that explains them."""

import re

import pytest
from tests.kit.fabricate import Row, fabricate

from tailgate.reports.build import build
from tailgate.reports.documents.run.write import export
from tailgate.reports.validity.cause import _HAPPENED, cause
from tailgate.reports.validity.client import Check


def failed(name: str, value: float | None = 7.5, bound: float | None = 5.0, why: str = "its own words") -> Check:
    return Check(name, "fail", value, bound, "ms", why, "Do this.")


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_every_check_of_a_run_has_its_words(tmp_path, loop) -> None:
    rows = [Row(at=10.0 * i, gaps=[5.0]) for i in range(50)]
    summary = build(fabricate(tmp_path / "run", rows, loop=loop))
    assert {check.name for check in summary.checks} <= {*_HAPPENED}


@pytest.mark.parametrize("name", _HAPPENED)
def test_the_words_are_a_sentence_with_the_figures_or_the_reason(name: str) -> None:
    found = cause([failed(name)])
    assert re.fullmatch(r"[A-Z][^{}]*\.", found.happened)
    assert "7.5 ms" in found.happened or "its own words" in found.happened
    assert found.remedy == "Do this." and found.others == ()


def test_what_has_no_figure_says_its_reason() -> None:
    assert cause([failed("receive_lag", None, why="nothing was stamped")]).happened == "Nothing was stamped."


def test_a_cause_is_named_before_what_follows_from_it() -> None:
    checks = [failed(name) for name in ("receive_lag", "coalesced_arrivals", "injector_busy", "offered_load")]
    found = cause(checks)
    assert "thread" in found.happened
    assert [check.name for check in found.others] == ["receive_lag", "coalesced_arrivals", "offered_load"]


def test_the_side_on_which_a_run_broke_off_comes_first() -> None:
    found = cause([failed("interrupted"), failed("target", None, None, "the run failed (exit code 137)")])
    assert found.happened == "The run failed (exit code 137)."


def test_documents_lead_with_what_happened_and_what_to_do(tmp_path) -> None:
    run_dir = fabricate(tmp_path / "run", [Row(at=10.0 * i, late=50.0, gaps=[5.0]) for i in range(50)])
    summary = build(run_dir)
    happened = (
        "This machine was too busy, or too slow, for this load: TTFT p50 is 150 ms, known only to ± 80 ms (p99 of the "
        "dispatch lag: 50 ms); at most 3 ms is allowed."
    )
    assert summary.why.startswith(f"{happened} Lower the rate")
    assert summary.invalid_reasons[0].startswith("own_error: 80 ms")
    lines = [line for line in export(run_dir, summary, "md").splitlines() if line]
    assert lines[1] == happened
    assert lines[2].startswith("**What to do:** Lower the rate")
