"""One machine of a distributed run: joins a master, gets its shard, sends its share of the load and its records.

Started by `tailgate worker`. Its records are spooled in a folder of its own first; the master acknowledges what it
holds, and nothing is deleted before that. When the master has ended, or has not been heard of for `alone_s`, the load
ends: nobody watches it any more.
"""

import locust  # isort: skip  # noqa: F401 - first of all: it patches sockets for gevent

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import AsyncResult, Event
from locust.env import Environment

from tailgate.loadgen.control.address import is_private
from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.control.coordinator import Coordinator
from tailgate.loadgen.control.injectors import Injectors
from tailgate.loadgen.control.run_setup import RunSetup
from tailgate.loadgen.distributed import protocol
from tailgate.loadgen.distributed.master_link import MasterLink, wait_for_any
from tailgate.loadgen.distributed.seal import Seal, read_token
from tailgate.loadgen.distributed.shard import LocalInputs, load_classes, make_job
from tailgate.loadgen.distributed.transfer import FileReceiver, RecordSender
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.formatting import visible

_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.25
_PINGS: Final = 12
_PING_EVERY_S: Final = 5.0
_LAST_PINGS: Final = 3
_SHIP_S: Final = 60.0
# A master that has been silent for so long (it has heartbeats each second) may have ended.
_ENDED_S: Final = 4.0

_FAILED: Final = 1  # or lost its master
_REFUSED: Final = 2
_INTERRUPTED: Final = 130


