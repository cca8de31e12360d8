"""Where the load generator had to fall back to something less: said once, in the manifest's notices.

Records are the same in every case; what it did to a figure is in that figure's own error.
"""

from typing import Any, Final

from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.reports.rundir.manifest import Manifest

# Kernel stamps count as such only when nearly every read had one; of the others nobody knows how late they were.
_MOST_UNSTAMPED: Final = 0.001
_USER_STAMPS: Final = (
    "the kernel gives no receive time stamps here: times are those at which answers were read, and no arrival is known "
    "exactly"
)
_MIXED_STAMPS: Final = (
    "the kernel did not stamp {unstamped:,} of {reads:,} reads: of what they held it is only known when it was read"
)
_IN_PYTHON: Final = (
    "answers are read in Python, which takes more of a core than the compiled extension: install Tailgate where there "
    "is a C compiler"
)
_WAITING: Final = (
    "{peer} looks as if it held tokens back until earlier ones were acknowledged (Nagle's algorithm), which was "
    "delayed: gaps of its first answers are too long. The others were acknowledged at once (target.delayed_acks: never "
    "does so from the start)"
)


def when_ready(manifest: Manifest, *, stamps: bool) -> list[str]:
    """The injectors are ready, and `stamps` says whether the kernel stamps; the new notices are returned."""
    manifest.stamp = "kernel" if stamps else "user"
    ours = not manifest.workers  # how other machines read, their own installation decides
    return _add(manifest, [*([] if stamps else [_USER_STAMPS]), *([_IN_PYTHON] if ours and not AVAILABLE else [])])


def when_ended(manifest: Manifest, message: dict[str, Any]) -> list[str]:
    """An injector has ended and told how it went; the new notices are returned."""
    notices = [_WAITING.format(peer=peer) for peer in message.get("waiting_peers", ())]
    manifest.acks_delayed = bool(manifest.acks_delayed) or message.get("acks_delayed", False)
    if (nice := message.get("nice")) is not None:
        manifest.injector_nice = nice if manifest.injector_nice is None else max(nice, manifest.injector_nice)
    if manifest.stamp == "kernel" and message["unstamped"] > _MOST_UNSTAMPED * message["reads"]:
        manifest.stamp = "mixed"
        notices.append(_MIXED_STAMPS.format(**message))
    return _add(manifest, notices)


def _add(manifest: Manifest, notices: list[str]) -> list[str]:
    new = [notice for notice in notices if notice not in manifest.notices]
    manifest.notices += new
    return new
