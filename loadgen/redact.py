"""Keeps secrets out of records: what we send as a header may come back in a server's error message.

Knows the values of all headers that were ever sent (an old API key is a secret as well). Says nothing about
where secrets are kept: see `loadgen.job`.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Final

MASK: Final = "***"
# Shorter words of harmless headers ("X-Team: blue") would blot out parts of ordinary messages.
_LEAST: Final = 8
_LEAST_SECRETIVE: Final = 4
SECRETIVE: Final = re.compile("auth|key|token|secret|cookie|password|signature", re.IGNORECASE)
_SCHEMES: Final = {"basic", "bearer", "digest", "negotiate", "token", "apikey"}
# A message may be cut in the middle of a secret; this much of one at a message's end is masked too.
_LEAST_CUT: Final = 4


class Secrets:
    """Masks the secrets it has learned."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._pattern: re.Pattern[str] | None = None

    def learn(self, headers: Mapping[str, str]) -> None:
        words = {word for name, value in headers.items() for word in _words(name, value)}
        self._secrets = sorted(words.union(self._secrets), key=len, reverse=True)
        self._pattern = _anywhere(self._secrets) if self._secrets else None

    def mask(self, text: str) -> str:
        """The text with every known secret made unreadable, also one that is cut at the text's end."""
        if self._pattern is None:
            return text
        spans = [match.span(1) for match in self._pattern.finditer(text)]
        cut = max((_cut(text, secret) for secret in self._secrets), default=0)
        if cut:
            spans.append((len(text) - cut, len(text)))
        masked, at = "", 0
        for start, end in sorted(spans):
            if start > at or not masked:
                masked += text[at:start] + MASK
            at = max(at, end)
        return masked + text[at:]


def _anywhere(secrets: Iterable[str]) -> re.Pattern[str]:
    """The pattern looks ahead only, so that of two secrets that overlap ("00000000" in nine zeros) both are found."""
    return re.compile(f"(?=({'|'.join(map(re.escape, secrets))}))")


def _cut(text: str, secret: str) -> int:
    """How much of a secret's beginning the text ends with."""
    for length in range(min(len(secret) - 1, len(text)), _LEAST_CUT - 1, -1):
        if text.endswith(secret[:length]):
            return length
    return 0


def _words(name: str, value: str) -> Iterable[str]:
    words = {value.strip(), *value.split()}
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        words |= {pair, pair.partition(":")[2]}
    least = _LEAST_SECRETIVE if SECRETIVE.search(name) else _LEAST
    return (word for word in words if len(word) >= least and word.lower() not in _SCHEMES)
