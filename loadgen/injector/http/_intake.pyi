from typing import Final

MORE: Final[int]
NOTHING: Final[int]
WHOLE: Final[int]
FULL: Final[int]
ODD: Final[int]
BROKEN: Final[int]

class Intake:
    """Reads the rest of a chunked answer on behalf of a `TokenStream`."""

    limit: int
    @property
    def stamp(self) -> int: ...  # of the last read
    @property
    def read(self) -> int: ...
    @property
    def since(self) -> int: ...  # since when the last read's bytes may have been there
    @property
    def full_since(self) -> int: ...  # if the last read was full, since when what it left has been there; else 0
    @property
    def received(self) -> int: ...  # bytes as they came, in all; 0 until it has read something
    @property
    def odd(self) -> bytes | None: ...
    @property
    def error(self) -> int: ...
    @property
    def raw(self) -> bytes: ...
    def begin(self, base: int, limit: int, full_since: int, /) -> None: ...
    def end(self) -> None: ...
    # Stamps, reads, unseen, emptied and ends (as in `TokenStream`) and body bytes since the last call.
    def drain(self) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]: ...

class Poll:
    """Waits in the event loop's place, and reads for the intakes it was given."""

    def __init__(self, epoll: int, edges: bytes, looked: int, /) -> None: ...
    @property
    def woke(self) -> int: ...  # when the last wait ended
    @property
    def unseen_since(self) -> int: ...  # CLOCK_REALTIME ns: what the last poll reported came after it
    pause_ns: int  # the least time from one poll to the next, while it may wait and an intake is given
    beat_ns: int  # the longest wait; 0: any
    @property
    def exact(self) -> int: ...  # whether `until` ends a wait to the microsecond
    def give(self, fd: int, intake: Intake, /) -> None: ...
    def take_back(self, fd: int, /) -> None: ...
    # Ready descriptors, and the value for each one's handler. It returns by `until` even if there are none.
    def poll(self, wait: bool, most: int, until: int, /) -> list[tuple[int, int]]: ...
    def drain_lags(self) -> bytes: ...
    def take_longest(self) -> int: ...  # the longest time (ns) it worked without returning, since the last call
