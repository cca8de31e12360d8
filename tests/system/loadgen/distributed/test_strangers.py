"""Whoever reaches the master's port: strangers, garbage, another token; and what workers give to masters they meet."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from tests.kit.command import command, free_port
from tests.kit.machines import PATIENCE_S, Distributed, Ended, killed, load, serving, started, until_line

from tailgate.loadgen.distributed import protocol
from tailgate.loadgen.distributed.seal import MAGIC, Seal

TOKEN = "sesame-42-of-this-run"
HELLO = {
    "version": protocol.VERSION, "protocol": protocol.PROTOCOL, "name": "stranger", "pid": 1, "injectors": 1,
    "alone_s": 5.0,
}  # fmt: skip
GARBAGE = [
    b"\x93\xa5hel", b"", b"\xff" * 2000, b"\x91" * 3000, MAGIC, MAGIC + bytes(200),
    *(msgpack.dumps(message) for message in (
        5, ["heartbeat", None], ["heartbeat", None, "stranger"], ["exception", None, "stranger"],
        ["locustfile", {"version": "2"}, "stranger"], ["client_ready", ["x"], "stranger"], ["stats", {}, "stranger"],
        ["spawning_complete", None, "stranger"], ["quit", None, "someone-else"], [protocol.PING, {}, "stranger"],
        [protocol.HELLO, {**HELLO, "injectors": "many"}, "stranger"], [protocol.HELLO, None, "stranger"],
        [protocol.REPORT, {"message": {"op": "all-ended"}}, "stranger"],
    )),
]  # fmt: skip


class Stranger:
    """A program of somebody else at the master's port."""

    def __init__(self, socket_: zmq.Socket[bytes]) -> None:
        self._socket = socket_

    def say(self, kind: str, data: Any) -> None:
        self.send(msgpack.dumps((kind, data, "stranger")))

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(list(frames))

    def until_answer(self, kind: str, data: Any) -> bytes:
        """The next message for it, asked for again and again."""
        for _ in range(int(PATIENCE_S)):
            self.say(kind, data)
            if self._socket.poll(1000):
                return self._socket.recv()
        raise AssertionError("the master does not answer")

    def everything(self) -> list[bytes]:
        """All that has come, until nothing does for a second."""
        come = []
        while self._socket.poll(1000):
            come.append(self._socket.recv())
        return come


def done(ended: Ended) -> None:
    """The run was done whole. (How well it was measured is for other tests, on a machine that isn't busy.)"""
    assert ended.manifest["state"] == "complete", ended.err
    assert set(ended.requests()["status"].to_pylist()) == {"ok"}
    assert {code for code, _ in ended.workers} == {0}


@contextlib.contextmanager
def stranger_at(address: str) -> Iterator[Stranger]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as own:
        own.setsockopt(zmq.LINGER, 0)
        own.setsockopt(zmq.IDENTITY, b"stranger")
        own.connect(f"tcp://{address}")
        yield Stranger(own)


