"""A worker's connection to its master, which is Locust's own, and how far the two clocks are apart."""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.lock import RLock
from locust.env import Environment
from locust.exception import RPCError, RPCReceiveError, RPCSendError
from locust.rpc import Message as RpcMessage
from locust.stats import RequestStats

from tailgate.loadgen.control.channel import Message
from tailgate.loadgen.distributed import locust_runners, protocol
from tailgate.loadgen.distributed.clock_offset import Offset, Ping, estimate
from tailgate.loadgen.distributed.seal import IgnoredMessages, Seal
from tailgate.loadgen.distributed.sockets import Sockets
from tailgate.workloads.common.errors import UserError

_PING_S: Final = 0.02
_PONG_S: Final = 10.0
_PROBE_S: Final = 1.0
# None of Locust's is another's kind.
_LINE_BROKEN: Final = (RPCError, RPCSendError, RPCReceiveError)


class MasterLink:
    """Connected when made. ``on_message(kind, data)`` is called for each of our messages from the master.

    ``on_fault`` is given an error of what was to be done for a message, which Locust would swallow.
    ``say`` is given what a person should know of messages that are not the master's. An address that can't be used,
    or another token than the master's, is a UserError. (Nobody there is no error yet: it goes on trying.)
    """

    def __init__(
        self,
        environment: Environment,
        host: str,
        port: int,
        seal: Seal | None,
        on_message: Callable[[str, dict[str, Any]], None],
        on_fault: Callable[[Exception], None],
        say: Callable[[str], None],
    ) -> None:
        self.master = f"{host}:{port}"
        self._address = host, port
        self._ignored = IgnoredMessages(lambda text: say(f"ignored {text}"))
        self._environment = environment
        self._on_message = on_message
        self._on_fault = on_fault
        self._last_heard_s = time.monotonic()
        self._pings: list[Ping] = []
        self._sending = RLock()
        try:
            environment.stats = RequestStats(use_response_times_cache=False)
            Sockets(seal, self._ignored.count).install()
            self._runner = environment._create_runner(locust_runners.TailgateWorkerRunner, host, port, on_fault)
        except (ConnectionError, *_LINE_BROKEN, OSError) as error:
            raise UserError(f"can't connect: {error}", where=f"--master {self.master}") from error
        for kind in protocol.TO_WORKER:
            self._runner.register_message(kind, self._receive)

    def _receive(self, environment: Environment, msg: RpcMessage) -> None:
        self._last_heard_s = time.monotonic()
        data = msg.data or {}
        try:
            if msg.type == protocol.PONG:
                self._pings.append(Ping(data["sent"], data["received"], data["answered"], time.time_ns()))
            else:
                self._on_message(msg.type, data)
        except Exception as error:  # noqa: BLE001 - Locust would swallow it, and the worker would wait for ever
            self._on_fault(error)

    def send(self, kind: str, data: dict[str, Any]) -> None:
        """Send a message, which may be lost: what matters is repeated by the caller."""
        with self._sending, contextlib.suppress(*_LINE_BROKEN):
            self._runner.send_message(kind, data)

    def report(self, message: Message) -> None:
        self.send(protocol.REPORT, {"message": message})

    def silent_s(self) -> float:
        """How long nothing was heard from the master, heartbeats of Locust included."""
        beat = self._runner.last_heartbeat_timestamp or 0.0
        return float(min(time.monotonic() - self._last_heard_s, time.time() - beat))

    def refused(self) -> bool:
        """Whether the master's machine says that nobody listens at its address: the master has ended."""
        try:
            socket.create_connection(self._address, _PROBE_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # it says nothing: perhaps only the network is down
        return False

    def ping(self) -> None:
        self.send(protocol.PING, {"sent": time.time_ns()})

    def measure_clock(self, pings: int) -> None:
        """Exchange so many pings. Raises a UserError if they are not answered."""
        wanted = len(self._pings) + pings
        with gevent.Timeout(_PONG_S, UserError("the master does not answer pings", where=f"--master {self.master}")):
            while len(self._pings) < wanted:
                self.ping()
                gevent.sleep(_PING_S)

    def offset(self, latest: int | None = None) -> Offset:
        return estimate(self._pings if latest is None else self._pings[-latest:])

    def close(self, grace_s: float = 5.0) -> None:
        self._ignored.conclude()
        self._environment.events.quitting.fire(environment=self._environment)  # type: ignore[no-untyped-call]
        gevent.spawn(self._runner.quit).join(grace_s)


def wait_for_any(*events: Event, timeout_s: float | None = None) -> None:
    gevent.wait(list(events), timeout=timeout_s, count=1)
