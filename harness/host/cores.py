"""How many cores this process may use: of a container or under `taskset` fewer than the machine has."""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MINE = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, mine: Path = _MINE) -> float:
    """The cores of our affinity, or fewer where a CPU quota of a control group (cgroup v2 or v1) says so."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return min([cores, *_quotas(cgroups, mine)])


def half_of_the_cores() -> int:
    """For injectors by default: the other half is left to the server and to us."""
    return max(1, int(usable_cores() / 2))


def _quotas(cgroups: Path, mine: Path) -> list[float]:
    """Of our control group and all those around it."""
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = cgroups / controllers if controllers else cgroups
        inner = base / name.strip("/")
        # In a container of its own namespace the name may not be there: the outermost folder is its own.
        for folder in {base, inner, *(p for p in inner.parents if p.is_relative_to(base))}:
            quotas += _quota(folder)
    return quotas


def _quota(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if quota.strip() not in ("max", "-1") else []
    except (OSError, ValueError):
        return []
