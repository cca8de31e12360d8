"""Turns the bytes of one streamed answer and their stamps into content arrivals.

On the arrival path a read costs three appends (`TokenStream.received`); everything else waits in `digest`,
which runs when the answer has ended or 64 KiB have piled up. An event arrived when the read that completed it
did. What stays per content arrival is four bytes (microseconds after the first).

Coalescing: a read that completes several content arrivals has only one stamp, its last byte's. If we read it
more than `LATE_NS` after it came, the earlier ones may have come apart: client-coalesced, our fault. If not, the
server or a gateway sent them together.
"""

from array import array
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading, read_events

if TYPE_CHECKING:
    from tailgate.loadgen.injector.http._intake import Intake

LATE_NS = 1_000_000
DIGEST_ABOVE = 64 * 1024
# No event of this API is longer; a server that sends no event's end for ever must not fill the memory.
_LONGEST_EVENT = 16 << 20

_integers = partial(array, "q")


@dataclass(slots=True, eq=False, repr=False)
class TokenStream:
    """The body of one answer while it arrives, and what is kept of it. Stamps are CLOCK_REALTIME ns."""

    reading: Reading
    pieces: list[bytes] = field(default_factory=list)  # body bytes not digested yet
    size: int = 0  # body bytes received in all
    start: int = 0  # body bytes digested
    digest_at: int = DIGEST_ABOVE  # beyond this size, don't wait for the end of the answer
    stamps: "array[int]" = field(default_factory=_integers)  # per read: the kernel's stamp
    reads: "array[int]" = field(default_factory=_integers)  # per read: when we came round to it
    ends: "array[int]" = field(default_factory=_integers)  # per read: `size` after it
    pending: bytes = b""
    intake: "Intake | None" = None  # what reads the rest, if Python doesn't
    arrivals_us: bytearray = field(default_factory=bytearray)
    first_ns: int | None = None
    last_ns: int | None = None
    first_answer_ns: int | None = None
    lag_max_ns: int = 0
    client_coalesced: int = 0
    server_coalesced: int = 0
    first_token_coalesced: bool = False

    def received(self, stamp: int, read: int) -> None:
        """Note a read whose bytes are in `pieces` and `size`."""
        self.stamps.append(stamp)
        self.reads.append(read)
        self.ends.append(self.size)

    @property
    def last_read_ns(self) -> int | None:
        if self.intake is not None and self.intake.received:
            return self.intake.stamp
        return self.stamps[-1] if self.stamps else None

    def catch_up(self) -> None:
        if self.intake is not None:
            stamps, reads, ends, body = self.intake.drain()
            self.stamps.frombytes(stamps)
            self.reads.frombytes(reads)
            self.ends.frombytes(ends)
            self.pieces.append(body)
            self.size += len(body)

    def digest(self, *, whole: bool = False) -> None:
        """Turn complete events into arrivals; keep the start of an event that is still coming.

        ``whole``: the body has ended. Arrivals in front of a bad event are kept.
        """
        stamps = np.frombuffer(self.stamps, np.int64)
        if not len(stamps):
            return
        lags = np.frombuffer(self.reads, np.int64) - stamps
        read_ends = np.frombuffer(self.ends, np.int64)
        body = self.pending + b"".join(self.pieces) if self.pending else b"".join(self.pieces)
        kinds, ends, used = read_events(self.reading, body, whole=whole)
        is_content = np.array(kinds, np.bool_)
        # An event's read is the first one after which at least as many bytes were there.
        in_read = np.searchsorted(read_ends, self.start + ends[: len(is_content)][is_content], side="left")
        if len(in_read):
            self._keep(stamps[in_read], in_read, lags)
        self.lag_max_ns = max(self.lag_max_ns, int(lags.max()))
        self.start += used
        self.pending = body[used:]
        self.digest_at = self.size + max(DIGEST_ABOVE, len(self.pending))  # twice as long: no byte is copied often
        self.pieces.clear()
        # The last read stays: a CR at its end may turn out to have been the end of an event.
        self.stamps, self.reads, self.ends = self.stamps[-1:], self.reads[-1:], self.ends[-1:]
        if self.reading.bad is not None:
            raise BadPayload(self.reading.bad)
        if len(self.pending) > _LONGEST_EVENT:
            raise BadPayload(f"an event without an end after {len(self.pending):,} bytes")

    def _keep(
        self, arrived: npt.NDArray[np.int64], in_read: npt.NDArray[np.int64], lags: npt.NDArray[np.int64]
    ) -> None:
        before = len(self.arrivals_us) // 4
        if self.first_ns is None:
            self.first_ns = int(arrived[0])
        answer = self.reading.first_answer
        if self.first_answer_ns is None and answer is not None:
            self.first_answer_ns = int(arrived[answer - before])
        self.last_ns = int(arrived[-1])
        # Clamped: a step of the clock may make a later stamp the smaller one; the audit sees the step.
        since_first = np.clip((arrived - self.first_ns) // 1000, 0, 0xFFFF_FFFF)
        self.arrivals_us += since_first.astype(np.uint32).tobytes()
        together = np.bincount(in_read)
        several = np.flatnonzero(together > 1)
        for read in several:
            if lags[read] > LATE_NS:
                self.client_coalesced += int(together[read])
                self.first_token_coalesced |= before == 0 and read == in_read[0]
            else:
                self.server_coalesced += int(together[read])
