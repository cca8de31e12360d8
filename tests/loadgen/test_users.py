"""The closed loop as an injector sees it: users who ask, come back late, leave, and their next turns made in time."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from driving import MS, Driven, S, drive, plan
from scripted import ScriptedServer, answer_ok

from loadgen.injector.closed_loop import ClosedLoop
from loadgen.injector.conduct import Conduct
from loadgen.injector.dialect import Reading
from loadgen.injector.dispatch import Dispatcher
from loadgen.injector.exchange import Exchange
from loadgen.injector.plan import Share
from loadgen.injector.request import RequestMaker, Row
from loadgen.job import Job
from loadgen.records import LAG_EDGES_NS

ROWS: Sequence[dict[str, Any]] = [
    {"at_ms": None, "session": k // 2, "turn": k % 2, "think_ms": 40.0 * (k % 2)} for k in range(200)
]
CLOSED: dict[str, Any] = {"loop": "closed", "measure_end_ns": 60 * S}


def ways_back(client: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Of each way back the bounds of its bucket, ns."""
    counts = sum(np.array(row["turnaround_lag"], np.int64) for row in client)
    upper = np.append(LAG_EDGES_NS[1:], 1 << 62)
    slots = np.repeat(np.arange(len(LAG_EDGES_NS)), counts)
    return [(float(LAG_EDGES_NS[slot]), float(upper[slot])) for slot in slots]


def test_how_late_a_user_comes_back_is_booked_from_its_last_request_s_end_and_its_thinking(tmp_path: Path) -> None:
    asked: list[int] = []

    def meanwhile(driven: Driven) -> None:
        for late_ms in (0, 300, 3_000):
            asked.append(time.time_ns() + late_ms * MS)
            driven.tell(op="hand", user=0, at=asked[-1])
            driven.until("done")
        driven.tell(op="left", user=0)
        driven.tell(op="finish", open=[])

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], ROWS, meanwhile, **CLOSED)
    ended = [outcome.t0_ns + outcome.records[k]["end_ns"] for k in range(3)]
    think = [40 * MS, 0]  # before the second turn; before the next session
    true = sorted(asked[k + 1] - ended[k] - think[k] for k in range(2))
    found = ways_back(outcome.client)
    assert len(found) == 2
    for (low, high), lag in zip(found, true, strict=True):
        assert low <= lag < high


def test_who_has_not_come_back_by_the_end_is_as_late_as_that(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        for user in range(3):
            driven.tell(op="hand", user=user, at=time.time_ns())
        for _ in range(3):
            driven.until("done")
        driven.tell(op="left", user=2)  # a ramp took it away: it is not late
        while time.time_ns() < driven.t0_ns + 600 * MS:
            time.sleep(0.01)
        driven.tell(op="finish", open=[])

    with ScriptedServer(answer_ok) as server:
        rows = [{**row, "turn": 0, "session": k} for k, row in enumerate(ROWS)]
        outcome = drive(tmp_path, [server.url], rows, meanwhile, **{**CLOSED, "measure_end_ns": 500 * MS})
    ended = sorted(outcome.records[k]["end_ns"] for k in (0, 1))
    found = ways_back(outcome.client)
    assert len(found) == 2
    for (low, high), end in zip(found, reversed(ended), strict=True):
        assert low <= 500 * MS - end < high  # not beyond the planned end


class Made(RequestMaker):
    """Makes empty requests and remembers for which rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def exchange(self, row: Row, endpoint: int, *, followed: bool = False) -> Exchange:
        self.rows.append(row.index)
        return Exchange(row.index, "", b"", Reading(chat=False, vllm=True), streamed=True)

    def readdress(self, exchange: Exchange, endpoint: int) -> None:
        pass


class Sent:
    """A dispatcher that only remembers."""

    def __init__(self) -> None:
        self.last: Exchange

    def dispatch(self, exchange: Exchange, due_ns: int) -> None:
        self.last = exchange


def test_a_later_turn_is_made_between_reads_while_its_user_thinks_and_not_when_it_asks() -> None:
    maker, sent = Made(), Sent()
    job = Job(plan="", spool="", injector=0, injectors=1, loop="closed", urls=("x",), api="completions", model="m",
              dialect="vllm", measure_end_ns=S)  # fmt: skip
    share = Share(plan(ROWS))
    feed = ClosedLoop(share, maker, cast(Dispatcher, sent), Conduct(0), job)
    while feed.prepare(0):
        pass
    assert maker.rows == list(range(0, 128, 2))  # the first 64 sessions' first turns
    feed.hand_over(7, 0)
    sent.last.end_ns = 5
    assert feed.ended(sent.last) == (7, 40 * MS)
    assert feed.prepare(0)
    assert maker.rows[-1] == 1
    before = list(maker.rows)
    feed.hand_over(7, 45 * MS)
    assert (sent.last.index, maker.rows) == (1, before)
