"""The decision on runs whose truth is known: every rule of docs/gate.md, one test each."""

import io
import math

import numpy as np
import pytest
from rich.console import Console
from tests.kit.gate_runs import bill, campaign, finding, good, latency, noisy, pairs, policy, run, summary

from tailgate.reports.documents.gate.document import gate_document
from tailgate.reports.documents.gate.write import html, markdown
from tailgate.reports.documents.render.terminal import print_in_short
from tailgate.reports.stats.between_runs import paired, pairs_to_settle
from tailgate.reports.verdicts.gate.verdict import judge
from tailgate.workloads.common.errors import UserError

QUIET = {"pairs": 5, "extension": None}


def test_no_difference_passes_and_the_numbers_are_all_there():
    found = judge(pairs([1.0, 1.01, 0.99, 1.005, 0.995]), policy(**QUIET), campaign(5))
    assert (found.verdict, found.exit_code) == ("PASS", 0)
    one = found.metrics[0]
    assert (one.key, one.result, one.how, len(one.ratios)) == ("ttft.p90", "pass", "paired", 5)
    assert one.at_least < one.ratio < one.at_most < one.limit == pytest.approx(1.10)
    assert one.p > 0.4 and one.wilcoxon_p > 0.4 and one.hodges_lehmann == pytest.approx(1.0, abs=0.01)
    assert found.errors.outcome == "ok"


def test_a_slowdown_beyond_the_margin_fails():
    found = judge(pairs(noisy(0.3, 0.02, 5)), policy(**QUIET), campaign(5))
    assert (found.verdict, found.exit_code) == ("FAIL", 1)
    assert {one.result for one in found.metrics} == {"fail"}
    assert "TTFT p90 +30.0 %" in found.why


def test_a_slowdown_within_the_margin_passes_and_is_named():
    found = judge(pairs(noisy(0.03, 0.002, 5)), policy(**QUIET), campaign(5))
    assert found.verdict == "PASS"
    assert found.metrics[0].why == "worse, but within the margin"
    assert "worse within the margin" in found.why


def test_a_significant_slowdown_that_does_not_reach_the_margin_never_fails():
    found = judge(pairs(noisy(0.068, 0.002, 5)), policy(**QUIET), campaign(5))
    assert found.verdict != "FAIL" and found.metrics[0].p < 1e-4


def test_noise_is_inconclusive_and_says_how_many_pairs_would_settle_it_at_what_price():
    found = judge(pairs(noisy(0.0, 0.08, 5)), policy(**QUIET), campaign(5))
    assert (found.verdict, found.exit_code) == ("INCONCLUSIVE", 3)
    needed = found.metrics[0].settle_pairs
    assert needed > 5
    assert f"about {needed} pairs would decide ({needed - 5} more: {needed - 5} min and $" in found.advice[0]


def test_the_declared_extension_is_asked_for_only_at_the_first_look():
    noise = [*noisy(0.0, 0.08, 5), *noisy(0.0, 0.08, 5, seed=1)]
    p = policy(pairs=5)
    first, second = judge(pairs(noise[:5]), p, campaign(5)), judge(pairs(noise), p, campaign(10))
    assert (first.extend, first.design.look) == (True, 1)
    assert (second.extend, second.design.look) == (False, 2)
    assert not judge(pairs(noise[:5]), policy(**QUIET), campaign(5)).extend
    assert not judge(pairs(noise[:5]), p, campaign(5, extension=False)).extend


