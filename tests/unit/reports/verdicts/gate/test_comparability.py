"""Runs that can't be compared are INVALID, whatever their figures say; and the reason says what to do."""

import pytest
from tests.kit.gate_runs import campaign, gpus, pairs, policy, run, summary

from tailgate.reports.documents.gate.write import html, markdown
from tailgate.reports.rundir.manifest import TargetRecord
from tailgate.reports.verdicts.gate.comparability import obstacles, own_differences
from tailgate.reports.verdicts.gate.verdict import judge

QUIET = {"pairs": 5, "extension": None}


def judged(runs, **keys):
    return judge(runs, policy(**QUIET, **keys), campaign(5))


def test_a_check_of_the_measuring_that_failed_is_named_with_its_run_and_remedy():
    runs = pairs([5.0] * 5)
    runs[4].figures["checks"][0] |= {"status": "fail", "value": 30.0}
    found = judged(runs)
    assert (found.verdict, found.exit_code) == ("INVALID", 4)
    assert found.obstacles[0].check == "dispatch_lag"
    assert "pair3-baseline: dispatch lag 30 ms (at most 5 ms)" in found.why
    assert found.advice == ("Lower the rate.",)
    assert found.metrics == ()  # no figure is shown


def test_different_plans_within_a_pair():
    runs = pairs([1.0] * 5)
    runs[3].manifest.plan_hash = "other"
    assert "pair 2 (load) did not have the same plan" in judged(runs).why


def test_different_workloads():
    runs = pairs([1.0] * 5)
    runs[3].manifest.workload_hash = "other"
    assert any(one.check == "workload" for one in judged(runs).obstacles)


def test_open_and_closed_loops_mixed():
    runs = pairs([1.0] * 5)
    runs[1].manifest.loop = "closed"
    assert any(one.check == "loop" for one in judged(runs).obstacles)


def test_simulated_and_real_mixed():
    runs = pairs([1.0] * 5)
    runs[1].manifest.target.simulated = True
    assert any(one.check == "simulated" for one in judged(runs).obstacles)


class TestWhatIsUnderTest:
    def runs(self):
        runs = pairs([1.0] * 5)
        for one in runs:
            version = "0.32.0" if one.label == "baseline" else "0.33.0"
            one.manifest.target = TargetRecord(
                kind="vllm", model="m", version=version, fingerprint={"gpus": [{"name": "H100"}], "port": one.pair}
            )
        return runs

    def test_a_difference_that_is_not_declared_is_a_reason(self):
        found = judged(self.runs())
        assert found.verdict == "INVALID"
        assert "differ in version, which is not declared" in found.why and "under_test: [version]" in found.advice[0]

    def test_a_declared_one_is_shown_as_such(self):
        found = judged(self.runs(), under_test=["version"])
        assert found.verdict == "PASS"
        assert found.differences == (("version", {"baseline": "0.32.0", "candidate": "0.33.0"}, "declared"),)

    def test_other_gpus_are_not_covered_by_it(self):
        runs = self.runs()
        runs[1].manifest.target.fingerprint["gpus"] = [{"name": "A100"}]
        assert "gpus" in judged(runs, under_test=["version"]).why

    def test_what_the_policy_itself_makes_different_is_declared(self):
        baseline = {"kind": "vllm", "model": "m", "args": {"max-num-seqs": 16}}
        candidate = {"kind": "vllm", "model": "m", "args": {"max-num-seqs": 1}}
        runs = pairs([1.0] * 5)
        for one in runs:
            seqs = 16 if one.label == "baseline" else 1
            one.manifest.spec = {"target": {"args": {"max-num-seqs": seqs}}}
            one.manifest.target.fingerprint = {"config": {"scheduler_config": {"max_num_seqs": seqs}}}
        found = judged(runs, baseline=baseline, candidate=candidate)
        assert found.verdict == "PASS"
        assert [(key, how) for key, _, how in found.differences] == [
            ("fingerprint.config.scheduler_config.max_num_seqs", "follows"), ("launch.args.max-num-seqs", "declared"),
        ]  # fmt: skip
        assert "follows from it" in markdown(found) and "follows from it" in html(found)
        assert judged(runs).verdict == "INVALID"

    @pytest.mark.parametrize(
        ("baseline", "candidate"),
        [
            ({"gpus": {"price_per_hour": 2}}, {"gpus": {"price_per_hour": 3}}),
            ({"target": {"env": {"LEVEL": "1"}}}, {"target": {"env": {"LEVEL": "2"}}}),
            ({"target": {"balance": "round-robin"}}, {"target": {"balance": "least-in-flight"}}),
        ],
    )
    def test_a_difference_that_launches_nothing_else_does_not_forgive_another_configuration(
        self, baseline: dict, candidate: dict
    ):
        runs = pairs([1.0] * 5)
        for one in runs:
            seqs = 256 if one.label == "baseline" else 1
            one.manifest.target.fingerprint = {"config": {"scheduler_config": {"max_num_seqs": seqs}}}
        common = {"kind": "vllm", "model": "m"}
        sides = [{**side, "target": {**common, **side.get("target", {})}} for side in (baseline, candidate)]
        found = judged(runs, baseline=sides[0], candidate=sides[1])
        assert found.verdict == "INVALID" and "max_num_seqs" in found.why

    def test_another_price_does_not_forgive_other_gpus(self):
        runs = self.runs()
        runs[1].manifest.target.fingerprint["gpus"] = [{"name": "A100"}]
        sides = [{"target": "http://a:1", "gpus": {"price_per_hour": price}} for price in (2, 3)]
        found = judged(runs, baseline=sides[0], candidate=sides[1], under_test=["version"])
        assert "gpus[0].name" in found.why

    def test_the_same_on_both_sides_declares_nothing(self):
        assert own_differences(policy(baseline="http://a:1", candidate="http://b:1")) == ([], [])

    def test_the_pod_that_a_run_was_made_in_is_no_difference(self):
        runs = pairs([1.0] * 5)
        for one in runs:
            pod = {"kind": "kubernetes", "pod": one.path.name, "namespace": one.label}
            one.manifest.target.fingerprint = {"container": pod}
        found = judged(runs)
        assert (found.verdict, found.differences) == ("PASS", ())
        runs[1].manifest.target.fingerprint["container"] = {"kind": "docker"}
        assert "fingerprint.container.kind" in judged(runs).why