def test_garbage_is_counted_and_ends_nothing(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, Distributed(tmp_path, load(port, 20, 2), workers=1, late=True) as run:
        with stranger_at(run.address) as stranger:
            assert msgpack.loads(stranger.until_answer(protocol.PING, {"sent": 1}))[0] == protocol.PONG
            for data in GARBAGE:
                stranger.send(data)
            stranger.send(b"too", b"many", b"parts")
            stranger.everything()
            assert msgpack.loads(stranger.until_answer(protocol.PING, {"sent": 2}))[1]["sent"] == 2
            host, port_of_master = run.address.split(":")
            with socket.create_connection((host, int(port_of_master))) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        run.join((), "--name", "\x1b[2K\x1b[31mred\nrun directory /elsewhere")
        ended = run.ended()
    done(ended)
    texts = [event["text"] for event in ended.events if event["kind"] == "worker"]
    count = len(GARBAGE) + 1
    assert sum(text.startswith("the workers' port ignored a message") for text in texts) == 2
    assert any(text.startswith(f"the workers' port ignored {count} messages in all: ") for text in texts)
    assert ended.check("lost_rows")["value"] == 0
    # A worker's name is shown, not obeyed.
    (worker,) = ended.manifest["workers"]
    assert worker["name"] == "\\x1b[2K\\x1b[31mred run directory /elsewhere"
    everything = ended.err + ended.out + ended.workers[0][1] + (ended.run / "events.jsonl").read_text()
    assert "\x1b[2K" not in everything and "\\x1b[2K\\x1b[31mred" in ended.err


def test_with_a_token_a_run_is_done_and_a_stranger_gets_nothing(exact: Path, tmp_path: Path) -> None:
    with serving(exact) as port, Distributed(tmp_path, load(port, 20, 2), 1, token=TOKEN, late=True) as run:
        with stranger_at(run.address) as stranger:
            for kind, data in (("client_ready", "2.40.0"), (protocol.HELLO, HELLO), (protocol.PING, {"sent": 1})):
                assert stranger.until_answer(kind, data) == b"tailgate: another token"
            forged = Seal("another token of somebody", "worker")
            stranger.send(forged.seal(b""))
            stranger.send(forged.seal(msgpack.dumps((protocol.HELLO, HELLO, "stranger")), bytes(16)))
            assert set(stranger.everything()) == {b"tailgate: another token"}
        run.join()
        ended = run.ended()
    done(ended)
    assert [worker["name"] for worker in ended.manifest["workers"]] == ["worker-1"]
    texts = " ".join(event["text"] for event in ended.events)
    assert "a message without the run's token" in texts and "a message with another token" in texts
    said = ended.err + ended.out + "".join(text for _, text in ended.workers)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN not in said and TOKEN.encode() not in files


@pytest.mark.parametrize(
    ("of_master", "of_worker", "told"),
    [
        (TOKEN, "another", "has another token, or none"),
        (TOKEN, "", "asks for a token"),
        ("", TOKEN, "has another token, or none"),
    ],
    ids=["another", "the worker has none", "the master has none"],
)
def test_a_worker_with_another_token_is_told_and_the_master_says_who_tried(
    exact: Path, tmp_path: Path, of_master: str, of_worker: str, told: str
) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with serving(exact) as port:
        flags = ["--expect-workers", "1", "--bind", bind, "--wait", "8s", "--out", str(tmp_path / "run")]
        named = ["--token-env", "TG_TOKEN"]
        master = started(command("run", *load(port, 20, 2), *flags, *(named if of_master else [])), TG_TOKEN=of_master)
        until_line(master, "waiting for 1 workers")
        worker = started(command("worker", "--master", bind, *(named if of_worker else [])), TG_TOKEN=of_worker)
        out, err = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 2
        assert told in err and f"--master {bind}" in err and "Traceback" not in err
        _, err = master.communicate(timeout=PATIENCE_S)
    assert master.returncode == 2
    assert "the workers' port ignored a message" in err and "0 of 1 workers came" in err
    assert "sesame" not in out + err


def test_an_address_that_others_reach_needs_a_token(exact: Path, tmp_path: Path) -> None:
    def said(*flags: str) -> tuple[int, str]:
        master = started(command("run", *load(port, 20, 1), "--expect-workers", "1", "--out", tmp_path / "run", *flags))
        out, err = master.communicate(timeout=PATIENCE_S)
        return master.returncode, out + err

    everywhere = f"0.0.0.0:{free_port()}"
    with serving(exact) as port:
        code, text = said("--bind", everywhere)
        assert code == 2
        assert f"--bind {everywhere}" in text and "--token-env VARIABLE" in text and "waiting" not in text
        code, text = said("--bind", everywhere, "--token-env", "TG_UNSET")
        assert code == 2
        assert "TG_UNSET is not set" in text
    assert not (tmp_path / "run").exists()


def test_the_master_says_how_to_start_a_worker_and_a_worker_elsewhere_needs_a_token(
    exact: Path, tmp_path: Path
) -> None:
    port_of_master = free_port()
    with serving(exact) as port:
        flags = ["--expect-workers", "1", "--bind", f"0.0.0.0:{port_of_master}", "--out", str(tmp_path / "run")]
        master = started(command("run", *load(port, 20, 2), *flags, "--token-env", "TG_TOKEN"), TG_TOKEN=TOKEN)
        line = until_line(master, "waiting for 1 workers")
        assert f"tailgate worker --master {socket.gethostname()}:{port_of_master} --token-env TG_TOKEN" in line
        lacking = started(command("worker", "--master", "192.0.2.1"))
        _, err = lacking.communicate(timeout=PATIENCE_S)
        assert lacking.returncode == 2
        assert "--token-env" in err and "192.0.2.1" in err
        words = ["--master", f"127.0.0.1:{port_of_master}", "--token-env", "TG_TOKEN"]
        worker = started(command("worker", *words), TG_TOKEN=TOKEN)
        _, err = master.communicate(timeout=PATIENCE_S)
        worker.communicate(timeout=PATIENCE_S)
    done(Ended(tmp_path / "run", master.returncode, "", err, [(worker.returncode, "")]))


def test_a_worker_gives_no_variable_that_it_was_not_told_to_give(exact: Path, tmp_path: Path) -> None:
    """Whatever the master names: it names the address to which the value would go as well."""
    bind = f"127.0.0.1:{free_port()}"
    with serving(exact) as port:
        flags = ["--expect-workers", "1", "--bind", bind, "--out", str(tmp_path / "run"), "--api-key-env", "OF_MASTER"]
        master = started(command("run", *load(port, 20, 1), *flags), OF_MASTER="of-the-master-1")
        worker = started(command("worker", "--master", bind), OF_MASTER="of-the-worker-2")
        _, err = master.communicate(timeout=PATIENCE_S)
        _, worker_err = worker.communicate(timeout=PATIENCE_S)
    assert master.returncode == worker.returncode == 2
    for text in (err, worker_err):
        assert "was not told which variable holds it" in text and "OF_MASTER" in text
        assert "of-the" not in text


def worker_of(tmp_path: Path, *after_welcome: bytes) -> tuple[int, dict[str, Any], str]:
    """Exit code of a worker, what it tells a program that plays its master, and what it prints."""
    bind = f"127.0.0.1:{free_port()}"
    told: dict[str, Any] = {}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as master:
        master.setsockopt(zmq.LINGER, 0)
        master.bind(f"tcp://{bind}")
        worker = started(command("worker", "--master", bind, "--spool", tmp_path / "spools"))
        try:
            while "quit" not in told and master.poll(PATIENCE_S * 1000):
                name, data = master.recv_multipart()
                kind, data, _ = msgpack.loads(data)
                answers = {
                    "client_ready": [msgpack.dumps(("ack", {"index": 0}, "master"))],
                    protocol.HELLO: [msgpack.dumps((protocol.WELCOME, {"name": "w"}, "master")), *after_welcome],
                }
                for answer in answers.get(kind, []) if kind not in told else []:
                    master.send_multipart([name, answer])
                told[kind] = data
            _, err = worker.communicate(timeout=PATIENCE_S)
        finally:
            worker.kill()
    return worker.returncode, told, err


def test_a_worker_counts_what_no_master_would_send_and_ends_where_it_fails_itself(tmp_path: Path) -> None:
    garbage = [(protocol.GO, {"t0_unix_ns": "soon"}), (protocol.STORED, None), ("spawn", {}), (5, {})]
    a_folder = (protocol.FILE, {"name": "spool", "offset": 0, "piece": b"x"})
    sent = [msgpack.dumps((*message, "master")) for message in (*garbage, a_folder)]
    code, told, err = worker_of(tmp_path, *sent)
    assert code == 1
    assert told[protocol.REFUSED]["what"].startswith("the worker failed: ") and "spool" in err
    assert "ignored a message that can't be read" in err and "4 messages in all" in err
    assert "Traceback" not in err


# --- a worker ends when its master does -----------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_ends_with_a_master_that_ends_while_it_waits_for_others(
    exact: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with (
        serving(exact) as port,
        Distributed(tmp_path, [*load(port, 20, 2), "--wait", "10m"], workers=2, alone_s=600, late=True) as run,
    ):
        worker = run.join()
        until_line(worker, "joined")
        run.master.send_signal(number)
        _, err = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 1
    assert "the run ended before it began: the command line process of the master is gone" in err


def test_a_worker_does_not_wait_for_a_master_whose_port_is_closed(exact: Path, tmp_path: Path) -> None:
    with (
        serving(exact) as port,
        Distributed(tmp_path, load(port, 20, 600), workers=1, alone_s=600, token=TOKEN) as run,
    ):
        run.until_spooled(0, 1_000)
        killed(run.master)
        out, err = run.worker_processes[0].communicate(timeout=60)
    assert run.worker_processes[0].returncode == 1
    assert f"nobody listens at {run.address} any more" in err and "the load ends here" in err
    assert "kept in" in err and "sesame" not in out + err
