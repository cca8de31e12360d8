"""What the injector needs of the kernel: receive timestamps, exact timers, file descriptors, a parent's death.

Linux only: epoll and timerfd are not replaced elsewhere (`harness.run.preflight` refuses to send load there). Where a
kernel gives no receive stamps (a sandbox that emulates Linux), `stamps_available` is False and user-space stamps serve;
the run says so.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
import time

# socket.SO_TIMESTAMPING is missing from Python 3.11; 37 on x86-64 and arm64 (asm-generic/socket.h).
_SO_TIMESTAMPING = getattr(socket, "SO_TIMESTAMPING", 37)
_RX_SOFTWARE = 1 << 3  # SOF_TIMESTAMPING_RX_SOFTWARE: stamp packets as they enter the kernel
_REPORT_SOFTWARE = 1 << 4  # SOF_TIMESTAMPING_SOFTWARE: hand those stamps out
# Room for one control message of three timespecs (SCM_TIMESTAMPING).
ANCILLARY_BYTES = socket.CMSG_SPACE(48)

unpack_timespec = struct.Struct("qq").unpack_from

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_CLOCK_MONOTONIC = 1
_STAMP_TRIES = 100
# A probe of two clocks is as exact as its readings are close; on a busy machine that may take some tries.
_PROBES = 20
_SURE_NS = 20_000
_SLICE_NS = 100_000
_MOST_DESCRIPTORS = 1 << 16


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def ask_for_stamps(sock: socket.socket) -> bool:
    """Have the kernel stamp what arrives on a TCP socket. False where it can't."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _REPORT_SOFTWARE)
    except OSError:
        return False
    return True


def stamps_available() -> bool:
    """Whether bytes sent over loopback really arrive with a kernel stamp.

    The kernel begins to stamp when the first socket asks for it, a moment later (a static key is patched in by a
    work queue), and ends with the last: whoever relies on stamps keeps a socket that asks (`StampKeeper`).
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=2) as there,
        server.accept()[0] as here,
    ):
        here.settimeout(2)
        if not ask_for_stamps(here):
            return False
        for _ in range(_STAMP_TRIES):
            there.sendall(b"x")
            if here.recvmsg(1, ANCILLARY_BYTES)[1]:
                return True
            time.sleep(0.001)
    return False


class StampKeeper:
    """Keeps the kernel's receive stamping switched on while it is open."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self.available = ask_for_stamps(self._socket) and stamps_available()

    def close(self) -> None:
        self._socket.close()


def be_punctual(*, die_with_parent: bool) -> None:
    """Take the 50 us slack off this thread's sleeps, and let a dead parent take this process with it."""
    libc = _libc()
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    _ask_for_short_slices(libc)
    if die_with_parent:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _ask_for_short_slices(libc: ctypes.CDLL) -> None:
    """Ask the scheduler for 0.1 ms at a time instead of its usual few: who asks for little is let in sooner.

    Linux 6.12 and later honour it for ordinary processes (sched_setattr(2), EEVDF); the share of the processor stays
    the same. Older kernels ignore it.
    """
    number = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if number is None:
        return
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
    attributes = struct.pack("IIQiIQQQII", 56, 0, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, _SLICE_NS, 0, 0, 0, 0)
    libc.syscall(number, 0, ctypes.create_string_buffer(attributes), 0)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    _grow_descriptor_table(min(soft, _MOST_DESCRIPTORS))
    return soft


def _grow_descriptor_table(size: int) -> None:
    """Have the kernel make room for ``size`` descriptors now, by taking the last one for a moment.

    Otherwise it doubles the table whenever it is full, and in a process with threads (pyarrow has some) each time
    waits for an RCU grace period: measured as 14 ms in which nothing is sent, at 512, 1,024, 2,048 ... connections.
    """
    with contextlib.suppress(OSError):
        os.close(fcntl.fcntl(2, fcntl.F_DUPFD, size - 1))


class Alarm:
    """A timerfd on CLOCK_MONOTONIC with absolute deadlines: readable when its time has come.

    Python has os.timerfd_* only from 3.13 on, so this goes through ctypes (1.5 us an arming).
    """

    def __init__(self) -> None:
        self._libc = _libc()
        self._spec = (ctypes.c_long * 4)()  # struct itimerspec: interval and value, each in s and ns
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, deadline_ns: int) -> None:
        """Ring at this CLOCK_MONOTONIC time, at once if it has passed."""
        self._spec[2], self._spec[3] = divmod(max(deadline_ns, 1), 1_000_000_000)
        if self._libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Take note of the ring, so that the descriptor is quiet again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)


def clock_step_probe() -> int:
    """REALTIME - MONOTONIC in nanoseconds, read so that a preemption between the two can't fake a step."""
    best = None
    offset = 0
    for attempt in range(_PROBES):
        if attempt >= 3 and best is not None and best < _SURE_NS:
            break
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best:
            best, offset = after - before, real - (before + after) // 2
    return offset
