"""Finds a body's events by the compiled `_events`. No payload is copied before it is asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tailgate.loadgen.injector.http import AVAILABLE

if AVAILABLE or TYPE_CHECKING:
    from tailgate.loadgen.injector.http import _events


class Events:
    """The payloads of a body, as a sequence, and what is known of them.

    Attributes:
        plain: a byte for each, 1 where it has the marks of a plain token; one 0 behind them.
        ends: shape (len,), how many bytes of the body there are up to and with each event's end.
    """

    def __init__(self, body: bytes, plain: bytes, ends: npt.NDArray[np.int64]) -> None:
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

    Args:
        first: a plain payload has this mark,
        second: and this one,
        but: and not this one.
    """
    scanned = _events.scan(body, first, second, but) if AVAILABLE else None
    return None if scanned is None else Events(body, scanned[0], np.frombuffer(scanned[1], np.int64))
