"""The kill switch: what trips it, what doesn't, and what a stopped run leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import SIM, Tailgate

from harness.abort import KillSwitch
from workloads.errors import UserError


def tick(ok: int = 0, failed: int = 0, ttft_ms: list[float] | None = None) -> dict[str, Any]:
    statuses = {"ok": ok, "http_error": failed}
    return {"injector": 0, "statuses": statuses, "ttft_ms": ttft_ms or [], "itl_ms": [], "e2e_ms": []}


def test_an_error_share_beyond_the_limit_trips_it() -> None:
    switch = KillSwitch({"errors": "5%"}, None)
    assert switch.tick(tick(ok=95, failed=5), 1) is None
    why = switch.tick(tick(ok=94, failed=6), 2)
    assert why is not None and "errors" in why and "6.0%" in why


def test_a_first_failure_does_not_trip_it() -> None:
    assert KillSwitch({"errors": "5%"}, None).tick(tick(ok=3, failed=1), 1) is None


def test_a_tail_beyond_the_limit_trips_it_once_there_are_enough_values() -> None:
    switch = KillSwitch({"ttft": "p99 > 1s"}, None)
    assert switch.tick(tick(ttft_ms=[5_000.0] * 100), 1) is None
    for second in range(2, 12):
        why = switch.tick(tick(ttft_ms=[5_000.0] * 100), second)
    assert why is not None and "5,000 ms" in why


def test_latencies_older_than_half_a_minute_are_forgotten() -> None:
    switch = KillSwitch({"ttft": "p50 > 1s"}, None)
    switch.tick(tick(ttft_ms=[5_000.0] * 19), 0)
    assert switch.tick(tick(ttft_ms=[10.0] * 200), 31) is None


def test_spend_is_elapsed_time_at_the_price() -> None:
    switch = KillSwitch({"spend": "$5"}, 3600.0)
    assert switch.tick(tick(), 4.9) is None
    assert "spend" in str(switch.tick(tick(), 5.0))


NONSENSE = [
    ({"spend": "$5"}, "price"),
    ({"spend": "five"}, "five"),
    ({"ttft": "p99 < 1s"}, "ttft"),
    ({"attained": ">= 9%"}, "9%"),
]


@pytest.mark.parametrize(("rules", "word"), NONSENSE)
def test_a_condition_that_makes_no_sense_is_refused(rules: dict[str, str], word: str) -> None:
    with pytest.raises(UserError, match=word):
        KillSwitch(rules, None)


def test_a_run_that_is_stopped_keeps_and_marks_what_it_has(tailgate: Tailgate, tmp_path: Path) -> None:
    spec = f"""
name: doomed
target: {{kind: sim, sim: {SIM.removeprefix("sim:")}}}
workload: {{prompt_tokens: 32, output_tokens: 8, arrivals: {{process: poisson, rate: 40/s}}, duration: 120s}}
abort_if: {{e2e: p50 > 1ms}}
"""
    (tmp_path / "doomed.yaml").write_text(spec)
    said = tailgate("run", "doomed.yaml", "--out", "run", "--json")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["state"] == "aborted"
    assert "abort_if" in manifest["state_reason"]
    assert said.code not in (0, 2)
    statuses = said.summary["load"]["requests"]
    assert statuses["ok"] > 0 and statuses["not_sent"] > 0