class TestExtension:
    """It is for what more pairs can settle, and for nothing else."""

    def judged(self, runs: list, **keys):
        return judge(runs, policy(pairs=5, **keys), campaign(5))

    def noise(self, **more) -> list:
        return pairs(noisy(0.0, 0.08, 5), **more)

    def test_noise_is(self):
        assert self.judged(self.noise()).extend

    def test_a_baseline_that_died_is_not(self):
        runs = self.noise()
        runs[8].manifest.failed_side, runs[8].manifest.state_reason = "target", "killed"
        found = self.judged(runs)
        assert (found.verdict, found.extend) == ("INCONCLUSIVE", False)

    def test_a_refused_metric_is_not_even_beside_noise(self):
        found = self.judged(
            self.noise(findings=[finding("gateway_coalesced")]), metrics={"itl.p99": "10%", "ttft.p50": "5%"}
        )
        assert [one.result for one in found.metrics] == ["refused", "can't tell"] and not found.extend

    def test_a_percentile_that_lacks_requests_is_not_and_the_advice_is_longer_runs(self):
        runs = self.noise()
        for one in runs:
            one.figures["latency_failed_as_inf_ms"]["ttft"]["p90"] = None
            one.figures["percentile_needs"] = {"ttft": {"p90": 400}}
        found = self.judged(runs)
        assert not found.extend
        assert found.advice[0] == "TTFT p90: Make the runs longer, or gate a lower percentile."

    def test_overloaded_latencies_are_not_and_no_number_of_pairs_is_promised(self):
        runs = pairs(noisy(0.0, 0.001, 5))
        for one in runs:
            one.figures["load"]["overloaded"] = True
        found = self.judged(runs)
        assert found.verdict == "INCONCLUSIVE" and not found.extend
        assert [one.settle_pairs for one in found.metrics] == [None, None]
        assert "Lower the load" in found.advice[0] and "would decide" not in " ".join(found.advice)

    def test_overloaded_latencies_that_look_worse_than_the_margin_are_since_they_can_fail(self):
        runs = pairs(noisy(0.13, 0.08, 5))
        for one in runs:
            one.figures["load"]["overloaded"] = True
        assert self.judged(runs).extend


def test_fewer_pairs_than_declared_are_not_judged():
    found = judge(pairs([1.5, 1.5, 1.5]), policy(pairs=5), campaign(3, stopped="the time of the budget was spent"))
    assert found.verdict == "INCONCLUSIVE" and found.metrics == ()
    assert "Only 3 of 5 pairs" in found.why


def test_more_is_better_for_throughput_and_its_margin_points_down():
    runs = []
    for k, ratio in enumerate(noisy(-0.2, 0.005, 5), 1):
        runs.append(run("baseline", k, summary(tokens_per_s=1000.0), loop="closed"))
        runs.append(run("candidate", k, summary(tokens_per_s=1000.0 * ratio), loop="closed"))
    p = policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET)
    found = judge(runs, p, campaign(5)).metrics[0]
    assert found.result == "fail"
    assert found.limit == pytest.approx(0.97) and found.ratio == pytest.approx(0.8, rel=1e-3)
    assert found.at_least < found.ratio < found.at_most
    sides = {"baseline": "candidate", "candidate": "baseline"}
    swapped = [run(sides[r.label], r.pair, r.figures, loop="closed") for r in runs]
    assert judge(swapped, p, campaign(5)).verdict == "PASS"


def test_throughput_below_saturation_is_refused_before_it_can_mislead():
    with pytest.raises(UserError, match="load-limited"):
        judge(pairs([1.0] * 5), policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET), campaign(5))


@pytest.mark.parametrize(("waiting", "result"), [(7.9, "pass"), (7.1, "refused"), (None, "refused")])
def test_throughput_is_judged_only_where_users_do_nothing_but_wait(waiting: float | None, result: str):
    runs = pairs([1.0] * 5)
    for one in runs:
        one.manifest.loop = "closed"
    runs[4].figures["load"] |= {"in_flight": {"mean": waiting, "max": 8, "growth": 0.0} if waiting else {}}
    found = judge(runs, policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET), campaign(5))
    assert found.metrics[0].result == result
    assert found.verdict == ("PASS" if result == "pass" else "INCONCLUSIVE")
    if result == "refused":
        assert found.metrics[0].why.startswith("load-limited: ") and "pair3-baseline" in found.metrics[0].why


def test_throughput_of_an_open_loop_that_is_overloaded_may_be_judged():
    runs = pairs(noisy(0.0, 0.001, 5))
    for one in runs:
        one.figures["load"]["overloaded"] = True
    assert judge(runs, policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET), campaign(5)).verdict == "PASS"


def test_latencies_that_grow_with_duration_can_fail_but_not_pass():
    calm, slow = pairs(noisy(0.0, 0.001, 5)), pairs(noisy(0.5, 0.001, 5))
    for one in (*calm, *slow):
        one.figures["load"]["overloaded"] = one.label == "candidate"
    assert judge(calm, policy(**QUIET), campaign(5)).verdict == "INCONCLUSIVE"
    assert judge(slow, policy(**QUIET), campaign(5)).verdict == "FAIL"


def test_pass_needs_every_metric():
    runs = pairs(noisy(0.0, 0.002, 5))
    for one in runs:
        if one.label == "candidate":
            noise = [1.4, 0.7, 1.3, 0.8, 1.0][(one.pair or 1) - 1]
            one.figures["latency_ms"]["tpot"] = latency(20.0 * noise)
    found = judge(runs, policy(**QUIET), campaign(5))
    assert [one.result for one in found.metrics] == ["pass", "can't tell"]
    assert found.verdict == "INCONCLUSIVE"


