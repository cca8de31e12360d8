"""What this machine must have for a load to be sent from it: Linux, descriptors, local ports.

Looked at before any load. What nevertheless runs short while it is sent is `client_resources` in
`reports.validity.client`.
"""

import resource
import sys
from pathlib import Path
from typing import Final

import numpy as np

from tailgate.harness.config.run_spec import RunSpec
from tailgate.harness.run.jobs import injector_count
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.plan.plan import Plan

# What a process has open besides its connections: files, sockets to others, its event loop.
_OWN: Final = 32
_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Hardly a server under load is as fast: the requests in flight will be more than this says.
_TOKEN_NS: Final = 5_000_000


def require_linux() -> None:
    """The injector stands on epoll and timerfd, and so does what it says of its own lateness.

    Raises:
        UserError: this is another system.
    """
    if sys.platform != "linux":
        raise UserError(
            f"load is sent from Linux only (epoll, timerfd, kernel time stamps), and this is {sys.platform}",
            remedy="Run it in a Linux container or virtual machine; reports and comparisons work here.",
        )


def check_resources(spec: RunSpec, plan: Plan) -> list[str]:
    """Whether all connections can be open at once that there will be; notices for the person are returned.

    Raises:
        UserError: a closed loop has more users than there can be connections.
    """
    if spec.workers is not None:  # it is their machines that count
        return []
    each = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # injectors raise the soft limit to this
    descriptors = injector_count(spec) * max(each - _OWN, 0)
    limits = [
        (descriptors, f"the limit of open files is {each:,}", "Raise it (ulimit -n), or use more --injectors."),
        (
            _local_ports() * max(len(spec.target.all_urls), 1),
            "there are too few local ports",
            f"Widen {_PORTS}, or name more target addresses.",
        ),
    ]
    room, why, remedy = min(limits)
    users = spec.workload.most_users
    if users > room:
        raise UserError(
            f"{users:,} users need as many connections, and {room:,} can be open: {why}",
            where="workload.users", remedy=remedy,
        )  # fmt: skip
    if plan.loop == "open" and (many := at_once(plan)) > room:
        return [
            f"even at {_TOKEN_NS / 1e6:g} ms a token {many:,} requests are in flight at once, and {room:,} connections "
            f"can be open: {why}. {remedy}"
        ]
    return []


def at_once(plan: Plan) -> int:
    """The largest number of a plan's requests in flight, if a server made a token every `_TOKEN_NS`."""
    at = plan.table["at_ns"].to_numpy().astype(np.float64)
    timed = np.isfinite(at)
    begin = np.sort(at[timed])
    end = np.sort(at[timed] + plan.table["output_tokens"].to_numpy()[timed] * _TOKEN_NS)
    ended = np.searchsorted(end, begin, side="right")
    return int((np.arange(1, len(begin) + 1) - ended).max(initial=0))


def _local_ports() -> int:
    try:
        low, high = map(int, _PORTS.read_text().split())
    except (OSError, ValueError):
        return 1 << 16
    return high - low + 1
