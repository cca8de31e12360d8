"""When things happened: dispatch by the plan, arrival by the kernel, and the injector's own books.

A figure that a busy machine could move is held only from the side that stays true on one: a stamp lies
between two readings of the clock, something is not early, a stopped process is late and says so.
"""

import os
import signal
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.kit import scripted
from tests.kit.driving import MS, Driven, S, drive
from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, answer_ok, at_times, chunk, event
from tests.kit.wire import REQUEST, endpoint

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.records import CLIENT_SCHEMA, LAG_EDGES_NS

pytestmark = pytest.mark.alone

EVENTS = [chunk(event(payload)) for payload in scripted.payloads(5)]
# A send over loopback has been stamped by the kernel when it returns, give or take a softirq put off.
SLACK = 20 * MS


class Ticker:
    """Answers with a token every 30 ms; between which two clock readings each was sent."""

    def __init__(self) -> None:
        self.spans: dict[int, list[tuple[int, int]]] = {}

    def __call__(self, peer: Peer, request: Request) -> None:
        start = time.time_ns() + 40 * MS
        peer.send(CHUNKED)
        tokens = EVENTS[:5]
        self.spans[request.index] = at_times(peer, [start + 30 * MS * k for k in range(5)], tokens)
        peer.send(*EVENTS[5:], END)


def test_arrivals_are_those_of_the_kernel(tmp_path: Path) -> None:
    ticker = Ticker()
    with ScriptedServer(ticker) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 20.0 * k} for k in range(4)])
    for index, row in outcome.records.items():
        arrived = [row["first_token_ns"] + outcome.t0_ns + 1_000 * us for us in row["arrivals_us"]]
        for at, (before, after) in zip(arrived, ticker.spans[index], strict=True):
            assert before - 1_000 <= at <= after + SLACK  # arrivals are kept to the microsecond
        assert row["first_token_ns"] + outcome.t0_ns >= ticker.spans[index][0][0]
        assert row["last_token_ns"] + outcome.t0_ns == pytest.approx(arrived[-1], abs=1_000)


def test_a_stopped_injector_still_has_the_right_time_of_a_token(tmp_path: Path) -> None:
    """The proof that stamps are the kernel's: the token comes while nobody can read it."""
    sent: list[tuple[int, int]] = []
    stopped, continued = threading.Event(), threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED)
        stopped.wait(20)
        sent.extend(at_times(peer, [time.time_ns()], [EVENTS[0]]))
        continued.wait(20)
        peer.send(*EVENTS[1:], END)

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        os.kill(driven.process.pid, signal.SIGSTOP)
        stopped.set()
        time.sleep(0.5)
        os.kill(driven.process.pid, signal.SIGCONT)
        driven.until("tick")  # it has gone round its loop, and has read what was there
        continued.set()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}], meanwhile)
    row = outcome.records[0]
    assert sent[0][0] <= row["first_token_ns"] + outcome.t0_ns <= sent[0][1] + SLACK
    assert row["receive_lag_max_ns"] >= 400 * MS  # and it says that it read late


def test_tokens_read_late_and_together_are_marked_as_our_fault(tmp_path: Path) -> None:
    stopped, sent = threading.Event(), threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED)
        stopped.wait(20)
        at_times(peer, [time.time_ns() + 10 * MS * k for k in range(5)], EVENTS[:5])
        sent.set()
        peer.send(*EVENTS[5:], END)

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        os.kill(driven.process.pid, signal.SIGSTOP)
        stopped.set()
        sent.wait(20)
        time.sleep(0.05)
        os.kill(driven.process.pid, signal.SIGCONT)

    with ScriptedServer(answer) as server:
        row = drive(tmp_path, [server.url], [{}], meanwhile).records[0]
    assert (row["client_coalesced"], row["server_coalesced"], row["first_token_coalesced"]) == (5, 0, True)


def test_tokens_the_server_sends_together_are_not_our_fault(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED, b"".join(EVENTS[:5]), b"".join(EVENTS[5:]) + END)

    with ScriptedServer(answer) as server:
        # On a busy machine a read may really be late; the best of several is not.
        outcome = drive(tmp_path, [server.url], [{"at_ms": 30.0 * k} for k in range(10)])
    assert (5, 0) in {(row["server_coalesced"], row["client_coalesced"]) for row in outcome.records.values()}


