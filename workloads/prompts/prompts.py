"""Prompts with exact token counts, made from a plan's `(content_seed, prefix_blocks, prompt_tokens)`.

A prompt is the content of its prefix blocks, one after the other, then content of its own. All are stretches of the
table's text that begin with a few tokens which spell the seed or the block id. So equal blocks have equal content in
every request, the prompts of two seeds differ within their first tokens (no cache block is shared by accident), and
every byte is a function of the row and the table.

A prompt of 8,000 ids costs three copies of bytes out of a JSON text that was rendered once, about 10 microseconds; text
costs about as much. The HTTP body around it is made by the injector.
"""

from collections import OrderedDict
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.prompts.content_table import ContentTable
from tailgate.workloads.sampling.random_streams import mixed_int

Mode = Literal["ids", "text", "chat"]

_SEED_NONCE: Final = 4
_BLOCK_NONCE: Final = 2
_CACHED_BLOCKS: Final = 4096
FIRST_WORD: Final = "The"


class _Part(NamedTuple):
    seed: int
    tokens: int
    nonce: int  # how many of them spell the seed
    shared: bool  # a prefix block


class PromptMaker:
    """Makes the prompts of one run. Those of mode text and chat need a table with text.

    `block_tokens` is the length of a prefix block, as in the plan; the overheads, which are subtracted, are what the
    server adds to a text prompt (a beginning-of-text token), and the chat template to one user message.

    Text and chat have exact lengths because the counts of the pieces add up (see `workloads.prompts.content_table`).
    The one word at the very beginning has no space before it; it counts as one token and is always the same, so that
    its real cost is part of the overhead that the caller measures.
    """

    def __init__(
        self,
        table: ContentTable,
        *,
        block_tokens: int = 512,
        mode: Mode = "ids",
        overhead_tokens: int = 0,
        chat_overhead_tokens: int = 0,
    ) -> None:
        if mode != "ids" and not table.has_text:
            raise UserError(
                "the target's tokenizer doesn't tell its token strings, so text can't be cut to exact lengths",
                where="target.endpoint",
                remedy="Use completions (prompts are sent as token ids)",
            )
        self._table, self._block_tokens = table, block_tokens
        self._overhead, self._chat_overhead = overhead_tokens, chat_overhead_tokens
        self._size = len(table.ids)
        self._nonces = table.nonce_ids
        self._block_nonce = max(1, min(_BLOCK_NONCE, block_tokens // 4))
        self._block_texts: OrderedDict[_Part, str] = OrderedDict()
        if mode == "ids":
            # "17,4,905,...,": token k is the bytes [offsets[k], offsets[k + 1] - 1).
            rendered = orjson.dumps(np.ascontiguousarray(table.ids), option=orjson.OPT_SERIALIZE_NUMPY)
            self._json = rendered[1:-1] + b","
            commas = np.flatnonzero(np.frombuffer(self._json, np.uint8) == ord(","))
            self._offsets = np.concatenate([[0], commas + 1])
            self._nonce_json = [b"%d," % token for token in self._nonces]
        else:
            places = np.arange(self._size + 1)
            safe = np.append(table.safe, True)
            self._next_safe = np.minimum.accumulate(np.where(safe, places, self._size)[::-1])[::-1].tolist()
            self._last_safe = np.maximum.accumulate(np.where(safe, places, 0)).tolist()
            self._starts = table.starts.tolist()

    def ids_json(self, content_seed: int, prefix_blocks: Any, prompt_tokens: int) -> bytes:
        """The prompt as a JSON array of exactly `prompt_tokens` ids."""
        parts: list[bytes] = [b"["]
        for part in self._parts(content_seed, prefix_blocks, prompt_tokens):
            spelled, at = self._spell(part, len(self._nonces))
            parts += [self._nonce_json[digit] for digit in spelled]
            left = part.tokens - len(spelled)
            at %= self._size
            while left > 0:
                end = min(at + left, self._size)
                parts.append(self._json[self._offsets[at] : self._offsets[end]])
                left -= end - at
                at = 0
        body = b"".join(parts)
        return body[:-1] + b"]"

    def text(self, content_seed: int, prefix_blocks: Any, prompt_tokens: int) -> str:
        """The prompt as text, for `/v1/completions`."""
        return self._text(content_seed, prefix_blocks, prompt_tokens - self._overhead)

    def text_json(self, content_seed: int, prefix_blocks: Any, prompt_tokens: int) -> bytes:
        return orjson.dumps(self.text(content_seed, prefix_blocks, prompt_tokens))

    def messages(self, content_seed: int, prefix_blocks: Any, prompt_tokens: int) -> list[dict[str, str]]:
        """The prompt as chat: one user message; the template's tokens are part of `prompt_tokens`."""
        content = self._text(content_seed, prefix_blocks, prompt_tokens - self._chat_overhead)
        return [{"role": "user", "content": content}]

    def messages_json(self, content_seed: int, prefix_blocks: Any, prompt_tokens: int) -> bytes:
        return orjson.dumps(self.messages(content_seed, prefix_blocks, prompt_tokens))

    def _parts(self, content_seed: int, prefix_blocks: Any, tokens: int) -> list["_Part"]:
        """The prompt's blocks, then its own content."""
        parts: list[_Part] = []
        left = tokens
        for block in prefix_blocks:
            if left <= 0:
                break
            parts.append(_Part(int(block), min(left, self._block_tokens), self._block_nonce, shared=True))
            left -= self._block_tokens
        if left > 0:
            # The constant keeps equal numbers apart when one is a seed and one a block id.
            parts.append(_Part(int(content_seed) ^ 0xA5A5_5A5A_C3C3_3C3D, left, _SEED_NONCE, shared=False))
        return parts

    def _spell(self, part: "_Part", base: int) -> tuple[list[int], int]:
        """The first tokens, as digits of the seed, and where the stretch of text begins (to be reduced)."""
        mixed = rest = mixed_int(part.seed)
        spelled = []
        for _ in range(min(part.nonce, part.tokens)):
            rest, digit = divmod(rest, base)
            spelled.append(digit)
        return spelled, mixed_int(mixed ^ 0x5851_F42D_4C95_7F2D)

    def _text(self, content_seed: int, prefix_blocks: Any, tokens: int) -> str:
        if tokens <= 1:
            return FIRST_WORD
        pieces = [FIRST_WORD]
        parts = self._parts(content_seed, prefix_blocks, tokens)
        # The first word takes the place of the first part's last token.
        parts[0] = parts[0]._replace(tokens=parts[0].tokens - 1)
        pieces += [self._block_text(part) if part.shared else self._stretch(part) for part in parts]
        return "".join(pieces)

    def _block_text(self, part: "_Part") -> str:
        text = self._block_texts.get(part)
        if text is None:
            text = self._stretch(part)
            self._block_texts[part] = text
            if len(self._block_texts) > _CACHED_BLOCKS:
                self._block_texts.popitem(last=False)
        else:
            self._block_texts.move_to_end(part)
        return text

    def _stretch(self, part: "_Part") -> str:
        """Text of exactly the part's tokens that begins with a space and ends at a safe place."""
        words = self._table.words
        spelled, at = self._spell(part, len(words))
        pieces = [words[digit] for digit in spelled]
        left = part.tokens - len(spelled)
        begin = self._next_safe[at % self._size] % self._size
        while left > 0:
            end = self._last_safe[min(begin + left, self._size)]
            if end <= begin:
                break
            pieces.append(self._table.text[self._starts[begin] : self._starts[end]])
            left -= end - begin
            if end < self._size:
                break
            begin = 0
        # What no whole word fits into: words of one token, by turns.
        pieces += [words[(at + k) % len(words)] for k in range(left)]
        return "".join(pieces)
