"""What a gate would run: sides, seeds, order, minutes, dollars, and what can't decide is refused first."""

import math
from pathlib import Path

import pytest
from tests.kit.command import SIM
from tests.kit.gate_runs import latency, policy, summary, typed

from tailgate.harness.cli import main
from tailgate.harness.experiments.gate.estimate import estimate, order_of, planned_runs, require_budget
from tailgate.harness.experiments.gate.feasibility import planned_requests, require_decidable
from tailgate.harness.experiments.gate.load_points import load_for
from tailgate.harness.experiments.gate.pilot import proposal, spreads
from tailgate.harness.experiments.gate.run_specs import experiment
from tailgate.harness.run.prepare import warms_up
from tailgate.reports.verdicts.gate.operating_curve import whole_policy
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import make_plan

WORKLOAD = {
    "prompt_tokens": 128, "output_tokens": 16, "arrivals": {"process": "gamma", "shape": 0.5, "rate": "20/s"},
    "duration": "60s", "warmup": "5s",
}  # fmt: skip


def made(**keys):
    spec = {"workload": WORKLOAD, "gpus": {"price_per_hour": 3.6}} | keys.pop("more", {})
    defaults = {"baseline": SIM, "candidate": {"sim": SIM[4:], "args": {"max-num-seqs": 4}}, "spec": spec}
    return experiment(policy(**(defaults | keys)), Path())


def test_both_sides_of_a_pair_have_one_seed_and_every_pair_its_own():
    found = made(seed=7)
    seeds = [[found.spec(side, "load", pair).seed for side in ("baseline", "candidate")] for pair in (1, 2)]
    assert seeds == [[8, 8], [9, 9]]


def test_a_side_is_laid_over_the_common_spec():
    found = made()
    assert found.spec("candidate", "load", 1).target.args["max-num-seqs"] == 4
    assert "max-num-seqs" not in found.spec("baseline", "load", 1).target.args
    assert found.spec("candidate", "load", 1).workload.duration == 60


def test_the_engines_jitter_differs_between_sides_and_pairs_unless_the_policy_sets_it():
    found = made()
    seeds = {
        found.spec(side, "load", pair).target.args["seed"] for side in ("baseline", "candidate") for pair in (1, 2)
    }
    assert len(seeds) == 4
    fixed = made(baseline={"sim": SIM[4:], "args": {"seed": 3}})
    assert fixed.spec("baseline", "load", 2).target.args["seed"] == 3


def test_a_warm_up_is_there_unless_the_policy_says_otherwise():
    without = {key: value for key, value in WORKLOAD.items() if key != "warmup"}
    assert made(more={"workload": without}).spec("baseline", "load", 1).workload.warmup == 10
    assert made().spec("baseline", "load", 1).workload.warmup == 5


def test_the_gate_s_own_warm_up_declares_no_further_requests_to_a_url():
    without = {key: value for key, value in WORKLOAD.items() if key != "warmup"}
    urls = {"baseline": "http://a", "candidate": {"kind": "vllm", "model": "m", "python": "/p"}}

    def warmed(**more):
        made_spec = made(**urls, more=more).spec
        return [warms_up(made_spec(side, "load", 1)) for side in ("baseline", "candidate")]

    assert warmed(workload=without) == [False, True]
    assert warmed(workload=WORKLOAD) == warmed(workload=without, settle="always") == [True, True]
    assert made(more={"workload": without}).spec("baseline", "load", 1).settle == "auto"


def test_points_change_the_load_and_nothing_else():
    found = made(points={"calm": "8/s", "busy": "0.5x", "full": "closed 32"}).with_rate("busy", 12.5)
    calm, busy, full = (found.spec("baseline", point, 1).workload for point in found.points)
    assert (calm.arrivals.rate, busy.arrivals.rate, full.users) == (8.0, 12.5, 32)
    assert (calm.arrivals.process, calm.arrivals.shape) == ("gamma", 0.5) and full.arrivals is None


def test_pairs_are_interleaved_ab_ba_ab():
    assert [order_of(pair)[0] for pair in (1, 2, 3)] == ["baseline", "candidate", "baseline"]
    labels = [run.label.split()[1:3] for run in planned_runs(made(), 2)]
    assert labels == [["1", "baseline"], ["1", "candidate"], ["2", "candidate"], ["2", "baseline"]]


def test_the_estimate_counts_runs_launches_minutes_and_dollars():
    found, extended = estimate(made(pairs=5, launch="30s"))
    assert (len(found.runs), found.launches) == (10, 10)
    assert found.seconds == pytest.approx(10 * (30 + 5 + 60 + 4))
    assert found.dollars == pytest.approx(found.seconds / 3600 * 3.6)
    assert extended.seconds == pytest.approx(2 * found.seconds) and extended.launches == 20


