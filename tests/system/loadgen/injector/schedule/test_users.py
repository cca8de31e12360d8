"""Users as an injector sees them: who asks, comes back late, leaves; and later turns that are made in time."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.kit.driving import MS, Driven, S, drive
from tests.kit.scripted import Peer, Request, ScriptedServer, answer_ok

from tailgate.loadgen.records import LAG_EDGES_NS

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
            driven.tell(op="dispatch-next", user=0, at=asked[-1])
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
            driven.tell(op="dispatch-next", user=user, at=time.time_ns())
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


def ask(driven: Driven, user: int, number: int, **more: Any) -> None:
    """A user of a locustfile wants a body sent: their request of that number."""
    now = time.time_ns()
    body = {"model": "m", "prompt": "x", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    told = {
        "class": "A", "turn": 0, "api": "completions", "output_tokens": 3, "body": body, "at": now, "after": 0,
        "woke": now,
    }  # fmt: skip
    driven.tell(op="dispatch-body", user=user, number=number, **{**told, **more})


def over(driven: Driven, numbers: Sequence[int]) -> None:
    for number in numbers:
        driven.tell(op="settled", number=number)
    driven.tell(op="finish", open=[])


def test_of_a_locustfile_s_users_only_the_answer_s_way_to_them_is_ours(tmp_path: Path) -> None:
    woke: list[int] = []

    def meanwhile(driven: Driven) -> None:
        ask(driven, 0, 1)
        driven.until("done")
        woke.append(time.time_ns())
        ask(driven, 0, 2, at=woke[0] + 5 * S, after=1, woke=woke[0])  # its own code took five seconds
        driven.until("done")
        over(driven, [1, 2])

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [], meanwhile, loop="locustfile", measure_end_ns=60 * S)
    ((low, high),) = ways_back(outcome.client)
    assert low <= woke[0] - outcome.t0_ns - outcome.records[0]["end_ns"] < high


def test_a_locustfile_s_users_have_a_patience_that_ends(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        ask(driven, 0, 1)
        driven.until("done")
        over(driven, [1])

    with ScriptedServer(lambda peer, _request: peer.wait_hung_up() and None) as server:
        outcome = drive(
            tmp_path, [server.url], [], meanwhile, loop="locustfile", measure_end_ns=60 * S, patience="0.2"
        )  # fmt: skip
    assert outcome.statuses() == {0: "cancelled"}
    assert 200 * MS <= outcome.records[0]["end_ns"] - outcome.records[0]["handed_over_ns"] < 2 * S


def test_a_locustfile_s_requests_avoid_a_server_that_is_stuck_whichever_api_they_ask(tmp_path: Path) -> None:
    release = threading.Event()

    def stuck(peer: Peer, request: Request) -> None:
        release.wait(20)
        answer_ok(peer, request)

    def meanwhile(driven: Driven) -> None:
        ask(driven, 0, 1)  # falls to the first server
        for user in range(1, 6):
            ask(driven, user, 1 + user)
            driven.until("done")
        release.set()
        driven.until("done")
        over(driven, range(1, 7))

    with ScriptedServer(stuck) as first, ScriptedServer(answer_ok) as second:
        drive(
            tmp_path, [first.url, second.url], [], meanwhile, loop="locustfile", measure_end_ns=60 * S,
            balance="least-in-flight",
        )  # fmt: skip
    assert (len(first.requests), len(second.requests)) == (1, 5)
