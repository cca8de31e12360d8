"""What a person sees while a run goes on: a live line on a terminal, one line every ten seconds elsewhere."""

from typing import Any

import numpy as np
import pytest

from tailgate.harness.load import progress
from tailgate.harness.load.gpu_watch import in_words
from tailgate.harness.load.progress import Progress, RecentTicks
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.recording.live_stats import LiveStats
from tailgate.loadgen.records import Status


def tick(injector: int = 0, ok: int = 0, failed: int = 0, in_flight: int = 0, **more: Any) -> dict[str, Any]:
    statuses = {"ok": ok, "http_error": failed}
    latencies: dict[str, Any] = {"ttft_ms": [], "itl_ms": [], "e2e_ms": [], "tokens": 0}
    told = {"injector": injector, "statuses": statuses, "in_flight": in_flight, **latencies, **more}
    return {f"{kind}_n": len(told[f"{kind}_ms"]) for kind in ("ttft", "itl", "e2e")} | told


def test_totals_are_of_all_injectors_latest_words() -> None:
    recent = RecentTicks(None)
    recent.add(1.0, tick(0, ok=5, in_flight=2))
    recent.add(1.1, tick(1, ok=7, failed=1, in_flight=3))
    recent.add(2.0, tick(0, ok=9, failed=2, in_flight=1))
    line = recent.line(2.0)
    assert "ok 16" in line and "failed 3" in line and "in flight 4" in line


def test_rates_are_of_the_last_ten_seconds() -> None:
    recent = RecentTicks(np.arange(0.0, 60.0, 0.1))  # 10/s offered
    for second in range(1, 31):
        recent.add(float(second), tick(ok=8 * min(second, 20) + 2 * max(second - 20, 0), tokens=30))
    line = recent.line(30.0)
    assert "offered 10.0/s" in line
    assert "sent 2.5/s" in line  # eleven seconds: one of 8, ten of 2
    assert "33 tokens/s" in line or "30 tokens/s" in line


def test_latencies_are_shown_as_middle_and_tail_and_old_ones_forgotten() -> None:
    recent = RecentTicks(None)
    recent.add(1.0, tick(ttft_ms=[9000.0] * 100))
    recent.add(20.0, tick(ttft_ms=[50.0] * 99 + [80.0], itl_ms=[20.0]))
    assert "TTFT 50/50 ms" in recent.line(20.0)
    assert "ITL 20/20 ms" in recent.line(20.0)


def test_what_was_picked_of_a_busy_second_stands_for_all_of_it() -> None:
    recent = RecentTicks(None)
    recent.add(1.0, tick(ttft_ms=[900.0] * 200, ttft_n=2000))
    recent.add(2.0, tick(ttft_ms=[50.0] * 200))
    recent.add(3.0, tick(ttft_ms=[50.0] * 200))
    assert "TTFT 900/900 ms" in recent.line(3.0)  # 2,000 against 400


def test_a_closed_loop_offers_nothing() -> None:
    recent = RecentTicks(None)
    recent.add(1.0, tick(ok=3))
    assert "offered" not in recent.line(1.0)
    assert "TTFT -" in recent.line(1.0)


def test_the_itl_of_a_second_is_that_of_gaps_and_not_of_answers_means() -> None:
    class Reading:
        contents, output_tokens = 101, 101

    gaps_us = np.array([10_000] * 98 + [500_000] * 2)
    arrivals = np.concatenate([[0], np.cumsum(gaps_us)])
    recent = LiveStats()
    exchange = Exchange(0, "", b"", Reading(), streamed=True)  # type: ignore[arg-type]
    exchange.status, exchange.scheduled_ns = Status.OK, 1_000
    exchange.stream.first_ns, exchange.stream.last_ns = 2_000, 2_000 + int(arrivals[-1]) * 1_000
    exchange.stream.arrivals_us += arrivals.astype(np.uint32).tobytes()
    recent.add(exchange)
    told = recent.tick()["itl_ms"]
    assert sorted(set(told)) == [10.0, 500.0]
    assert np.percentile(told, 50) == 10.0 and np.percentile(told, 99) == 500.0