def test_runs_that_a_number_of_requests_ends_are_not_guessed_at():
    by_number = {"prompt_tokens": 8, "output_tokens": 4, "requests": 2000, "warmup": "1s"}
    keys = {
        "points": {"busy": "0.85x", "full": "closed 64"},
        "budget": "at most 40 min",
        "more": {"workload": by_number},
    }
    found = made(pairs=3, extension=None, **keys)
    declared, extended = estimate(found)
    assert declared.open_end and declared.seconds == pytest.approx(13 * (1.5 + 1 + 4))
    assert require_budget(found.policy, declared, extended) is False  # no extension was declared, and the rest may fit
    assert [run.open_end for run in estimate(found.with_rate("busy", 100.0))[0].runs[1:3]] == [False, True]


def test_a_cold_server_is_given_time_to_settle():
    launched = {"kind": "vllm", "model": "m", "python": "/p"}
    cold = estimate(made(launch="30s", baseline=launched, candidate=launched))[0].seconds
    assert cold == pytest.approx(estimate(made(launch="30s"))[0].seconds + 10 * 10)


@pytest.mark.parametrize(("restart", "launches"), [("each", 6), ("block", 4), ("never", 2)])
def test_launches_follow_the_policy(restart: str, launches: int):
    """A B B A A B: with `block` neighbours of one side share a launch."""
    assert estimate(made(pairs=3, restart=restart))[0].launches == launches


class TestBudget:
    def test_one_that_is_too_small_says_what_fits(self):
        found = made(budget="at most 10 min")
        with pytest.raises(UserError, match=r"5 pairs take about 11\.\d min, the budget is 10\.0 min: 4 pairs .* fit"):
            require_budget(found.policy, *estimate(found))

    def test_without_room_for_the_extension_there_is_one_look(self):
        found = made(budget="at most 15 min")
        assert require_budget(found.policy, *estimate(found)) is False
        roomy = made(budget="at most 1 h")
        assert require_budget(roomy.policy, *estimate(roomy)) is True

    def test_dollars_need_a_price(self):
        found = made(budget="at most $5", more={"gpus": {}})
        with pytest.raises(UserError, match="needs a price"):
            require_budget(found.policy, *estimate(found))

    def test_dollars_are_limited_too(self):
        found = made(budget="at most $0.50")
        with pytest.raises(UserError, match=r"\$0\.\d\d, the budget is \$0\.50"):
            require_budget(found.policy, *estimate(found))


class TestDecidable:
    def test_a_p99_of_fifty_requests_is_refused_before_anything_runs(self):
        short = {**WORKLOAD, "duration": "2.5s"}
        with pytest.raises(UserError, match=r"ttft.p99 needs at least 299 requests a run, and a run has \d\d\b"):
            require_decidable(made(metrics={"ttft.p99": "10%"}, more={"workload": short}))

    def test_enough_requests_are_fine(self):
        require_decidable(made(metrics={"ttft.p99": "10%"}))
        assert planned_requests(made(), "load") > 1000

    def test_throughput_needs_a_saturated_point(self):
        with pytest.raises(UserError, match=r"load-limited.*saturated: closed 256"):
            require_decidable(made(metrics={"output_tokens_per_s": "-3%"}))
        require_decidable(made(metrics={"output_tokens_per_s": "-3%"}, points={"calm": "8/s", "full": "closed 8"}))

    def test_cost_needs_a_price(self):
        with pytest.raises(UserError, match="needs a price, and the baseline has none"):
            require_decidable(
                made(metrics={"cost.per_million_output": "3%"}, points={"full": "closed 8"}, more={"gpus": {}})
            )

    @pytest.mark.parametrize("kind", ["users", "classes", "profile"])
    def test_users_who_think_say_what_is_carried_and_so_are_refused(self, kind: str):
        sessions = {"turns": 5, "think": 2}
        base = {"prompt_tokens": 64, "output_tokens": 16, "users": 8, "duration": "3s"}
        workload = {
            "users": {**base, "sessions": sessions},
            "classes": {**base, "classes": {"a": {"sessions": sessions}, "b": {}}},
            "profile": {"profile": "agentic-coding"},
        }[kind]
        with pytest.raises(UserError, match=r"load-limited: the users pause .* saturated point"):
            require_decidable(made(metrics={"requests_per_s": "-3%"}, more={"workload": workload}))

    def test_a_saturated_points_users_do_not_think_and_that_is_said(self):
        workload = {"profile": "agentic-coding"}
        found = made(metrics={"requests_per_s": "-3%"}, points={"full": "closed 64"}, more={"workload": workload})
        require_decidable(found)
        pauses = make_plan(found.spec("baseline", "full", 1).workload, 1).table["think_ns"].to_numpy()
        assert pauses.max() == 0 and len(pauses)
        assert found.notes == ("full: users ask again at once, the workload's think times are left out",)
        assert made(points={"full": "closed 64"}).notes == ()

    def test_a_threshold_on_a_percentile_needs_requests_too(self):
        short = {"workload": {**WORKLOAD, "duration": "2.5s"}}
        with pytest.raises(UserError, match=r"thresholds.ttft: ttft: p99 < 800ms needs at least 299 requests"):
            require_decidable(made(thresholds={"ttft": "p99 < 800ms"}, metrics={"ttft.p50": "5%"}, more=short))
        require_decidable(made(thresholds={"ttft": "p50 < 800ms"}, metrics={"ttft.p50": "5%"}, more=short))

    def test_goodput_needs_to_know_what_is_good(self):
        full = {"metrics": {"goodput": "-3%"}, "points": {"full": "closed 8"}}
        with pytest.raises(UserError, match=r"metrics.goodput needs an SLO .*, and the baseline has none.*slo: \{good"):
            require_decidable(made(**full))
        require_decidable(made(**full, more={"slo": {"good": "ttft < 800ms"}}))

    @pytest.mark.parametrize(
        ("telemetry", "side", "said"),
        [
            ({"gpu": "none"}, "http://127.0.0.1:8000", "it is switched off"),
            ({}, "http://gpu-box:8000", "the target runs elsewhere"),
        ],
    )
    def test_energy_needs_gpus_that_are_watched(self, telemetry: dict, side: str, said: str):
        full = {"metrics": {"energy.j_per_output_token": "3%"}, "points": {"full": "closed 8"}}
        with pytest.raises(UserError, match=rf"needs GPU telemetry \({said}\)"):
            require_decidable(made(**full, baseline=side, candidate=side, more={"telemetry": telemetry}))
        require_decidable(made(**full, more={"telemetry": {"gpu": "nvml"}}))


