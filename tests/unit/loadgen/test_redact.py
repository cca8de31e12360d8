"""What is cut out of a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.redact import MASK, Secrets

KEY = "sk-live-0123456789abcdef"

SENT = {"Authorization": f"Bearer {KEY}", "X-Team": "blue"}


@given(st.text("abcdef0123456789-_", min_size=12, max_size=40), st.text(), st.text(), st.data())
def test_no_message_keeps_a_secret_whole_or_cut(key: str, before: str, after: str, data: st.DataObject) -> None:
    secrets = Secrets()
    secrets.learn({"Authorization": f"Bearer {key}"})
    assert key not in secrets.mask(before + key + after)
    cut = data.draw(st.integers(4, len(key)))
    masked = secrets.mask(before + key[:cut])
    assert masked.endswith(MASK)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("0000000000000", "***"),  # two keys that overlap
        ("x abcabcabcabcabc y", "x abcabcabcabcabc y"),
        ("of 000000000000 and 000000000000.", "of *** and ***."),
        ("000000000000" * 2, "***"),
        ("1000000000000000-0000", "1***-***"),
    ],
)
def test_secrets_that_overlap_are_masked_together(text: str, masked: str) -> None:
    secrets = Secrets()
    secrets.learn({"Authorization": "Bearer 000000000000"})
    assert secrets.mask(text) == masked


@given(st.text("xyz .", max_size=60))
def test_a_message_without_secrets_is_left_alone(text: str) -> None:
    secrets = Secrets()
    assert secrets.mask(text) == text
    secrets.learn(SENT)
    assert secrets.mask(text) == text


def test_short_words_of_harmless_headers_are_no_secrets() -> None:
    secrets = Secrets()
    secrets.learn({"X-Team": "blue", "X-Env": "a"})
    assert secrets.mask("a blue moon, or a blue") == "a blue moon, or a blue"


@pytest.mark.parametrize("form", ['p"w/0123', 'p\\"w/0123', "p%22w%2F0123", "YW5uOnAidy8wMTIz"])
def test_a_url_s_password_is_known_in_every_form_in_which_it_may_come_back(form: str) -> None:
    secrets = Secrets()
    secrets.learn_url("http://ann:p%22w%2F0123@h")
    assert secrets.mask(f"a {form} b") == f"a {MASK} b"


def test_of_a_json_document_texts_are_masked_and_its_form_is_kept() -> None:
    secrets = Secrets()
    secrets.learn({"X-Key": "12345678", "Authorization": "Bearer test"})
    document = {"schema": "a.12345678/1", "n": 12345678, "name": "latest", "words": ["key 12345678", None]}
    assert secrets.masked(document) == {
        "schema": "a.12345678/1", "n": 12345678, "name": "latest", "words": [f"key {MASK}", None],
    }  # fmt: skip
