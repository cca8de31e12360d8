"""The control socket inside the loop: messages whole whatever the split, never a wait for the other end."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.injector.control_socket import ControlSocket
from tailgate.loadgen.injector.event_loop import EventLoop


class Pair:
    """A line and the socket of its other end."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        ours, self.theirs = socket.socketpair()
        self.taken: list[dict[str, Any]] = []
        self.gone = 0
        self.line = ControlSocket(self.loop, ours, self.taken.append, self._on_gone)

    def _on_gone(self) -> None:
        self.gone += 1
        self.loop.stop()

    def turn(self) -> None:
        """One turn of the loop that finds something to do."""
        self.loop.idle = lambda _now_ns: (self.loop.stop(), True)[1]  # type: ignore[func-returns-value]
        self.loop.run()

    def close(self) -> None:
        self.line.close()
        self.theirs.close()
        self.loop.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@given(st.lists(st.dictionaries(st.text(), st.integers(-(2**53), 2**53)), max_size=5), st.data())
def test_messages_come_whole_whatever_the_split(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    pair = Pair()
    wire = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    at = sorted(data.draw(st.sets(st.integers(1, max(len(wire) - 1, 1)), max_size=6)))
    for begin, end in zip([0, *at], [*at, len(wire)], strict=True):
        if wire[begin:end]:
            pair.theirs.sendall(wire[begin:end])
            pair.turn()
    assert pair.taken == messages
    pair.close()


def test_an_end_of_stream_is_told_once(pair: Pair) -> None:
    pair.theirs.close()
    pair.loop.run()
    pair.line.send({"op": "late"})
    assert pair.gone == 1


def test_sending_to_a_peer_that_is_gone_tells_it_and_raises_nothing(pair: Pair) -> None:
    pair.theirs.close()
    pair.line.send({"op": "tick"})
    assert pair.gone == 1


def test_a_slow_reader_gets_everything_and_holds_nobody_up(pair: Pair) -> None:
    sent = [{"op": "tick", "n": n, "text": "x" * 1_000} for n in range(2_000)]
    for message in sent:  # 2 MB: more than a socket's buffer takes; returns at once all the same
        pair.line.send(message)
    received = b""
    pair.theirs.setblocking(False)
    while received.count(b"\n") < len(sent):
        pair.turn()
        try:
            received += pair.theirs.recv(1 << 16)
        except BlockingIOError:
            continue
    assert [json.loads(line) for line in received.splitlines()] == sent


def test_what_is_left_is_delivered_when_the_line_is_closed(pair: Pair) -> None:
    import threading

    for n in range(1_000):
        pair.line.send({"n": n, "text": "x" * 1_000})
    got: list[bytes] = []

    def read() -> None:
        while data := pair.theirs.recv(1 << 16):
            got.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    pair.line.close()
    reader.join(10)
    assert b"".join(got).count(b"\n") == 1_000
