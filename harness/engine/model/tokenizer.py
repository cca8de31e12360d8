"""The engine's tokenizer, and the text it answers with. Arithmetic, not learned, and exactly reversible.

Ids 0-255 are bytes. Above them stand pieces of one to three lower-case letters, with or without a space
before them: `" the"` is one token, `" tailgate"` three. Everything else (capitals, digits, marks, more
spaces) is a token per byte. Token counts add up over any cut before a space that a letter follows. English
comes to about three characters per token, where learned tokenizers reach four to five.
"""

import itertools
import random
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import orjson

_Item = TypeVar("_Item", str, int)
_LETTERS = 26
_ALPHABET = [bytes([0x61 + n]) for n in range(_LETTERS)]
_WIDTH = 3

# What each id stands for, and the first id of the pieces by (has a space before it, letters). A letter alone is a byte.
_PIECES = [bytes([n]) for n in range(256)]
_FIRST = np.full((2, _WIDTH + 1), 0x61, dtype=np.int32)
for _spaced in (0, 1):
    for _letters in range(1 if _spaced else 2, _WIDTH + 1):
        _FIRST[_spaced, _letters] = len(_PIECES)
        _PIECES += [b" " * _spaced + b"".join(letters) for letters in itertools.product(_ALPHABET, repeat=_letters)]
VOCABULARY = len(_PIECES)
MAX_CHARACTERS_PER_TOKEN = 1 + _WIDTH


def encode(text: str) -> list[int]:
    """Token ids of `text`: whole columns at a time, about 20 ns a byte."""
    raw = np.frombuffer(text.encode(), dtype=np.uint8)
    size = len(raw)
    if not size:
        return []
    number = np.zeros(size + _WIDTH, dtype=np.int32)
    number[:size] = raw - np.uint8(0x61)  # wraps: what is no letter comes out as 26 or more
    letter = np.zeros(size + _WIDTH, dtype=bool)
    letter[:size] = number[:size] < _LETTERS
    first = letter[:size].copy()
    first[1:] &= ~letter[: size - 1]
    spaced = np.zeros(size + 1, dtype=bool)  # a word begins here that takes the space before it along
    spaced[1:size] = first[1:] & (raw[:-1] == 0x20)
    at = np.arange(size, dtype=np.int32)
    in_word = at - np.maximum.accumulate(np.where(first, at, 0))
    begins = letter[:size] & (in_word % _WIDTH == 0)
    where = np.flatnonzero(begins | ~(letter[:size] | spaced[1:]))
    second = letter[where + 1]
    third = second & letter[where + 2]
    value = number[where]
    value = np.where(second, value * _LETTERS + number[where + 1], value)
    value = np.where(third, value * _LETTERS + number[where + 2], value)
    length = 1 + second.astype(np.int8) + third
    ids: list[int] = np.where(begins[where], _FIRST[spaced[where].astype(np.int8), length] + value, raw[where]).tolist()
    return ids


def piece_bytes(token: int) -> bytes:
    """The bytes that a token stands for. Ids beyond our vocabulary (a model's is larger): none."""
    return _PIECES[token] if token < VOCABULARY else b""


def decode(tokens: list[int]) -> str:
    """Text of token ids; bytes that are not UTF-8 become U+FFFD."""
    return b"".join(map(piece_bytes, tokens)).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Babble:
    """An endless output text: token `i` of an answer that starts at `offset` is entry `(offset + i) % len`.

    `words` holds each token's text, `text` the same as a JSON string literal. Now and then a character takes two
    tokens: the first has no text, as in vLLM.
    """

    ids: list[int]
    words: list[str]
    text: list[bytes]
    _doubled: bytes

    @classmethod
    def seeded(cls, seed: int, length: int = 4096) -> "Babble":
        """`length` tokens of nonsense words, a function of the seed."""
        rng = random.Random(seed)
        words: list[str] = []
        while len(words) < length - 1:
            if rng.random() < 0.01:
                words += ["", "é"]
                continue
            word = bytes(rng.choices(b"etaoinshrdlucm", k=rng.choice((1, 2, 3, 3))))
            words.append(" " + word.decode())  # one token
        ids = encode("".join(words))
        return cls(ids, words, [orjson.dumps(word) for word in words], np.asarray(ids * 2, dtype=np.int32).tobytes())

    def pieces(self, offset: int, count: int) -> list[str]:
        """The texts of an answer's first `count` tokens."""
        return _cyclic(self.words, offset, count)

    def tokens(self, offset: int, count: int) -> list[int]:
        """The ids of an answer's first `count` tokens."""
        return _cyclic(self.ids, offset, count)

    def id_bytes(self, offset: int, count: int) -> bytes:
        """The ids of an answer's first `count` tokens, int32 each."""
        period = len(self.ids) * 4
        start = offset % len(self.ids) * 4
        whole, rest = divmod(count * 4, period)
        cycle = self._doubled[start : start + period]
        return cycle * whole + cycle[:rest]


def _cyclic(items: list[_Item], offset: int, count: int) -> list[_Item]:
    offset %= len(items)
    whole, rest = divmod(offset + count, len(items))
    return (items * whole + items[:rest])[offset:]
