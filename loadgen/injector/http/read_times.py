"""When the bytes of one answer came: what each read tells, and since when what it completed may have been there.

A read has one stamp, its last byte's. The arrays have one entry a read; times are CLOCK_REALTIME ns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]


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
