"""Acknowledging several tokens at once: which servers it is done to, and one that it would slow is left alone."""

import socket
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from tests.kit import scripted
from tests.kit.driving import MS, drive
from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, at_times, chunk, event

from tailgate.loadgen.injector.http import AVAILABLE

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not AVAILABLE, reason="acknowledgements are delayed by the compiled reader only"),
]

TOKENS = 30
EVENTS = [chunk(event(payload)) for payload in scripted.payloads(TOKENS)]


class Steady:
    """A token every 15 ms; with Nagle's algorithm the system holds them back while one is not acknowledged."""

    def __init__(self, *, nagle: bool) -> None:
        self.nagle = nagle

    def __call__(self, peer: Peer, _request: Request) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not self.nagle)
        start = time.time_ns() + 20 * MS
        peer.send(CHUNKED)
        at_times(peer, [start + 15 * MS * k for k in range(TOKENS)], EVENTS[:TOKENS])
        peer.send(*EVENTS[TOKENS:], END)


def gaps_ms(row: dict) -> list[float]:
    return [(b - a) / 1000 for a, b in pairwise(row["arrivals_us"])]


def test_a_server_that_waits_for_acknowledgements_is_seen_and_left_alone_from_then_on(tmp_path: Path) -> None:
    rows = [{"at_ms": 700.0 * k, "output_tokens": TOKENS} for k in range(6)]
    with ScriptedServer(Steady(nagle=True)) as server:
        outcome = drive(tmp_path, [server.url], rows)
    assert outcome.end["acks_delayed"] is True and outcome.end["waiting_peers"] == [server.url]
    longest = [max(gaps_ms(outcome.records[k])[:4]) for k in range(6)]
    assert min(longest[:3]) >= 38  # one token of each answer waited for its acknowledgement
    assert min(longest[3:]) < 35


def test_a_server_that_sends_at_once_is_not_taken_for_one(tmp_path: Path) -> None:
    with ScriptedServer(Steady(nagle=False)) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 300.0 * k, "output_tokens": TOKENS} for k in range(3)])
    assert outcome.end["acks_delayed"] is True and outcome.end["waiting_peers"] == []
    assert median(gaps_ms(outcome.records[0])) == pytest.approx(15, abs=3)


def test_never_is_never(tmp_path: Path) -> None:
    with ScriptedServer(Steady(nagle=True)) as server:
        outcome = drive(tmp_path, [server.url], [{"output_tokens": TOKENS}], delayed_acks="never")
    assert outcome.end["acks_delayed"] is False and outcome.end["waiting_peers"] == []
