"""When the bytes of one answer came: what each read tells, and since when what it completed may have been there.

A read has one stamp, its last byte's. The arrays have one entry a read; times are CLOCK_REALTIME ns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]

# Linux delays an acknowledgement by 40 ms at least, and on a slow clock by a tick more (TCP_DELACK_MIN). After one that
# was delayed in vain it sends the others of a stream at once.
_DELAY_NS: Final = (38e6, 50e6)
_FIRST_READS: Final = 6  # among which that is
_ENOUGH_READS: Final = 12


@dataclass(frozen=True)
class ReadTimes:
    """Some reads of one stream, in order."""

    stamps: Times  # the kernel's; without one, when we read
    reads: Times  # when we read, at the latest
    unseen: Times  # the loop's last look that did not report the socket
    sent_ns: int  # nothing of the answer came before
    before_ns: int  # a stamp of a read before the first one here that is surely its last byte's
    emptied: npt.NDArray[np.bool_]  # of which the stamp is surely the last byte's (`transport.Read`)

    @property
    def lags(self) -> Times:
        """How late we read, ns."""
        return self.reads - self.stamps

    @property
    def not_before(self) -> Times:
        """Of each, the latest time before which what it completed had not come. Clock noise can't put it later."""
        # Bytes come in order, so what a read completed came after the last byte of the one before.
        earlier = np.concatenate([[self.before_ns], np.where(self.emptied, self.stamps, 0)[:-1]])
        since: Times = np.minimum(np.maximum(np.maximum(self.unseen, self.sent_ns), earlier), self.stamps)
        return since


def held_by_ack(stamps: Sequence[int], ends: Sequence[int]) -> bool:
    """Whether a stream looks as if its server had held tokens back until an acknowledgement that we delayed had come.

    One of its first gaps is as long as that, and what had been held back came at once or close behind.

    Args:
        stamps: of its reads, ns.
        ends: bytes of the body after each read.
    """
    gaps = [after - before for before, after in pairwise(stamps[:_ENOUGH_READS])]
    if len(gaps) < _FIRST_READS:
        return False
    usual = median(gaps)
    for k, gap in enumerate(gaps[: _FIRST_READS - 1]):
        if _DELAY_NS[0] <= gap <= _DELAY_NS[1] and usual < _DELAY_NS[0]:
            bundled = ends[k + 1] - ends[k] >= 1.6 * ends[0]
            return bundled or gaps[k + 1] <= usual / 2
    return False