class WorkerRun:
    """A worker that joins a master, takes part in one run, and leaves."""

    def __init__(self, injectors: int, inputs: LocalInputs, name: str, alone_s: float, seal: Seal | None) -> None:
        self._inputs = inputs
        self._seal = seal
        self._name = name
        self._alone_s = alone_s
        (inputs.folder / "spool").mkdir(parents=True, exist_ok=True)
        self._coordinator = Coordinator(Injectors(injectors), self._on_coordinator_message)
        self._environment = Environment(user_classes=[])
        self._environment.coordinator = self._coordinator  # type: ignore[attr-defined]
        self._record_sender = RecordSender(inputs.folder / "spool", self._send_piece)
        self._files_here = Event()
        self._files = FileReceiver(inputs.folder, self._files_here.set)
        self._link: MasterLink
        self._setup: RunSetup
        self._welcomed = AsyncResult()
        self._shard = AsyncResult()
        self._stamps: bool | None = None  # known when the injectors are ready
        self._load_started = Event()
        self._dismissed = Event()
        self._master_ended = False
        self._over = Event()  # for whatever reason
        self._exit_code = 0

    @property
    def load_started(self) -> bool:
        return bool(self._load_started.is_set())

    # --- from joining to leaving -----------------------------------------------------------------------

    def serve(self, host: str, port: int, wait_s: float) -> int:
        """Join within ``wait_s``, take part in one run, return the exit code. Raises a UserError without a run."""
        try:
            self._join(host, port, wait_s)
            keeper = gevent.spawn(self._watch)
            keeper.link_exception(lambda greenlet: self._on_fault(greenlet.exception))
            try:
                self._take_part()
            finally:
                keeper.kill()
            return self._leave()
        finally:
            self._coordinator.close()

    def _join(self, host: str, port: int, wait_s: float) -> None:
        nobody = UserError(
            f"no master answers within {wait_s:.0f} s",
            where=f"--master {host}:{port}",
            remedy="Start it with `tailgate run SPEC --expect-workers N --bind ADDRESS` and check address and port.",
        )
        with gevent.Timeout(wait_s, nobody):
            heard = self._on_master_message
            self._link = MasterLink(self._environment, host, port, self._seal, heard, self._on_fault, print_line)
            about = {
                "version": protocol.VERSION, "protocol": protocol.PROTOCOL, "name": self._name, "pid": os.getpid(),
                "injectors": len(self._coordinator), "alone_s": self._alone_s,
            }  # fmt: skip
            while not self._welcomed.ready():
                self._link.send(protocol.HELLO, about)
                self._welcomed.wait(_AGAIN_S)
        print_line(f"joined {self._link.master} as {self._welcomed.get()['name']}")

    def _take_part(self) -> None:
        wait_for_any(self._shard, self._over)
        if not self._shard.ready():
            return
        self._prepare(self._shard.get())
        while not (self._load_started.is_set() or self._over.is_set()):
            self._report_prepared()
            wait_for_any(self._load_started, self._over, timeout_s=_AGAIN_S)
        if self._load_started.is_set():
            self._coordinator.over.wait()
            self._drain()

    def _prepare(self, shard: dict[str, Any]) -> None:
        try:
            self._link.measure_clock(_PINGS)
            wait_for_any(self._files_here, self._over)
            if self._over.is_set():
                return
            self._files.check()
            job = make_job(shard, self._inputs)
            self._setup = RunSetup.of(shard, self._link.report, load_classes(shard["locustfile"], self._inputs))
            self._setup.apply_to(self._environment)
            self._environment.shape_class = None  # the master has it
            self._coordinator.prepare(job, shard["first"], shard["of"], shard["requests"])
        except UserError as error:
            self._refuse(error.parts)
            raise

    def _report_prepared(self) -> None:
        if self._stamps is not None:
            self._link.send(protocol.PREPARED, {"stamps": self._stamps, **asdict(self._link.offset())})

    def _go(self, t0_unix_ns: int) -> None:
        if not self._load_started.is_set():
            t0_here = t0_unix_ns - self._link.offset().offset_ns
            self._coordinator.go(t0_here)
            self._setup.watch_the_clock(self._coordinator, t0_here)
            self._load_started.set()

    def _drain(self) -> None:
        """Send the rest and report it until dismissed: a worker that left too early would lose its records."""
        deadline = time.monotonic() + _SHIP_S
        sender = self._record_sender
        while not (sender.all_stored or self._dismissed.is_set() or self._alone or time.monotonic() > deadline):
            gevent.sleep(0.02)
            sender.send_new()
        if not self._alone:
            with contextlib.suppress(UserError):  # the offset of before serves then
                self._link.measure_clock(_LAST_PINGS)
        while not (self._dismissed.is_set() or self._alone):
            self._link.send(protocol.DRAINED, asdict(self._link.offset(_LAST_PINGS)))
            self._dismissed.wait(_AGAIN_S)

    def _leave(self) -> int:
        if self._record_sender.all_stored:
            shutil.rmtree(self._inputs.folder, ignore_errors=True)
        else:
            print_line(f"the master does not hold all records; the others are kept in {self._inputs.folder}")
            self._exit_code = self._exit_code or _FAILED
        self._link.close()
        return self._exit_code

    def interrupted(self, by: str) -> None:
        """On Ctrl-C or SIGTERM, end the load, send the records, and leave."""
        self._exit_code = _INTERRUPTED
        if self._welcomed.ready():
            self._link.report({"op": "event", "kind": "worker", "text": f"was interrupted ({by})"})
            self._end("the worker was interrupted")
        else:
            # Waiting for a master is one long call.
            shutil.rmtree(self._inputs.folder, ignore_errors=True)
            os._exit(_INTERRUPTED)

    def _end(self, why: str, code: int = 0) -> None:
        if not self._over.is_set():
            print_line(f"{'the load ends here' if self.load_started else 'the run ended before it began'}: {why}")
            self._exit_code = self._exit_code or code or (0 if self.load_started else _REFUSED)
        self._over.set()
        self._coordinator.stop(why)

    # --- in the background -----------------------------------------------------------------------------

    def _watch(self) -> None:
        pinged = probed = time.monotonic()
        while True:
            gevent.sleep(_LOOK_S)
            if self.load_started:
                self._record_sender.send_new()
            if time.monotonic() - pinged > _PING_EVERY_S:
                pinged = time.monotonic()
                self._link.ping()
            if self._link.silent_s() > _ENDED_S and time.monotonic() - probed > _AGAIN_S:
                probed = time.monotonic()
                self._master_ended = self._master_ended or self._link.refused()
            if self._alone and not self._over.is_set():
                ended = f", and nobody listens at {self._link.master} any more" if self._master_ended else ""
                print_line(f"the master was not heard of for {self._link.silent_s():.0f} s{ended}")
                self._end("the master is gone", _FAILED)

    @property
    def _alone(self) -> bool:
        return self._master_ended or self._link.silent_s() > self._alone_s

    def _send_piece(self, name: str, offset: int, piece: bytes) -> None:
        self._link.send(protocol.SPOOL, {"name": name, "offset": offset, "piece": piece})

    def _refuse(self, why: dict[str, str]) -> None:
        self._link.send(protocol.REFUSED, why)
        gevent.sleep(0.5)  # it must be on its way before the connection closes

    def _on_fault(self, error: Exception) -> None:
        """End the worker when it failed itself at what the master said, and tell the master."""
        if self._over.is_set():
            return
        what = f"the worker failed: {error if isinstance(error, OSError) else repr(error)}"
        if not self._welcomed.ready():
            self._welcomed.set_exception(UserError(what))
            return
        if self.load_started:
            self._link.report({"op": "event", "kind": "worker", "text": what})
        else:
            self._refuse({"what": what, "where": "", "remedy": ""})
        self._end(what, _FAILED)

    # --- messages of the coordinator and the master ----------------------------------------------------------

    def _on_coordinator_message(self, message: Message) -> None:
        match message["op"]:
            case "ready":
                self._stamps = bool(message["stamps"])
                self._report_prepared()
            case "refused":
                self._refuse({key: message[key] for key in ("what", "where", "remedy")})
                self._exit_code = _REFUSED
                self._over.set()
            case "all-ended":
                self._over.set()
            case "closing":
                at = message["at_unix_ns"] + self._link.offset().offset_ns
                self._link.report({**message, "at_unix_ns": at})
            case _:
                self._link.report(message)

    def _on_master_message(self, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case protocol.WELCOME:
                if not self._welcomed.ready():
                    self._welcomed.set(data)
            case protocol.TURNED_AWAY:
                refusal = UserError(data["what"], where=f"--master {self._link.master}", remedy=data["remedy"])
                (self._shard if self._welcomed.ready() else self._welcomed).set_exception(refusal)
            case protocol.SHARD:
                if not self._shard.ready():
                    self._files.expect(data["files"])
                    self._shard.set(data)
            case protocol.FILE:
                self._files.write_piece(data["name"], data["offset"], data["piece"])
            case protocol.GO:
                self._go(data["t0_unix_ns"])
            case protocol.STORED:
                self._record_sender.acknowledge(data["name"], data["upto"])
            case protocol.WIND_DOWN if self.load_started:
                self._coordinator.wind_down(data["why"])
            case protocol.WIND_DOWN | protocol.STOP if not self._dismissed.is_set():
                self._end(data["why"], _FAILED if data["gone"] else 0)
            case protocol.DISMISSED:
                self._dismissed.set()
                self._over.set()


def print_line(text: str) -> None:
    print(visible(text), file=sys.stderr, flush=True)


def _seal(host: str, token_variable: str | None) -> Seal | None:
    """What proves this worker to its master, and the master to it. None is needed on one machine."""
    token = read_token(token_variable)
    if token is None and not is_private(host):
        raise UserError(
            "a master on another machine has a token, and this worker was not told which variable holds it",
            where=f"--master {host}",
            remedy="Start it with the command that the master printed: `tailgate worker ... --token-env VARIABLE`.",
        )
    return Seal(token, "worker") if token else None


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--injectors", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--key-variable", default=None)
    parser.add_argument("--token-env", default=None)
    parser.add_argument("--wait", type=float, required=True)
    parser.add_argument("--alone", type=float, required=True)
    parser.add_argument("--locustfile", type=Path, default=None)
    a = parser.parse_args()
    logging.getLogger("locust").setLevel(logging.CRITICAL)  # we report what matters of it ourselves
    run: WorkerRun | None = None
    try:
        seal = _seal(a.host, a.token_env)
        run = WorkerRun(a.injectors, LocalInputs(a.folder, a.key_variable, a.locustfile), a.name, a.alone, seal)
        gevent.signal_handler(signal.SIGINT, run.interrupted, "Ctrl-C")
        gevent.signal_handler(signal.SIGTERM, run.interrupted, "SIGTERM")
        return run.serve(a.host, a.port, a.wait)
    except UserError as error:
        if run is None or not run.load_started:
            shutil.rmtree(a.folder, ignore_errors=True)
        print_line(f"tailgate worker: {error}")
        return _REFUSED


if __name__ == "__main__":
    sys.exit(main())
