"""The injector's life and its ends: drain, stop, hang-ups, kill -9, a full disk. What was measured is kept."""

import resource
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.kit import scripted
from tests.kit.driving import MS, Driven, S, drive, read_spool
from tests.kit.scripted import CHUNKED, Peer, Request, ScriptedServer, answer_ok, chunk, event, token

from tailgate.reports.rundir.spool import is_closed, whole_batches


def never(peer: Peer, _request: Request) -> None:
    """One token, then silence."""
    peer.send(CHUNKED + chunk(event(token())))
    peer.wait_hung_up()


def quick_then_never(peer: Peer, request: Request) -> None:
    if request.index < 3:
        peer.send(scripted.ok())
    else:
        never(peer, request)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


ROWS = [{"at_ms": 2.0 * k} for k in range(6)] + [{"at_ms": 60_000.0}] * 2


def test_what_is_in_flight_when_the_drain_ends_is_a_timeout(tmp_path: Path) -> None:
    with ScriptedServer(quick_then_never) as server:
        outcome = drive(tmp_path, [server.url], ROWS[:6], measure_end_ns=300 * MS, drain_ns=400 * MS)
    assert outcome.statuses() == {0: "ok", 1: "ok", 2: "ok", 3: "timeout", 4: "timeout", 5: "timeout"}
    for index in (3, 4, 5):
        row = outcome.records[index]
        assert "drain" in row["error"]
        assert 700 * MS <= row["end_ns"] < 3 * S
        assert row["chunks"] == 1  # what came is kept
    assert outcome.exit_code == 0


def test_a_stop_cancels_what_is_in_flight_and_sends_nothing_more(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        wait_for(lambda: len(server.requests) == 6)
        driven.tell(op="stop", why="the run was interrupted")

    with ScriptedServer(quick_then_never) as server:
        outcome = drive(tmp_path, [server.url], ROWS, meanwhile)
    assert {index for index, status in outcome.statuses().items() if status == "cancelled"} == {3, 4, 5}
    assert outcome.records[3]["error"] == "the run was interrupted"
    assert [outcome.records[index]["hung_up"] for index in range(6)] == [None] * 3 + ["stopped"] * 3
    assert sorted(outcome.records) == [0, 1, 2, 3, 4, 5]  # the rows that were never due have no record
    assert outcome.exit_code == 0


def test_the_sockets_of_cancelled_requests_are_closed(tmp_path: Path) -> None:
    hung_up: list[int] = []

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED)
        hung_up.append(peer.wait_hung_up())

    def meanwhile(driven: Driven) -> None:
        wait_for(lambda: len(server.requests) == 1)
        driven.tell(op="stop", why="enough")

    with ScriptedServer(answer) as server:
        drive(tmp_path, [server.url], [{}], meanwhile)
        wait_for(lambda: hung_up)


def test_the_end_of_the_control_socket_ends_the_load(tmp_path: Path) -> None:
    with ScriptedServer(quick_then_never) as server, Driven(tmp_path, [server.url], ROWS) as driven:
        driven.prepare()
        driven.go()
        wait_for(lambda: len(server.requests) == 6)
        driven.hang_up()
        assert driven.process.wait(10) == 0
        statuses = [row["status"] for _, row in sorted(driven.records().items())]
    assert statuses == ["ok"] * 3 + ["cancelled"] * 3
    assert is_closed(tmp_path / "spool" / "injector-0.arrows")


def test_an_injector_without_a_job_ends_with_its_controller(tmp_path: Path) -> None:
    with Driven(tmp_path, [], []) as driven:
        driven.hang_up()
        assert driven.process.wait(10) == 0


def test_sigterm_ends_the_load_and_keeps_what_was_measured(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        wait_for(lambda: len(server.requests) == 6)
        driven.process.terminate()

    with ScriptedServer(quick_then_never) as server:
        outcome = drive(tmp_path, [server.url], ROWS, meanwhile)
    assert list(outcome.statuses().values()) == ["ok"] * 3 + ["cancelled"] * 3
    assert outcome.exit_code == 0


def test_ctrl_c_is_left_to_the_harness(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        wait_for(lambda: server.requests)
        driven.process.send_signal(signal.SIGINT)

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 300.0}], meanwhile)
    assert outcome.statuses() == {0: "ok", 1: "ok"}


def test_kill_9_leaves_a_readable_prefix_that_misses_half_a_second_at_most(tmp_path: Path) -> None:
    answered: dict[int, int] = {}

    def answer(peer: Peer, request: Request) -> None:
        peer.send(scripted.ok())
        answered[request.index] = time.time_ns()

    rows = [{"at_ms": 10.0 * k} for k in range(600)]
    with ScriptedServer(answer) as server, Driven(tmp_path, [server.url], rows) as driven:
        driven.prepare()
        driven.go()
        wait_for(lambda: len(answered) > 150)
        driven.process.kill()
        driven.process.wait(10)
        killed = time.time_ns()
        records = driven.records()
    # Half a second, and what a busy machine may add.
    due = {index for index, at in answered.items() if at < killed - 800 * MS}
    assert len(due) > 40
    assert due <= set(records)
    assert not is_closed(tmp_path / "spool" / "injector-0.arrows")
    assert sum(batch.num_rows for batch in whole_batches(tmp_path / "spool" / "injector-0.arrows")) == len(records)


