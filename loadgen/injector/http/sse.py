"""Server-sent events: cuts the bytes of a body into event payloads, and says where each ends.

Follows the WHATWG event-stream grammar (https://html.spec.whatwg.org/multipage/server-sent-events.html)
as far as LLM servers need it: LF, CRLF or CR line ends, comments, `data:` with or without a space, several
data lines joined by LF; of other fields only `event: error` is heeded. Usual bodies are cut by the compiled `_events`
where it is there.
Knows no JSON and no clocks.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tailgate.loadgen.injector.http import AVAILABLE

if AVAILABLE or TYPE_CHECKING:
    from tailgate.loadgen.injector.http import _events

# A blank line ends an event. CRLF CRLF, LF LF, CR CR, and the mixtures the grammar allows. A lone CR at the
# very end could be half of a CRLF: it waits for the next byte.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_LAST_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"  # one may stand at a stream's start

Ends = npt.NDArray[np.int64]


def split(body: bytes, *, whole: bool = False) -> tuple[list[bytes], Ends, int]:
    """Complete events of ``body``; ``whole``: nothing comes behind it, so a last CR is no half of a CRLF.

    Returns:
        payloads: the data of each event that has any.
        ends: shape (len(payloads),), how many bytes of ``body`` there are up to and with each event's end.
        used: how many bytes of ``body`` belong to complete events; the rest is the start of the next one.
    """
    parts = body.split(b"\n\n")
    rest = parts.pop()
    # What servers send nearly always: one `data: ` line an event. Three counts prove it for the whole body.
    if (
        parts
        and body.startswith(b"data: ")
        and body.count(b"\n\ndata: ") == len(parts) - 1 + rest.startswith(b"data: ")
        and body.count(b"\n", 0, len(body) - len(rest)) == 2 * len(parts)
        and b"\r" not in body
    ):
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) + 2)
        return [part[6:] for part in parts], ends, int(ends[-1])
    return _split_any(body, _LAST_EVENT_END if whole else _EVENT_END)


def _split_any(body: bytes, event_end: re.Pattern[bytes]) -> tuple[list[bytes], Ends, int]:
    payloads: list[bytes] = []
    ends: list[int] = []
    start = 0
    for match in event_end.finditer(body):
        payload = _payload(body[start : match.start()])
        if payload is not None:
            payloads.append(payload)
            ends.append(match.end())
        start = match.end()
    return payloads, np.asarray(ends, np.int64), start


class ErrorData(bytes):
    """The data of an event that the server named `error`, whatever is in it."""


def _payload(event: bytes) -> bytes | None:
    """The data lines of one event joined by LF; None for comments and for events without data."""
    lines, kind = [], b""
    for line in _LINE_END.split(event):
        name, colon, value = line.partition(b":")
        if name in (b"data", _BOM + b"data"):
            lines.append(value.removeprefix(b" ") if colon else b"")
        elif name == b"event":
            kind = value.strip()
    if not lines:
        return None
    return ErrorData(b"\n".join(lines)) if kind == b"error" else b"\n".join(lines)


class Events:
    """The payloads of a body, as a sequence; none is copied before it is asked for. `ends` are as `split` says them.

    `plain` is a byte for each payload, 1 where it has the marks of a plain token, with one 0 behind them.
    """

    def __init__(self, body: bytes, plain: bytes, ends: Ends) -> None:
        self._body = body
        self.plain = plain
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self._body[start + len(b"data: ") : int(self.ends[number]) - len(b"\n\n")]

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))


def usual_events(body: bytes, first: bytes, second: bytes, but: bytes) -> Events | None:
    """The complete events of a body in which each is one line, `data: ...`; None of any other (or without `_events`).

    A plain payload has the marks ``first`` and ``second``, and not ``but``.
    """
    scanned = _events.scan(body, first, second, but) if AVAILABLE else None
    return None if scanned is None else Events(body, scanned[0], np.frombuffer(scanned[1], np.int64))
