"""How finely a log's stamps tell time."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

# A float of seconds since 1970 is good to a quarter of a microsecond.
_FLOAT_NS: Final = 250
_DECADES_NS: Final = (10**9, 10**8, 10**7, 10**6, 10**5, 10**4, 10**3)
_COMMON_TIE: Final = 0.01


def resolution_ns(at_ns: npt.NDArray[np.int64]) -> int:
    """The largest tick that all stamps are whole numbers of, a decimal one also where floats have blurred them.

    Where stamps often coincide it is at least the least time between two that don't: Mooncake's ticks are 3 s apart to
    a few ms. 1 where nothing tells.
    """
    times = np.sort(at_ns)
    gaps = np.diff(times)
    positive: npt.NDArray[Any] = gaps[gaps > 0]
    if not len(positive):
        return 1
    since = times - times[0]
    blurred = (tick for tick in _DECADES_NS if _on(since, tick))
    tied = int(positive.min()) if len(positive) < (1.0 - _COMMON_TIE) * len(gaps) else 1
    return max(int(np.gcd.reduce(positive)), next(blurred, 1), tied)


def _on(since_ns: npt.NDArray[np.int64], tick_ns: int) -> bool:
    off = np.abs(since_ns - np.rint(since_ns / tick_ns).astype(np.int64) * tick_ns)
    return bool((off <= min(_FLOAT_NS, tick_ns // 4)).all())