def test_a_spool_cut_at_any_byte_is_a_readable_prefix(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 60.0 * k} for k in range(30)])
    data = (tmp_path / "spool" / "injector-0.arrows").read_bytes()
    cut = tmp_path / "cut.arrows"
    lengths = []
    for size in range(0, len(data), 97):
        cut.write_bytes(data[:size])
        lengths.append(len(read_spool(cut)))
    assert lengths == sorted(lengths)
    assert lengths[0] == 0 and 0 < lengths[-1] <= len(outcome.records)
    assert len(set(lengths)) > 2  # there were several batches


@pytest.mark.parametrize("which", ["injector-0.arrows", "client-0.arrows"])
def test_a_full_disk_at_the_start_is_refused_before_any_load(tmp_path: Path, which: str) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / which).symlink_to("/dev/full")
    with ScriptedServer(answer_ok) as server, Driven(tmp_path, [server.url], [{}]) as driven:
        refusal = driven.prepare()
    assert refusal["op"] == "refused"
    assert "No space left" in refusal["what"]
    assert server.connections == 0


def test_a_disk_that_fills_up_ends_the_run_with_a_message_and_a_readable_prefix(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writes are cut short and then fail."""
    rows = [{"at_ms": 4.0 * k} for k in range(2_000)]
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], rows, limits={resource.RLIMIT_FSIZE: 60_000})
    assert outcome.end["failure"].startswith("can't write records: ")
    assert outcome.exit_code == 0
    assert 20 < len(outcome.records) < 2_000
    assert max(outcome.records) < len(outcome.records) + 32  # the first ones, but for answers that overtook others
    assert len(server.requests) < 2_000  # it does not go on measuring what it can't keep
    path = tmp_path / "spool" / "injector-0.arrows"
    assert sum(batch.num_rows for batch in whole_batches(path)) == len(outcome.records)


def test_records_are_spooled_while_the_run_goes_on(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        wait_for(lambda: 0 in driven.records())
        driven.tell(op="stop")

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], ROWS[:1] + ROWS[6:], meanwhile)
    assert outcome.statuses() == {0: "ok"}


def test_an_empty_share_ends_at_once(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"session": 0}], injector=1, injectors=2)
    assert outcome.records == {}
    assert outcome.exit_code == 0


@pytest.mark.parametrize(
    ("urls", "job", "said"),
    [
        (["ftp://127.0.0.1"], {}, "not an http:// or https:// URL"),
        (["http://127.0.0.1:99999"], {}, "not an http:// or https:// URL"),
        (["http://[::1"], {}, "not an http:// or https:// URL"),
        (["http://no-such-host.invalid"], {}, "can't resolve"),
        (["https://127.0.0.1"], {"trust": {"ca": "/no/such/file"}}, "certificates"),
        (["http://127.0.0.1"], {"patience": "lognormal(1)"}, "lognormal"),
    ],
)
def test_a_job_that_can_t_be_done_is_refused_with_a_reason(
    tmp_path: Path, urls: list[str], job: dict[str, Any], said: str
) -> None:
    from tailgate.loadgen.injector.http.endpoint import Trust

    if "trust" in job:
        job = {**job, "trust": Trust(**job["trust"])}
    with Driven(tmp_path, urls, [{}], job) as driven:
        refusal = driven.prepare()
        assert driven.process.wait(10) == 1
    assert refusal["op"] == "refused", refusal
    assert said in refusal["what"]


def test_two_runs_of_a_plan_send_the_same_bytes(tmp_path: Path) -> None:
    bodies = []
    for k in range(2):
        with ScriptedServer(answer_ok) as server:
            drive(tmp_path / str(k), [server.url], [{"prompt_tokens": 50 + j} for j in range(5)])
        bodies.append({request.index: request.body for request in server.requests})
    assert bodies[0] == bodies[1]


def test_a_controller_that_does_not_read_its_messages_stops_nothing(tmp_path: Path) -> None:
    release = threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(scripted.ok())
        if len(server.requests) == 3_000:
            release.set()

    with ScriptedServer(answer) as server:
        rows = [{"at_ms": 0.5 * k} for k in range(3_000)]
        with Driven(tmp_path, [server.url], rows) as driven:
            driven.prepare()
            driven.go()
            assert release.wait(30)
            outcome = driven.finish()
    assert len(outcome.records) == 3_000


def test_a_controller_that_is_killed_ends_the_load_whatever_was_being_said(tmp_path: Path) -> None:
    """The message that finds the socket dead is in the middle of a request's end."""
    rows = [{"at_ms": None, "session": k} for k in range(100)]
    job = {"loop": "closed", "measure_end_ns": 60 * S}
    hang_up = threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        hang_up.wait(20)
        peer.send(scripted.ok())

    with ScriptedServer(answer) as server, Driven(tmp_path, [server.url], rows, job) as driven:
        driven.prepare()
        driven.go()
        driven.tell(op="dispatch-next", user=0, at=time.time_ns())
        wait_for(lambda: server.requests)
        driven.process.send_signal(signal.SIGSTOP)  # so that it learns of the end by its own `done`
        driven.hang_up()
        hang_up.set()
        wait_for(lambda: not server.peers[0]._rest)
        driven.process.send_signal(signal.SIGCONT)
        assert driven.process.wait(10) == 0
    assert is_closed(tmp_path / "spool" / "injector-0.arrows")
