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
    before_ns: int  # the stamp of the read before the first one here
    kernel: bool  # the kernel was to stamp them

    @property
    def lags(self) -> Times:
        """How late we read, ns."""
        return self.reads - self.stamps

    @property
    def stamped(self) -> npt.NDArray[np.bool_]:
        """Which have the kernel's stamp; of one that it left out both times are our clock's."""
        return (self.stamps != self.reads) if self.kernel else np.zeros(len(self.stamps), np.bool_)

    @property
    def not_before(self) -> Times:
        """Of each, the latest time before which what it completed had not come. Clock noise can't put it later."""
        since = np.maximum(self.unseen, self.sent_ns)
        if self.kernel:
            # Bytes come in order. But a read without a stamp may have left some that were there when it was made.
            known = np.concatenate([[True], self.stamped[:-1]])
            earlier = np.concatenate([[self.before_ns], self.stamps[:-1]])
            since = np.where(known, np.maximum(since, earlier), since)
        return np.minimum(since, self.stamps)