def test_fail_is_corrected_for_the_number_of_metrics():
    """A p-value between a quarter of the budget and all of it fails alone, not among four."""
    runs = pairs([1.02, 1.30, 1.11, 1.25, 1.06])
    alone = policy(metrics={"ttft.p50": "5%"}, **QUIET)
    four = policy(metrics={"ttft.p50": "5%", "itl.p50": "5%", "stall.p50": "5%", "e2e.p50": "5%"}, **QUIET)
    one = judge(runs, alone, campaign(5)).metrics[0]
    assert 0.025 / 4 < one.p < 0.025
    assert one.result == "fail"
    among = judge(runs, four, campaign(5)).metrics[0]
    assert among.result == "can't tell" and among.holm == pytest.approx(0.025 / 4)
    assert among.at_least > 1 and among.ratio > among.limit
    assert "alone it would be a FAIL (p = 0.023); as one of 4 metrics it needs p < 0.0063" in among.why
    assert among.why in judge(runs, four, campaign(5)).why
    # What would have been proved, and what would settle it, are of that level too.
    assert among.detectable > one.detectable
    assert among.settle_pairs == pairs_to_settle(
        paired(np.log(among.ratios)).error * math.sqrt(5), math.log(among.ratio), math.log(1.05), (0.033, 0.025 / 4)
    )


def test_holm_goes_on_with_a_larger_level_once_the_smallest_p_is_rejected():
    runs = pairs([1.02, 1.30, 1.11, 1.25, 1.06])
    for k, slower in enumerate(r for r in runs if r.label == "candidate"):
        slower.figures["latency_ms"]["itl"] = latency(20.0 * (2.0 + 0.001 * k))
    found = judge(runs, policy(metrics={"ttft.p50": "5%", "itl.p50": "5%"}, **QUIET), campaign(5)).metrics
    assert [one.result for one in found] == ["fail", "fail"]
    assert [one.holm for one in found] == [pytest.approx(0.025), pytest.approx(0.0125)]


def test_what_comes_after_the_first_that_holm_does_not_reject_is_held_against_the_same_level():
    runs = pairs([1.02, 1.30, 1.11, 1.25, 1.06])
    found = judge(runs, policy(metrics={"ttft.p50": "5%", "tpot.p50": "5%"}, **QUIET), campaign(5)).metrics
    assert 0.0125 < found[0].p < 0.025  # the second would pass for a FAIL at its own step's level
    assert [(one.result, one.holm) for one in found] == [("can't tell", 0.0125)] * 2


def test_a_percentile_that_a_run_can_not_support_is_inconclusive_and_says_what_it_needs():
    runs = pairs([1.0] * 5)
    runs[3].figures["latency_failed_as_inf_ms"]["ttft"]["p90"] = None
    runs[3].figures["percentile_needs"] = {"ttft": {"p90": 400}}
    found = judge(runs, policy(**QUIET), campaign(5))
    assert found.verdict == "INCONCLUSIVE" and "needs 400 requests" in found.why


def test_a_metric_that_one_side_lacks_is_the_users_error():
    runs = pairs([1.0] * 5)
    for one in runs:
        one.manifest.loop = "closed"
        one.figures["cost"] = bill(2.0) if one.label == "baseline" else {}
    with pytest.raises(UserError, match=r"candidate\) has no cost.per_million_output.*price"):
        judge(runs, policy(metrics={"cost.per_million_output": "3%"}, **QUIET), campaign(5))


def test_checks_that_could_not_be_made_are_counted_over_all_runs():
    runs = pairs([1.0] * 5)
    for place, name in ((3, "cache"), (4, "warmth"), (5, "warmth")):
        runs[place].figures["checks"].append({"name": name, "status": "unchecked", "why": "", "remedy": ""})
    assert judge(runs, policy(**QUIET), campaign(5)).notes[-1].endswith("cache (in 1 of 10), warmth (in 2 of 10)")


