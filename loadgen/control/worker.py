"""One machine of a distributed run: joins a master, gets its shard, runs its station, ships its records.

Started by `tailgate worker`: ``python -m loadgen.control.worker --master HOST:PORT --injectors K``. Its records are
spooled in a folder of its own first; the master acknowledges what it holds, and nothing is deleted before that. When
the master has not been heard of for `alone_s` the load ends: nobody watches it any more.
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
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.subprocess
import orjson
from gevent.event import AsyncResult, Event
from gevent.lock import RLock
from locust import User
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message as RpcMessage
from locust.runners import WorkerRunner

from loadgen.control import protocol
from loadgen.control.channel import Message
from loadgen.control.clocks import Offset, Ping, estimate
from loadgen.control.crew import Crew
from loadgen.control.locustfile import digest, user_classes
from loadgen.control.shipping import Shipper
from loadgen.control.station import Station
from workloads.errors import UserError

_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.25
_PINGS: Final = 12
_PING_EVERY_S: Final = 5.0
_SHIP_S: Final = 60.0

INTERRUPTED: Final = 130


class WorkerRun:
    """Joins, runs once, and leaves. `serve` returns the exit code."""

    def __init__(
        self, host: str, port: int, injectors: int, folder: Path, name: str, key_variable: str | None, alone_s: float,
        locustfile: Path | None,
    ) -> None:  # fmt: skip
        self._master = f"{host}:{port}"
        self._alone_s = alone_s
        self._locustfile = locustfile
        self._folder = folder
        self._name = name
        self._key_variable = key_variable
        self._station = Station(injectors, self._report)
        self._shipper = Shipper(folder / "spool", self._ship)
        self._environment: Environment
        self._runner: WorkerRunner
        self._host, self._port = host, port
        self._welcomed = AsyncResult()
        self._shard: AsyncResult = AsyncResult()
        self._files: dict[str, int] = {}
        self._files_complete = Event()
        self._went = Event()
        self._t0_here_ns = 0
        self._dismissed = Event()
        self._over = Event()  # for whatever reason
        self._exit_code = 0
        self._stamps: bool | None = None  # known when the injectors are ready
        self._pongs: list[Ping] = []
        self._heard_at = time.monotonic()
        self._sending = RLock()

    # --- from joining to leaving -----------------------------------------------------------------------

    def serve(self, wait_s: float) -> int:
        """Join within ``wait_s``, take part in one run; the exit code.

        Raises:
            UserError: no master, turned away, or the shard can't be served.
        """
        self._join(wait_s)
        keeper = gevent.spawn(self._keep_watch)
        try:
            shard = self._next_of(self._shard)
            if shard is None:
                return self._leave()
            self._prepare(shard)
            while not (self._went.wait(_AGAIN_S) or self._over.is_set()):
                self._say_prepared()
            if self._went.is_set():
                self._station.over.wait()
                self._drain()
            return self._leave()
        finally:
            keeper.kill()
            self._station.close()

    def _join(self, wait_s: float) -> None:
        (self._folder / "spool").mkdir(parents=True, exist_ok=True)
        self._environment = Environment(user_classes=[])
        self._environment.station = self._station  # type: ignore[attr-defined]
        deadline = gevent.Timeout(wait_s, UserError(
            f"no master answers within {wait_s:.0f} s", where=f"--master {self._master}",
            remedy="Start it with `tailgate run SPEC --expect-workers N --bind ADDRESS` and check address and port.",
        ))  # fmt: skip
        with deadline:
            self._runner = self._connected()
            for message_type in protocol.TO_WORKER:
                self._runner.register_message(message_type, self._take)
            while not self._welcomed.ready():
                self._tell(protocol.HELLO, self._about())
                self._welcomed.wait(_AGAIN_S)
        say(f"joined {self._master} as {self._welcomed.get()['name']}")

    def _connected(self) -> WorkerRunner:
        try:
            return self._environment.create_worker_runner(self._host, self._port)
        except (ConnectionError, RPCError, OSError) as error:
            raise UserError(f"can't connect: {error}", where=f"--master {self._master}") from error

    def _about(self) -> dict[str, Any]:
        return {
            "version": protocol.VERSION, "protocol": protocol.PROTOCOL, "name": self._name, "pid": os.getpid(),
            "injectors": len(self._station),
        }  # fmt: skip

    def _next_of(self, result: AsyncResult) -> Any:
        """What comes, or None when the run is over before."""
        gevent.wait([result, self._over], count=1)
        return result.get() if result.ready() else None

    def _prepare(self, shard: dict[str, Any]) -> None:
        try:
            self._measure_clock(_PINGS)
            self._files_complete.wait()
            self._make_plan(shard["plan"])
            crew = Crew.of(shard, self._tell_said, self._load_own(shard["locustfile"]))
            self._crew = crew
            crew.dress(self._environment)
            self._environment.shape_class = None  # the master's
            job = {**shard["job"], "plan": str(self._folder / "plan.parquet"), "spool": str(self._folder / "spool")}
            if job["content"] is not None:
                job["content"] = str(self._folder / "content.npz")
            if job["bodies"] is not None:
                job["bodies"] = str(self._folder / protocol.bodies_file(job))
            job["headers"] = {**job["headers"], **self._key(shard["key"])}
            self._station.prepare(job, shard["first"], shard["of"], shard["requests"])
        except UserError as error:
            self._refuse({"what": error.what, "where": error.where, "remedy": error.remedy})
            raise

    def _load_own(self, wanted: dict[str, Any] | None) -> list[type[User]]:
        """The classes of this machine's copy of the locustfile: code doesn't come over the network."""
        if wanted is None:
            return []
        if self._locustfile is None:
            raise UserError(
                f"the run uses a locustfile ({wanted['name']}), of which this worker has no copy",
                where="--locustfile", remedy="Copy it here and start `tailgate worker --locustfile FILE`.",
            )  # fmt: skip
        if digest(self._locustfile) != wanted["digest"]:
            raise UserError("is not the master's locustfile", where=str(self._locustfile), remedy="Copy it again.")
        return user_classes(self._locustfile, wanted["tags"], wanted["exclude_tags"])

    def _make_plan(self, order: dict[str, Any]) -> None:
        if order["how"] == "none":
            return
        child = gevent.subprocess.run(
            [sys.executable, "-m", "loadgen.control.remake", str(self._folder)],
            input=orjson.dumps(order), stdout=gevent.subprocess.PIPE, check=False,
        )  # fmt: skip
        if child.returncode:
            raise UserError("the plan could not be made; the reason stands above", where="plan")
        answer = orjson.loads(child.stdout)
        if "refused" in answer:
            raise UserError(**answer["refused"])

    def _key(self, key: dict[str, str] | None) -> dict[str, str]:
        """The API key's header. Keys don't travel: each machine reads its own environment."""
        if key is None:
            return {}
        variable = self._key_variable or key["variable"]
        value = os.environ.get(variable, "")
        if not value:
            raise UserError(
                f"the environment variable {variable} is not set on this machine", where="target.auth.env",
                remedy="Set it for the worker, or name another with `tailgate worker --api-key-env`.",
            )  # fmt: skip
        return {key["header"]: f"{key['scheme']} {value}".strip()}

    def _say_prepared(self) -> None:
        offset = estimate(self._pongs)
        if self._stamps is not None:
            self._tell(protocol.PREPARED, {"stamps": self._stamps, **_offset(offset)})

    def _drain(self) -> None:
        """Ship the rest, and say so until dismissed: a worker that left too early would lose its records."""
        deadline = time.monotonic() + _SHIP_S
        while not self._shipper.all_stored and time.monotonic() < deadline and not self._alone:
            gevent.sleep(0.02)
            self._shipper.look()
        if not self._alone:
            with contextlib.suppress(UserError):  # the offset of the start serves then
                self._measure_clock(3)
        while not self._dismissed.is_set() and not self._alone:
            self._tell(protocol.DRAINED, _offset(estimate(self._pongs[-3:] or self._pongs)))
            self._dismissed.wait(_AGAIN_S)

    def _leave(self) -> int:
        if self._shipper.all_stored:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            say(f"the master does not hold all records; the others are kept in {self._folder}")
            self._exit_code = self._exit_code or 1
        # Tells the master's Locust.
        self._environment.events.quitting.fire(environment=self._environment)  # type: ignore[no-untyped-call]
        gevent.spawn(self._runner.quit).join(5.0)
        return self._exit_code

    @property
    def went(self) -> bool:
        """Whether load was sent."""
        return bool(self._went.is_set())

    def interrupted(self) -> None:
        """Ctrl-C or SIGTERM: end, ship what was measured, leave."""
        self._exit_code = INTERRUPTED
        self._tell_said({"op": "event", "kind": "worker", "text": "was interrupted (Ctrl-C)"})
        self._end("the worker was interrupted")

    def _end(self, why: str) -> None:
        self._over.set()
        self._station.stop(why)

    # --- in the background -----------------------------------------------------------------------------

    def _keep_watch(self) -> None:
        pinged = time.monotonic()
        while True:
            gevent.sleep(_LOOK_S)
            if self._went.is_set():
                self._shipper.look()
            if time.monotonic() - pinged > _PING_EVERY_S:
                pinged = time.monotonic()
                self._ping()
            if self._alone and not self._over.is_set():
                say(f"the master was not heard of for {self._alone_s:.0f} s: the load ends here")
                self._exit_code = 1
                self._end("the master is gone")

    @property
    def _alone(self) -> bool:
        beat = self._runner.last_heartbeat_timestamp or 0.0
        return bool(min(time.monotonic() - self._heard_at, time.time() - beat) > self._alone_s)

    def _measure_clock(self, pings: int) -> None:
        wanted = len(self._pongs) + pings
        with gevent.Timeout(10.0, UserError("the master does not answer pings", where="--master")):
            while len(self._pongs) < wanted:
                self._ping()
                gevent.sleep(0.02)

    def _ping(self) -> None:
        self._tell(protocol.PING, {"sent": time.time_ns()})

    # --- to the master ---------------------------------------------------------------------------------

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        with self._sending:
            try:
                self._runner.send_message(kind, data)
            except RPCError:
                return  # what matters is said again

    def _tell_said(self, message: Message) -> None:
        self._tell(protocol.SAID, {"message": message})

    def _ship(self, name: str, offset: int, piece: bytes) -> None:
        self._tell(protocol.SPOOL, {"name": name, "offset": offset, "piece": piece})

    def _refuse(self, why: dict[str, str]) -> None:
        self._tell(protocol.REFUSED, why)
        gevent.sleep(0.5)  # it must be on its way before the connection closes

    def _report(self, message: Message) -> None:
        """From the station."""
        match message["op"]:
            case "ready":
                self._stamps = bool(message["stamps"])
                self._say_prepared()
            case "refused":
                self._refuse({key: message[key] for key in ("what", "where", "remedy")})
                self._over.set()
                self._exit_code = 2
            case "all-ended":
                self._over.set()
            case "closing":
                self._tell_said({**message, "at_unix_ns": message["at_unix_ns"] + estimate(self._pongs).offset_ns})
            case _:
                self._tell_said(message)

    # --- from the master -------------------------------------------------------------------------------

    def _take(self, environment: Environment, msg: RpcMessage) -> None:
        self._heard_at = time.monotonic()
        data = msg.data or {}
        match msg.type:
            case protocol.WELCOME:
                if not self._welcomed.ready():
                    self._welcomed.set(data)
            case protocol.TURNED_AWAY:
                refusal = UserError(data["what"], where=f"--master {self._master}", remedy=data["remedy"])
                (self._shard if self._welcomed.ready() else self._welcomed).set_exception(refusal)
            case protocol.PONG:
                self._pongs.append(Ping(data["sent"], data["received"], data["answered"], time.time_ns()))
            case protocol.SHARD:
                if not self._shard.ready():
                    self._files = dict(data["files"])
                    if not self._files:
                        self._files_complete.set()
                    self._shard.set(data)
            case protocol.FILE:
                self._take_piece(data)
            case protocol.GO:
                self._go(data)
            case protocol.STORED:
                self._shipper.stored(data["name"], data["upto"])
            case protocol.STOP:
                self._end(data["why"])
            case protocol.DISMISSED:
                self._dismissed.set()
                self._over.set()

    def _take_piece(self, data: dict[str, Any]) -> None:
        path = self._folder / Path(data["name"]).name
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(data["offset"])
            file.write(data["piece"])
        sizes = {name: (self._folder / name).stat().st_size for name in self._files if (self._folder / name).exists()}
        if sizes == self._files:
            self._files_complete.set()

    def _go(self, data: dict[str, Any]) -> None:
        if self._went.is_set():
            return
        offset = estimate(self._pongs)
        t0_here = data["t0_unix_ns"] - offset.offset_ns
        self._station.go(t0_here)
        self._crew.watch_the_clock(self._station, t0_here)
        self._t0_here_ns = t0_here
        self._went.set()


def _offset(offset: Offset) -> dict[str, int]:
    return {"offset_ns": offset.offset_ns, "error_ns": offset.error_ns}


def say(text: str) -> None:
    """One line for the person at the worker's keyboard."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Entry of the worker's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--injectors", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--key-variable", default=None)
    parser.add_argument("--wait", type=float, required=True)
    parser.add_argument("--alone", type=float, required=True)
    parser.add_argument("--locustfile", type=Path, default=None)
    a = parser.parse_args()
    logging.getLogger("locust").setLevel(logging.CRITICAL)  # what matters of it is said in our own words
    run = WorkerRun(a.host, a.port, a.injectors, a.folder, a.name, a.key_variable, a.alone, a.locustfile)
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, run.interrupted)
    try:
        return run.serve(a.wait)
    except UserError as error:
        if not run.went:
            shutil.rmtree(a.folder, ignore_errors=True)
        say(f"tailgate worker: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
