"""What calibration makes of what it saw, and what a plan is told of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tailgate.harness.calibrate.ladder import _judged
from tailgate.harness.cli.calibrate import line
from tailgate.harness.config.run_spec import RunSpec, WorkersSpec
from tailgate.harness.host import calibration
from tailgate.harness.run.preflight import beyond_calibration, busiest
from tailgate.workloads.plan.plan import Plan

pytestmark = pytest.mark.alone


def summary(
    ttft_p99: float | None = 50.1, itl_p99: float | None = 20.1, broken: str = "", *,
    ttft_p50: float | None = 50.0, itl_p50: float | None = 20.0, failed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    lag = {"p50": 0.1, "p99": 0.2, "max": 1.0}
    return {
        "latency_ms": {"ttft_from_send": {"p50": ttft_p50, "p99": ttft_p99}, "itl": {"p50": itl_p50, "p99": itl_p99}},
        "errors": {"failed": failed},
        "checks": [{"name": broken, "status": "fail"}] if broken else [],
        "client": {"dispatch_lag_ms": lag, "receive_lag_ms": lag, "cpu_fraction_max": 0.5},
    }


def calibrated(**changed: Any) -> calibration.Calibration:
    made = calibration.Calibration(10_000.0, 500.0, False, False, 1, "2026-01-01T00:00:00+00:00", [])
    return replace(made, **changed)


def test_a_step_on_the_truth_is_honest() -> None:
    step = _judged(100, 50, summary(), 0.1)
    assert step.honest
    assert step.ttft_error_p99 == pytest.approx(0.1)
    assert step.chunks_per_s == 5000


def test_a_step_off_the_truth_or_invalid_is_not_and_says_why() -> None:
    assert _judged(100, 50, summary(ttft_p99=60.0), 0.1).why == "off the truth"
    assert _judged(100, 50, summary(ttft_p99=60.0), 9.0).why == "the null server itself was late"
    assert _judged(100, 50, summary(broken="receive_lag"), 0.1).why == "receive_lag"
    assert _judged(100, 50, summary(ttft_p50=90.0), 0.1).why == "off the truth"
    assert _judged(100, 50, summary(itl_p50=0.0), 0.1).why == "off the truth"
    assert _judged(100, 50, summary(failed=3), 0.1).why == "3 requests failed"


def test_a_step_whose_tails_are_not_known_is_not_honest() -> None:
    assert "ttft p99" in _judged(20, 50, summary(ttft_p99=None), 0.1).why
    assert "itl p99" in _judged(20, 50, summary(itl_p99=None), 0.1).why
    assert _judged(20, 1, summary(itl_p99=None, itl_p50=None), 0.1).honest  # one token has no gap


@pytest.mark.parametrize(
    ("chunks_open", "requests_open", "words"),
    [
        (False, False, "up to 10,000 chunks/s and 500 requests/s"),
        (True, True, "at least 10,000 chunks/s and 500 requests/s"),
        (True, False, "at least 10,000 chunks/s and up to 500 requests/s"),
    ],
)
def test_the_line_says_whether_a_limit_was_found(chunks_open: bool, requests_open: bool, words: str) -> None:
    assert line(calibrated(chunks_open=chunks_open, requests_open=requests_open)) == (
        f"this machine measures honestly {words}"
    )


def test_a_calibration_is_found_again_on_the_same_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = calibrated()
    calibration.save(made)
    assert calibration.load(1) == made
    assert calibration.load(4) is None  # with four injectors it may be able to do more, or less
    monkeypatch.setattr(calibration, "host_key", lambda: "another")
    assert calibration.load(1) is None


def test_a_plan_beyond_70_percent_of_the_calibration_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration.warning(1e6, 1e6, 1) is None
    calibration.save(calibrated())
    assert calibration.warning(100, 6_900, 1) is None
    assert "chunks/s" in str(calibration.warning(100, 7_100, 1))
    assert "requests/s" in str(calibration.warning(360, 1_000, 1))
    assert calibration.warning(1e6, 1e6, 2) is None


def test_where_no_limit_was_found_only_a_plan_beyond_all_that_was_tried_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration.save(calibrated(chunks_open=True))
    assert calibration.warning(100, 9_900, 1) is None
    assert "more than this machine was calibrated with" in str(calibration.warning(100, 10_100, 1))


def plan_of(at_s: list[float], tokens: int, sessions: list[int] | None = None) -> Plan:
    table = pa.table(
        {
            "at_ns": pa.array([round(at * 1e9) for at in at_s], pa.int64()),
            "session": sessions or list(range(len(at_s))),
            "output_tokens": [tokens] * len(at_s),
        }
    )
    return Plan(table, "", "", "open", (), 16, 100.0)


def test_a_plan_is_judged_by_its_busiest_second_and_not_by_its_mean() -> None:
    burst = [50.0 + k / 1000 for k in range(200)]
    assert busiest(plan_of(burst, 1), 1) == (200, pytest.approx(200))
    # 200 tokens take four seconds: 50 chunks a second each.
    requests, chunks = busiest(plan_of(burst, 200), 1)
    assert requests == 200 and chunks == pytest.approx(10_000, rel=0.01)


def test_of_several_injectors_the_busiest_decides() -> None:
    burst = [50.0 + k / 1000 for k in range(200)]
    assert busiest(plan_of(burst, 1, [0] * 200), 4) == (800, pytest.approx(800))
    assert busiest(plan_of(burst, 1), 4) == (200, pytest.approx(200))


def test_where_other_machines_send_this_one_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calibration.save(calibrated(chunks_per_s=1.0))
    workload = {"prompt_tokens": 8, "output_tokens": 8, "arrivals": {"process": "poisson", "rate": 5}, "duration": 10}
    spec = RunSpec.model_validate({"target": {"url": "http://x"}, "workload": workload})
    assert beyond_calibration(spec, plan_of([1.0], 100)) is not None
    workers = WorkersSpec(expect=2)
    assert beyond_calibration(spec.model_copy(update={"workers": workers}), plan_of([1.0], 100)) is None
