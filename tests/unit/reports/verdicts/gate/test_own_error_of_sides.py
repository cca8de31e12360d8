"""A gate counts the side that hurts: what the load generator did to its own figures decides nothing."""

import pytest
from tests.kit.gate_runs import MadeRun, campaign, noisy, pairs, policy, run

from tailgate.reports.verdicts.gate.verdict import judge

METRICS = {"metrics": {"ttft.p90": "10%"}, "pairs": 8}


def widened(runs: list[MadeRun], low: float, high: float, only: str = "") -> list[MadeRun]:
    """Runs whose TTFT p90 may as well be `low` or `high` times what it is."""
    for each in runs:
        ttft = each.figures["latency_failed_as_inf_ms"]["ttft"]
        if not only or each.label == only:
            ttft["p90_error"] = [low * ttft["p90"], high * ttft["p90"]]
    return runs


@pytest.mark.parametrize(("change", "alone"), [(0.0, "PASS"), (0.2, "FAIL")])
@pytest.mark.parametrize(("width", "changes"), [(0.001, False), (0.15, True)])
def test_only_an_error_that_changes_the_answer_keeps_it_open(
    change: float, alone: str, width: float, changes: bool
) -> None:
    made = pairs(noisy(change, 0.01, 8))
    assert judge(made, policy(**METRICS), campaign(8)).verdict == alone
    found = judge(widened(made, 1 - width, 1 + width), policy(**METRICS), campaign(8))
    assert found.verdict == ("INCONCLUSIVE" if changes else alone)
    (metric,) = found.metrics
    assert ("own error" in metric.why) is changes
    assert metric.at_least is not None and metric.at_most is not None
    assert metric.at_least < metric.ratio < metric.at_most  # type: ignore[operator]


def test_a_pass_holds_whatever_made_the_candidate_look_good() -> None:
    """The candidate may be 15 % slower than it looks, and nothing is known against the baseline."""
    made = widened(pairs(noisy(0.0, 0.01, 8)), 1.0, 1.15, only="candidate")
    found = judge(made, policy(**METRICS), campaign(8))
    assert found.verdict == "INCONCLUSIVE" and found.metrics[0].at_most > 1.15  # type: ignore[operator]


def test_an_error_that_makes_pairs_agree_makes_nothing_surer() -> None:
    """The one pair that differs may have been moved by the client: neither answer follows from that."""
    made = pairs([1.0, 1.0, 0.86])
    three = {**METRICS, "pairs": 3, "extension": None, "metrics": {"ttft.p90": "5%"}}
    alone = judge(made, policy(**three), campaign(3))
    assert alone.verdict == "INCONCLUSIVE"
    wide = widened(made[-1:], 1.0, 1 / 0.86)
    assert wide[0].label == "candidate"
    assert judge(made, policy(**three), campaign(3)).verdict == "INCONCLUSIVE"
    worse = pairs([1.10, 1.11, 1.8])
    assert judge(worse, policy(**three), campaign(3)).verdict == "INCONCLUSIVE"
    widened(worse[-1:], 1.12 / 1.8, 1.0)
    assert judge(worse, policy(**three), campaign(3)).verdict == "INCONCLUSIVE"


def test_a_fail_that_only_the_client_prevents_says_so() -> None:
    made = pairs(noisy(0.2, 0.01, 8))
    for number, each in enumerate(made):  # errors that differ from run to run
        if each.label == "candidate" and number % 4 == 1:
            widened([each], 0.75, 1.0)
    (metric,) = judge(made, policy(**METRICS), campaign(8)).metrics
    assert metric.result == "can't tell" and "own error" in metric.why and metric.settle_pairs is None


def test_a_run_that_could_not_be_certified_by_itself_is_still_compared() -> None:
    made = pairs(noisy(0.0, 0.01, 8))
    for each in made:
        each.figures["checks"] = [{"name": "own_error", "status": "fail", "value": 4.0, "bound": 1.0, "unit": "ms",
                                   "why": "of ITL p99", "remedy": "Free a core."}]  # fmt: skip
    assert judge(made, policy(**METRICS), campaign(8)).verdict == "PASS"


def test_runs_without_intervals_count_as_they_are() -> None:
    made = run("baseline", 1)
    (metric,) = [metric for _, metric in policy(**METRICS).tests()]
    assert made.ends(metric) == (made.value(metric), made.value(metric))
