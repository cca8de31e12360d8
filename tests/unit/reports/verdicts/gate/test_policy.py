"""The policy's grammar: what it understands, and how it says what it doesn't."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.kit.gate_runs import policy
from tests.kit.paths import ROOT

from tailgate.harness.experiments.gate import policy_template
from tailgate.harness.experiments.gate.estimate import estimate
from tailgate.harness.experiments.gate.feasibility import require_decidable
from tailgate.harness.experiments.gate.pilot import Proposal
from tailgate.harness.experiments.gate.run_specs import experiment
from tailgate.reports.stats.between_runs import chance_of_fail
from tailgate.reports.verdicts.gate.metrics import gate_metric
from tailgate.reports.verdicts.gate.policy import DEFAULT_METRICS, Policy, load_policy, parse_policy
from tailgate.reports.verdicts.gate.policy_curve import finds
from tailgate.workloads.common.errors import UserError


def test_the_default_gates_a_tail_of_ttft_and_of_tpot_with_five_pairs_and_an_extension_to_ten():
    found = Policy()
    assert [(m.key, m.margin) for m in found.gate_metrics] == [("ttft.p90", 0.10), ("tpot.mean", 0.07)]
    assert (found.pairs, found.extended, found.restart, found.inconclusive) == (5, 10, "each", "fail")


def test_margins_are_shares_in_the_direction_that_is_worse():
    found = policy(metrics={"ttft.p50": "5%", "output_tokens_per_s": "-3%", "cost.per_million_output": "3 %"})
    assert [(m.margin, m.higher) for m in found.gate_metrics] == [(0.05, False), (0.03, True), (0.03, False)]


def test_metrics_without_margins_have_their_defaults():
    found = policy(metrics=["ttft.p50", "itl.p99", "tpot.mean", "output_tokens_per_s"])
    assert [m.margin for m in found.gate_metrics] == [0.05, 0.10, 0.05, 0.03]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"ttft.p9o": "5%"}, "did you mean 'ttft.p9"),
        ({"tfft": "5%"}, "unknown metric 'tfft'"),
        ({"ttft": "5%"}, "which statistic"),
        ({"ttft.p50": "-5%"}, "points the wrong way"),
        ({"output_tokens_per_s": "+3%"}, "points the wrong way"),
        ({"ttft.p50": "5"}, "is not a margin"),
        ({"ttft.p50": 7}, r"ttft.p50: '7' is not a margin \(write e.g. 7%\)"),
        ({"output_tokens_per_s": -3}, r"write e.g. -3%"),
        ({"ttft.p50": 0.05}, "is not a margin"),
        ({}, "nothing decides: `metrics` is empty, and there are no `thresholds`"),
        ([], "nothing decides"),
        ({"ttft.p50": "120%"}, "between 0 and 100 %"),
        (dict.fromkeys(["ttft.p50", "ttft.p90", "itl.p99", "tpot.mean", "e2e.p50"]), "at most 4 decide"),
    ],
)
def test_a_metric_that_can_not_be_understood_is_an_error_with_a_hint(metrics: dict, said: str):
    with pytest.raises(UserError, match=said):
        policy(metrics=metrics)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"metric": {}}, "did you mean 'metrics'"),
        ({"pairs": 2}, "greater than or equal to 3"),
        ({"pairs": 6, "extension": 5}, "number of pairs in all"),
        ({"thresholds": {"ttft": "p99 < 800"}}, "a latency needs a unit"),
        ({"points": {"busy": "fast"}}, "'fast' is not a load"),
        ({"points": {"busy": "closed 0"}}, "'closed 0' is not a load"),
        ({"points": {"busy": "0x", "full": "closed 8"}}, "'0x' is not a load"),
        ({"points": {"busy": "0/s"}}, "'0/s' is not a load"),
        ({"points": {"busy": "0.85x"}}, "share of a saturated point"),
        ({"restart": "sometimes"}, "each"),
        ({"budget": "$lots"}, "not an amount"),
        ({"budget": "soon"}, "not a duration"),
        ({"errors": "few"}, "not a share"),
        ({"fewer_good": "some"}, "not a share"),
        ({"budget": "at most 40 min, at most 2 h"}, "two of a kind"),
        ({"budget": "at most 40 minuets"}, "write at most 40 min, at most"),
    ],
)
def test_any_other_mistake_names_its_key(keys: dict, said: str):
    with pytest.raises(UserError, match=said):
        policy(**keys)


def test_points_are_rates_shares_and_users():
    found = policy(points={"interactive": "8/s", "busy": "0.85x", "saturated": "closed 256"}).points
    assert (found["interactive"].rate, found["busy"].share, found["saturated"].users) == (8.0, 0.85, 256)


def test_latencies_are_judged_at_calm_points_and_what_is_carried_at_saturated_ones():
    found = policy(
        points={"interactive": "8/s", "busy": "0.85x", "saturated": "closed 256"},
        metrics={"ttft.p90": "10%", "output_tokens_per_s": "-3%"},
    )
    assert [(point, metric.key) for point, metric in found.tests()] == [
        ("interactive", "ttft.p90"), ("busy", "ttft.p90"), ("saturated", "output_tokens_per_s"),
    ]  # fmt: skip


def test_a_budget_is_time_money_or_both():
    assert policy(budget="at most 40 min").budget.seconds == 2400
    both = policy(budget=["at most 1h30m", "at most $15"]).budget
    assert (both.seconds, both.dollars) == (5400, 15)


@pytest.mark.parametrize(
    ("text", "seconds", "dollars"),
    [
        ("at most 40 min, at most $15", 2400, 15),
        ("at most $15 and at most 40 min", 2400, 15),
        ("40 minutes", 2400, None),
        ("at most 1 hour 30 minutes", 5400, None),
        ("90 seconds", 90, None),
        ("2hrs", 7200, None),
        ("1.5h", 5400, None),
        ("at most $7.50", None, 7.5),
    ],
)
def test_a_budget_is_read_as_people_write_it(text: str, seconds: float | None, dollars: float | None):
    found = policy(budget=text).budget
    assert (found.seconds, found.dollars) == (seconds, dollars)


def test_limits_alone_need_no_metrics():
    assert policy(metrics={}, thresholds={"ttft": "p99 < 800ms"}).tests() == []


@pytest.mark.parametrize(("content", "said"), [("- a\n", "mapping"), ("a: [", "not YAML"), (None, "gate init")])
def test_a_file_that_is_no_policy_says_so(tmp_path: Path, content: str | None, said: str):
    path = tmp_path / "p.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        load_policy(path)


def test_the_written_policy_is_one_and_has_the_defaults(tmp_path: Path):
    path = tmp_path / "gate.yaml"
    policy_template.write(path, "http://a:1", "http://b:1", None)
    found, default = load_policy(path), Policy()
    for key in ("metrics", "pairs", "extended", "restart", "errors", "repeat_invalid", "inconclusive", "seed"):
        assert getattr(found, key) == getattr(default, key)
    assert path.read_text().count("#") > 20  # it is commented
    with pytest.raises(UserError, match="exists already"):
        policy_template.write(path, "http://a:1", "http://b:1", None)


class TestPurposes:
    """`gate init --for pr|nightly|release`."""

    @pytest.mark.parametrize("name", ["pr", "nightly", "release"])
    def test_its_policy_can_be_run_and_its_first_line_says_what_it_finds(self, name: str, tmp_path: Path):
        path = tmp_path / "gate.yaml"
        policy_template.write(path, None, None, None, purpose=policy_template.PURPOSES[name])
        found = load_policy(path)
        require_decidable(experiment(found, tmp_path))
        first = path.read_text().partition("\n")[0]
        assert first.startswith(f"# Finds slowdowns above about {100 * finds(found):.0f} % (in four of five cases")
        assert found == policy_template.policies()[name].model_copy(
            update={"baseline": found.baseline, "candidate": found.candidate}
        )

    def test_of_a_pull_request_is_short_and_does_not_block_on_what_it_cannot_tell(self):
        found = policy_template.policies()["pr"]
        assert (found.pairs, found.extended, found.restart, found.inconclusive) == (3, None, "never", "neutral")
        assert set(found.metrics.values()) == {"20%"}
        planned = experiment(found.model_copy(update={"baseline": "http://a:1", "candidate": "http://b:1"}), Path())
        declared, extended = estimate(planned)
        assert declared.seconds < 600 and extended is None and found.budget.seconds == 600

    def test_of_a_night_has_the_defaults_and_a_history(self):
        found = policy_template.policies()["nightly"]
        assert (found.metrics, found.window, str(found.history)) == (DEFAULT_METRICS, 20, "gate-history.jsonl")

    def test_of_a_release_restarts_and_has_limits(self):
        found = policy_template.policies()["release"]
        assert (found.restart, found.inconclusive) == ("each", "fail")
        assert [threshold.metric for threshold in found.limits.thresholds] == ["ttft", "errors"]

    def test_what_is_found_follows_from_margins_pairs_and_spread(self):
        by_spread = [finds(policy_template.policies()["pr"], spread) for spread in (0.01, 0.04, 0.08)]
        assert by_spread[0] == pytest.approx(0.2, abs=0.02) and by_spread == sorted(by_spread)
        assert finds(policy(pairs=10, extension=None)) < finds(policy(pairs=3, extension=None))

    def test_what_is_found_is_the_power_of_the_test_by_theory(self):
        """One metric: the estimate's normal, its error's chi-square distribution."""
        one = policy(metrics={"ttft.p90": "20%"}, pairs=3, extension=None)
        error, df = 0.04 * math.sqrt(2 / 3), 2
        chance = chance_of_fail(math.log1p(finds(one, sets=40_000)), math.log(1.2), error, df, 0.025)
        assert chance == pytest.approx(0.8, abs=0.01)

    def test_the_tutorial_says_what_the_policy_finds(self):
        tutorial = (ROOT / "docs/tutorials/gate-a-pull-request.md").read_text()
        assert f"see slowdowns above about {100 * finds(policy_template.policies()['pr']):.0f} %" in tutorial

    def test_after_a_pilot_it_says_what_it_finds_at_the_spreads_that_the_pilot_saw(self):
        spreads = (0.005, 0.02, 0.08)
        texts = [policy_template.text(None, None, None, replace(PILOT, spreads={"ttft.p90": s})) for s in spreads]
        firsts = [text.partition("\n")[0] for text in texts]
        found = [int(re.findall(r"above about (\d+) %", first)[0]) for first in firsts]
        assert found == [round(100 * finds(parse_policy(yaml.safe_load(texts[0]), "p"), s)) for s in spreads]
        assert found == sorted(set(found))
        assert "differ by as much as the pilot leaves possible: 2.0 % in ttft.p90)" in firsts[1]

    def test_a_side_that_yaml_cannot_hold_is_refused(self):
        with pytest.raises(UserError, match="can't be written as YAML"):
            policy_template.text("{kind: vllm", None, None)


PILOT = Proposal({"ttft.p90": "10%"}, 5, 0.9, 0.8, ["note"], {"ttft.p90": 0.02})


def uncommented(*keys: str) -> Policy:
    """The written policy with the optional lines that begin with these keys enabled; all of them without any."""
    lines = policy_template.text("http://a:1", "http://b:1", None, PILOT).splitlines()
    option = re.compile(r"( *)# ( *)([a-z_0-9.]+): (?=\S)")
    found = []
    for line in lines:
        match = option.match(line)
        limits = line.startswith("# thresholds:") and (not keys or "ttft" in keys)
        enabled = match and (not keys or match[3] in keys)
        found.append("thresholds:" if limits else f"{match[1]}{match[2]}{line[match.end(2) :]}" if enabled else line)
    return parse_policy(yaml.safe_load("\n".join(found)), "gate.yaml")


@pytest.mark.parametrize(
    "keys", ["gpus", "ttft.p99", ("ttft", "errors"), "budget", "launch", "under_test", "history"]
)  # fmt: skip
def test_each_optional_line_of_the_written_policy_can_be_enabled_alone(keys: str | tuple[str, ...]):
    require_decidable(experiment(uncommented(*([keys] if isinstance(keys, str) else keys)), Path()))


def test_the_points_of_the_written_policy_go_with_its_workload():
    found = experiment(uncommented("points", "output_tokens_per_s"), Path())
    require_decidable(found)
    assert found.points == ["interactive", "busy", "saturated"]
    assert found.spec("candidate", "saturated", 1).workload.users == 256


def test_all_optional_lines_of_the_written_policy_go_together():
    found = uncommented()
    assert found.budget.dollars == 15 and found.points["busy"].share == 0.85 and found.under_test == ("version",)
    assert [t.metric for t in found.limits.thresholds] == ["ttft", "errors"]
    assert len(found.metrics) == 4 and found.launch == 120 and str(found.history) == "gate-history.jsonl"
    checked = experiment(found, Path())
    require_decidable(checked)
    assert estimate(checked)[0].dollars


def test_a_workload_that_does_not_go_with_a_point_says_which(tmp_path: Path):
    spec = {"workload": {"profile": "chat", "duration": "2m"}}
    with pytest.raises(
        UserError, match=r"points: full closed 8.*can clip or scale.*It is so at the load of the point full"
    ):
        experiment(
            policy(baseline="http://a:1", candidate="http://b:1", spec=spec, points={"full": "closed 8"}), tmp_path
        )


def test_more_is_worse_or_less_is_worse_by_the_same_rule():
    slower, fewer = gate_metric("ttft.p50", "5%"), gate_metric("output_tokens_per_s", "-5%")
    assert slower.worse_log(110) - slower.worse_log(100) > slower.log_margin
    assert fewer.worse_log(94) - fewer.worse_log(100) > fewer.log_margin
    assert fewer.ratio(fewer.log_margin) == pytest.approx(0.95)