class TestMultiTokenChunks:
    def test_itl_is_refused_where_chunks_of_one_side_hold_more_tokens(self):
        runs = [
            run(side, k, summary(), multi_token_share=0.0 if side == "baseline" else 0.3)
            for k in range(1, 6) for side in ("baseline", "candidate")
        ]  # fmt: skip
        found = judge(runs, policy(metrics={"itl.p99": "10%"}, **QUIET), campaign(5))
        assert found.metrics[0].result == "refused" and "Gate tpot and stall" in found.metrics[0].why
        assert found.verdict == "INCONCLUSIVE"

    def test_tpot_is_refused_where_it_is_a_bound_and_one_side_holds_more_tokens(self):
        def tpot(shares: dict[str, float], untold: int | None) -> str:
            figures = summary(streaming={"arrivals": 0, "tpot_is_bound": untold})
            runs = [
                run(side, k, figures, multi_token_share=shares[side])
                for k in range(1, 6) for side in ("baseline", "candidate")
            ]  # fmt: skip
            return judge(runs, policy(metrics={"tpot.mean": "10%"}, **QUIET), campaign(5)).metrics[0].result

        assert tpot({"baseline": 0.0, "candidate": 0.3}, untold=40) == "refused"
        assert tpot({"baseline": 0.0, "candidate": 0.3}, untold=None) == "pass"
        assert tpot({"baseline": 0.3, "candidate": 0.3}, untold=40) == "pass"

    def test_a_difference_of_less_than_a_point_does_not_matter(self):
        runs = [
            run(side, k, summary(), multi_token_share=0.300 if side == "baseline" else 0.308)
            for k in range(1, 6) for side in ("baseline", "candidate")
        ]  # fmt: skip
        assert judge(runs, policy(metrics={"itl.p99": "10%"}, **QUIET), campaign(5)).verdict == "PASS"

    def test_itl_is_refused_behind_a_gateway_that_bundles_tokens(self):
        runs = pairs([1.0] * 5, findings=[finding("gateway_coalesced")])
        found = judge(runs, policy(metrics={"itl.p99": "10%", "tpot.p90": "10%"}, **QUIET), campaign(5))
        assert [one.result for one in found.metrics] == ["refused", "pass"]


class TestFailures:
    def errors(self, runs: list, **keys):
        return judge(runs, policy(**QUIET, **keys), campaign(5)).errors

    def test_a_candidate_that_provably_errs_more_fails_and_its_latencies_are_withheld(self):
        runs = pairs([0.5] * 5, errors={"share": 0.02, "failed": 20, "kinds": []})
        found = judge(runs, policy(**QUIET), campaign(5))
        assert found.verdict == "FAIL" and "fails more often" in found.why
        assert {one.result for one in found.metrics} == {"withheld"}
        assert all(one.ratio is None for one in found.metrics)

    def test_errors_that_chance_explains_do_not_fail(self):
        runs = pairs([1.0] * 5)
        runs[1].figures["errors"] = {"share": 0.001, "failed": 1, "kinds": []}
        assert judge(runs, policy(**QUIET), campaign(5)).verdict == "PASS"

    def test_more_errors_than_chance_but_fewer_than_allowed_do_not_fail(self):
        runs = [run("baseline", k, summary(requests=100_000)) for k in range(5)]
        runs += [run("candidate", k, summary(requests=100_000, failed=40)) for k in range(5)]
        found = self.errors(runs)
        assert found.p < 1e-6 and found.outcome == "ok"
        assert self.errors(runs, errors="0.01%").outcome == "fail"

    def test_errors_in_one_burst_prove_less_than_as_many_in_every_run(self):
        baseline = [run("baseline", k, summary()) for k in range(5)]
        burst = [run("candidate", k, summary(failed=100 if k == 0 else 0)) for k in range(5)]
        even = [run("candidate", k, summary(failed=20)) for k in range(5)]
        assert self.errors([*baseline, *burst]).outcome == "ok"
        assert self.errors([*baseline, *even]).outcome == "fail"

    def test_at_two_looks_each_has_half_of_the_error_rules_budget(self):
        runs = pairs([1.0] * 5)
        assert judge(runs, policy(**QUIET), campaign(5)).errors.tail == 0.005
        assert judge(runs, policy(pairs=5), campaign(5)).errors.tail == 0.0025

    def test_loads_with_different_error_shares_are_not_taken_for_bursts(self):
        """5 % fail at the full load on both sides; at the calm one the candidate fails in 2 %, and it shows."""
        runs = []
        for k in range(1, 6):
            for side, calm in (("baseline", 0), ("candidate", 20)):
                runs.append(run(side, k, summary(failed=calm), point="calm"))
                runs.append(run(side, k, summary(failed=50 + k % 2), point="full"))
        assert self.errors(runs).outcome == "fail"

    def test_one_run_a_side_proves_nothing_of_errors(self):
        assert self.errors([run("baseline", 1), run("candidate", 1, summary(failed=300))]).outcome == "ok"

    def test_a_candidate_whose_server_dies_fails(self):
        runs = pairs([0.9] * 5)
        runs[3].manifest.failed_side, runs[3].manifest.state_reason = "target", "the server was killed by signal 11"
        runs[3].figures["checks"][0]["status"] = "fail"  # what a dead server does to the checks is its own doing
        found = judge(runs, policy(**QUIET), campaign(5))
        assert found.verdict == "FAIL" and "killed by signal 11" in found.why
        assert {one.result for one in found.metrics} == {"withheld"}

    def test_a_candidate_that_refuses_everything_fails(self):
        runs = pairs([1.0] * 5)
        runs[1] = run("candidate", 1, summary(None, None, failed=1000))
        assert judge(runs, policy(**QUIET), campaign(5)).verdict == "FAIL"

    def test_a_baseline_that_does_not_work_says_nothing_about_the_candidate(self):
        runs = pairs([1.0] * 5)
        runs[0] = run("baseline", 1, summary(None, None, failed=1000))
        found = judge(runs, policy(**QUIET), campaign(5))
        assert found.verdict == "INCONCLUSIVE" and "nothing to compare with" in found.why

    def test_one_failed_request_does_not_hide_a_slowdown_of_the_mean(self):
        runs = pairs([2.0] * 5)
        first = runs[0].figures
        first["errors"] = {"share": 0.001, "failed": 1, "kinds": []}
        first["latency_failed_as_inf_ms"]["ttft"]["mean"] = "inf"
        found = judge(runs, policy(metrics={"ttft.mean": "5%"}, **QUIET), campaign(5))
        assert found.verdict == "FAIL" and found.metrics[0].ratio == pytest.approx(2.0)
        assert (
            "only requests that ended ok count here, and the error rule judges the 1 that failed"
            in found.metrics[0].why
        )


