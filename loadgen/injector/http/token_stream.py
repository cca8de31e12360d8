"""Turns the bytes of one streamed answer and their stamps into content arrivals.

On the arrival path a read costs four appends (`TokenStream.received`); everything else waits in `digest`,
which runs when the answer has ended or 64 KiB have piled up. What stays per content arrival is four bytes
(microseconds after the first).

A read has one stamp, its last byte's. A content arrival with nothing behind it in its read came then, exactly. All
others came between two times, in order, and that interval is kept (`records.CENSORED`): they came after the previous
read's stamp, after the sending, and after the loop's last look that did not report this socket. The best estimate
spreads them evenly over it. If we read more than `LATE_NS` after the stamp, that is the client's doing
(client-coalesced); if not, the server's or a gateway's. `arrivals` works all this out.
"""

from array import array
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tailgate.loadgen.injector.api.openai_response import BadPayload, Reading, read_events
from tailgate.loadgen.injector.http.arrivals import TokenArrivals, fields

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
    unseen: "array[int]" = field(default_factory=_integers)  # per read: since when its bytes may have been there
    emptied: bytearray = field(default_factory=bytearray)  # per read: 1 where the stamp is surely its last byte's
    ends: "array[int]" = field(default_factory=_integers)  # per read: `size` after it
    pending: bytes = b""
    intake: "Intake | None" = None  # what reads the rest, if Python doesn't
    sent_ns: int = 0  # the request's: nothing of the answer came before it
    before_ns: int = 0  # a sure stamp of a read before the first one in `stamps`
    arrivals_us: bytearray = field(default_factory=bytearray)
    censored: bytearray = field(default_factory=bytearray)  # of records.CENSORED
    first_ns: int | None = None
    last_ns: int | None = None
    first_answer_ns: int | None = None
    lag_max_ns: int = 0
    client_coalesced: int = 0
    server_coalesced: int = 0
    first_token_coalesced: bool = False

    def received(self, read: tuple[int, int, int, bool]) -> None:
        """Note a read (`transport.Read`) whose bytes are in `pieces` and `size`."""
        self.stamps.append(read[0])
        self.reads.append(read[1])
        self.unseen.append(read[2])
        self.emptied.append(read[3])
        self.ends.append(self.size)

    @property
    def last_read_ns(self) -> int | None:
        if self.intake is not None and self.intake.received:
            return self.intake.stamp
        return self.stamps[-1] if self.stamps else None

    def catch_up(self) -> None:
        if self.intake is not None:
            stamps, reads, unseen, emptied, ends, body = self.intake.drain()
            self.emptied += emptied
            self.stamps.frombytes(stamps)
            self.reads.frombytes(reads)
            self.unseen.frombytes(unseen)
            self.ends.frombytes(ends)
            self.pieces.append(body)
            self.size += len(body)

    def digest(self, *, whole: bool = False) -> None:
        """Turn complete events into arrivals; keep the start of an event that is still coming.

        ``whole``: the body has ended. TokenArrivals in front of a bad event are kept.
        """
        if not self.stamps:
            return
        body = self.pending + b"".join(self.pieces) if self.pending else b"".join(self.pieces)
        kinds, ends, used = read_events(self.reading, body, whole=whole)
        answer = self.reading.first_answer
        found = TokenArrivals(
            *fields(
                self.stamps, self.reads, self.unseen, self.emptied, self.ends, bytes(kinds), ends,
                self.sent_ns, self.before_ns, self.start, len(self.arrivals_us) // 4,
                -1 if self.first_ns is None else self.first_ns, -1 if answer is None else answer, LATE_NS,
            )
        )  # fmt: skip
        self._keep(found)
        self.start += used
        self.pending = body[used:]
        self.digest_at = self.size + max(DIGEST_ABOVE, len(self.pending))  # twice as long: no byte is copied often
        self.pieces.clear()
        # The last read stays: a CR at its end may turn out to have been the end of an event.
        if len(self.stamps) > 1 and self.emptied[-2]:
            self.before_ns = self.stamps[-2]
        self.stamps, self.reads, self.unseen = self.stamps[-1:], self.reads[-1:], self.unseen[-1:]
        self.emptied, self.ends = self.emptied[-1:], self.ends[-1:]
        if self.reading.bad is not None:
            raise BadPayload(self.reading.bad)
        if len(self.pending) > _LONGEST_EVENT:
            raise BadPayload(f"an event without an end after {len(self.pending):,} bytes")

    def _keep(self, found: TokenArrivals) -> None:
        self.lag_max_ns = max(self.lag_max_ns, found.lag_max_ns)
        if not found.arrivals_us:
            return
        self.arrivals_us += found.arrivals_us
        self.censored += found.censored
        self.first_ns, self.last_ns = found.first_ns, found.last_ns
        if found.answer_ns >= 0:
            self.first_answer_ns = found.answer_ns
        self.client_coalesced += found.client_coalesced
        self.server_coalesced += found.server_coalesced
        self.first_token_coalesced |= found.first_token_coalesced
