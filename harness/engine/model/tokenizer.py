"""The engine's tokenizer, and the text it answers with. Arithmetic, not learned, and exactly reversible.

Ids 0-255 are bytes. Above them stand pieces of one to three lower-case letters, with or without a space
before them: `" the"` is one token, `" tailgate"` three. Everything else (capitals, digits, marks, more
spaces) is a token per byte. Token counts add up over any cut before a space that a letter follows. English
comes to about three characters per token, where learned tokenizers reach four to five.
"""

import random
import re
from dataclasses import dataclass

import numpy as np
import orjson

_LETTERS = 26
_WORD = re.compile(rb" ?[a-z]+")
_WIDTH = 3

# First id of each kind of piece, by (has a space before it, letters).
_FIRST: dict[tuple[bool, int], int] = {}
_next = 256
for _spaced in (False, True):
    for _letters in (1, 2, 3) if _spaced else (2, 3):
        _FIRST[_spaced, _letters] = _next
        _next += _LETTERS**_letters
VOCABULARY = _next

_PIECES = sorted((first, kind) for kind, first in _FIRST.items())


def encode(text: str) -> list[int]:
    raw = text.encode()
    ids: list[int] = []
    at = 0
    for match in _WORD.finditer(raw):
        ids.extend(raw[at : match.start()])
        at = match.end()
        word = match.group()
        spaced = word[0] == 0x20
        letters = word[1:] if spaced else word
        for start in range(0, len(letters), _WIDTH):
            piece = letters[start : start + _WIDTH]
            with_space = spaced and start == 0
            if len(piece) == 1 and not with_space:
                ids.append(piece[0])
                continue
            number = 0
            for letter in piece:
                number = number * _LETTERS + letter - 0x61
            ids.append(_FIRST[with_space, len(piece)] + number)
    ids.extend(raw[at:])
    return ids


def piece_bytes(token: int) -> bytes:
    """The bytes that a token stands for. Ids beyond our vocabulary (a model's is larger): none."""
    if token < 256:
        return bytes([token])
    if token >= VOCABULARY:
        return b""
    first, (spaced, letters) = next(entry for entry in reversed(_PIECES) if entry[0] <= token)
    number = token - first
    out = bytearray()
    for _ in range(letters):
        number, letter = divmod(number, _LETTERS)
        out.append(0x61 + letter)
    out.reverse()
    return (b" " if spaced else b"") + bytes(out)


def decode(tokens: list[int]) -> str:
    """Text of token ids; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(map(piece_bytes, tokens)).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Babble:
    """An endless output text: token `i` of an answer that starts at `offset` is entry `(offset + i) % len`.

    `text` holds each token's text as a JSON string literal. Now and then a character takes two tokens: the
    first has no text, as in vLLM.
    """

    ids: list[int]
    text: list[bytes]
    _doubled: bytes

    @classmethod
    def seeded(cls, seed: int, length: int = 4096) -> "Babble":
        """`length` tokens of nonsense words, a function of the seed."""
        rng = random.Random(seed)
        ids: list[int] = []
        text: list[bytes] = []
        while len(ids) < length - 1:
            if rng.random() < 0.01:
                ids += [0xC3, 0xA9]
                text += [b'""', orjson.dumps("é")]
                continue
            word = bytes(rng.choices(b"etaoinshrdlucm", k=rng.choice((1, 2, 3, 3))))
            token = encode(" " + word.decode())[0]
            ids.append(token)
            text.append(orjson.dumps(piece_bytes(token).decode()))
        return cls(ids, text, np.asarray(ids * 2, dtype=np.int32).tobytes())

    def id_bytes(self, offset: int, count: int) -> bytes:
        """The ids of an answer's first `count` tokens, int32 each."""
        period = len(self.ids) * 4
        start = offset % len(self.ids) * 4
        whole, rest = divmod(count * 4, period)
        cycle = self._doubled[start : start + period]
        return cycle * whole + cycle[:rest]
