"""A server process of ours, from spawn to the last of its children, and nothing that isn't ours.

It runs in a session of its own with its log in a file. It is stopped by SIGTERM; what is left after a grace
is killed, with all processes of its session. Should this process die first, the kernel tells the server to go.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tailgate.harness.host.child_process import started
from tailgate.harness.targets.base import Ended
from tailgate.workloads.common.errors import UserError

TAIL_LINES = 50
GRACE_S = 20.0
_KILL_S = 10.0
_LOOK_S = 0.05
_TAIL_STEP = 1 << 14
_TAIL_BYTES = 1 << 22  # a log without line breaks is not read whole
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class OwnProcess:
    """A server process: started by `spawn`, watched, and stopped with all that it started."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, port: int | None) -> None:
        self._process = process
        self.log = log
        self.port = port
        self.stopping = False

    @classmethod
    async def spawn(
        cls, command: Sequence[str], *, env: Mapping[str, str] | None = None, port: int | None = None
    ) -> "OwnProcess":
        """Start `command`, with `env` added to our environment; what it says goes to a log file of its own.

        `port` is where it will listen: `stop` waits until it is free again.
        """
        handle, name = tempfile.mkstemp(prefix="tailgate-server-", suffix=".log")
        try:
            process = await started(
                asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=handle,
                    stderr=handle,
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
            )
        except OSError as error:
            Path(name).unlink()
            raise UserError(f"can't run {command[0]}: {error.strerror}", where="target") from error
        finally:
            os.close(handle)
        return cls(process, Path(name), port)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    async def ended(self) -> Ended:
        """Return when it has ended without `stop` being called."""
        code = await self._process.wait()
        if self.stopping:
            await asyncio.Future()
        return Ended(code, self.tail(), str(self.log))

    async def ended_within(self, seconds: float) -> Ended | None:
        try:
            return await asyncio.wait_for(self.ended(), seconds)
        except TimeoutError:
            return None

    def tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """Its last lines, control characters left out."""
        with self.log.open("rb") as file:
            at, read = file.seek(0, os.SEEK_END), b""
            while at and read.count(b"\n") <= lines and len(read) < _TAIL_BYTES:
                step = min(at, _TAIL_STEP)
                at -= step
                file.seek(at)
                read = file.read(step) + read
        text = read.decode(errors="replace")
        printable = ("".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines())
        return tuple(printable)[-lines:]

    def move_log(self, path: Path) -> None:
        """Keep the log at `path`, which grows on as it does; across file systems it is copied by `stop`."""
        with contextlib.suppress(OSError):
            self.log.chmod(0o644)
            os.link(self.log, path)
            self.log.unlink()
            self.log = path
            return
        self._log_goes_to = path

    _log_goes_to: Path | None = None

    async def stop(self, grace_s: float = GRACE_S) -> bool:
        """End it and its children and wait for its port; True if it had to be killed."""
        self.stopping = True
        family = self._family()
        killed = False
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                killed = True
        left = [p for p in {*family, *self._family()} if _alive(p)]
        if left and not killed:
            _send(left, signal.SIGTERM)
            left = await _gone(left, min(grace_s, _KILL_S))
        if left:
            killed = True
            _send(left, signal.SIGKILL)
            await _gone(left, _KILL_S)
        await self._process.wait()
        await self._port_free()
        if self._log_goes_to is not None:
            self._log_goes_to.write_bytes(self.log.read_bytes())
            self.log.unlink()
            self.log, self._log_goes_to = self._log_goes_to, None
        return killed

    def _family(self) -> set[psutil.Process]:
        """The process, its children, and whatever else runs in the session that it opened."""
        family = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.pid:
                    family.add(process)
        with contextlib.suppress(psutil.NoSuchProcess):
            family.update(psutil.Process(self.pid).children(recursive=True))
        return family

    async def _port_free(self) -> None:
        until = time.monotonic() + _KILL_S
        while self.port is not None and not port_is_free(self.port) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(port: int, where: str) -> None:
    """Raise a UserError that names the holder if `port` is taken."""
    if port_is_free(port):
        return
    holder = "another process"
    with contextlib.suppress(psutil.AccessDenied):
        for held in psutil.net_connections("inet"):
            if held.status == psutil.CONN_LISTEN and held.laddr and held.laddr.port == port and held.pid:
                with contextlib.suppress(psutil.Error):
                    holder = f"{psutil.Process(held.pid).name()} (process {held.pid})"
    raise UserError(f"port {port} is taken by {holder}", where=where, remedy="Stop it, or give another port.")


async def _gone(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Wait for processes to end; those that haven't are returned."""
    until = time.monotonic() + within_s
    while (left := [p for p in processes if _alive(p)]) and time.monotonic() < until:
        await asyncio.sleep(_LOOK_S)
    return left


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_with_parent() -> None:
    """In the child, before it becomes the server: SIGTERM from the kernel when we die."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