class TestRates:
    """What a share of the requests carried means in arrivals."""

    def planned(self, found, point: str = "busy") -> list[int]:
        return [
            make_plan(found.spec("baseline", point, pair).workload, found.policy.seed + pair)
            .table["phase"].to_pylist().count("measure")
            for pair in range(1, found.policy.pairs + 1)
        ]  # fmt: skip

    @pytest.mark.parametrize("sessions", [None, {"turns": 5, "think": 0.5}, {"turns": "uniform(1, 9)", "think": 20}])
    def test_the_pairs_plans_send_that_share(self, sessions: dict | None):
        workload = {**WORKLOAD, "sessions": sessions} if sessions else WORKLOAD
        found = made(points={"busy": "0.85x", "full": "closed 8"}, more={"workload": workload})
        load = load_for(found, "busy", 0.85 * 20.0)
        requests = sum(self.planned(found.with_rate("busy", load.rate)))
        assert requests / (5 * 60.0) == pytest.approx(17.0, rel=0.01)
        assert load.planned == pytest.approx(requests / 300.0)
        if sessions:
            assert load.rate < 12

    @pytest.mark.parametrize("plain", [True, False])
    def test_a_mix_whose_classes_have_their_own_arrivals_is_scaled_as_a_whole(self, plain: bool):
        classes = {"a": {"arrivals": {"rate": "2/s"}}, "b": {"arrivals": {"rate": "6/s"}}}
        own = {key: value for key, value in WORKLOAD.items() if key != "arrivals"} | {"classes": classes}
        workload = own if plain else {"profile": "mixed-realtime-batch", "duration": "10m"}
        found = made(points={"busy": "0.85x", "full": "closed 8"}, more={"workload": workload})
        load = load_for(found, "busy", 0.85 * 20.0)
        assert load.planned == pytest.approx(17.0, rel=0.01)
        kinds = found.with_rate("busy", load.rate).spec("candidate", "busy", 1).workload.classes.values()
        a, b = (kind.arrivals.mean_rate() for kind in kinds)
        assert (a + b, b / a) == (pytest.approx(load.rate), pytest.approx(3.0 if plain else 0.5))

    def test_a_mix_with_arrivals_of_both_kinds_has_no_rate_to_set(self):
        workload = {**WORKLOAD, "classes": {"a": {"arrivals": {"rate": "2/s"}}, "b": {}}}
        with pytest.raises(UserError, match=r"points: busy 9/s\): the rate of a point .*, and a have their own.*none"):
            made(points={"busy": "9/s"}, more={"workload": workload})
        closed = {key: value for key, value in workload.items() if key != "arrivals"}
        made(points={"full": "closed 8"}, more={"workload": closed})


