"""Prompts have exact lengths, begin apart, share what their blocks say, and are functions of row and table."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailgate.workloads.common.errors import UserError
from tailgate.workloads.prompts.content_table import (
    ContentTable,
    table_default,
    table_from_ids,
    table_from_tokens,
    table_random,
)
from tailgate.workloads.prompts.corpus import chunks, corpus_text
from tailgate.workloads.prompts.prompts import PromptMaker

# The tokenizer of `table_default`: a word with its space, up to three digits, one sign, or white space.
TOKENS = re.compile(r" ?[A-Za-z]+| ?[0-9]{1,3}|\n+ *| +(?= )| ?[^\sA-Za-z0-9]| +")


@pytest.fixture(scope="module")
def table() -> ContentTable:
    return table_default(text=corpus_text(200_000))


blocks = st.lists(st.integers(0, 2**64 - 1), max_size=6)
seeds = st.integers(0, 2**64 - 1)


def ids_of(maker: PromptMaker, content_seed: int, prefix_blocks: list[int], prompt_tokens: int) -> list[int]:
    return cast(list[int], json.loads(maker.ids_json(content_seed, prefix_blocks, prompt_tokens)))


def ids_one_by_one(maker: PromptMaker, table: ContentTable, seed: int, prefix: list[int], n: int) -> list[int]:
    ids: list[int] = []
    for part in maker._parts(seed, prefix, n):
        digits, begin = maker._spell(part, len(table.nonce_ids))
        ids += [table.nonce_ids[digit] for digit in digits]
        ids += [int(table.ids[(begin + k) % len(table.ids)]) for k in range(part.tokens - len(digits))]
    return ids


@settings(max_examples=60, deadline=None)
@given(seeds, blocks, st.integers(1, 5000))
def test_a_prompt_as_ids_has_exactly_the_asked_tokens(
    table: ContentTable, seed: int, prefix: list[int], n: int
) -> None:
    maker = PromptMaker(table, block_tokens=64)
    ids = ids_of(maker, seed, prefix, n)
    assert len(ids) == n
    assert ids == ids_one_by_one(maker, table, seed, prefix, n)


@settings(max_examples=60, deadline=None)
@given(seeds, blocks, st.integers(1, 5000))
def test_a_prompt_as_text_has_exactly_the_asked_tokens(
    table: ContentTable, seed: int, prefix: list[int], n: int
) -> None:
    text = PromptMaker(table, block_tokens=64, mode="text").text(seed, prefix, n)
    assert len(TOKENS.findall(text)) == n


def test_prompts_longer_than_the_table_go_round(table: ContentTable) -> None:
    n = 3 * len(table.ids)
    assert len(ids_of(PromptMaker(table), 5, [], n)) == n
    assert len(TOKENS.findall(PromptMaker(table, mode="text").text(5, [], n))) == n


def test_the_overhead_is_part_of_the_prompts_tokens(table: ContentTable) -> None:
    maker = PromptMaker(table, mode="chat", overhead_tokens=1, chat_overhead_tokens=17)
    assert len(TOKENS.findall(maker.text(3, [], 100))) == 99
    (message,) = maker.messages(3, [], 100)
    assert message["role"] == "user" and len(TOKENS.findall(message["content"])) == 83
    assert json.loads(maker.messages_json(3, [], 100)) == [message]
    assert json.loads(maker.text_json(3, [], 100)) == maker.text(3, [], 100)


def test_prompts_of_other_seeds_differ_within_their_first_sixteen_tokens(table: ContentTable) -> None:
    maker = PromptMaker(table)
    beginnings = {tuple(ids_of(maker, seed, [], 16)) for seed in range(20_000)}
    assert len(beginnings) == 20_000


def test_equal_blocks_are_equal_content_wherever_they_stand(table: ContentTable) -> None:
    maker = PromptMaker(table, block_tokens=64)
    one, other = ids_of(maker, 1, [7, 8, 9], 400), ids_of(maker, 2, [7, 8, 5, 9], 400)
    assert one[:128] == other[:128] and one[128:192] == other[192:256]
    assert one[128:144] != other[128:144] and one[192:208] != other[256:272]


def test_a_block_that_is_cut_short_is_the_blocks_beginning(table: ContentTable) -> None:
    maker = PromptMaker(table, block_tokens=64)
    assert ids_of(maker, 1, [7, 8], 100) == ids_of(maker, 2, [7, 8, 9], 400)[:100]


def test_texts_share_the_tokens_of_their_blocks(table: ContentTable) -> None:
    maker = PromptMaker(table, block_tokens=64, mode="text")
    one, other = (TOKENS.findall(maker.text(seed, [7, 8], 300)) for seed in (1, 2))
    assert one[:128] == other[:128] and one[128:144] != other[128:144]


def test_a_prompt_is_the_same_from_a_table_that_was_saved(table: ContentTable, tmp_path: Path) -> None:
    table.save(tmp_path / "content.npz")
    loaded = ContentTable.load(tmp_path / "content.npz")
    assert loaded.digest == table.digest
    assert PromptMaker(loaded).ids_json(3, [1], 700) == PromptMaker(table).ids_json(3, [1], 700)
    text = PromptMaker(table, mode="text").text(3, [1], 700)
    assert PromptMaker(loaded, mode="text").text(3, [1], 700) == text


def test_chat_needs_a_table_with_text() -> None:
    with pytest.raises(UserError, match="token strings"):
        PromptMaker(table_from_ids(range(2000)), mode="chat")


def test_random_ids_stay_inside_the_vocabulary_and_are_spread_over_it() -> None:
    ids = table_random(32_000, 1).ids
    assert ids.min() >= 3200 and ids.max() < 31_360
    assert len(np.unique(ids)) > 28_000


def test_the_corpus_is_plain_text_without_special_tokens() -> None:
    text = corpus_text(300_000)
    assert len(text) == 300_000 and text.isascii()
    assert "def " in text and not re.search(r"<\|.*?\|>|</?s>", text)


def test_chunks_are_the_text() -> None:
    text = corpus_text(50_000)
    parts = chunks(text, 3000)
    assert "".join(parts) == text and max(map(len, parts)) <= 3000


def encoded(text: str, style: str) -> tuple[list[int], list[str]]:
    tokens = TOKENS.findall(text)
    spell = {
        "byte-level": lambda s: "".join(chr(0x100 + ord(c)) if c in " \n" else c for c in s),
        "sentence-piece": lambda s: s.replace(" ", "\u2581") if s != "\n" else "<0x0A>",
        "plain": lambda s: s,
    }[style]
    return [hash(token) % 30_000 for token in tokens], [spell(token) for token in tokens]


@pytest.mark.parametrize("style", ["byte-level", "sentence-piece", "plain"])
def test_token_strings_of_all_common_kinds_are_understood(style: str) -> None:
    pieces = [(chunk, *encoded(chunk, style)) for chunk in chunks(corpus_text(60_000), 7000)]
    made = table_from_tokens(pieces)
    assert made.has_text
    for n in (1, 2, 17, 900):
        assert len(TOKENS.findall(PromptMaker(made, mode="text").text(n, [], n))) == n


def test_token_strings_that_dont_spell_the_text_leave_a_table_of_ids() -> None:
    pieces = [
        (chunk, encoded(chunk, "plain")[0], ["?"] * len(encoded(chunk, "plain")[0]))
        for chunk in chunks(corpus_text(60_000), 9000)
    ]
    assert not table_from_tokens(pieces).has_text


def test_a_piece_begins_and_ends_where_words_do(table: ContentTable) -> None:
    places = np.flatnonzero(table.safe)
    for place in places[:: len(places) // 50].tolist():
        assert re.match(r"[A-Za-z0-9.,;:] [A-Za-z]", table.text[table.starts[place] - 1 :][:3]) or place == 0
    assert all(len(TOKENS.findall(word)) == 1 for word in table.words)
    assert all(a < b for a, b in pairwise(table.starts.tolist()))
