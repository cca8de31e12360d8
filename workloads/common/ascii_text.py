"""Texts for a terminal that shows ASCII only: our own signs as people write them there, other characters as escapes."""

import codecs
from typing import Final

ERRORS: Final = "tailgate.ascii"  # `errors` of a text stream: what its encoding lacks is written so
_SIGNS: Final = str.maketrans({
    "≥": ">=", "≤": "<=", "≈": "~", "±": "+/-", "×": "x", "−": "-", "–": "-", "—": "-", "→": "->", "←": "<-",
    "…": "...", "·": "-", "•": "*", "●": "*", "∞": "inf", "µ": "u", "μ": "u", "°": " deg ", "σ": "sigma", "‘": "'",
    "’": "'",
    "“": '"', "”": '"', "│": "|", "┊": "|", "─": "-", "┴": "+", "┐": "+", "█": "#", "▇": "#", "▆": "*", "▅": "+",
    "▄": "=", "▃": "-", "▂": ".", "▁": "_", "✅": "ok", "❌": "no", "⚠": "!", "\ufe0f": "", "❔": "?", "\u00a0": " ",
})  # fmt: skip


def ascii_of(text: str) -> str:
    """The text in ASCII."""
    return text.translate(_SIGNS).encode("ascii", "backslashreplace").decode()


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return ascii_of(error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _replaced)