class TestEndlessPercentiles:
    """Failures make a percentile infinite in a run."""

    def runs(self, candidate_ms: float = 100.0, goods: tuple[int, int] | None = None, requests: int = 1000) -> list:
        """1.5 % of both sides' requests fail; the good ones as an SLO counts them, if there is one."""
        found = []
        for k in range(1, 6):
            for place, side in enumerate(("baseline", "candidate")):
                slo = {} if goods is None else good(goods[place])
                ms = candidate_ms if side == "candidate" else 100.0
                figures = summary(ms, requests=requests, failed=requests * 15 // 1000, slo=slo)
                figures["latency_failed_as_inf_ms"]["ttft"]["p99"] = "inf"
                found.append(run(side, k, figures))
        return found

    def judged(self, runs: list, **keys):
        return judge(runs, policy(metrics={"ttft.p99": "10%"}, pairs=5, **keys), campaign(5))

    def test_without_a_word_of_what_is_good_it_can_not_be_told_and_the_advice_is_to_say_it(self):
        found = self.judged(self.runs(candidate_ms=1000.0))
        (one,) = found.metrics
        assert (found.verdict, one.result, one.p, one.ratio) == ("INCONCLUSIVE", "can't tell", None, None)
        assert "infinite in 10 of 10 runs" in one.why and "slo: {good: ...}" in found.advice[0]
        assert not found.extend  # more pairs would not help

    def test_thresholds_alone_do_not_say_what_is_good(self):
        runs = self.runs(candidate_ms=1000.0)
        for one in runs:
            one.figures["slo"] = {"good": one.judged - one.failed, "good_means": [], "good_means_by_class": {}}
        assert self.judged(runs).metrics[0].good is None

    @pytest.mark.parametrize(("goods", "word"), [((9700, 9700), "PASS"), ((9700, 9000), "FAIL")])
    def test_otherwise_the_shares_of_good_requests_decide(self, goods: tuple[int, int], word: str):
        found = self.judged(self.runs(goods=goods, requests=10_000))
        assert (found.verdict, found.metrics[0].how) == (word, "share of good requests")

    def test_shares_are_told_as_shares_with_a_margin_of_their_own(self):
        found = self.judged(self.runs(goods=(9700, 9000), requests=10_000))
        (one,) = found.metrics
        assert one.ratio is None and one.good.lost == pytest.approx(0.07) and one.good.margin == 0.01
        assert "good requests (for TTFT p99) −7.00 points (at most −" in found.why
        assert found.why.endswith("margin −1.00 points.")
        for text in (markdown(found), html(found)):
            assert "97.00 %" in text and "90.00 %" in text and "−22" not in text and "∞" not in text

    def test_fewer_good_requests_than_the_policy_allows_are_beyond_the_margin(self):
        runs = self.runs(goods=(9700, 9500), requests=10_000)
        assert self.judged(runs).verdict == "FAIL"
        assert self.judged(runs, fewer_good="5%").verdict == "PASS"

    def test_shares_of_overloaded_runs_can_not_pass(self):
        runs = self.runs(goods=(9700, 9700), requests=10_000)
        for one in runs:
            one.figures["load"]["overloaded"] = True
        assert self.judged(runs).verdict == "INCONCLUSIVE"

    def test_good_is_what_the_slo_says(self):
        (metric,) = self.judged(self.runs(goods=(900, 900))).metrics
        assert metric.good.baseline.share == pytest.approx(0.9)


class TestStoredRuns:
    def sides(self, ratio: float, n: int = 4) -> list:
        levels = noisy(0.0, 0.01, 2 * n, seed=4)
        runs = [run("baseline", None, summary(100 * x, 20 * x), t0_unix_ns=k) for k, x in enumerate(levels[:n])]
        return runs + [
            run("candidate", None, summary(100 * x * ratio, 20 * x * ratio), t0_unix_ns=9 + k)
            for k, x in enumerate(levels[n:])
        ]

    def test_they_are_compared_unpaired_and_it_says_so(self):
        found = judge(self.sides(1.0), policy())
        assert found.verdict == "PASS"
        assert {one.how for one in found.metrics} == {"unpaired"} and found.metrics[0].ratios == ()
        assert any("unpaired" in note for note in found.notes) and "stored runs" in found.holds_for

    def test_a_slowdown_fails(self):
        assert judge(self.sides(1.3), policy()).verdict == "FAIL"

    def test_what_would_settle_it_is_runs_a_side(self):
        runs = self.sides(1.06, 3)
        (advice,) = judge(runs, policy(metrics={"ttft.p50": "7%"})).advice
        assert " runs a side would decide." in advice and "pairs" not in advice

    def test_one_run_a_side_is_not_enough(self):
        runs = [run("baseline", None), run("candidate", None)]
        with pytest.raises(UserError, match="one run can't tell how much runs differ"):
            judge(runs, policy())

    def test_a_rolling_window_takes_drift_into_account(self):
        day = 86_400 * 10**9
        noise = noisy(0.0, 0.001, 14, seed=2)
        base = [
            run("baseline", None, summary(100 * math.exp(0.02 * k) * noise[k], 20), t0_unix_ns=k * day)
            for k in range(10)
        ]
        other = [
            run("candidate", None, summary(100 * math.exp(0.02 * k) * noise[k], 20), t0_unix_ns=k * day)
            for k in range(10, 14)
        ]
        p = {"metrics": {"ttft.p50": "5%"}}
        assert judge([*base, *other], policy(**p)).verdict == "FAIL"
        found = judge([*base, *other], policy(window=10, **p))
        assert found.verdict == "PASS" and found.metrics[0].how == "unpaired, with drift"

    def test_a_window_with_too_few_runs_to_show_a_drift_says_so_everywhere(self):
        runs = self.sides(1.0, 2)
        found = judge(runs, policy(window=20))
        assert {one.how for one in found.metrics} == {"unpaired"}
        said = "drift over time is not taken into account, although the policy has a `window`"
        assert any(said in note and "not 2 and 4" in note for note in found.notes)
        console = Console(file=io.StringIO(), width=200)
        print_in_short(gate_document(found), console)
        for text in (html(found), console.file.getvalue()):
            assert "drift over time is not taken into account" in text and "unpaired" in text
        assert not any("drift" in note for note in judge(runs, policy()).notes)


def test_the_verdict_as_json_is_plain_and_complete():
    data = judge(pairs(noisy(0.3, 0.02, 5)), policy(**QUIET), campaign(5)).to_json()
    assert (data["schema"], data["verdict"], data["exit_code"], data["blocks"]) == (
        "tailgate.verdict/1",
        "FAIL",
        1,
        True,
    )
    assert {"ratio", "at_least", "at_most", "p", "holm", "hodges_lehmann", "wilcoxon_p", "ratios"} <= set(
        data["metrics"][0]
    )


def test_inconclusive_blocks_unless_the_policy_calls_it_neutral():
    noise = pairs(noisy(0.0, 0.08, 5))
    assert judge(noise, policy(**QUIET), campaign(5)).blocks
    assert not judge(noise, policy(inconclusive="neutral", **QUIET), campaign(5)).blocks
