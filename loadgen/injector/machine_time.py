"""How long this machine kept the injector waiting, and why: other processes, or a hypervisor that took its cores.

From the kernel's own books: `/proc/thread-self/schedstat` (time runnable and not running, ns) and `/proc/stat` (steal
time, of all cores, in clock ticks). Where they can't be read nothing is known, which is not zero.
"""

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")
_STAT: Final = Path("/proc/stat")
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_STATUS: Final = Path("/proc/self/status")
_CAP_SYS_NICE: Final = 1 << 23
_STEAL_FIELD: Final = 8  # of the line `cpu`: name, user, nice, system, idle, iowait, irq, softirq, steal
_GIGA: Final = 1_000_000_000
# Before other processes of ordinary kind, and behind the kernel's own threads.
NICE: Final = -15


def take_priority() -> int:
    """Let this process go before others where it may (root, CAP_SYS_NICE); returns the niceness in force.

    Where the kernel groups processes by session, niceness counts within the group only (sched(7), autogroup): a process
    that leads a session of its own asks for the group as well.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if os.getsid(0) == os.getpid() and _AUTOGROUP.exists():
            _AUTOGROUP.write_text(str(NICE))
    return os.getpriority(os.PRIO_PROCESS, 0)


def may_take_priority() -> bool:
    """Whether `take_priority` would get what it asks for: by capability, or by the limit that is set for niceness."""
    with contextlib.suppress(OSError, ValueError):
        limit = resource.getrlimit(resource.RLIMIT_NICE)[0]  # 20 - the lowest niceness (getrlimit(2))
        if limit == resource.RLIM_INFINITY or 20 - limit <= NICE:
            return True
        for line in _STATUS.read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.partition(":")[2], 16) & _CAP_SYS_NICE)
    return False


class WaitingTime:
    """Time that the calling thread waited for a core, and that a hypervisor took, since the last look."""

    def __init__(self) -> None:
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._run_delay_ns = self._steal_ns = 0
        self.since_last()

    def since_last(self) -> tuple[int | None, int | None]:
        """(run delay of this thread, steal time of all cores), ns; None where the kernel doesn't tell."""
        delay, steal = self._read_run_delay(), self._read_steal()
        found = (
            None if delay is None else max(0, delay - self._run_delay_ns),
            None if steal is None else max(0, steal - self._steal_ns),
        )
        self._run_delay_ns, self._steal_ns = delay or 0, steal or 0
        return found

    @staticmethod
    def _read_run_delay() -> int | None:
        try:
            return int(_SCHEDSTAT.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None

    def _read_steal(self) -> int | None:
        try:
            with _STAT.open() as file:
                fields = file.readline().split()
            return int(fields[_STEAL_FIELD]) * _GIGA // self._ticks_per_s
        except (OSError, ValueError, IndexError):
            return None
