"""What a log was drawn from is found again, with intervals that say how well; what it can't tell is not told.

The coverage over 200 seeds is printed by tests/bench/bench_fit.py; here fewer seeds, with room for chance.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from workloads.arrivals.process import Process
from workloads.arrivals.rate import Modulated, Rates
from workloads.arrivals.renewal import Gamma
from workloads.errors import UserError
from workloads.fit.arrivals import ArrivalFit, fit_arrivals, fit_days
from workloads.fit.estimate import quantile
from workloads.fit.lengths import correlation, law_of
from workloads.fit.profile import Fit, fit_profile, to_yaml
from workloads.lengths import parse
from workloads.plan import make_plan
from workloads.profiles import Profile
from workloads.spec import TraceSpec, WorkloadSpec
from workloads.streams import Stream

HOUR = 3600.0


def arrivals(seed: int, rate: float, shape: float, cv: float = 0.0, correlation_s: float = 0.0) -> ArrivalFit:
    shapes = (Modulated(cv, correlation_s),) if cv else ()
    process = Process(Gamma(shape), Rates(rate, shapes, scaled=False))
    return fit_arrivals(process.times_ns(partial(Stream, seed, "fit"), HOUR, HOUR) / 1e9, HOUR)


def covered(hits: list[bool]) -> bool:
    """Whether so many hits are compatible with a coverage of 95 % (99.9 % of samples are)."""
    return int(stats.binom.ppf(0.0005, len(hits), 0.95)) <= sum(hits)


def test_rate_and_shape_of_a_renewal_process_are_covered_by_their_intervals() -> None:
    found = [arrivals(seed, 10.0, 0.7) for seed in range(40)]
    assert all(one.cv is None for one in found[:35])
    assert covered([one.rate.low <= 10.0 <= one.rate.high for one in found])
    assert covered([one.shape is not None and one.shape.low <= 0.7 <= one.shape.high for one in found])


def test_a_modulation_is_covered_by_its_intervals() -> None:
    found = [arrivals(seed, 10.0, 0.7, 0.4, 30.0) for seed in range(30)]
    for name, truth in (("rate", 10.0), ("shape", 0.7), ("cv", 0.4), ("correlation_s", 30.0)):
        estimates = [getattr(one, name) for one in found]
        assert all(one is not None for one in estimates)
        assert covered([one.low <= truth <= one.high for one in estimates]), name


def test_a_rate_that_wanders_too_slowly_for_the_log_is_said_to_and_has_no_interval() -> None:
    found = arrivals(3, 10.0, 0.9, 0.3, 900.0)
    assert found.cv is not None and not found.cv.known and not found.rate.known
    assert "too slowly for a log of 3600 s" in found.notes[0]


def test_stamps_on_a_coarse_grid_tell_no_law_of_gaps() -> None:
    times = np.floor(np.sort(np.random.default_rng(1).uniform(0, HOUR, 20_000)))
    found = fit_arrivals(times, HOUR)
    assert found.shape is None and "too coarse" in found.notes[0]


def test_few_arrivals_are_refused() -> None:
    with pytest.raises(UserError, match="150 arrivals are too few"):
        fit_arrivals(np.arange(150.0), 150.0)


def test_days_give_their_shape_and_their_rate() -> None:
    rng = np.random.default_rng(1)
    hourly = np.tile([1.0] * 12 + [3.0] * 12, 5)
    times = np.sort(np.concatenate([rng.uniform(h, h + 1, rng.poisson(200 * f)) for h, f in enumerate(hourly)])) * 3600
    found = fit_days(times, 5 * 86400.0)
    assert found is not None
    factors, rate = found
    assert factors[3] == pytest.approx(0.5, abs=0.05) and factors[20] == pytest.approx(1.5, abs=0.1)
    assert rate.low <= 400 / 3600 <= rate.high
    assert fit_days(times[times < 86400], 86400.0) is None


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
    law = parse(law_of(values))
    drawn = law.quantile((np.arange(2000) + 0.5) / 2000)
    assert np.quantile(drawn, [0.05, 0.5, 0.95]) == pytest.approx(
        np.quantile(values, [0.05, 0.5, 0.95]), abs=0.02 * values.max()
    )


def log_of(tmp_path: Path, **spec: object) -> TraceSpec:
    """A log drawn from a known workload, with sessions, as a Parquet file."""
    from pyarrow import parquet

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


def test_a_whole_workload_is_found_again(tmp_path: Path) -> None:
    fit = fit_profile(log_of(tmp_path, **KNOWN))
    truth = {"shape": 0.6, "prompt_tokens.p50": np.exp(6), "think_s.p50": np.exp(3)}
    for name, value in truth.items():
        assert fit.estimates[name].low * 0.97 <= value <= fit.estimates[name].high * 1.03, name
    # Conversations that go on beyond the log are cut: a little less than the 2.5 turns they were drawn with.
    assert fit.estimates["turns.mean"].value == pytest.approx(2.5, abs=0.1)
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


def test_conversations_are_told_from_prefix_blocks_where_no_session_is_named(traces: Path) -> None:
    fit = fit_profile(TraceSpec(file=traces / "mooncake" / "conversation_trace.jsonl.gz", format="mooncake"))
    log, drawn = checks(fit)["prompt tokens seen before"]
    assert log == pytest.approx(0.374, abs=0.001) and drawn == pytest.approx(log, abs=0.06)
    assert fit.estimates["turns.mean"].value == pytest.approx(1.5, abs=0.05)


def test_bursts_are_fitted_as_bursts(traces: Path) -> None:
    fit = fit_profile(TraceSpec(file=traces / "azure-2023" / "AzureLLMInferenceTrace_code.csv", format="azure"))
    assert "bursts" in fit.profile["workload"]["arrivals"]
    log, drawn = checks(fit)["variation of gaps"]
    assert drawn == pytest.approx(log, rel=0.2)


def test_a_log_without_times_gives_a_closed_loop_and_says_so(traces: Path) -> None:
    fit = fit_profile(
        TraceSpec(
            file=traces / "vidur" / "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz",
            format="csv",
            columns={"prompt_tokens": "num_prefill_tokens", "output_tokens": "num_decode_tokens"},
        )
    )
    assert fit.profile["workload"]["users"] == 16
    assert any("no times" in note for note in fit.notes)


def test_a_log_that_supports_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are too few to fit anything"):
        fit_profile(log_of(tmp_path, **KNOWN | {"duration": "20s"}))
