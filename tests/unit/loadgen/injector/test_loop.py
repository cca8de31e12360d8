"""The event loop by itself: deadlines, batches, descriptors that come and go."""

import os
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.injector.event_loop import READABLE, WRITABLE, EventLoop

MS = 1_000_000


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


@given(st.lists(st.integers(-1_000_000, 3 * MS), max_size=20))
def test_deadlines_are_met_in_order_and_never_early(offsets: list[int]) -> None:
    loop = EventLoop()
    rung: list[tuple[int, int]] = []
    start = time.monotonic_ns()
    for offset in offsets:
        loop.at(start + offset, lambda offset=offset: rung.append((offset, time.monotonic_ns())))  # type: ignore[misc]
    loop.at(start + 3 * MS, loop.stop)
    loop.run()
    loop.close()
    assert [offset for offset, _ in rung] == sorted(offsets)
    assert all(at >= start + offset for offset, at in rung)


def test_equal_deadlines_are_met_in_the_order_they_were_set(loop: EventLoop) -> None:
    rung: list[int] = []
    at = time.monotonic_ns() + MS
    for k in range(5):
        loop.at(at, lambda k=k: rung.append(k))  # type: ignore[misc]
    loop.at(at, loop.stop)
    loop.run()
    assert rung == [0, 1, 2, 3, 4]


def test_a_deadline_set_by_a_deadline_is_met(loop: EventLoop) -> None:
    start = time.monotonic_ns()
    loop.at(start + MS, lambda: loop.at(start + 2 * MS, loop.stop))
    loop.run()
    assert time.monotonic_ns() >= start + 2 * MS


@pytest.mark.parametrize("past", [0, 1, -5])
def test_a_deadline_that_has_passed_rings_at_once(loop: EventLoop, past: int) -> None:
    loop.at(past, loop.stop)
    loop.run()  # does not hang


def test_a_handler_may_close_what_is_ready_in_the_same_batch(loop: EventLoop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def close_the_other(mine: int) -> None:
        called.append(mine)
        pairs[mine][0].recv(1)
        loop.unwatch(pairs[1 - mine][0].fileno())
        pairs[1 - mine][0].close()
        loop.stop()

    for k, (ours, theirs) in enumerate(pairs):
        loop.watch(ours.fileno(), lambda _mask, k=k: close_the_other(k))  # type: ignore[misc]
        theirs.send(b"x")
    loop.run()
    assert len(called) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_what_was_ready_on_a_closed_descriptor_is_not_taken_for_its_successor_s(loop: EventLoop) -> None:
    """The successor has the same number; being told `ready` would make it believe that it is connected."""
    first, theirs = socket.socketpair()
    second, theirs_too = socket.socketpair()
    number = second.fileno()
    told: list[int] = []
    quiet: list[socket.socket] = []

    def replace(_mask: int) -> None:
        first.recv(1)
        loop.unwatch(number)
        second.close()
        for end in socket.socketpair():
            quiet.append(end)
        if quiet[0].fileno() != number:
            os.dup2(quiet[0].fileno(), number)
        loop.watch(number, told.append, READABLE)
        loop.at(time.monotonic_ns() + MS, loop.stop)

    loop.watch(first.fileno(), replace)
    loop.watch(number, told.append)
    theirs.send(b"x")
    theirs_too.send(b"x")
    # Both are ready now, and the kernel reports them in the order in which they became so.
    loop.run()
    assert told == []
    for sock in (first, theirs, theirs_too, *quiet):
        sock.close()


def test_both_directions_are_told_apart(loop: EventLoop) -> None:
    ours, theirs = socket.socketpair()
    masks: list[int] = []

    def ready(mask: int) -> None:
        masks.append(mask)
        if mask & READABLE:
            loop.stop()
        else:
            loop.change(ours.fileno(), ready, READABLE)
            theirs.send(b"x")

    loop.watch(ours.fileno(), ready, READABLE | WRITABLE)
    loop.run()
    assert masks == [WRITABLE, READABLE]
    ours.close()
    theirs.close()


def test_idle_work_is_done_between_events_without_delaying_them(loop: EventLoop) -> None:
    ours, theirs = socket.socketpair()
    work = iter(range(10**9))
    loop.idle = lambda _now_ns: next(work) >= 0  # there is always more to do
    loop.watch(ours.fileno(), lambda _mask: loop.stop())
    theirs.send(b"x")
    loop.run()
    assert next(work) <= 3
    ours.close()
    theirs.close()


def test_the_longest_turn_is_measured(loop: EventLoop) -> None:
    loop.at(time.monotonic_ns(), lambda: time.sleep(0.03))
    loop.at(time.monotonic_ns() + 40 * MS, loop.stop)
    loop.run()
    assert loop.take_turn_max() >= 30 * MS


def test_what_did_not_fit_into_a_batch_has_waited_since_the_batch(loop: EventLoop) -> None:
    """A hundred sockets become ready at once and each takes a millisecond: the last waited for all others."""
    pairs = [socket.socketpair() for _ in range(100)]
    waited: list[tuple[int, int]] = []  # what the loop says at least, what it was
    written = 0

    def read(ours: socket.socket) -> None:
        ours.recv(1)
        now = time.time_ns()
        waited.append((now - loop.unseen_since_ns, now - written))
        while time.time_ns() < now + MS:
            pass
        if len(waited) == len(pairs):
            loop.stop()

    def write() -> None:
        nonlocal written
        for _, theirs in pairs:
            theirs.send(b"x")
        written = time.time_ns()

    for ours, _ in pairs:
        loop.watch(ours.fileno(), lambda _mask, ours=ours: read(ours))  # type: ignore[misc]
    loop.at(time.monotonic_ns() + 5 * MS, write)
    loop.run()
    assert all(said >= true for said, true in waited)
    assert waited[-1][1] >= 99 * MS
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_loop_with_requests_in_flight_looks_round_each_beat(loop: EventLoop) -> None:
    loop.attend(True)
    ours, theirs = socket.socketpair()
    said: list[int] = []

    def read(_mask: int) -> None:
        ours.recv(1)
        said.append(time.time_ns() - loop.unseen_since_ns)
        if len(said) == 40:
            loop.stop()
        else:
            loop.at(time.monotonic_ns() + 3 * MS, lambda: theirs.send(b"x"))

    loop.watch(ours.fileno(), read)
    theirs.send(b"x")
    loop.run()
    assert min(said) < MS  # without a beat the least would be the 3 ms between two writes
    ours.close()
    theirs.close()


def test_an_alarm_that_rings_early_is_set_again(loop: EventLoop) -> None:
    """Cores' clocks may differ by nanoseconds; a deadline must not be lost over it."""
    due = time.monotonic_ns() + 20 * MS
    loop.at(due, loop.stop)
    early = loop._alarm.set

    def set_early(deadline_ns: int) -> None:
        loop._alarm.set = early  # type: ignore[method-assign]
        early(deadline_ns - 10 * MS)

    loop._alarm.set = set_early  # type: ignore[method-assign]
    loop.run()  # does not hang
    assert time.monotonic_ns() >= due
