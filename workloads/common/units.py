"""Durations and rates as people write them: `90s`, `1h30m`, `12/s`, `600/min`.

Numbers without a unit are seconds and requests per second. Sizes, prices and SLOs are parsed elsewhere.
"""

import math
import re
from typing import Annotated, Final

from pydantic import BeforeValidator

_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PER: Final = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d+))?"
_DURATION_PART: Final = re.compile(rf"\s*{_NUMBER}\s*(ms|min|s|m|h|d|w)", re.IGNORECASE)
_RATE: Final = re.compile(rf"\s*{_NUMBER}\s*(?:rps|/\s*(sec|min|s|m|h|d))?\s*", re.IGNORECASE)


def parse_duration(value: object) -> float:
    """Seconds of `90s`, `10m`, `1h30m`, `250ms`, `2d`, or of a plain number (seconds)."""
    number = _plain_number(value)
    if number is None:
        number = _sum_of_parts(str(value))
    if number is None or number < 0 or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a duration (write 90s, 10m, 1h30m, 250ms or a number of seconds)")
    return number


def parse_rate(value: object) -> float:
    """Requests per second of `12/s`, `600/min`, `3600/h`, or of a plain number (per second)."""
    number = _plain_number(value)
    if number is None and (match := _RATE.fullmatch(str(value))):
        number = _mantissa(match) / _PER[(match[3] or "s").lower()]
    if number is None or number <= 0 or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a rate (write 12/s, 600/min or a number of requests per second)")
    return number


def _plain_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _mantissa(match: re.Match[str]) -> float:
    return float(f"{match[1]}e{match[2]}" if match[2] else match[1])


def _sum_of_parts(text: str) -> float | None:
    total, at = 0.0, 0
    text = text.strip()
    while at < len(text):
        match = _DURATION_PART.match(text, at)
        if match is None:
            return None
        total += _mantissa(match) * _SECONDS[match[3].lower()]
        at = match.end()
    return total if text else None


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""A pydantic field in seconds that reads `90s`."""

Rate = Annotated[float, BeforeValidator(parse_rate)]
"""A pydantic field in requests per second that reads `12/s`."""
