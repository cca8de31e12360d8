"""Planned abandonment: who hangs up, when, and what becomes of it."""

import threading
from pathlib import Path

from tests.kit import scripted
from tests.kit.driving import MS, S, drive
from tests.kit.scripted import CHUNKED, Peer, Request, ScriptedServer, answer_ok, chunk, event, token

from tailgate.loadgen.injector.api.request_builder import Patience


class Waiter:
    """Answers with one token, then nothing; when each client hung up."""

    def __init__(self) -> None:
        self.hung_up: dict[int, int] = {}
        self.all = threading.Event()

    def __call__(self, peer: Peer, request: Request) -> None:
        if request.index % 2 == 0:
            peer.send(CHUNKED + chunk(event(token())))
        self.hung_up[request.index] = peer.wait_hung_up()


def test_users_hang_up_when_their_patience_ends_and_the_server_sees_it(tmp_path: Path) -> None:
    waiter = Waiter()
    patience = Patience("uniform(0, 1)", 1.0, 3)
    waits = [patience.ns(k) for k in range(8)]
    with ScriptedServer(waiter) as server:
        job = {"patience": "uniform(0, 1)", "patience_seed": 3}
        outcome = drive(tmp_path, [server.url], [{"at_ms": 5.0 * k} for k in range(8)], **job)
    for index, row in outcome.records.items():
        wait = waits[index]
        assert wait is not None
        assert (row["status"], row["error"], row["hung_up"]) == ("cancelled", "hung up as planned", "patience")
        assert wait <= row["end_ns"] - row["scheduled_ns"] < wait + 300 * MS
        assert row["chunks"] == (1 if index % 2 == 0 else 0)
        assert waiter.hung_up[index] >= row["scheduled_ns"] + outcome.t0_ns + wait


def test_an_answer_in_time_is_not_abandoned(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 5.0 * k} for k in range(5)], patience="20")
    assert list(outcome.statuses().values()) == ["ok"] * 5


def test_only_the_planned_share_hangs_up(tmp_path: Path) -> None:
    patience = Patience("0.2", 0.5, 0)
    impatient = {k for k in range(12) if patience.ns(k) is not None}
    assert 0 < len(impatient) < 12

    def answer(peer: Peer, request: Request) -> None:
        if request.index in impatient:
            peer.wait_hung_up()
        else:
            peer.send(scripted.ok())

    with ScriptedServer(answer) as server:
        job = {"patience": "0.2", "patience_share": 0.5}
        outcome = drive(tmp_path, [server.url], [{"at_ms": 5.0 * k} for k in range(12)], **job)
    assert {k for k, status in outcome.statuses().items() if status == "cancelled"} == impatient


def test_the_shorter_of_patience_and_timeout_decides(tmp_path: Path) -> None:
    with ScriptedServer(Waiter()) as server:
        first = drive(tmp_path / "a", [server.url], [{}], patience="30", timeout_ns=200 * MS)
        second = drive(tmp_path / "b", [server.url], [{}], patience="0.2", timeout_ns=30 * S)
    assert (first.records[0]["status"], second.records[0]["status"]) == ("timeout", "cancelled")
