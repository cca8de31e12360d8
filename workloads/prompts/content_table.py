"""A table of tokens to make prompts from: ids of real text, and where that text may be cut.

A token sequence can be cut anywhere when it is sent as ids. Text can't: cutting inside a word changes its
tokens. So a table that was made with the tokenizer's own token strings knows the *safe* places, where a
space and a letter follow a letter, digit or simple punctuation: every tokenizer in use splits its input
there before it merges (GPT-2's regular expression and its successors, SentencePiece's word boundary), hence
the pieces between safe places have the same tokens wherever they stand, and their counts add up. The rest
up to an exact length is filled with words that are one token each.

Making the table needs the answers of the target's `/tokenize`, which the caller fetches. The caller also verifies a
sample of made prompts, and measures what the server adds to each (a beginning-of-text token, a chat template).
"""

import hashlib
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tailgate.workloads.common.arrays import Ints, Mask
from tailgate.workloads.common.errors import UserError
from tailgate.workloads.common.user_cache import made_once
from tailgate.workloads.prompts import corpus
from tailgate.workloads.sampling.random_streams import RandomField

Ids = npt.NDArray[np.int32]

_WORDS: Final = 1024
_NONCES: Final = 4096
_LEAST_IDS: Final = 1000


@dataclass(frozen=True)
class ContentTable:
    """Tokens of a text in order.

    With text, `starts` is the first character in `text` of each of the `ids` (and the end), `safe` says where a piece
    may begin, and `words` are words of one token each, with their leading space. Without, those three are empty, and
    only prompts as ids can be made.
    """

    ids: Ids
    text: str = ""
    starts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    safe: Mask = field(default_factory=lambda: np.zeros(0, bool))
    words: tuple[str, ...] = ()

    @property
    def has_text(self) -> bool:
        """Whether prompts can be made as text and chat, to exact lengths."""
        return len(self.words) >= 16

    @cached_property
    def nonce_ids(self) -> list[int]:
        """The most frequent ids, at most 4,096, as digits that make the beginnings of prompts differ."""
        ids, counts = np.unique(self.ids, return_counts=True)
        most_first = np.argsort(-counts, kind="stable")[:_NONCES]
        return [int(token) for token in ids[most_first]]

    @cached_property
    def digest(self) -> str:
        """16 hex digits over all content, for the manifest."""
        digest = hashlib.blake2b(self.ids.astype("<i4").tobytes(), digest_size=8)
        digest.update(self.text.encode())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """As one .npz file (`path` is used as it is), whole or not at all."""
        draft = path.with_name(f".{path.name}.tmp")
        try:
            draft.write_bytes(self.packed())
            draft.replace(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UserError(f"can't be written: {error.strerror}", where=str(path)) from error

    @classmethod
    def load(cls, path: Path) -> "ContentTable":
        return cls.unpacked(path.read_bytes())

    def packed(self) -> bytes:
        """The bytes of a .npz file."""
        stream = io.BytesIO()
        np.savez(
            stream,
            ids=self.ids,
            text=np.frombuffer(self.text.encode(), np.uint8),
            starts=self.starts,
            safe=self.safe,
            words=np.frombuffer("\n".join(self.words).encode(), np.uint8),
        )
        return stream.getvalue()

    @classmethod
    def unpacked(cls, content: bytes) -> "ContentTable":
        with np.load(io.BytesIO(content)) as data:
            words = data["words"].tobytes().decode()
            return cls(
                ids=data["ids"],
                text=data["text"].tobytes().decode(),
                starts=data["starts"],
                safe=data["safe"],
                words=tuple(words.split("\n")) if words else (),
            )


def table_from_ids(ids: Sequence[int]) -> ContentTable:
    """A table of at least 1,000 ids, for prompts as ids only: the tokenizer doesn't tell its token strings."""
    if len(ids) < _LEAST_IDS:
        raise UserError(f"{len(ids)} tokens are too few to make prompts from", where="content")
    return ContentTable(np.asarray(ids, dtype=np.int32))


def table_from_tokens(pieces: Sequence[tuple[str, Sequence[int], Sequence[str] | None]]) -> ContentTable:
    """A table from tokenized pieces of a text: each (text, ids, token strings), no special tokens added.

    Token strings are as Hugging Face tokenizers give them (byte-level with its letters for bytes,
    SentencePiece with its low line for spaces) or plain. Where they are None or don't spell the text, the
    table is one for ids only.
    """
    safe_pieces: list[tuple[str, Ids, Ints, Mask]] = []
    for text, ids, strings in pieces:
        starts = None if strings is None or len(strings) != len(ids) else _starts(text, strings)
        if starts is None:
            return table_from_ids([token for _, piece_ids, _ in pieces for token in piece_ids])
        safe = _safe(text, starts)
        places = np.flatnonzero(safe)
        if len(places) >= 2:
            # From the first safe place to the last: then the ends of pieces are safe places too.
            first, last = int(places[0]), int(places[-1])
            begin, end = int(starts[first]), int(starts[last])
            safe_pieces.append(
                (text[begin:end], np.asarray(ids, np.int32)[first:last], starts[first:last] - begin, safe[first:last])
            )
    if sum(len(ids) for _, ids, _, _ in safe_pieces) < _LEAST_IDS:
        return table_from_ids([token for _, piece_ids, _ in pieces for token in piece_ids])
    offsets = np.cumsum([0, *(len(text) for text, _, _, _ in safe_pieces)])
    text = "".join(text for text, _, _, _ in safe_pieces)
    starts_all = np.concatenate([starts + at for (_, _, starts, _), at in zip(safe_pieces, offsets, strict=False)])
    safe_all = np.concatenate([safe for _, _, _, safe in safe_pieces])
    starts_all = np.append(starts_all, len(text)).astype(np.int64)
    return ContentTable(
        ids=np.concatenate([ids for _, ids, _, _ in safe_pieces]),
        text=text,
        starts=starts_all,
        safe=safe_all,
        words=_words(text, starts_all, safe_all),
    )


def table_default(vocab_size: int = 32_000, text: str | None = None) -> ContentTable:
    """A table for a target without a tokenizer to ask: words and signs of a text (or the corpus) numbered by frequency.

    Lengths are exact as ids; the ids have the frequencies of real text, but no meaning. With text it is exact for a
    server that counts as this table does (a word with its space, or one sign, is a token). Of the vocabulary, ids leave
    out the lowest tenth and the last 2 %, where tokenizers keep special and added tokens.
    """
    if text is None:
        source = corpus.python_text(corpus.CORPUS_CHARS)
        made_by = Path(__file__).read_bytes() + Path(corpus.__file__).read_bytes()
        made = made_once(
            "content",
            made_by + f"{vocab_size}\n{source}".encode(),
            lambda: _default(vocab_size, corpus.cleaned(source)).packed(),
        )
        return ContentTable.unpacked(made)
    return _default(vocab_size, text)


def _default(vocab_size: int, text: str) -> ContentTable:
    tokens = re.findall(r" ?[A-Za-z]+| ?[0-9]{1,3}|\n+ *| +(?= )| ?[^\sA-Za-z0-9]| +", text)
    low, high = vocab_size // 10, int(vocab_size * 0.98)
    ranks = {word: k for k, (word, _) in enumerate(sorted(Counter(tokens).items(), key=lambda i: (-i[1], i[0])))}
    ids = [low + ranks[token] % (high - low) for token in tokens]
    return table_from_tokens([(text, ids, tokens)])


def table_random(vocab_size: int, seed: int, size: int = 1 << 19) -> ContentTable:
    """Uniformly random ids, as many benchmarks send; they misrepresent speculative decoding and expert routing."""
    low, high = vocab_size // 10, int(vocab_size * 0.98)
    uniform = RandomField(seed, "random content").uniform(np.arange(size))
    return ContentTable((low + uniform * (high - low)).astype(np.int32))


def lengths_of(parts: Sequence[str] | Sequence[bytes]) -> Ints:
    """The length of each; shape (len(parts),)."""
    return np.fromiter(map(len, parts), np.int64, len(parts))


def _starts(text: str, strings: Sequence[str]) -> Ints | None:
    """The first character of each token in an ASCII text, or None if the strings don't spell it."""
    for spell in (None, _byte_level, _sentence_piece):
        spelled = strings if spell is None else [spell(string) for string in strings]
        whole = "".join(spelled)
        shift = 1 if whole == " " + text else 0  # SentencePiece puts a space before the text
        if whole[shift:] == text:
            ends = np.cumsum(lengths_of(spelled))
            return np.asarray(np.maximum(np.concatenate([[0], ends[:-1]]) - shift, 0))
    return None


def _byte_level(string: str) -> str:
    # GPT-2's letters for the bytes that have none: 0x00-0x20, 0x7f-0xa0 and 0xad as U+0100 and following.
    return "".join(chr(ord(c) - 0x100) if 0x100 <= ord(c) <= 0x120 else c for c in string)


def _sentence_piece(string: str) -> str:
    if len(string) == 6 and string.startswith("<0x") and string.endswith(">"):
        return chr(int(string[3:5], 16))
    return string.replace("\u2581", " ")


def _safe(text: str, starts: Ints) -> Mask:
    """Whether a token begins with a space and a letter after a letter, digit or simple punctuation."""
    letters = np.frombuffer(text.encode("ascii", "replace") + b"  ", np.uint8)
    is_alpha = ((letters | 0x20) >= ord("a")) & ((letters | 0x20) <= ord("z"))
    is_end = is_alpha | ((letters >= ord("0")) & (letters <= ord("9"))) | np.isin(letters, list(b".,;:"))
    safe = (letters[starts] == ord(" ")) & is_alpha[starts + 1] & (starts > 0)
    safe &= is_end[np.maximum(starts - 1, 0)]
    # Two tokens that begin at one character (a byte each) are no place to cut.
    repeated: Mask = np.concatenate([[False], starts[1:] == starts[:-1]])
    return np.asarray(safe & ~repeated)


def _words(text: str, starts: Ints, safe: Mask) -> tuple[str, ...]:
    """The most frequent words that are one token: a safe token, followed by another safe place."""
    places = np.flatnonzero(safe & np.append(safe[1:], True))
    counts = Counter(text[starts[k] : starts[k + 1]] for k in places.tolist())
    good = [(word, n) for word, n in counts.items() if word[1:].isalpha() and word.islower() and len(word) > 2]
    return tuple(word for word, _ in sorted(good, key=lambda item: (-item[1], item[0]))[:_WORDS])
