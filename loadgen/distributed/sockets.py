"""The sockets between a master and its workers: Locust's, that seal what they send and ignore what isn't for them.

Locust's own end their listener at the first message that they can't read. These count such a message and go on
(`on_ignored`). With a token all messages are sealed (`seal`); without one they are Locust's, and only their form is
checked (`messages`).
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import zmq
from gevent.event import Event
from locust import runners
from locust.exception import RPCError
from locust.rpc import Message, zmqrpc

from tailgate.loadgen.distributed import messages
from tailgate.loadgen.distributed.seal import MAGIC, Ignored, Reason, Seal
from tailgate.workloads.common.errors import UserError

OnIgnored = Callable[[Reason], None]

# Ours have a quarter of a mebibyte at most, Locust's statistics less.
_LARGEST_BYTES: Final = 1 << 24
# The answer to a message with a seal where there is no token, or without the right one: the only word to a stranger.
_NOT_YOUR_RUN: Final = b"tailgate: another token"
_MASTER: Final = "master"


class _Sealed:
    """A message in the form in which Locust's sockets send one."""

    def __init__(self, message: Any, seal: Seal, to: bytes) -> None:
        self.node_id = message.node_id
        self._message, self._seal, self._to = message, seal, to

    def serialize(self) -> bytes:
        return self._seal.seal(self._message.serialize(), self._to)


class MasterSocket(zmqrpc.BaseSocket):
    """Where workers connect."""

    def __init__(self, host: str, port: int, seal: Seal | None, on_ignored: OnIgnored) -> None:
        super().__init__(zmq.ROUTER, self.ipv4_only(host, port))  # type: ignore[no-untyped-call]
        self._seal = seal
        self._on_ignored = on_ignored
        self.socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_BYTES)
        try:
            self.socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise RPCError(f"Socket bind failure: {error}") from error

    def send_to_client(self, message: Any) -> None:
        """Send a message; one to a worker that has proved nothing yet is dropped."""
        if self._seal is None:
            super().send_to_client(message)
        elif (to := self._seal.peers.get(message.node_id)) is not None:
            super().send_to_client(_Sealed(message, self._seal, to))

    def recv_from_client(self) -> tuple[str, Message]:
        """The next message that is to be heard, and its connection."""
        while True:
            try:
                frames = self.socket.recv_multipart()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            try:
                connection, data = _parts(frames)
                payload = self._opened(connection, data)
                if payload is not None:
                    return connection, Message(*messages.read(connection, payload), connection)  # type: ignore[no-untyped-call]
            except Ignored as ignored:
                self._on_ignored(ignored.reason)
                if ignored.reason in (Reason.UNSEALED, Reason.OTHER_TOKEN):
                    self.socket.send_multipart([frames[0], _NOT_YOUR_RUN])

    def _opened(self, connection: str, data: bytes) -> bytes | None:
        """What is in the seal; None for a greeting, which is answered here."""
        if self._seal is None:
            if data.startswith(MAGIC):
                raise Ignored(Reason.OTHER_TOKEN)
            return data
        opened = self._seal.open(connection, data)
        if not opened.payload:
            self.socket.send_multipart([connection.encode(), self._seal.seal(b"", opened.sender)])
        return opened.payload or None


class WorkerSocket(zmqrpc.Client):
    """A worker's connection to its master."""

    def __init__(self, host: str, port: int, identity: str, seal: Seal | None, on_ignored: OnIgnored) -> None:
        super().__init__(host, port, identity)  # type: ignore[no-untyped-call]
        self._seal = seal
        self._on_ignored = on_ignored
        self._where = f"--master {host}:{port}"
        self._turned_away = Event()

    def approach(self, message: Message) -> None:
        """Send a first message, or what must go before it. Raises a UserError if the master has another token."""
        if self._turned_away.is_set():
            raise UserError(
                "the master asks for a token" if self._seal is None else "the master has another token, or none",
                where=self._where,
                remedy="Start the worker with the command that the master printed, and the same token in its variable.",
            )
        if self._seal is None or _MASTER in self._seal.peers:
            self.send(message)
        else:
            with contextlib.suppress(zmq.Again):  # a queue of greetings for a master that isn't there yet is enough
                self.socket.send(self._seal.seal(b""), zmq.NOBLOCK)

    def send(self, message: Any) -> None:
        """Send a message. Without a master's greeting there is nobody to send it to, and it is dropped."""
        if self._seal is None:
            super().send(message)
        elif (to := self._seal.peers.get(_MASTER)) is not None:
            super().send(_Sealed(message, self._seal, to))

    def recv(self) -> Message:
        """The next message of the master."""
        while True:
            try:
                data = self.socket.recv()
            except zmq.ZMQError as error:
                raise RPCError("ZMQ network broken") from error
            if data == _NOT_YOUR_RUN:
                self._turned_away.set()
                continue
            try:
                payload = data if self._seal is None else self._seal.open(_MASTER, data).payload or None
                if payload is not None:  # else a greeting
                    return Message(*messages.read_from_master(payload), _MASTER)  # type: ignore[no-untyped-call]
            except Ignored as ignored:
                self._on_ignored(ignored.reason)


class Sockets:
    """Makes the sockets of this process; Locust's runners are to find it under the name of their own (`install`)."""

    def __init__(self, seal: Seal | None, on_ignored: OnIgnored) -> None:
        self._seal = seal
        self._on_ignored = on_ignored

    def install(self) -> None:
        runners.rpc = self  # type: ignore[assignment,attr-defined]

    def Server(self, host: str, port: int) -> MasterSocket:  # noqa: N802 - Locust's name
        return MasterSocket(host, port, self._seal, self._on_ignored)

    def Client(self, host: str, port: int, identity: str) -> WorkerSocket:  # noqa: N802 - Locust's name
        return WorkerSocket(host, port, identity, self._seal, self._on_ignored)


def _parts(frames: list[bytes]) -> tuple[str, bytes]:
    try:
        connection, data = frames
        return connection.decode(), data
    except ValueError as error:  # another number of frames, or a name that isn't text
        raise Ignored(Reason.UNREADABLE) from error
