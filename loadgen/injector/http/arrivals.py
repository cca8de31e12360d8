"""When the tokens of an answer came, worked out of its reads: in C where that is compiled, else in Python.

Both give the same (tests/unit/loadgen/injector/http/test_compiled_arrivals.py).
"""

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tailgate.loadgen.injector.http import AVAILABLE
from tailgate.loadgen.injector.http.read_times import ReadTimes
from tailgate.loadgen.records import CENSORED

if AVAILABLE or TYPE_CHECKING:
    from tailgate.loadgen.injector.http import _events


class TokenArrivals(NamedTuple):
    """Content arrivals of one digest. Times are CLOCK_REALTIME ns; -1: there is none."""

    arrivals_us: bytes  # uint32 each, after the answer's first
    censored: bytes  # of CENSORED
    first_ns: int  # the answer's first
    answer_ns: int  # the one that was asked for
    last_ns: int
    lag_max_ns: int  # of all reads
    client_coalesced: int
    server_coalesced: int
    first_token_coalesced: bool


def in_python(
    stamps: "array[int]", reads: "array[int]", unseen: "array[int]", emptied: bytes | bytearray,
    read_ends: "array[int]", kinds: bytes, ends: npt.NDArray[np.int64], sent_ns: int, before_ns: int, start: int,
    before: int, first_ns: int, answer: int, late_ns: int,
) -> tuple[bytes, bytes, int, int, int, int, int, int, bool]:  # fmt: skip
    """The fields of `TokenArrivals`.

    The first five hold one entry for each read, as in `TokenStream`; ``kinds`` one for each event: whether it is a
    content arrival; ``ends``: how many bytes after ``start`` it ends. ``before``: content arrivals of the answer before
    these, the first of which came at ``first_ns`` (-1: there is none); ``answer``: the number of the one that is asked
    for.
    """
    times = ReadTimes(
        np.frombuffer(stamps, np.int64), np.frombuffer(reads, np.int64), np.frombuffer(unseen, np.int64), sent_ns,
        before_ns, np.frombuffer(emptied, np.bool_),
    )  # fmt: skip
    size = np.frombuffer(read_ends, np.int64)
    is_content = np.frombuffer(kinds, np.bool_)
    content_ends = start + ends[: len(is_content)][is_content]
    lags = times.lags
    if not len(content_ends):
        return b"", b"", first_ns, -1, -1, int(lags.max()), 0, 0, False
    # An event's read is the first one after which at least as many bytes were there.
    in_read = np.searchsorted(size, content_ends, side="left")
    since = times.not_before
    together = np.bincount(in_read, minlength=len(size))
    last_of = np.cumsum(together) - 1  # by read
    place = np.arange(1, len(in_read) + 1) - (last_of - together + 1)[in_read]
    arrived = since[in_read] + (times.stamps - since)[in_read] * place // together[in_read]
    first_ns = int(arrived[0]) if first_ns < 0 else first_ns
    # Clamped: a step of the clock may make a later stamp the smaller one; the audit sees the step.
    since_first = np.clip((arrived - first_ns) // 1000, 0, 0xFFFF_FFFF)
    holding = np.flatnonzero(together)
    last_exact = (content_ends == size[in_read])[last_of[holding]] & times.emptied[holding]
    unknown = (together[holding] > 1) | ~last_exact
    kept = np.empty(np.count_nonzero(unknown), CENSORED)
    of = holding[unknown]
    kept["first"] = before + last_of[of] - together[of] + 1
    kept["count"] = together[of]
    kept["after_us"] = np.clip((since[of] - first_ns) // 1000, -(1 << 31), (1 << 31) - 1)
    kept["last_exact"] = last_exact[unknown]
    several = together > 1
    late = several & (lags > late_ns)
    asked = before <= answer < before + len(arrived)
    return (
        since_first.astype(np.uint32).tobytes(), kept.tobytes(), first_ns,
        int(arrived[answer - before]) if asked else -1, int(arrived[-1]), int(lags.max()),
        int(together[late].sum()), int(together[several & ~late].sum()), before == 0 and bool(late[in_read[0]]),
    )  # fmt: skip


fields = _events.arrivals if AVAILABLE else in_python