class TestCommandLine:
    def written(self, tmp_path: Path, extra: str = "") -> str:
        path = tmp_path / "p.yaml"
        path.write_text(
            f"baseline: {SIM}\ncandidate: {SIM}\npairs: 3\n{extra}"
            "spec: {workload: {prompt_tokens: 8, output_tokens: 4, arrivals: {rate: 9/s}, duration: 20s, warmup: 1s}}\n"
        )
        return str(path)

    def test_a_dry_run_starts_nothing_and_says_what_it_would_take(self, tmp_path: Path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(["gate", "--policy", self.written(tmp_path), "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "6 runs, 6 launches, about 3 min (no dollars: not both sides have a price)" in out
        assert "6 pairs, about 5 min in all" in out
        assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            ("budget: at most 1 min\n", "fit"),
            ("metrics: {ttft.p99.9: 10%}\n", "needs at least 2,995 requests"),
            ("metrics: {requests_per_s: -3%}\n", "load-limited"),
            ("metrics: {ttft.p50: 0%}\n", "between 0 and 100"),
        ],
    )
    def test_what_can_not_be_met_is_refused_before_anything_runs(self, tmp_path: Path, capsys, extra: str, said: str):
        assert main(["gate", "--policy", self.written(tmp_path, extra)]) == 2
        assert said in capsys.readouterr().err

    def test_a_policy_without_sides_says_so(self, tmp_path: Path, capsys):
        (tmp_path / "p.yaml").write_text("pairs: 3\n")
        assert main(["gate", "--policy", str(tmp_path / "p.yaml")]) == 2
        assert "`baseline` is missing" in capsys.readouterr().err

    def test_init_writes_a_policy_that_a_dry_run_accepts(self, tmp_path: Path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert main(["gate", "init", "--baseline", SIM, "--candidate", SIM]) == 0
        assert main(["gate", "--policy", "gate.yaml", "--dry-run"]) == 0
        assert main(["gate", "init"]) == 2
        assert "exists already" in capsys.readouterr().err

    def test_a_pilot_needs_to_know_what_to_run(self, capsys, tmp_path: Path):
        assert main(["gate", "init", str(tmp_path / "p.yaml"), "--pilot", "3"]) == 2
        assert "--baseline and --spec" in capsys.readouterr().err


class TestPilot:
    def runs(self, spread: float):
        return [typed(summary(100 * (1 + spread * k), 20 * (1 + spread * k))) for k in (-1, 0, 1)]

    def test_steady_runs_keep_the_default_margins_and_five_pairs(self):
        found = proposal(spreads(self.runs(0.01)))
        assert (found.metrics, found.pairs) == ({"ttft.p90": "10%", "tpot.mean": "7%"}, 5)

    def test_a_spread_has_its_bounds_by_chi_square(self):
        """Of three runs: chi-square of two degrees of freedom has its 20 and 80 % points at 0.446 and 3.219."""
        (ttft, *_) = spreads(self.runs(0.01), ["ttft.p90"])
        assert ttft.cv == pytest.approx(0.01, rel=0.01)
        assert ttft.high / ttft.cv == pytest.approx(math.sqrt(2 / 0.4463), rel=1e-3)
        assert ttft.low / ttft.cv == pytest.approx(math.sqrt(2 / 3.2189), rel=1e-3)
        said = next(note for note in proposal([ttft]).notes if "ttft.p90" in note)
        assert said == "  ttft.p90 1.0 % (0.8 to 2.1)"

    @pytest.mark.parametrize("spread", [0.0, 0.01, 0.02, 0.04, 0.06])
    def test_an_unchanged_system_passes_what_is_proposed_in_four_of_five_cases(self, spread: float):
        """The whole policy, whatever the pilot saw, at the bound that the proposal counts on."""
        found = proposal(spreads(self.runs(spread)))
        high = spreads(self.runs(spread))[0].high
        whole = whole_policy(policy(metrics=found.metrics, pairs=found.pairs), high, sets=4000, seed=99)
        assert whole.passed.share >= 0.78  # 80 % within the error of 4,000 sets, twice
        assert found.passes == pytest.approx(whole.passed.share, abs=0.04)

    def test_unsteady_runs_need_more_pairs_and_then_wider_margins(self):
        two, eight = proposal(spreads(self.runs(0.025))), proposal(spreads(self.runs(0.08)))
        assert two.metrics == {"ttft.p90": "10%", "tpot.mean": "7%"} and two.pairs > 5
        assert float(eight.metrics["ttft.p90"].rstrip("%")) > 10

    def test_runs_that_no_margin_can_tell_apart_are_said_to_be_so(self):
        found = proposal(spreads(self.runs(0.3)))
        assert found.passes < 0.8 and "too seldom" in found.notes[-1]

    def test_a_metric_that_a_run_lacks_is_left_out(self):
        runs = self.runs(0.01)
        lacking = summary()
        lacking["latency_failed_as_inf_ms"]["ttft"] = latency(None)
        keys = {spread.metric.key for spread in spreads([*runs, typed(lacking)])}
        assert "ttft.p90" not in keys and "tpot.mean" in keys
