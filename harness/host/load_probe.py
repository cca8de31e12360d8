"""What this machine can do now: what a read and a send cost, and what it does besides us. Takes a few milliseconds.

What the machine is busy with is a difference of the kernel's own books (`/proc/stat`) between two moments at which we
have other things to do, so that nobody waits for it.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tailgate.harness.host.cores import usable_cores
from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.kernel_timestamps import ANCILLARY_BYTES, ask_for_stamps
from tailgate.loadgen.injector.machine_time import may_take_priority

_ROUNDS: Final = 5
_READS: Final = 64  # in a round: less than a millisecond
_EVENT: Final = b"x" * 256  # about what a token's chunk is long
# The books are kept in ticks of 10 ms; over a shorter time they tell nothing.
_LEAST_S: Final = 0.15


@dataclass(frozen=True)
class MachineState:
    """This machine at one moment. None: it can't be found out here."""

    cores: float  # that we may use
    read_us: float | None  # CPU time of one read of a few hundred bytes from a TCP socket, with the kernel's stamp
    send_us: float | None
    busy_cores: float | None  # that other processes than ours use
    steal_share: float | None  # of the cores' time, which a hypervisor took
    priority: bool  # the injector may go before other processes
    compiled: bool = True  # streams are read by the extension


class LoadProbe:
    """Looks at the machine twice: when it is made, and at `state`."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._books, self._ours = _books(), _ours()

    async def state(self) -> MachineState:
        """The machine since this probe was made, without what we and our children did. Waits if that was just now."""
        await asyncio.sleep(max(0.0, _LEAST_S - (time.monotonic() - self._began)))
        return await asyncio.to_thread(self._look)

    def _look(self) -> MachineState:
        seconds = time.monotonic() - self._began
        before, after = self._books, _books()
        read_us, send_us = _costs()
        busy = steal = None
        if before is not None and after is not None and seconds > 0:
            (busy_before, steal_before), (busy_after, steal_after) = before, after
            ours = max(0.0, _ours() - self._ours)
            busy = max(0.0, busy_after - busy_before - ours) / seconds
            steal = max(0.0, steal_after - steal_before) / seconds / (psutil.cpu_count() or 1)
        return MachineState(usable_cores(), read_us, send_us, busy, steal, may_take_priority(), AVAILABLE)


def _books() -> tuple[float, float] | None:
    """(CPU time of all processes, time that a hypervisor took), of all cores, s."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, ValueError, psutil.Error):
        return None
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return busy, getattr(times, "steal", 0.0)


def _ours() -> float:
    """CPU time of this process and of its children, living and gone, s."""
    total = 0.0
    with contextlib.suppress(psutil.Error, OSError):
        for pid in _family(os.getpid()):
            with contextlib.suppress(psutil.Error):
                spent = psutil.Process(pid).cpu_times()
                total += spent.user + spent.system + spent.children_user + spent.children_system
    return total


def _family(pid: int) -> Iterator[int]:
    """A process and those below it, as its threads name them (proc(5)): looking through all processes takes longer."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended, or the kernel doesn't name its children
                for child in (task / "children").read_text().split():
                    yield from _family(int(child))


def _costs() -> tuple[float | None, float | None]:
    """CPU time of a read and of a send over loopback, us: the best of a few rounds."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=2) as there,
            server.accept()[0] as here,
        ):
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            here.settimeout(2)
            ask_for_stamps(here)
            rounds = [_round(there, here, time.thread_time_ns) for _ in range(_ROUNDS)]
    except OSError:
        return None, None
    reads, sends = zip(*rounds, strict=True)
    return min(reads) / 1000, min(sends) / 1000


def _round(there: socket.socket, here: socket.socket, clock: Callable[[], int]) -> tuple[float, float]:
    """(a read, a send), ns."""
    reading = sending = 0
    for _ in range(_READS):
        begun = clock()
        there.sendall(_EVENT)
        sent = clock()
        here.recvmsg(len(_EVENT), ANCILLARY_BYTES)
        sending += sent - begun
        reading += clock() - sent
    return reading / _READS, sending / _READS