def test_requests_leave_at_their_planned_times_never_before(tmp_path: Path) -> None:
    at_ms = [0.0, 1.0, 1.5, 40.0, 41.0, 200.0, 200.0, 333.3]
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": at} for at in at_ms])
    for at, (_, row) in zip(at_ms, sorted(outcome.records.items()), strict=True):
        assert row["scheduled_ns"] == int(at * MS)
        assert row["dispatched_ns"] >= row["scheduled_ns"] - 50_000  # two clocks are read one after the other
    lags = sorted(row["dispatched_ns"] - row["scheduled_ns"] for row in outcome.records.values())
    assert lags[len(lags) // 2] < 5 * MS


def test_the_marks_of_a_request_are_in_their_order(tmp_path: Path) -> None:
    with ScriptedServer(Ticker()) as server:
        row = drive(tmp_path, [server.url], [{}]).records[0]
    marks = ["dispatched_ns", "connect_start_ns", "connected_ns", "sent_ns", "headers_ns", "first_token_ns",
             "first_answer_ns", "last_token_ns", "end_ns"]  # fmt: skip
    times = [row[name] for name in marks]
    assert times == sorted(times)


def test_a_stopped_injector_sends_everything_late_and_says_so(tmp_path: Path) -> None:
    rows = [{"at_ms": 50.0 * k} for k in range(20)]

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        os.kill(driven.process.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(driven.process.pid, signal.SIGCONT)

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], rows, meanwhile)
    assert list(outcome.statuses().values()) == ["ok"] * 20  # none was skipped
    assert [outcome.records[k]["scheduled_ns"] for k in range(20)] == [50 * MS * k for k in range(20)]  # nor moved
    lags = [outcome.records[k]["dispatched_ns"] - outcome.records[k]["scheduled_ns"] for k in range(20)]
    assert max(lags) > 400 * MS
    assert sum(lag > 50 * MS for lag in lags) >= 8
    late = sum(np.array(row["dispatch_lag"]) for row in outcome.client)
    assert late[LAG_EDGES_NS > 50 * MS].sum() >= 8  # the injector's own books say the same


def test_the_injector_s_books_agree_with_the_records(tmp_path: Path) -> None:
    def answer(peer: Peer, request: Request) -> None:
        if request.index % 5 == 4:
            peer.reset()
            return
        time.sleep(0.01 * (request.index % 7))
        peer.send(CHUNKED, EVENTS[0])
        time.sleep(0.03)
        peer.send(*EVENTS[1:], END)

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 25.0 * k} for k in range(60)])
    rows = outcome.records.values()
    residence = sum(row["end_ns"] - row["dispatched_ns"] for row in rows)
    booked = sum(row["in_flight_ns"] for row in outcome.client)
    assert booked == residence  # to the nanosecond: both have the same readings of the clock
    assert sum(row["dispatched"] for row in outcome.client) == 60
    assert sum(row["finished"] for row in outcome.client) == 60
    assert sum(row["bytes"] for row in outcome.client) == sum(row["bytes_received"] for row in rows)
    for row in outcome.client:
        assert sum(row["receive_lag"]) == row["reads"]
        assert sum(row["dispatch_lag"]) == row["dispatched"]


def test_the_books_agree_to_the_nanosecond_however_busy_the_machine_and_short_the_requests(tmp_path: Path) -> None:
    """Requests that fail at once, while the injector is held up again and again."""

    def meanwhile(driven: Driven) -> None:
        for _ in range(15):
            os.kill(driven.process.pid, signal.SIGSTOP)
            time.sleep(0.02)
            os.kill(driven.process.pid, signal.SIGCONT)
            time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    outcome = drive(tmp_path, [nobody], [{"at_ms": 2.0 * k} for k in range(200)], meanwhile)
    assert set(outcome.statuses().values()) == {"connect_error"}
    residence = sum(row["end_ns"] - row["dispatched_ns"] for row in outcome.records.values())
    assert sum(row["in_flight_ns"] for row in outcome.client) == residence
    assert sum(row["finished"] for row in outcome.client) == 200


