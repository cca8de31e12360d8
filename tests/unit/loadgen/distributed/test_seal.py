"""The seal between a master and its workers: who has no token is not heard, and no message is heard twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.distributed.seal import Ignored, IgnoredMessages, Reason, Seal, read_token
from tailgate.workloads.common.errors import UserError

PAYLOADS = st.binary(min_size=1, max_size=200)


def met(token: str = "a token") -> tuple[Seal, Seal]:
    """A worker and its master after they have greeted each other."""
    worker, master = Seal(token, "worker"), Seal(token, "master")
    greeting = master.open("w", worker.seal(b""))
    assert worker.open("m", master.seal(b"", greeting.sender)).payload == b""
    return worker, master


def refused(seal: Seal, sealed: bytes, connection: str = "w") -> Reason:
    with pytest.raises(Ignored) as caught:
        seal.open(connection, sealed)
    return caught.value.reason


@given(PAYLOADS, PAYLOADS)
def test_both_hear_what_the_other_says(first: bytes, second: bytes) -> None:
    worker, master = met()
    assert master.open("w", worker.seal(first, worker.peers["m"])).payload == first
    assert worker.open("m", master.seal(second, master.peers["w"])).payload == second


@given(PAYLOADS, st.data())
def test_a_message_with_any_bit_flipped_is_refused(payload: bytes, data: st.DataObject) -> None:
    worker, master = met()
    sealed = bytearray(worker.seal(payload, worker.peers["m"]))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert refused(master, bytes(sealed)) in (Reason.OTHER_TOKEN, Reason.UNSEALED)


@given(st.lists(PAYLOADS, min_size=1, max_size=8), st.randoms())
def test_no_message_is_heard_twice_in_whatever_order_it_comes_again(payloads: list[bytes], dice: object) -> None:
    worker, master = met()
    sent = [worker.seal(payload, worker.peers["m"]) for payload in payloads]
    for sealed in sent:
        master.open("w", sealed)
    for sealed in dice.sample(sent, len(sent)):  # type: ignore[attr-defined]
        assert refused(master, sealed) is Reason.REPEATED
        assert refused(master, sealed, "another connection") is Reason.REPEATED


@given(PAYLOADS)
def test_a_message_of_an_earlier_run_with_the_same_token_is_refused(payload: bytes) -> None:
    before, _ = met()
    _, master = met()
    assert refused(master, before.seal(payload, before.peers["m"])) is Reason.REPEATED


@given(PAYLOADS)
def test_a_message_is_refused_by_whoever_it_is_not_meant_for(payload: bytes) -> None:
    worker, master = met()
    sealed = worker.seal(payload, worker.peers["m"])
    assert refused(worker, sealed, "m") is Reason.OTHER_TOKEN  # sent back to who made it
    other, _ = met()
    assert refused(other, master.seal(payload, master.peers.get("w", b"\1" * 16)), "m") is Reason.REPEATED


@given(PAYLOADS)
def test_before_a_greeting_was_answered_nothing_is_heard(payload: bytes) -> None:
    assert refused(Seal("a token", "master"), Seal("a token", "worker").seal(payload)) is Reason.REPEATED


@given(st.text(min_size=1), st.text(min_size=1), PAYLOADS)
def test_another_token_is_refused(ours: str, theirs: str, payload: bytes) -> None:
    worker, master = met(ours)
    stranger = Seal(theirs, "worker")
    sealed = stranger.seal(payload, worker.peers["m"])
    if ours != theirs:
        assert refused(master, sealed) is Reason.OTHER_TOKEN
        assert refused(master, stranger.seal(b"")) is Reason.OTHER_TOKEN


@given(st.binary(max_size=300))
def test_what_has_no_seal_is_refused(data: bytes) -> None:
    assert refused(Seal("a token", "master"), data) in (Reason.UNSEALED, Reason.OTHER_TOKEN)


def test_a_captured_greeting_takes_nobodys_place() -> None:
    worker, master = Seal("a token", "worker"), Seal("a token", "master")
    captured = worker.seal(b"")
    greeting = master.open("stranger", captured)  # it is answered, which tells nothing
    worker.open("m", master.seal(b"", greeting.sender))
    assert master.peers == {}
    assert master.open("w", worker.seal(b"here", worker.peers["m"])).payload == b"here"
    assert refused(master, captured, "stranger") is Reason.REPEATED


def test_the_token_is_not_shown() -> None:
    assert "sesame" not in repr(Seal("sesame", "master"))


def test_a_token_is_read_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TG_TOKEN", " sesame\n")
    assert read_token("TG_TOKEN") == "sesame"
    assert read_token(None) is None
    monkeypatch.setenv("TG_TOKEN", "")
    with pytest.raises(UserError, match="TG_TOKEN is not set"):
        read_token("TG_TOKEN")


def test_each_reason_is_told_once_and_the_numbers_at_the_end() -> None:
    told: list[str] = []
    ignored = IgnoredMessages(told.append)
    for reason in (Reason.UNREADABLE, Reason.UNREADABLE, Reason.UNSEALED):
        ignored.count(reason)
    ignored.conclude()
    assert told == [
        "a message that can't be read",
        "a message without the run's token",
        "3 messages in all: 2 that can't be read, 1 without the run's token",
    ]
