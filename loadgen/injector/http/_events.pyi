from array import array

import numpy as np
import numpy.typing as npt

def scan(body: bytes, first: bytes, second: bytes, but: bytes, /) -> tuple[bytes, bytes] | None: ...
def arrivals(
    stamps: array[int],
    reads: array[int],
    unseen: array[int],
    emptied: bytes | bytearray,
    read_ends: array[int],
    kinds: bytes,
    ends: npt.NDArray[np.int64],
    sent_ns: int,
    before_ns: int,
    start: int,
    before: int,
    first_ns: int,
    answer: int,
    late_ns: int,
    /,
) -> tuple[bytes, bytes, int, int, int, int, int, int, bool]: ...
