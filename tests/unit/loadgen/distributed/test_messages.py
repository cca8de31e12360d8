"""What a master takes for a message. Whatever else comes is counted, and breaks nothing."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailgate.loadgen.distributed import messages, protocol
from tailgate.loadgen.distributed.seal import Ignored

HELLO = {"version": "1", "protocol": 4, "name": "w", "pid": 1, "injectors": 1, "alone_s": 30.0}
TICK = {
    "op": "tick", "injector": 0, "in_flight": 1, "statuses": {"ok": 3}, "abandoned": 0, "tokens": 9,
    "ttft_ms": [1.5], "itl_ms": [], "e2e_ms": [2], "ttft_n": 1, "itl_n": 0, "e2e_n": 1,
    "ended_n": 1, "ended": [[2.0, 1.5, True]], "open": [[1.0, None, None]],
    "classes": {"chat": {"ok": 1, "failed": 0, "ttft_ms": [1.5], "itl_ms": [], "e2e_ms": [2.0], "ttft_n": 1}},
}  # fmt: skip
GOOD = [
    ("client_ready", "2.47.0"), ("quit", None), ("spawning", None), ("client_stopped", None),
    ("heartbeat", {"state": "ready", "current_cpu_usage": 3.5, "current_memory_usage": 10}),
    ("spawning_complete", {"user_classes_count": {"U": 3}, "user_count": 3}),
    ("stats", {"stats": [], "stats_total": {}, "errors": {}, "user_classes_count": {}, "user_count": 0}),
    ("logs", {"worker_id": "w", "logs": ["a"]}), ("exception", {"msg": "m", "traceback": "t"}),
    (protocol.HELLO, HELLO), (protocol.PING, {"sent": 1}),
    (protocol.PREPARED, {"stamps": True, "offset_ns": -5, "error_ns": 3}),
    (protocol.REFUSED, {"what": "w", "where": "", "remedy": ""}),
    (protocol.SPOOL, {"name": "injector-0.arrows", "offset": 0, "piece": b"\xff\x00"}),
    (protocol.DRAINED, {"offset_ns": 1, "error_ns": 1}),
    *((protocol.REPORT, {"message": message}) for message in (
        TICK, {"op": "unauthorized", "injector": 0}, {"op": "event", "kind": "worker", "text": "t"},
        {"op": "closing", "at_unix_ns": 5, "users": {"mean": 1.5, "max": 2}, "early": False},
        {"op": "end", "injector": 0, "end_ns": 9, "failure": None, "unstamped": 0, "reads": 3, "statuses": {}},
        {"op": "crashed", "injector": 0, "error": "e", "traceback": "t"}, {"op": "died", "injector": 0, "code": -9},
        {"op": "warning", "injector": 0, "text": "t"},
    )),
]  # fmt: skip
BAD = [
    5, None, "text", {}, [], [1], ["client_ready", "2.47.0"], ["client_ready", "2.47.0", "someone-else"],
    [["client_ready"], "2.47.0", "w"], ["unheard-of", None, "w"], ["locustfile", {"version": "2"}, "w"],
    ["heartbeat", None, "w"], ["heartbeat", {"state": 5}, "w"], ["exception", None, "w"], ["stats", {}, "w"],
    ["stats", {"stats": "x", "user_classes_count": {"U": "many"}}, "w"], ["spawning_complete", {"user_count": 1}, "w"],
    [protocol.PING, {}, "w"], [protocol.PING, {"sent": "soon"}, "w"], [protocol.PING, {"sent": 2**63}, "w"],
    [protocol.HELLO, {**HELLO, "injectors": 10**9}, "w"], [protocol.HELLO, {**HELLO, "injectors": True}, "w"],
    [protocol.HELLO, {**HELLO, "alone_s": float("nan")}, "w"], [protocol.HELLO, {**HELLO, "name": 7}, "w"],
    [protocol.SPOOL, {"name": "injector-0.arrows", "offset": -1, "piece": b""}, "w"],
    [protocol.REPORT, {"message": {}}, "w"], [protocol.REPORT, {"message": {"op": ["tick"]}}, "w"],
    [protocol.REPORT, {"message": {"op": "all-ended"}}, "w"],
    [protocol.REPORT, {"message": {**TICK, "ended": [[1.0]]}}, "w"],
    [protocol.REPORT, {"message": {**TICK, "statuses": None}}, "w"],
    ["client_ready", {"__datetime__": True}, "w"], ["client_ready", {"__ObjectId__": True, "as_str": "0"}, "w"],
]  # fmt: skip


SHARD = {
    "plan": {"how": "none"},
    "job": {},
    "files": {"f": {"size": 1, "digest": "d"}},
    "first": 0,
    "of": 2,
    "key": None,
}
SPAWN = {"timestamp": 1.5, "user_classes_count": {"U": 1}, "host": None, "stop_timeout": 0, "parsed_options": {}}
OF_MASTER = [
    ("ack", {"index": -1}), ("spawn", SPAWN), ("spawning_complete", {"user_count": 1}),
    *((kind, None) for kind in ("stop", "quit", "reconnect", "heartbeat")),
    (protocol.WELCOME, {"number": 1, "name": "w"}), (protocol.TURNED_AWAY, {"what": "w", "remedy": "r"}),
    (protocol.PONG, {"sent": 1, "received": 2, "answered": 3}), (protocol.SHARD, SHARD),
    (protocol.FILE, {"name": "f", "offset": 0, "piece": b"\xff"}), (protocol.GO, {"t0_unix_ns": 1}),
    (protocol.STORED, {"name": "f", "upto": 1}), (protocol.WIND_DOWN, {"why": "w", "gone": False}),
    (protocol.STOP, {"why": "w", "gone": True}), (protocol.DISMISSED, {}),
]  # fmt: skip


def test_every_message_of_a_master_is_taken_as_it_is_and_none_without_its_data() -> None:
    assert {kind for kind, _ in OF_MASTER} >= set(protocol.TO_WORKER)
    for kind, data in OF_MASTER:
        assert messages.read_from_master(msgpack.dumps((kind, data, "master"))) == (kind, data)
        for wrong in ("text", *([None, {"why": 5}] if data else [])):
            with pytest.raises(Ignored):
                messages.read_from_master(msgpack.dumps((kind, wrong, "master")))
    for what in (5, [], ["unheard-of", None, "m"], [["stop"], None, "m"], ["update_user_class", {}, "m"]):
        with pytest.raises(Ignored):
            messages.read_from_master(msgpack.dumps(what))


@pytest.mark.parametrize(("kind", "data"), GOOD, ids=str)
def test_every_message_of_a_worker_is_taken_as_it_is(kind: str, data: Any) -> None:
    assert messages.read("w", msgpack.dumps((kind, data, "w"))) == (kind, data)


@pytest.mark.parametrize("what", BAD, ids=str)
def test_what_a_worker_would_not_send_is_ignored(what: Any) -> None:
    with pytest.raises(Ignored):
        messages.read("w", msgpack.dumps(what))


@pytest.mark.parametrize(
    "data", [b"", b"\x93\xa5hel", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\x91" * 900 + b"\x01"]
)
def test_bytes_that_are_no_message_are_ignored(data: bytes) -> None:
    with pytest.raises(Ignored):
        messages.read("w", data)


def test_a_message_that_is_nested_deeply_is_ignored() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    with pytest.raises(Ignored):
        messages.read("w", msgpack.dumps(("exception", deep, "w")))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_ignored(data: bytes) -> None:
    read_or_ignored(data)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-5, 5), inner),
    max_leaves=12,
)


@given(st.sampled_from([kind for kind, _ in GOOD]), ANYTHING)
def test_any_data_is_a_message_or_ignored(kind: str, data: Any) -> None:
    read_or_ignored(msgpack.dumps((kind, data, "w")))
    read_or_ignored(msgpack.dumps((kind, {"message": data}, "w")))


def read_or_ignored(data: bytes) -> None:
    with contextlib.suppress(Ignored):
        messages.read("w", data)


def test_texts_hold_nothing_that_a_terminal_obeys() -> None:
    name = "\x1b[1A\x1b[2Kred\r\x07"
    _, hello = messages.read("w", msgpack.dumps((protocol.HELLO, {**HELLO, "name": name}, "w")))
    assert hello["name"] == "\\x1b[1A\\x1b[2Kred\\r\\x07"
    event = {"op": "event", "kind": "worker", "text": "a\x1b]0;title\x07", "more": [{"\x1b": "\x9b"}]}
    _, taken = messages.read("w", msgpack.dumps((protocol.REPORT, {"message": event}, "w")))
    assert "\x1b" not in str(taken) and "\x9b" not in str(taken)
    assert taken["message"]["text"] == "a\\x1b]0;title\\x07"
