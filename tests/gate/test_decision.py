"""The decision on runs whose truth is known: every rule of docs/gate.md, one test each."""

import math

import pytest

from reports.gate_compare import compare, holm
from reports.gate_design import Design
from reports.gate_errors import error_rule, good_share
from reports.gate_metrics import gate_metric
from reports.verdict import judge
from tests.gate.made import campaign, latency, noisy, pairs, policy, run, summary
from workloads.errors import UserError

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
    assert f"about {needed} pairs would settle it ({needed - 5} more: {needed - 5} min and $" in found.advice[0]


def test_the_declared_extension_is_asked_for_only_at_the_first_look():
    noise = [*noisy(0.0, 0.08, 5), *noisy(0.0, 0.08, 5, seed=1)]
    p = policy(pairs=5)
    first, second = judge(pairs(noise[:5]), p, campaign(5)), judge(pairs(noise), p, campaign(10))
    assert (first.extend, first.design.look) == (True, 1)
    assert (second.extend, second.design.look) == (False, 2)
    assert not judge(pairs(noise[:5]), policy(**QUIET), campaign(5)).extend
    assert not judge(pairs(noise[:5]), p, campaign(5, extension=False)).extend


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
    swapped = [run("candidate" if r.side == "baseline" else "baseline", r.pair, r.summary, loop="closed") for r in runs]
    assert judge(swapped, p, campaign(5)).verdict == "PASS"


def test_throughput_below_saturation_is_refused_before_it_can_mislead():
    with pytest.raises(UserError, match="load-limited"):
        judge(pairs([1.0] * 5), policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET), campaign(5))


def test_throughput_of_an_open_loop_that_is_overloaded_may_be_judged():
    runs = pairs(noisy(0.0, 0.001, 5))
    for one in runs:
        one.summary["load"]["overloaded"] = True
    assert judge(runs, policy(metrics={"output_tokens_per_s": "-3%"}, **QUIET), campaign(5)).verdict == "PASS"


def test_latencies_that_grow_with_duration_can_fail_but_not_pass():
    calm, slow = pairs(noisy(0.0, 0.001, 5)), pairs(noisy(0.5, 0.001, 5))
    for one in (*calm, *slow):
        one.summary["load"]["overloaded"] = one.side == "candidate"
    assert judge(calm, policy(**QUIET), campaign(5)).verdict == "INCONCLUSIVE"
    assert judge(slow, policy(**QUIET), campaign(5)).verdict == "FAIL"


def test_pass_needs_every_metric():
    runs = pairs(noisy(0.0, 0.002, 5))
    for one in runs:
        if one.side == "candidate":
            noise = [1.4, 0.7, 1.3, 0.8, 1.0][(one.pair or 1) - 1]
            one.summary["latency_ms"]["tpot"] = latency(20.0 * noise)
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


def test_holm_goes_on_with_a_larger_level_once_the_smallest_p_is_rejected():
    design = Design(5)
    base, other = ([r for r in pairs([1.02, 1.30, 1.11, 1.25, 1.06]) if r.side == s] for s in ("baseline", "candidate"))
    for k, r in enumerate(other):
        r.summary["latency_ms"]["itl"] = latency(20.0 * (2.0 + 0.001 * k))
    found = holm(
        [compare(gate_metric(key, "5%"), "load", base, other, design, False) for key in ("ttft.p50", "itl.p50")], design
    )
    assert [one.result for one in found] == ["fail", "fail"]
    assert [one.holm for one in found] == [pytest.approx(0.025), pytest.approx(0.0125)]


def test_a_percentile_that_a_run_can_not_support_is_inconclusive_and_says_what_it_needs():
    runs = pairs([1.0] * 5)
    runs[3].summary["latency_failed_as_inf_ms"]["ttft"]["p90"] = None
    runs[3].summary["percentile_needs"] = {"ttft": {"p90": 400}}
    found = judge(runs, policy(**QUIET), campaign(5))
    assert found.verdict == "INCONCLUSIVE" and "needs 400 requests" in found.why


def test_a_metric_that_one_side_lacks_is_the_users_error():
    runs = pairs([1.0] * 5)
    for one in runs:
        one.manifest.loop = "closed"
        one.summary["cost"] = {"per_million_output": 2.0} if one.side == "baseline" else {}
    with pytest.raises(UserError, match=r"candidate\) has no cost.per_million_output.*price"):
        judge(runs, policy(metrics={"cost.per_million_output": "3%"}, **QUIET), campaign(5))


