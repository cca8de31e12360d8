"""The engine's tokenizer: reversible, additive, and its babble reads back as the tokens it was made of."""

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from tailgate.harness.engine.model import tokenizer

texts = st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="abc Z.\n", max_size=60)


@given(texts)
def test_decoding_undoes_encoding(text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.VOCABULARY for token in ids)


@given(texts, st.text(alphabet="abcxyz", min_size=1), texts)
def test_counts_add_up_over_a_cut_before_a_space_and_a_letter(left: str, word: str, right: str):
    whole = tokenizer.encode(left + " " + word + right)
    assert whole == tokenizer.encode(left) + tokenizer.encode(" " + word + right)


@given(st.integers(0, 5000), st.integers(0, 9000))
def test_an_answers_text_encodes_to_the_ids_it_was_sent_with(offset: int, count: int):
    babble = tokenizer.Babble.seeded(3)
    ids = np.frombuffer(babble.id_bytes(offset, count), np.int32).tolist()
    assert len(ids) == count
    size = len(babble.ids)
    assert ids == [babble.ids[(offset + i) % size] for i in range(count)]
    text = "".join(orjson.loads(babble.text[(offset + i) % size]) for i in range(count))
    if not ids or (ids[0] != 0xA9 and ids[-1] != 0xC3):  # not cut inside a character
        assert tokenizer.encode(text) == ids


def test_babble_is_a_function_of_its_seed_and_holds_tokens_without_text():
    assert tokenizer.Babble.seeded(1) == tokenizer.Babble.seeded(1)
    assert tokenizer.Babble.seeded(1) != tokenizer.Babble.seeded(2)
    assert b'""' in tokenizer.Babble.seeded(1).text