def waiting(*reads: bytes) -> Exchange:
    """Due at 1 ms; its reads came 100 ms apart, from 101 ms on."""
    exchange = Exchange(0, "", b"", None, streamed=True)  # type: ignore[arg-type]
    exchange.scheduled_ns = 1_000_000
    for k, data in enumerate(reads):
        exchange.stream.pieces += [data] if data else []
        exchange.stream.size += len(data)
        stamp = 101_000_000 + k * 100_000_000
        exchange.stream.received((stamp, stamp, stamp, True))
    return exchange


@pytest.mark.parametrize(
    ("reads", "ttft", "silent"),
    [
        ([], None, None),
        ([b""], None, None),  # a head alone
        ([b"", b": keep-alive\n\n"], None, None),
        ([b"", b": keep-alive\n\n", b'data: {"choices"'], 300.0, 700.0),
        ([b"", b"data: {}\n\n", b"data: {}\n\n", b"data: {}\n\n"], 200.0, 600.0),
    ],
)
def test_what_is_in_flight_is_told_with_how_long_it_waits(
    reads: list[bytes], ttft: float | None, silent: float | None
) -> None:
    told = LiveStats().tick([waiting(*reads)], 1_001_000_000)
    assert told["open"] == [(1_000.0, ttft, silent)]


def test_of_many_in_flight_at_most_200_are_told_evenly() -> None:
    many = [waiting() for _ in range(5_000)]
    for k, exchange in enumerate(many):
        exchange.scheduled_ns = (k + 1) * 1_000_000
    ages = [age for age, _, _ in LiveStats().tick(many, 5_001_000_000)["open"]]
    assert len(ages) == 200
    assert (ages[0], ages[-1]) == (5_000.0, 1.0)
    assert np.median(ages) == pytest.approx(2_500, rel=0.02)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a": {"utilization": 0.87, "power_w": 412.4, "mem_used_bytes": 61 * 2**30}}, "GPU 87 % 412 W 61 GiB"),
        (
            {"a": {"utilization": 0.5, "power_w": 700.0}, "b": {"utilization": 1.0, "power_w": 600.0}},
            "2 GPUs 75 % 1,300 W",
        ),
        ({"a": {"power_w": 70.0, "mem_used_bytes": 2**31}, "MIG-1": {"mem_used_bytes": 2**30}}, "GPU 70 W 2 GiB"),
    ],
)
def test_gpus_are_told_together(now: dict[str, dict[str, float]], words: str) -> None:
    assert in_words(now) == words


def test_where_there_is_no_terminal_one_line_comes_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = Progress()
    shown.began(60.0, None)
    for second in range(1, 36):
        clock[0] = 100.0 + second
        shown.tick(tick(ok=second))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("/60 s")[0].strip() for line in lines] == ["10", "20", "30"]


def line_at(second: float, seconds: float | None, monkeypatch: pytest.MonkeyPatch, *, closing: bool = False) -> str:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown, lines = Progress(), []
    monkeypatch.setattr(shown, "note", lines.append)
    shown.began(seconds, np.arange(0.0, 12.0, 0.1))
    if closing:
        shown.closing()
    clock[0] += second
    shown.tick(tick(ok=5, in_flight=7))
    return lines[-1]


def test_while_requests_are_sent_the_line_says_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert line_at(11.0, 12.0, monkeypatch).startswith("  11/12 s  offered ")


def test_after_that_it_drains_and_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert line_at(51.0, 12.0, monkeypatch).startswith("  51 s  draining  in flight 7  ok 5")


def test_a_load_that_ends_by_number_has_no_length_and_drains_when_the_last_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert line_at(11.0, None, monkeypatch).startswith("  11 s  offered ")
    assert line_at(11.0, None, monkeypatch, closing=True).startswith("  11 s  draining  in flight 7")


# --- on a terminal ------------------------------------------------------------------------------------


def test_a_note_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """It may hold a server's words."""
    Progress().note("first\nrefused: \x1b[1A\x1b[2Kall is well\r\u202e")
    assert capsys.readouterr().err == "first\nrefused: \\x1b[1A\\x1b[2Kall is well\\r\\u202e\n"
