"""What only Linux can do, refused elsewhere."""

import sys

from tailgate.workloads.common.errors import UserError


def require_linux() -> None:
    """Refuse other systems: the injector stands on epoll and timerfd, and so does what it says of its own lateness."""
    if sys.platform != "linux":
        raise UserError(
            f"load is sent from Linux only (epoll, timerfd, kernel time stamps), and this is {sys.platform}",
            remedy="Run it in a Linux container or virtual machine; reports and comparisons work here.",
        )
