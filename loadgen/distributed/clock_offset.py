"""How far two machines' clocks are apart, by the quickest of several NTP exchanges (RFC 5905, section 8)."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ping:
    """One exchange, CLOCK_REALTIME ns: sent and answer received here, received and answered there."""

    sent: int
    received_there: int
    answered_there: int
    received: int

    @property
    def way_ns(self) -> int:
        """Time on the way, there and back."""
        return (self.received - self.sent) - (self.answered_there - self.received_there)

    @property
    def offset_ns(self) -> int:
        """Their clock less ours, if both ways took equally long."""
        return ((self.received_there - self.sent) + (self.answered_there - self.received)) // 2


@dataclass(frozen=True)
class Offset:
    """Their clock less ours, ns; the truth is within ``error_ns`` of it whatever the ways took."""

    offset_ns: int
    error_ns: int


def estimate(pings: Iterable[Ping]) -> Offset:
    """The offset by the ping that was the least time on the way. Raises a ValueError if there is none."""
    best = min(pings, key=lambda ping: ping.way_ns)
    return Offset(best.offset_ns, (best.way_ns + 1) // 2)
