"""How large the load generator's own error will be, told before the load from what the machine can do and does now.

A tail can't be foreseen by looking at the scheduler for a tenth of a second: waits of 0.01 to 5 ms were followed by
errors of 0.08 to 92 ms. What can be known is how much work the load is, and how much of the machine is left for it.
That gives a coarse class; how often it was right stands in docs/injector.md (tests/bench/bench_preflight.py).
"""

from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tailgate.harness.host.load_probe import MachineState

CLASSES_MS: Final = (0.3, 1.0, 5.0, 20.0, 100.0)
# The injector's work as so many reads: of a chunk (the read, the wait for it, the record), and of a request.
READS_A_CHUNK: Final = 2.5
READS_A_CHUNK_IN_PYTHON: Final = 4.0
READS_A_REQUEST: Final = 150.0
# What a server on this machine needs for a chunk, likewise: an exact one in C 3, the embedded engine more.
READS_A_CHUNK_SERVED: Final = 5.0
# Beyond this an injector has too little room for bursts: another one, if there is a core for it.
FULL: Final = 0.7
# From each of these on, the next class: shares of an injector's core that the load takes, and of the cores' time that a
# hypervisor takes.
_USES: Final = (0.5, 0.7, 0.9, 1.1)
_STEALS: Final = (0.02, 0.05, 0.15, 0.4)
# The injector sends late where it has to wait for a core: with fewer idle cores than each of these, the next class. It
# reads late only where hardly one is idle, since the kernel keeps the time until it comes.
_CORES_TO_SEND: Final = (1.5, 1.2, 0.8)
_CORES_TO_READ: Final = (0.6,)
# What other processes hold up more, where the injector may not go before them.
_WITHOUT_PRIORITY: Final = 1

_Cause = Literal["use", "steal", "crowded"]


@dataclass(frozen=True)
class PlannedLoad:
    """A load's busiest second."""

    requests_per_s: float
    chunks_per_s: float
    served_here: bool  # the server is on this machine as well


@dataclass(frozen=True)
class ExpectedError:
    """What this machine will measure to, about, at p99; each one of CLASSES_MS."""

    ttft_ms: float  # of what counts from a request's planned time
    itl_ms: float  # of what lies between two tokens
    text: str  # for the person, in one sentence
    remedy: str  # what would make it smaller
    injectors: int
    use: float | None  # share of an injector's core that the load takes
    idle_cores: float | None  # beside us, a server here and other processes; below 0 they want more than there is
    machine: MachineState
    load: PlannedLoad

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def use_of(load: PlannedLoad, machine: MachineState, injectors: int) -> float | None:
    """The share of its core that each injector needs."""
    if machine.read_us is None:
        return None
    each = READS_A_CHUNK if machine.compiled else READS_A_CHUNK_IN_PYTHON
    reads = each * load.chunks_per_s + READS_A_REQUEST * load.requests_per_s
    return reads * machine.read_us / 1e6 / min(injectors, max(machine.cores, 1.0))


def injectors_for(load: PlannedLoad, machine: MachineState) -> int:
    """One injector while it carries the load; more where that is too much for one, as far as cores are free.

    A server on this machine has half of the cores.
    """
    alone = use_of(load, machine, 1)
    if alone is None or alone <= FULL:
        return 1
    free = machine.cores / 2 if load.served_here else machine.cores - min(machine.busy_cores or 0.0, machine.cores)
    return max(1, min(-int(-alone // FULL), int(free + 0.25)))


def idle_cores(load: PlannedLoad, machine: MachineState, injectors: int) -> float | None:
    """How many cores are left; None where it isn't known what others use."""
    use = use_of(load, machine, injectors)
    if use is None or machine.read_us is None or machine.busy_cores is None:
        return None
    served = READS_A_CHUNK_SERVED * load.chunks_per_s * machine.read_us / 1e6 if load.served_here else 0.0
    return machine.cores - use * min(injectors, machine.cores) - served - machine.busy_cores


def expected_error(load: PlannedLoad, machine: MachineState, injectors: int) -> ExpectedError:
    """The classes, and what would make them smaller."""
    use, idle = use_of(load, machine, injectors), idle_cores(load, machine, injectors)
    both: dict[_Cause, int] = {
        "use": bisect_right(_USES, use or 0.0),
        "steal": bisect_right(_STEALS, machine.steal_share or 0.0),
    }
    ttft = {**both, "crowded": _crowded(_CORES_TO_SEND, idle, machine)}
    itl = {**both, "crowded": _crowded(_CORES_TO_READ, idle, machine)}
    cause = max(ttft, key=lambda name: ttft[name])
    ttft_ms, itl_ms = (CLASSES_MS[max(classes.values())] for classes in (ttft, itl))
    why, remedy = _why(cause, use or 0.0, load, machine, injectors)
    text = _sentence(ttft_ms, itl_ms, f", since {why}: {remedy}", use, machine)
    return ExpectedError(ttft_ms, itl_ms, text, remedy, injectors, use, idle, machine, load)


def _crowded(needed: tuple[float, ...], idle: float | None, machine: MachineState) -> int:
    if idle is None:
        return 0
    place = sum(idle < least for least in needed)
    return min(place + (0 if machine.priority or not place else _WITHOUT_PRIORITY), len(CLASSES_MS) - 1)


def _sentence(ttft_ms: float, itl_ms: float, because: str, use: float | None, machine: MachineState) -> str:
    if use is None:
        return "how well this machine will measure isn't known: a read could not be tried on its loopback"
    unknown = "" if machine.busy_cores is not None else " (what else it does can't be read here: no /proc/stat)"
    if ttft_ms <= CLASSES_MS[1]:
        return f"this machine will measure this load to about ± {ttft_ms:g} ms at p99{unknown}"
    better = f" of TTFT, ± {itl_ms:g} ms of ITL," if itl_ms < ttft_ms else ""
    return f"expect about ± {ttft_ms:g} ms at p99{better} from this machine{unknown}{because}"


def _why(cause: _Cause, use: float, load: PlannedLoad, machine: MachineState, injectors: int) -> tuple[str, str]:
    """(why it isn't smaller, what would help)."""
    busy = machine.busy_cores or 0.0
    if cause == "use":
        more = injectors_for(load, machine)
        more_injectors = f"use --injectors {more}, or " if more > injectors else ""
        why = f"the load takes {use:.0%} of an injector's core"
        return why, f"{more_injectors}lower the rate, or measure from more or faster machines"
    if cause == "steal":
        why = f"a hypervisor takes {machine.steal_share or 0.0:.0%} of its time"
        return why, "measure from a machine whose cores are its own"
    why = f"other processes keep {busy:.1f} of its {machine.cores:g} cores busy"
    if busy < machine.cores / 4:
        why = f"load generator and server share its {machine.cores:g} cores"
    return why, "free a core, or measure from another machine"
