"""Seals messages, so that master and workers hear only who holds the run's token, and each message once.

    magic (4)  tag (32)  to (16)  sender (16)  number (8)  payload

The tag is an HMAC-SHA256 (RFC 2104) over the sender's role and all that follows it; its key is the token. Each end
draws a random `sender` of its own when it starts, and names in `to` the one for whom a message is meant. A message of
an earlier run is therefore meant for nobody here. `number` grows with every message, so that none is taken twice.

A worker begins with a greeting: a message to nobody and without a payload, to which the master answers in kind. From
then on both know for whom to seal. A greeting that is sent again by a stranger yields a greeting, and nothing else.

Messages are not encrypted. Who can read the line can read them, but can't make one.
"""

import hashlib
import hmac
import itertools
import os
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from tailgate.workloads.common.errors import UserError

MAGIC: Final = b"TGS1"
_TAG: Final = slice(4, 36)
_TO: Final = slice(36, 52)
_SENDER: Final = slice(52, 68)
_NUMBER: Final = slice(68, 76)
_HEAD_BYTES: Final = 76
_NOBODY: Final = bytes(16)


class Reason(StrEnum):
    """Why a message is ignored, as it ends a sentence that begins with a number of messages."""

    UNREADABLE = "that can't be read"
    UNSEALED = "without the run's token"
    OTHER_TOKEN = "with another token, or altered on the way"
    REPEATED = "repeated, or of another run"


class IgnoredMessages:
    """Counts what is not heard, and says so: each reason when it is met first, and the number at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._counts: Counter[Reason] = Counter()

    def count(self, reason: Reason) -> None:
        self._counts[reason] += 1
        if self._counts[reason] == 1:
            self._say(f"a message {reason}")

    def conclude(self) -> None:
        if self._counts.total() > len(self._counts):
            parts = ", ".join(f"{count:,} {reason}" for reason, count in self._counts.most_common())
            self._say(f"{self._counts.total():,} messages in all: {parts}")


class Ignored(Exception):
    """A message that is not heard."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """An unsealed message; ``payload`` is empty in a greeting."""

    sender: bytes
    payload: bytes


@dataclass
class Seal:
    """One end's seal: the token, and what this end knows of the others (by the name of their connection)."""

    token: str = field(repr=False)
    role: Literal["master", "worker"]
    peers: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._own = secrets.token_bytes(16)
        self._numbers = itertools.count(1)
        self._latest: dict[bytes, int] = {}  # of each sender

    def seal(self, payload: bytes, to: bytes = _NOBODY) -> bytes:
        body = to + self._own + next(self._numbers).to_bytes(8) + payload
        return MAGIC + self._tag(self.role, body) + body

    def open(self, connection: str, sealed: bytes) -> Opened:
        """Open a message of the other role. Raises `Ignored` with the reason if it is not to be heard."""
        if len(sealed) < _HEAD_BYTES or not sealed.startswith(MAGIC):
            raise Ignored(Reason.UNSEALED)
        theirs = "worker" if self.role == "master" else "master"
        if not hmac.compare_digest(self._tag(theirs, sealed[_TAG.stop :]), sealed[_TAG]):
            raise Ignored(Reason.OTHER_TOKEN)
        to, sender, number = sealed[_TO], sealed[_SENDER], int.from_bytes(sealed[_NUMBER])
        opened = Opened(sender, sealed[_HEAD_BYTES:])
        first_greeting = self.role == "master" and to == _NOBODY and not opened.payload
        meant_for_us = to == self._own and self.peers.get(connection, sender) == sender
        if not (first_greeting or meant_for_us) or number <= self._latest.get(sender, 0):
            raise Ignored(Reason.REPEATED)
        self._latest[sender] = number
        if meant_for_us:
            self.peers[connection] = sender
        return opened

    def _tag(self, role: str, body: bytes) -> bytes:
        return hmac.digest(os.fsencode(self.token), role.encode() + body, hashlib.sha256)


def read_token(variable: str | None) -> str | None:
    """The token in an environment variable; None if none is named. Raises a UserError if the variable is empty."""
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UserError(
            f"the environment variable {variable} is not set",
            where="--token-env",
            remedy="Set it to the same long random text on all machines, e.g. of `openssl rand -hex 32`.",
        )
    return token
