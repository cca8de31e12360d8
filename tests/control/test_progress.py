"""The line that a person sees while a run goes on."""

from typing import Any

import numpy as np

from harness.progress import Recent


def tick(injector: int = 0, ok: int = 0, failed: int = 0, in_flight: int = 0, **more: Any) -> dict[str, Any]:
    statuses = {"ok": ok, "http_error": failed}
    latencies: dict[str, Any] = {"ttft_ms": [], "itl_ms": [], "e2e_ms": [], "tokens": 0}
    return {"injector": injector, "statuses": statuses, "in_flight": in_flight, **latencies, **more}


def test_totals_are_of_all_injectors_latest_words() -> None:
    recent = Recent(None)
    recent.add(1.0, tick(0, ok=5, in_flight=2))
    recent.add(1.1, tick(1, ok=7, failed=1, in_flight=3))
    recent.add(2.0, tick(0, ok=9, failed=2, in_flight=1))
    line = recent.line(2.0)
    assert "ok 16" in line and "failed 3" in line and "in flight 4" in line


def test_rates_are_of_the_last_ten_seconds() -> None:
    recent = Recent(np.arange(0.0, 60.0, 0.1))  # 10/s offered
    for second in range(1, 31):
        recent.add(float(second), tick(ok=8 * min(second, 20) + 2 * max(second - 20, 0), tokens=30))
    line = recent.line(30.0)
    assert "offered 10.0/s" in line
    assert "sent 2.5/s" in line  # eleven seconds: one of 8, ten of 2
    assert "33 tokens/s" in line or "30 tokens/s" in line


def test_latencies_are_shown_as_middle_and_tail_and_old_ones_forgotten() -> None:
    recent = Recent(None)
    recent.add(1.0, tick(ttft_ms=[9000.0] * 100))
    recent.add(20.0, tick(ttft_ms=[50.0] * 99 + [80.0], itl_ms=[20.0]))
    assert "TTFT 50/50 ms" in recent.line(20.0)
    assert "ITL 20/20 ms" in recent.line(20.0)


def test_a_closed_loop_offers_nothing() -> None:
    recent = Recent(None)
    recent.add(1.0, tick(ok=3))
    assert "offered" not in recent.line(1.0)
    assert "TTFT -" in recent.line(1.0)
