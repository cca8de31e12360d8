"""Later turns are made in time."""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from tests.kit.driving import MS, S, plan

from tailgate.loadgen.injector.api.openai_response import Reading
from tailgate.loadgen.injector.api.request_builder import RequestMaker, Row
from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.dispatcher import Dispatcher
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.schedule.closed_loop import ClosedLoop
from tailgate.loadgen.injector.schedule.open_loop import OpenLoop
from tailgate.loadgen.injector.schedule.plan_share import PlanShare
from tailgate.loadgen.job import Job

ROWS: Sequence[dict[str, Any]] = [
    {"at_ms": None, "session": k // 2, "turn": k % 2, "think_ms": 40.0 * (k % 2)} for k in range(200)
]


class Made(RequestMaker):
    """Makes empty requests and remembers for which rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def exchange(self, row: Row, endpoint: int, *, followed: bool = False) -> Exchange:
        self.rows.append(row.index)
        return Exchange(row.index, "", b"", Reading(chat=False, vllm=True), streamed=True)

    def needs_answers(self, row: Row) -> bool:
        return False

    def readdress(self, exchange: Exchange, endpoint: int) -> None:
        pass


class Sent:
    """A dispatcher that only remembers."""

    def __init__(self) -> None:
        self.last: Exchange

    def least_loaded(self) -> int:
        return 0

    def dispatch(self, exchange: Exchange, due_ns: int) -> None:
        self.last = exchange


def test_a_later_turn_is_made_between_reads_while_its_user_thinks_and_not_when_it_asks() -> None:
    maker, sent = Made(), Sent()
    job = Job(plan="", spool="", injector=0, injectors=1, loop="closed", urls=("x",), api="completions", model="m",
              dialect="vllm", measure_end_ns=S)  # fmt: skip
    share = PlanShare(plan(ROWS))
    feed = ClosedLoop(share, maker, cast(Dispatcher, sent), ClientStats(0), job)
    while feed.prepare(0):
        pass
    assert maker.rows == list(range(0, 128, 2))  # the first 64 sessions' first turns
    feed.dispatch_next(7, 0)
    sent.last.end_ns = 5
    assert feed.ended(sent.last) == (7, 40 * MS)
    assert feed.prepare(0)
    assert maker.rows[-1] == 1
    before = list(maker.rows)
    feed.dispatch_next(7, 45 * MS)
    assert (sent.last.index, maker.rows) == (1, before)


class Timers:
    """A loop that runs nothing by itself."""

    def __init__(self) -> None:
        self.set: list[tuple[int, Callable[[], None]]] = []

    def at(self, deadline_ns: int, callback: Callable[[], None]) -> None:
        self.set.append((deadline_ns, callback))

    def ring(self, until_ns: int) -> None:
        due = sorted((timer for timer in self.set if timer[0] <= until_ns), key=lambda timer: timer[0])
        self.set = [timer for timer in self.set if timer[0] > until_ns]
        for _, callback in due:
            callback()


@pytest.mark.parametrize(
    ("think_ms", "while_in_flight", "while_thinking"), [(0.0, [1], []), (10.0, [1], []), (500.0, [], [1])]
)
def test_in_the_open_loop_a_later_turn_is_made_before_its_time(
    think_ms: float, while_in_flight: list[int], while_thinking: list[int]
) -> None:
    maker, sent, timers = Made(), Sent(), Timers()
    rows = [{"at_ms": 0.0, "session": 5}, {"at_ms": None, "session": 5, "turn": 1, "think_ms": think_ms}]
    job = Job(plan="", spool="", injector=0, injectors=1, loop="open", urls=("x",), api="completions", model="m",
              dialect="vllm", measure_end_ns=S)  # fmt: skip
    feed = OpenLoop(cast(EventLoop, timers), PlanShare(plan(rows)), maker, cast(Dispatcher, sent), job)

    def made_now() -> list[int]:
        before = len(maker.rows)
        while feed.prepare(time.monotonic_ns()):
            pass
        return maker.rows[before:]

    assert made_now() == [0]
    began = time.monotonic_ns() - MS
    feed.start(0, began)
    timers.ring(began)
    assert sent.last.index == 0
    assert made_now() == while_in_flight
    sent.last.end_ns = 100 * MS
    feed.ended(sent.last)
    due = began + int((100 + think_ms) * MS)
    timers.ring(due - 1)
    assert made_now() == while_thinking
    assert not feed.finished
    timers.ring(due)
    assert (sent.last.index, maker.rows) == (1, [0, 1])
    assert feed.finished