class TestRefusals:
    """A candidate that refuses everything is a result, whatever its own books say then."""

    def runs(self, check: str) -> list:
        runs = pairs([1.0] * 5)
        runs[1] = run("candidate", 1, summary(None, None, failed=1000))
        runs[1].figures["checks"][0] |= {"name": check, "status": "fail", "value": 5.0}
        return runs

    @pytest.mark.parametrize("check", ["token_counts", "cache", "warmth"])
    def test_checks_of_its_books_do_not_make_it_invalid(self, check: str):
        found = judged(self.runs(check))
        assert found.verdict == "FAIL" and "no request ended ok" in found.why

    @pytest.mark.parametrize("check", ["dispatch_lag", "foreign_traffic"])
    def test_our_own_measuring_still_can(self, check: str):
        assert judged(self.runs(check)).verdict == "INVALID"


class TestGpus:
    def test_a_slowdown_of_more_than_a_hundredth_of_the_window(self):
        runs = pairs([1.0] * 5)
        for one in runs:
            one.figures["gpu"] = gpus(0.02)
        assert {one.check for one in judged(runs).obstacles} == {"gpu_slowdown"}

    def test_a_slowdown_on_one_side_only(self):
        runs = pairs([1.0] * 5)
        for one in runs:
            one.figures["gpu"] = gpus(0.005 if one.label == "candidate" else 0.0)
        assert "candidate's side only" in judged(runs).why

    def test_a_small_one_on_both_sides_does_not_matter(self):
        runs = pairs([1.0] * 5)
        for one in runs:
            one.figures["gpu"] = gpus(0.005)
        assert judged(runs).verdict == "PASS"


@pytest.mark.parametrize(("percent", "verdict"), [(1.9, "INVALID"), (0.8, "PASS")])
def test_other_traffic_on_one_side_only(percent: float, verdict: str):
    runs = pairs([1.0] * 5)
    for one in runs:
        value = percent if one.label == "candidate" else 0.1
        one.figures["checks"].append(
            {
                "name": "foreign_traffic",
                "status": "ok",
                "value": value,
                "bound": 2.0,
                "unit": "%",
                "why": "",
                "remedy": "",
            }
        )
    assert judged(runs).verdict == verdict


def test_sound_runs_have_no_obstacle():
    assert obstacles(pairs([1.0] * 5), policy()) == []


def test_thresholds_of_a_run_whose_measuring_failed_are_not_judged():
    one = run("candidate", None, summary())
    one.figures["checks"][0]["status"] = "fail"
    assert judge([one], policy(thresholds={"ttft": "p99 < 1s"})).verdict == "INVALID"
