"""Numbers on a command line, refused with their range where they lie outside."""

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

N = TypeVar("N", int, float)


def number(kind: type[N], low: float, high: float = math.inf) -> Callable[[str], N]:
    """A `type=` for argparse: a whole (int) or any (float) number in [low, high]."""
    wanted = f"{'a whole number' if kind is int else 'a number'} "
    wanted += f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"

    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return read