class TestMultiTokenChunks:
    def test_itl_is_refused_where_chunks_of_one_side_hold_more_tokens(self):
        runs = [
            run(side, k, summary(), multi_token_share=0.0 if side == "baseline" else 0.3)
            for k in range(1, 6) for side in ("baseline", "candidate")
        ]  # fmt: skip
        found = judge(runs, policy(metrics={"itl.p99": "10%"}, **QUIET), campaign(5))
        assert found.metrics[0].result == "refused" and "Gate tpot and stall" in found.metrics[0].why
        assert found.verdict == "INCONCLUSIVE"

    def test_a_difference_of_less_than_a_point_does_not_matter(self):
        runs = [
            run(side, k, summary(), multi_token_share=0.300 if side == "baseline" else 0.308)
            for k in range(1, 6) for side in ("baseline", "candidate")
        ]  # fmt: skip
        assert judge(runs, policy(metrics={"itl.p99": "10%"}, **QUIET), campaign(5)).verdict == "PASS"

    def test_itl_is_refused_behind_a_gateway_that_bundles_tokens(self):
        runs = pairs([1.0] * 5, findings=[{"kind": "gateway_coalesced"}])
        found = judge(runs, policy(metrics={"itl.p99": "10%", "tpot.p90": "10%"}, **QUIET), campaign(5))
        assert [one.result for one in found.metrics] == ["refused", "pass"]


class TestFailures:
    def test_a_candidate_that_provably_errs_more_fails_and_its_latencies_are_withheld(self):
        runs = pairs([0.5] * 5, errors={"share": 0.02, "failed": 20, "kinds": []})
        found = judge(runs, policy(**QUIET), campaign(5))
        assert found.verdict == "FAIL" and "fails more often" in found.why
        assert {one.result for one in found.metrics} == {"withheld"}
        assert all(one.ratio is None for one in found.metrics)

    def test_errors_that_chance_explains_do_not_fail(self):
        runs = pairs([1.0] * 5)
        runs[1].summary["errors"] = {"share": 0.001, "failed": 1, "kinds": []}
        assert judge(runs, policy(**QUIET), campaign(5)).verdict == "PASS"

    def test_more_errors_than_chance_but_fewer_than_allowed_do_not_fail(self):
        base = [run("baseline", k, summary(requests=100_000)) for k in range(5)]
        other = [run("candidate", k, summary(requests=100_000, failed=40)) for k in range(5)]
        found = error_rule(base, other, allowed=0.001)
        assert found.p < 1e-6 and found.outcome == "ok"
        assert error_rule(base, other, allowed=0.0001).outcome == "fail"

    def test_errors_in_one_burst_prove_less_than_as_many_in_every_run(self):
        base = [run("baseline", k, summary()) for k in range(5)]
        burst = [run("candidate", k, summary(failed=100 if k == 0 else 0)) for k in range(5)]
        even = [run("candidate", k, summary(failed=20)) for k in range(5)]
        assert error_rule(base, burst, 0.001).outcome == "ok"
        assert error_rule(base, even, 0.001).outcome == "fail"

    def test_a_candidate_whose_server_dies_fails(self):
        runs = pairs([0.9] * 5)
        runs[3].manifest.failed_side, runs[3].manifest.state_reason = "target", "the server was killed by signal 11"
        runs[3].summary["checks"][0]["status"] = "fail"  # what a dead server does to the checks is its own doing
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

    @pytest.mark.parametrize(("candidate_failed", "verdict"), [(150, "PASS"), (600, "FAIL")])
    def test_where_failures_make_a_tail_infinite_the_share_of_good_requests_decides(
        self, candidate_failed: int, verdict: str
    ):
        base = [run("baseline", k, summary("inf", failed=150)) for k in range(5)]
        other = [run("candidate", k, summary("inf", failed=candidate_failed)) for k in range(5)]
        found = holm([compare(gate_metric("ttft.p90"), "load", base, other, Design(5), False)], Design(5))[0]
        assert found.how == "share of good requests"
        assert found.result == verdict.lower()

    def test_good_is_what_the_slo_says(self):
        good = [run("baseline", k, summary(slo={"good": 900})) for k in range(5)]
        found = good_share(good, good)
        assert found.baseline.share == pytest.approx(0.9)


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
