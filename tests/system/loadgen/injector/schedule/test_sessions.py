"""Whose turn it is: sessions, shards, several targets, the closed loop."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.kit import scripted
from tests.kit.driving import MS, Driven, S, drive
from tests.kit.scripted import Peer, Request, ScriptedServer, answer_ok, chunk, event, head, token

TURNS = [
    {"at_ms": 0.0, "session": 7, "turn": 0},
    {"at_ms": None, "session": 7, "turn": 1, "think_ms": 120.0},
    {"at_ms": None, "session": 7, "turn": 2, "think_ms": 0.0},
    {"at_ms": 10.0, "session": 8, "turn": 0},
    {"at_ms": None, "session": 8, "turn": 1, "think_ms": 30.0},
]


def slowly(peer: Peer, request: Request) -> None:
    time.sleep(0.05)
    peer.send(scripted.ok())


def test_a_turn_is_due_when_its_predecessor_has_ended_and_the_user_has_thought(tmp_path: Path) -> None:
    with ScriptedServer(slowly) as server:
        records = drive(tmp_path, [server.url], TURNS, measure_end_ns=S).records
    for before, after, think_ms in ((0, 1, 120), (1, 2, 0), (3, 4, 30)):
        assert records[after]["scheduled_ns"] == records[before]["end_ns"] + think_ms * MS
        assert records[after]["dispatched_ns"] >= records[after]["scheduled_ns"] - 50_000
    assert [records[k]["status"] for k in range(5)] == ["ok"] * 5


def test_a_failed_turn_does_not_end_its_session(tmp_path: Path) -> None:
    def answer(peer: Peer, request: Request) -> None:
        peer.reset() if request.index == 0 else peer.send(scripted.ok())

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], TURNS[:3], measure_end_ns=S)
    assert outcome.statuses() == {0: "reset", 1: "ok", 2: "ok"}


def test_the_run_ends_as_soon_as_the_last_answer_is_there(tmp_path: Path) -> None:
    with ScriptedServer(slowly) as server:
        outcome = drive(tmp_path, [server.url], TURNS, measure_end_ns=300 * MS, drain_ns=60 * S)
    assert outcome.end["end_ns"] < 10 * S


@pytest.mark.parametrize("injectors", [2, 3])
def test_the_injectors_shares_are_the_plan_and_a_session_stays_together(tmp_path: Path, injectors: int) -> None:
    rows = [{"at_ms": 5.0 * k if k % 2 == 0 else None, "session": k // 2, "turn": k % 2} for k in range(24)]
    sent: dict[int, set[int]] = {}
    with ScriptedServer(answer_ok) as server:
        for k in range(injectors):
            folder = tmp_path / str(k)
            outcome = drive(folder, [server.url], rows, injector=k, injectors=injectors, measure_end_ns=S)
            sent[k] = set(outcome.records)
            assert {row["injector"] for row in outcome.records.values()} == {k}
            assert {rows[index]["session"] % injectors for index in sent[k]} == {k}
    assert sorted(index for part in sent.values() for index in part) == list(range(24))


# --- several targets ----------------------------------------------------------------------------------


def test_several_targets_take_turns_by_the_row_s_index(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as one, ScriptedServer(answer_ok) as two, ScriptedServer(answer_ok) as three:
        urls = [one.url, two.url, three.url]
        outcome = drive(tmp_path, urls, [{"at_ms": 2.0 * k} for k in range(9)])
    assert [outcome.records[k]["endpoint"] for k in range(9)] == urls * 3
    assert [len(server.requests) for server in (one, two, three)] == [3, 3, 3]


def test_least_in_flight_avoids_a_target_that_is_stuck(tmp_path: Path) -> None:
    everything = threading.Event()

    def stuck(peer: Peer, _request: Request) -> None:
        everything.wait(20)
        peer.send(scripted.ok())

    def meanwhile(_driven: Driven) -> None:
        while len(stuck_one.requests) + len(free.requests) < 12:
            time.sleep(0.005)
        everything.set()

    with ScriptedServer(stuck) as stuck_one, ScriptedServer(answer_ok) as free:
        # Far enough apart for the free one to have answered.
        rows = [{"at_ms": 60.0 * k} for k in range(12)]
        outcome = drive(tmp_path, [stuck_one.url, free.url], rows, meanwhile, balance="least-in-flight")
    assert list(outcome.statuses().values()) == ["ok"] * 12
    assert (len(stuck_one.requests), len(free.requests)) == (1, 11)
    hosts = {request.headers["host"] for request in free.requests}
    assert hosts == {free.url.removeprefix("http://")}


# --- the closed loop ----------------------------------------------------------------------------------


class Users:
    """Plays Locust: each user asks for its next request when it is told that the last one is done."""

    def __init__(self, driven: Driven, users: int, requests: int) -> None:
        self.driven, self.left = driven, requests
        self.done: list[dict[str, Any]] = []
        self.asked: dict[int, list[int]] = {user: [] for user in range(users)}

    def play(self) -> None:
        for user in self.asked:
            self.ask(user)
        while self.in_flight:
            message = self.driven.until("done")
            self.done.append(message)
            self.in_flight -= 1
            self.ask(message["user"])
        self.driven.tell(op="finish")

    in_flight = 0

    def ask(self, user: int) -> None:
        if self.left:
            self.left -= 1
            self.in_flight += 1
            at = time.time_ns()
            self.asked[user].append(at)
            self.driven.tell(op="dispatch-next", user=user, at=at)


def closed(folder: Path, urls: Sequence[str], rows: list[dict[str, Any]], users: int, requests: int, **job: Any) -> Any:
    played: list[Users] = []

    def meanwhile(driven: Driven) -> None:
        played.append(Users(driven, users, requests))
        played[0].play()

    # The plan's beginning; what is made ahead of the users' asking comes from further rows.
    further = [{"session": 1_000 + k} for k in range(100)]
    untimed = [{**row, "at_ms": None} for row in [*rows, *further]]
    return drive(folder, urls, untimed, meanwhile, loop="closed", measure_end_ns=60 * S, **job), played[0]


def test_a_user_s_next_request_goes_out_when_its_last_has_ended(tmp_path: Path) -> None:
    with ScriptedServer(slowly) as server:
        outcome, users = closed(tmp_path, [server.url], [{}] * 12, users=3, requests=12)
    assert outcome.statuses() == dict.fromkeys(range(12), "ok")
    assert sorted(m["user"] for m in users.done) == [0] * 4 + [1] * 4 + [2] * 4
    assert max(row["in_flight_max"] for row in outcome.client) == 3
    for row in outcome.records.values():
        assert row["scheduled_ns"] is None
        assert row["dispatched_ns"] >= row["handed_over_ns"]


def test_hand_over_times_are_those_of_the_users(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome, users = closed(tmp_path, [server.url], [{}] * 6, users=2, requests=6)
    handed = sorted(row["handed_over_ns"] + outcome.t0_ns for row in outcome.records.values())
    assert handed == sorted(at for asked in users.asked.values() for at in asked)


def test_a_user_keeps_to_its_session_and_is_told_how_long_to_think(tmp_path: Path) -> None:
    rows = [{"session": k // 3, "turn": k % 3, "think_ms": 10.0 * (k % 3)} for k in range(36)]
    with ScriptedServer(answer_ok) as server:
        outcome, users = closed(tmp_path, [server.url], rows, users=2, requests=12)
    turns = sorted(divmod(index, 3) for index in outcome.records)  # (session, turn)
    assert len(turns) == 12
    assert all(turn == 0 or (session, turn - 1) in turns for session, turn in turns)
    next_think = {0: 10 * MS, 1: 20 * MS, 2: 0}
    assert Counter(m["think_ns"] for m in users.done) == Counter(next_think[turn] for _, turn in turns)
    for session, turn in turns:
        if turn:
            before, after = outcome.records[3 * session + turn - 1], outcome.records[3 * session + turn]
            assert before["end_ns"] <= after["handed_over_ns"] <= after["dispatched_ns"]


def test_a_user_is_told_of_a_failure(tmp_path: Path) -> None:
    with ScriptedServer(lambda peer, _request: peer.reset()) as server:
        outcome, users = closed(tmp_path, [server.url], [{}] * 3, users=1, requests=3)
    assert outcome.statuses() == dict.fromkeys(range(3), "reset")
    assert [message["ok"] for message in users.done] == [False] * 3


def test_a_closed_loop_of_so_many_requests_ends_when_its_server_says_nothing_any_more(tmp_path: Path) -> None:
    """One token, then silence: its users would wait until somebody comes."""

    def meanwhile(driven: Driven) -> None:
        for user in range(2):
            driven.tell(op="dispatch-next", user=user, at=time.time_ns())
        stalled = driven.until("stalled", "end")
        assert stalled["why"] == "the server sent nothing for 1 s"
        driven.until("done")
        driven.until("done")
        driven.tell(op="finish", open=[])

    def one_token(peer: Peer, _request: Request) -> None:
        peer.send(scripted.CHUNKED + chunk(event(token())))
        peer.wait_hung_up()

    rows = [{"at_ms": None, "session": k} for k in range(100)]
    with ScriptedServer(one_token) as server:
        outcome = drive(
            tmp_path, [server.url], rows, meanwhile, loop="closed", measure_end_ns=3600 * S, stall_ns=1 * S
        )  # fmt: skip
    assert outcome.statuses() == {0: "timeout", 1: "timeout"}
    assert outcome.end["end_ns"] < 20 * S
    assert outcome.records[0]["chunks"] == 1


def test_a_slow_answer_that_goes_on_coming_is_not_taken_for_silence(tmp_path: Path) -> None:
    def slow(peer: Peer, _request: Request) -> None:
        peer.send(scripted.CHUNKED)
        for _ in range(7):
            time.sleep(0.4)
            peer.send(chunk(event(token())))
        peer.send(chunk(event(token(finish="stop"))), chunk(event(b"[DONE]")), scripted.END)

    def meanwhile(driven: Driven) -> None:
        driven.tell(op="dispatch-next", user=0, at=time.time_ns())
        driven.until("done")
        driven.tell(op="finish", open=[])

    rows = [{"at_ms": None, "session": k} for k in range(100)]
    with ScriptedServer(slow) as server:
        outcome = drive(
            tmp_path, [server.url], rows, meanwhile, loop="closed", measure_end_ns=3600 * S, stall_ns=1 * S
        )  # fmt: skip
    assert outcome.statuses() == {0: "ok"}


def test_ties_of_least_in_flight_fall_to_each_server_in_its_turn(tmp_path: Path) -> None:
    """Requests that never meet: all servers are equally free whenever one is due."""
    with ScriptedServer(answer_ok) as first, ScriptedServer(answer_ok) as second, ScriptedServer(answer_ok) as third:
        rows = [{"at_ms": 60.0 * k} for k in range(9)]
        urls = [server.url for server in (first, second, third)]
        drive(tmp_path, urls, rows, balance="least-in-flight")
    assert [len(server.requests) for server in (first, second, third)] == [3, 3, 3]


def test_a_refused_key_is_told_of_at_most_once_a_second(tmp_path: Path) -> None:
    with ScriptedServer(lambda peer, _r: peer.send(head(401, "Content-Length: 0"))) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 5.0 * k} for k in range(20)])
    assert sum(message["op"] == "unauthorized" for message in outcome.messages) == 1


def test_a_closed_loop_has_deadlines_from_the_hand_over(tmp_path: Path) -> None:
    with ScriptedServer(lambda peer, _request: peer.wait_hung_up() and None) as server:
        outcome, _ = closed(tmp_path, [server.url], [{}] * 2, users=1, requests=2, timeout_ns=200 * MS)
    for row in outcome.records.values():
        assert row["status"] == "timeout"
        assert 200 * MS <= row["end_ns"] - row["handed_over_ns"] < 2 * S