class Misdated(Exchange):
    """Its record says that it ended when it began."""

    __slots__ = ("_end_ns",)

    @property
    def end_ns(self) -> int | None:
        return self._end_ns and self.dispatched_ns

    @end_ns.setter
    def end_ns(self, value: int | None) -> None:
        self._end_ns = value


def test_the_injector_s_books_don_t_take_the_records_word_for_when_a_request_ended() -> None:
    loop, booked = EventLoop(), ClientStats(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dispatcher = Dispatcher(loop, [endpoint(listener.getsockname())], 1, booked, lambda _it: loop.stop(), S)
        booked.start(time.time_ns())
        exchange = Misdated(0, "tg-0", REQUEST, Reading(chat=False, vllm=True), streamed=True)
        dispatcher.dispatch(exchange, time.time_ns())
        server, _ = listener.accept()
        loop.at(time.monotonic_ns() + 100 * MS, lambda: server.sendall(scripted.ok()))
        loop.run()
        server.close()
        dispatcher.close()
    loop.close()
    row = dict(zip(CLIENT_SCHEMA.names, booked.close_interval(0), strict=True))
    assert exchange.end_ns == exchange.dispatched_ns
    assert 100 * MS <= row["in_flight_ns"] < 10 * S


def test_the_injector_s_seconds_cover_the_run_without_gaps(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 2_300.0}])
    ends = [row["t_ns"] + row["dur_ns"] for row in outcome.client]
    assert [row["t_ns"] for row in outcome.client[1:]] == ends[:-1]
    assert ends[-1] >= 2_300 * MS
    assert len(outcome.client) == 3


def test_a_held_up_injector_writes_one_row_for_the_whole_gap(tmp_path: Path) -> None:
    """Several rows of no length would show a thread that is busy all the time."""

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        os.kill(driven.process.pid, signal.SIGSTOP)
        time.sleep(2.6)
        os.kill(driven.process.pid, signal.SIGCONT)

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 3_900.0}], meanwhile)
    assert max(row["dur_ns"] for row in outcome.client) > 2 * S
    assert all(row["dur_ns"] > 100 * MS for row in outcome.client[:-1])


def test_user_space_stamps_are_marked_and_know_how_late_they_may_be(tmp_path: Path) -> None:
    ready: list[dict[str, Any]] = []
    stopped, continued = threading.Event(), threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED)
        stopped.wait(20)
        peer.send(EVENTS[0])
        continued.wait(20)
        peer.send(*EVENTS[1:], END)

    def meanwhile(driven: Driven) -> None:
        ready.extend(message for message in driven.messages if message["op"] == "ready")
        while not server.requests:
            time.sleep(0.001)
        os.kill(driven.process.pid, signal.SIGSTOP)
        stopped.set()
        time.sleep(0.3)
        os.kill(driven.process.pid, signal.SIGCONT)
        continued.set()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}], meanwhile, stamps="user")
    assert ready[0]["stamps"] is False
    assert outcome.end["unstamped"] == outcome.end["reads"] > 0
    row = outcome.records[0]
    gaps = [b - a for a, b in pairwise(row["arrivals_us"])]
    assert row["status"] == "ok" and min(gaps) >= 0
    lags = sum(np.array(row["receive_lag"]) for row in outcome.client)
    assert lags.sum() == outcome.end["reads"]
    # The token came while the process was stopped inside its poll, which looks like sleep from within.
    assert row["receive_lag_max_ns"] >= 290 * MS
    assert lags[LAG_EDGES_NS >= 280 * MS].sum() >= 1


def test_kernel_stamps_are_the_rule_where_the_kernel_gives_them(tmp_path: Path) -> None:
    with ScriptedServer(Ticker()) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 10.0 * k} for k in range(5)])
    ready = next(message for message in outcome.messages if message["op"] == "ready")
    if not ready["stamps"]:
        pytest.skip("this kernel gives no receive stamps")
    assert outcome.end["unstamped"] == 0
