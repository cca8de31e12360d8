"""Keeps secrets out of what leaves a process: what we send may come back in a server's error message.

A process learns every secret that it is given: values of headers (an old API key is a secret as well), passwords and
queries of URLs, settings that are named like a secret. Whatever writes asks for a mask: records, JSON documents, the
rendered documents, standard error. Says nothing about where secrets are kept: see `loadgen.job`.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK: Final = "***"
# Shorter words of harmless headers ("X-Team: blue") would blot out parts of ordinary messages.
_LEAST: Final = 8
_LEAST_SECRETIVE: Final = 4
SECRETIVE: Final = re.compile("auth|key|token|secret|cookie|password|signature", re.IGNORECASE)
_SCHEMES: Final = {"basic", "bearer", "digest", "negotiate", "token", "apikey"}
# Our own documents hold names ("latest", "chat") in which a short key such as "test" would be found by chance.
LEAST_IN_DOCUMENTS: Final = 8
SECRET_ENDING: Final = r"(?:key|token|secret|password|passwd|passphrase|credentials?|authorization|cookie)"
_NAME: Final = re.compile(rf"(?:.*[-_.])?(?:api)?{SECRET_ENDING}", re.IGNORECASE)
_HUMP: Final = re.compile("(?<=[a-z])(?=[A-Z])")


def is_secret(name: str) -> bool:
    """Whether something with this name is likely to be a secret."""
    return _NAME.fullmatch(_HUMP.sub("_", name)) is not None


class Secrets:
    """Masks the secrets it has learned."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._patterns: dict[int, re.Pattern[str] | None] = {}

    def learn(self, headers: Mapping[str, str]) -> None:
        self._add(word for name, value in headers.items() for word in _words(name, value))

    def learn_url(self, url: str) -> None:
        """Learn the password of a URL and the values of its query."""
        try:
            parts = urlsplit(url)
        except ValueError:  # it is refused where it is used
            return
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if password:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._add(word for value in (password, parts.password or "", pair) for word in _words("password", value))
        elif user:  # a token in the place of the user
            self._add(_words("", user))
        self._add(word for name, value in parse_qsl(parts.query) for word in _words(name, value))

    def learn_settings(self, settings: Any) -> None:
        """Learn, of nested settings, the values of those that are named like a secret."""
        match settings:
            case Mapping():
                for name, value in settings.items():
                    if is_secret(str(name)):
                        self._add(word for text in texts(value) for word in _words(str(name), text))
                    self.learn_settings(value)
            case list() | tuple():
                for value in settings:
                    self.learn_settings(value)

    def _add(self, words: Iterable[str]) -> None:
        forms = {form for word in words for form in (word, json.dumps(word)[1:-1], quote(word, safe=""))}
        if forms - set(self._secrets):
            self._secrets = sorted(forms.union(self._secrets), key=len, reverse=True)
            self._patterns.clear()

    def mask(self, text: str, least: int = _LEAST_SECRETIVE) -> str:
        """The text with every known secret of `least` characters made unreadable, also one that is cut at its end."""
        if not self._secrets:
            return text
        secrets = [secret for secret in self._secrets if len(secret) >= least]
        if least not in self._patterns:
            self._patterns[least] = _anywhere(secrets) if secrets else None
        if (pattern := self._patterns[least]) is None:
            return text
        spans = [match.span(1) for match in pattern.finditer(text)]
        cut = max((_cut(text, secret, least) for secret in secrets), default=0)
        if cut:
            spans.append((len(text) - cut, len(text)))
        masked, at = "", 0
        for start, end in sorted(spans):
            if start > at or not masked:
                masked += text[at:start] + MASK
            at = max(at, end)
        return masked + text[at:]

    def masked(self, value: Any) -> Any:
        """Nested values of a JSON document with the known secrets masked in its texts."""
        match value:
            case str():
                return self.mask(value, LEAST_IN_DOCUMENTS)
            case Mapping():
                return {key: item if key == "schema" else self.masked(item) for key, item in value.items()}
            case list() | tuple():
                return [self.masked(item) for item in value]
        return value


# What this process knows. An injector has its own, since it masks what servers say and nothing else.
SECRETS: Final = Secrets()


def _anywhere(secrets: Iterable[str]) -> re.Pattern[str]:
    """The pattern looks ahead only, so that of two secrets that overlap ("00000000" in nine zeros) both are found."""
    return re.compile(f"(?=({'|'.join(map(re.escape, secrets))}))")


def _cut(text: str, secret: str, least: int) -> int:
    """How much of a secret's beginning, if `least` characters of it, the text ends with."""
    for length in range(min(len(secret) - 1, len(text)), least - 1, -1):
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


def texts(value: Any) -> Iterable[str]:
    """All texts in nested settings, their keys apart."""
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from texts(item)
        case list() | tuple():
            for item in value:
                yield from texts(item)
