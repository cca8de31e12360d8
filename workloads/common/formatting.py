"""Figures as people read them: significant digits, units, thousands; the same in every document.

And texts of others: what a name or a server's message may hold, without what would act on whoever reads it.
"""

import math
import re
from typing import Final

# Control characters but tab and line feed, what turns the direction of writing, surrogates, and what XML can't hold.
_ACTING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """The text with each character that a terminal or a page would obey written out, such as `\\x1b`."""
    return _ACTING.sub(written_out, text)


def written_out(found: re.Match[str]) -> str:
    """What was found, as an escape that can be seen."""
    return found[0].encode("unicode_escape").decode()


def ms(value: float | str | None) -> str:
    """A latency in ms; a dash for none, the sign for infinite."""
    if value is None:
        return "-"
    if isinstance(value, str) or math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def plain(value: float | str | None) -> str:
    """At least four significant digits, never an exponent; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, str) or math.isinf(value):
        return "∞"
    if value == 0 or math.isnan(value):
        return f"{value:g}"
    text = f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def with_unit(value: float | None, unit: str) -> str:
    """`1,230 ms`, `8.2/s`, `$3.1`; a dash for none, the sign for infinite."""
    text = plain(value)
    if text in ("-", "∞") or not unit:
        return text
    return f"${text}" if unit == "$" else f"{text}{unit}" if unit.startswith("/") else f"{text} {unit}"


def counted(count: int, noun: str) -> str:
    """`1 pair`, `2 pairs`, `1,000 pairs`: for nouns whose plural is an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def whole(value: float | None) -> str:
    """A large count or rate, without decimals; a dash for none."""
    return "-" if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share as per cent; a dash for none."""
    return "-" if share is None else f"{100 * share:.2f} %"


def dollars(value: float | None) -> str:
    """An amount: cents from a dollar on, four significant digits below; empty for none."""
    return "" if value is None else f"${value:,.2f}" if value >= 1 else f"${plain(value)}"


def optional(value: float | None) -> str:
    """As `plain`, but empty for none."""
    return "" if value is None else plain(value)


def gib(size_bytes: float | None) -> str:
    """Bytes in GiB with a decimal; empty for none."""
    return "" if size_bytes is None else f"{size_bytes / 2**30:,.1f}"
