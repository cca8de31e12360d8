"""What a log was drawn from is found again, with intervals that say how well; what it can't tell is not told.

The coverage over 200 seeds is printed by tests/bench/bench_fit.py; here fewer seeds, with room for chance.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet
from tests.kit.fits import covered, fitted, holds, times_ns

from tailgate.workloads.arrivals.process import Process
from tailgate.workloads.arrivals.rate_shapes import Daily, Rates
from tailgate.workloads.arrivals.renewal import Gamma
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.config.profiles import Profile
from tailgate.workloads.config.workload import TraceSpec, WorkloadSpec
from tailgate.workloads.fit.arrivals.arrivals import fit_arrivals
from tailgate.workloads.fit.arrivals.binned_counts import LoggedArrivals
from tailgate.workloads.fit.arrivals.daily import fit_days
from tailgate.workloads.fit.arrivals.gaps import resolution_ns
from tailgate.workloads.fit.goodness_of_fit import quantile
from tailgate.workloads.fit.lengths import correlation, expression_of
from tailgate.workloads.fit.profile import Fit, fit_profile, fit_workload, to_yaml
from tailgate.workloads.fit.sessions import fit_sessions
from tailgate.workloads.plan.plan import make_plan
from tailgate.workloads.sampling.distribution_grammar import parse
from tailgate.workloads.sampling.random_streams import RandomStream
from tailgate.workloads.table.columns import stateless


def test_a_rate_that_wanders_too_slowly_for_the_log_is_said_to_and_has_no_interval() -> None:
    found = fitted(times_ns(3, 10.0, 0.9, 0.3, 900.0))
    assert found.cv is not None and not found.cv.known and not found.rate.known
    assert "too slowly for a log of 3600 s" in found.notes[0]


def test_stamps_on_a_coarse_grid_tell_no_law_of_gaps_but_the_dispersion_of_counts() -> None:
    found = [fitted(times_ns(seed, 5.0, 0.3), 1_000_000_000) for seed in range(20)]
    assert all(one.shape is not None and not one.shape.known and one.cv is None for one in found)
    assert all("too coarse to tell the law of gaps" in one.notes[0] for one in found)
    assert np.mean([one.shape.value for one in found if one.shape]) == pytest.approx(0.3, rel=0.05)
    assert covered([holds(one.rate, 5.0) for one in found])


@pytest.mark.parametrize("tick_ns", [1, 100, 1000, 1_000_000, 1_000_000_000, 3_000_000_000])
@pytest.mark.parametrize("blurred", [False, True])
def test_the_resolution_of_stamps_is_told_from_them(tick_ns: int, blurred: bool) -> None:
    at_ns = (times_ns(1, 5.0, 0.7) + 1_700_000_000_000_000_000) // tick_ns * tick_ns
    if blurred:
        at_ns = np.array([round(seconds * 1e9) for seconds in (at_ns / 1e9).tolist()])
    found = resolution_ns(at_ns)
    # A float of so many seconds is good to 256 ns.
    assert found == (256 if blurred and tick_ns < 1000 else tick_ns)


def test_few_arrivals_are_refused() -> None:
    with pytest.raises(UserError, match="150 arrivals are too few"):
        fit_arrivals(LoggedArrivals(np.arange(150.0), 150.0))


def test_days_give_their_shape_and_their_rate() -> None:
    rng = np.random.default_rng(1)
    hourly = np.tile([1.0] * 12 + [3.0] * 12, 5)
    times = np.sort(np.concatenate([rng.uniform(h, h + 1, rng.poisson(200 * f)) for h, f in enumerate(hourly)])) * 3600
    found = fit_days(times, 5 * 86400.0)
    assert found is not None
    assert found.factors[3] == pytest.approx(0.5, abs=0.05) and found.factors[20] == pytest.approx(1.5, abs=0.1)
    assert holds(found.rate, 400 / 3600)
    assert fit_days(times[times < 86400], 86400.0) is None


def test_the_shape_of_a_day_is_no_modulation() -> None:
    daily = Daily((0.4,) * 8 + (1.2,) * 4 + (1.6,) * 8 + (0.8,) * 4, (1.0,) * 7)
    span = 5 * 86400.0
    for seed in range(5):
        process = Process(Gamma(0.6), Rates(0.1, (daily,), scaled=False))
        times = process.times_ns(partial(RandomStream, seed, "fit"), span, span) / 1e9
        days = fit_days(times, span)
        assert days is not None
        found = fit_arrivals(LoggedArrivals(times, span, factors=days.over(span)))
        assert found.cv is None and holds(days.rate, 0.1), seed


def test_the_interval_of_a_quantile_covers_it() -> None:
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(300):
        found = quantile(rng.exponential(1.0, 400), 0.9)
        assert found is not None
        hits.append(found.low <= -np.log(0.1) <= found.high)
    assert covered(hits)
    assert quantile(np.arange(20), 0.99) is None


def test_the_interval_of_a_rank_correlation_covers_it() -> None:
    hits = []
    for seed in range(60):
        spec = {"prompt_tokens": "lognormal(6, 1)", "output_tokens": "lognormal(5, 1)", "correlation": 0.4}
        table = make_plan(WorkloadSpec.model_validate(spec | {"users": 1, "requests": 800}), seed).table
        found = correlation(table["prompt_tokens"].to_numpy(), table["output_tokens"].to_numpy())
        hits.append(found.low <= 0.4 <= found.high)
    assert covered(hits)


@pytest.mark.parametrize(
    "values", [np.full(50, 7), np.arange(1, 301), np.array([1] * 90 + [500] * 10), np.array([3, 9])]
)
def test_a_law_of_values_draws_values_like_them(values: np.ndarray) -> None:
    law = parse(expression_of(values))
    drawn = law.quantile((np.arange(2000) + 0.5) / 2000)
    assert np.quantile(drawn, [0.05, 0.5, 0.95]) == pytest.approx(
        np.quantile(values, [0.05, 0.5, 0.95]), abs=0.02 * values.max()
    )


def log_of(tmp_path: Path, **spec: object) -> TraceSpec:
    """A log drawn from a known workload, with sessions, as a Parquet file."""
    table = make_plan(WorkloadSpec.model_validate(spec), 11).table
    parquet.write_table(
        table.select(["at_ns", "session", "prompt_tokens", "output_tokens", "prefix_blocks"]), tmp_path / "log.parquet"
    )
    columns = {name: name for name in ("session", "prompt_tokens", "output_tokens")}
    return TraceSpec.model_validate(
        {
            "file": tmp_path / "log.parquet", "format": "parquet", "time_unit": "ns", "block_tokens": 64,
            "columns": columns | {"time": "at_ns", "blocks": "prefix_blocks"},
        }
    )  # fmt: skip


KNOWN = {
    "prompt_tokens": "lognormal(6, 0.7)",
    "output_tokens": "lognormal(4.5, 0.8)",
    "correlation": 0.3,
    "prefix": {"system_tokens": 320},
    "sessions": {
        "turns": "uniform(1, 4)",
        "think": "lognormal(3, 0.5)",
        "new_tokens": "uniform(20, 120)",
        "pace": "clock",
    },
    "arrivals": {"process": "gamma", "shape": 0.6, "rate": "2/s"},
    "duration": "30m",
}


def checks(fit: Fit) -> dict[str, tuple[float | None, float | None]]:
    return {check.name: (check.log, check.fit) for check in fit.checks}


def stamped(tmp_path: Path, at_ns: np.ndarray, tick_ns: int = 1) -> TraceSpec:
    """A log of such arrivals, stamped by a clock of whole ticks."""
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "at": at_ns // tick_ns * tick_ns,
            "in": rng.lognormal(5.0, 1.0, len(at_ns)).astype(np.int64) + 1,
            "out": rng.lognormal(4.0, 1.0, len(at_ns)).astype(np.int64) + 1,
        }
    )
    parquet.write_table(table, tmp_path / "stamped.parquet")
    columns = {"time": "at", "prompt_tokens": "in", "output_tokens": "out"}
    return TraceSpec(file=tmp_path / "stamped.parquet", format="parquet", time_unit="ns", columns=columns)


def test_a_whole_workload_is_found_again(tmp_path: Path) -> None:
    fit = fit_profile(log_of(tmp_path, **KNOWN))
    truth = {"shape": 0.6, "prompt_tokens.p50": np.exp(6), "think_s.p50": np.exp(3), "turns.mean": 2.5, "rate": 2.0}
    for name, value in truth.items():
        assert holds(fit.estimates[name], value), name
    assert fit.profile["workload"]["prefix"] == {"system_tokens": 320}
    found = checks(fit)
    for name, error in (
        ("requests per second", 0.05),
        ("dispersion at 10 s", 0.25),
        ("prompt tokens seen before", 0.05),
    ):
        assert found[name][1] == pytest.approx(found[name][0], rel=error), name
    assert found["KS distance of output_tokens"][1] is not None and found["KS distance of output_tokens"][1] < 0.03


def test_the_profile_written_is_a_profile(tmp_path: Path) -> None:
    fit = fit_profile(log_of(tmp_path, **KNOWN))
    profile = Profile.model_validate(yaml.safe_load(to_yaml(fit)))
    assert make_plan(WorkloadSpec.model_validate(profile.workload), 1).table.num_rows > 100


def test_a_log_stamped_in_whole_seconds_is_fitted_to_what_its_counts_tell(tmp_path: Path) -> None:
    at_ns = times_ns(1, 5.0, 0.3, span=1800.0)
    fit = fit_profile(stamped(tmp_path, at_ns, 1_000_000_000))
    assert "shape" not in fit.estimates and "modulation.cv" not in fit.estimates
    assert fit.profile["workload"]["arrivals"]["rate"] == pytest.approx(len(at_ns) / 1800.0, rel=0.01)
    assert holds(fit.estimates["rate"], 5.0)
    assert fit.profile["workload"]["arrivals"]["shape"] == pytest.approx(0.3, rel=0.15)
    assert any("too coarse to tell the law of gaps" in note for note in fit.notes)
    assert "variation of gaps" not in checks(fit) and "dispersion at 1 s" not in checks(fit)
    assert all(check.ok for check in fit.checks)


def test_ties_of_a_coarse_clock_are_neither_bursts_nor_a_law_of_gaps_in_bursts(tmp_path: Path) -> None:
    busy = fit_workload(stamped(tmp_path, times_ns(1, 10.0, 0.7, span=900.0), 1_000_000_000))
    assert "bursts" not in busy.workload["arrivals"]
    bursts = {"burst": "lognormal(2.74, 0.43)", "pause": "lognormal(3.2, 0.5)"}
    spec = {"prompt_tokens": 10, "output_tokens": 10, "arrivals": {"rate": "3/s", "bursts": bursts}, "duration": "1h"}
    table = make_plan(WorkloadSpec.model_validate(spec), 2).table
    found = fit_workload(stamped(tmp_path, table["at_ns"].to_numpy(), 1_000_000_000))
    assert found.workload["arrivals"]["process"] == "poisson"
    assert holds(found.estimates["burst_s.p50"], np.exp(2.74)) and holds(found.estimates["pause_s.p50"], np.exp(3.2))
    assert any("don't tell the law of gaps in bursts" in note for note in found.notes)


def test_a_log_of_days_keeps_its_dispersion(tmp_path: Path) -> None:
    fit = fit_profile(stamped(tmp_path, times_ns(1, 0.05, 0.4, 1.0, 300.0, span=3 * 86400.0)))
    arrivals = fit.profile["workload"]["arrivals"]
    assert {"daily", "modulation", "shape"} <= arrivals.keys()
    for name in ("variation of gaps", "dispersion at 10 s", "dispersion at 60 s"):
        log, drawn = checks(fit)[name]
        assert drawn == pytest.approx(log, rel=0.1), name


def test_pauses_as_long_as_the_log_have_no_interval(tmp_path: Path) -> None:
    sessions = {"turns": 2, "think": "uniform(60, 1500)", "pace": "clock"}
    fit = fit_workload(log_of(tmp_path, **KNOWN | {"sessions": sessions}))
    assert "turns.mean" not in fit.estimates and "think_s.p50" not in fit.estimates
    assert any("too short for its pauses" in note for note in fit.notes)


def test_one_long_conversation_among_single_requests_is_fitted() -> None:
    n = 100
    session = np.concatenate([np.zeros(n, np.int64), np.arange(1, n + 1)])
    turn = np.concatenate([np.arange(n), np.zeros(n, np.int64)])
    at_ns = np.concatenate([np.arange(n), np.arange(n) + 0.5]) * 10**9
    columns = {"at_ns": at_ns.astype(np.int64), "session": session, "turn": turn}
    found = fit_sessions(stateless(2 * n, **columns, prompt_tokens=np.full(2 * n, 100)))
    assert found is not None and found.think_s.value == pytest.approx(1.0)
    assert found.turns.low < found.turns.value < found.turns.high


@pytest.mark.parametrize(
    "shared",
    [
        {"pool": 3, "popularity": 2.0, "tokens": 512},
        {"pool": 300, "popularity": 0.6, "share": "uniform(0.6, 1)"},
    ],
)
def test_contexts_that_prompts_share_are_fitted(tmp_path: Path, shared: dict[str, object]) -> None:
    spec = {key: value for key, value in KNOWN.items() if key not in ("prefix", "sessions")}
    fit = fit_profile(log_of(tmp_path, **spec, prefix={"shared": shared}))
    assert fit.profile["workload"]["prefix"]["shared"]["popularity"] == pytest.approx(shared["popularity"], abs=0.5)
    log, drawn = checks(fit)["prompt tokens seen before"]
    assert drawn == pytest.approx(log, rel=0.1)


def test_a_figure_that_the_fit_does_not_draw_is_off_and_named(tmp_path: Path) -> None:
    at_ns = np.sort(np.concatenate([times_ns(1, 2.0, 1.0), np.repeat(times_ns(2, 0.05, 1.0), 40)]))
    fit = fit_profile(stamped(tmp_path, at_ns))
    off = {check.name for check in fit.checks if not check.ok}
    assert off and all(f"{name}" in fit.notes[-1] for name in off)
    assert "(off)" in to_yaml(fit)
    worst = max(fit.checks, key=lambda check: abs(check.error))
    assert worst.error == pytest.approx(worst.fit / worst.log - 1.0)


def test_a_log_that_supports_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are too few to fit anything"):
        fit_profile(log_of(tmp_path, **KNOWN | {"duration": "20s"}))
