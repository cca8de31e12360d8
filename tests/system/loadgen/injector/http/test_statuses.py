"""Every way a request can end, against the real injector process and a server that misbehaves on cue.

One run serves the whole module: row k of its plan is the k-th scenario.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.kit import scripted
from tests.kit.driving import MS, Outcome, drive
from tests.kit.scripted import (
    CHUNKED,
    END,
    Peer,
    Request,
    Script,
    ScriptedServer,
    chunk,
    closes,
    event,
    hangs,
    head,
    resets,
    sends,
    token,
)

from tailgate.loadgen.records import Status


def _sized(status: int, body: bytes, content_type: str = "application/json") -> Script:
    return sends(head(status, f"Content-Length: {len(body)}", content_type=content_type) + body)


def _events(*payloads: bytes) -> bytes:
    return CHUNKED + b"".join(chunk(event(payload)) for payload in payloads)


# name -> (what the server does, the status it must get, what its error must say)
SCENARIOS: dict[str, tuple[Script, Status, str | None]] = {
    "a whole answer": (sends(scripted.ok()), Status.OK, None),
    "500": (_sized(500, b'{"error":{"message":"engine died"}}'), Status.HTTP_ERROR, "engine died"),
    "404 of another API": (_sized(404, b'{"detail":"Not Found"}'), Status.HTTP_ERROR, "Not Found"),
    "400 in plain text": (_sized(400, b"no such model", "text/plain"), Status.HTTP_ERROR, "no such model"),
    "302": (_sized(302, b""), Status.HTTP_ERROR, None),
    "204 without a body": (sends(head(204)), Status.HTTP_ERROR, None),
    "429": (_sized(429, b'{"error":"too many"}'), Status.REJECTED, "too many"),
    "503": (_sized(503, b'{"error":{"message":"queue is full"}}'), Status.REJECTED, "queue is full"),
    "503 until close": (closes(head(503) + b"overloaded"), Status.REJECTED, "overloaded"),
    "error object cut inside a character": (
        _sized(500, b'{"error":{"details":"' + "é".encode() * 400 + b'"}}'), Status.HTTP_ERROR, "é",
    ),
    "closed before an answer": (closes(), Status.RESET, "without an answer"),
    "reset before an answer": (Peer.reset, Status.RESET, "reset"),
    "reset inside the answer": (resets(_events(token())), Status.RESET, "reset"),
    "cut inside the head": (closes(b"HTTP/1.1 200 OK\r\nContent-Ty"), Status.RESET, "in the head"),
    "closed after 100 Continue": (closes(b"HTTP/1.1 100 Continue\r\n\r\n"), Status.RESET, "in the head"),
    "cut inside the stream": (closes(_events(token(), token())), Status.TRUNCATED, "middle"),
    "cut inside a chunk": (closes(CHUNKED + b"ff\r\ndata: {"), Status.TRUNCATED, "middle"),
    "short body": (closes(head(200, "Content-Length: 9999") + event(token())), Status.TRUNCATED, "middle"),
    "[DONE], and the stream stays open": (
        hangs(_events(token(finish="length"), scripted.usage(8, 1), b"[DONE]")), Status.OK, None,
    ),
    "[DONE], and closed without the last chunk": (
        closes(_events(token(finish="length"), scripted.usage(8, 1), b"[DONE]")), Status.OK, None,
    ),
    "[DONE], and reset": (
        resets(_events(token(finish="length"), scripted.usage(8, 1), b"[DONE]")), Status.OK, None,
    ),
    "an error and [DONE], and the stream stays open": (
        hangs(_events(token(), b'{"error":{"message":"out of memory","code":500}}', b"[DONE]")),
        Status.TIMEOUT, "timeout",
    ),
    "no [DONE], no finish reason": (sends(_events(token(), token()) + END), Status.TRUNCATED, "[DONE]"),
    "until close, cut inside an event": (
        closes(head(200) + event(token()) + b'data: {"choi'), Status.TRUNCATED, "inside an event",
    ),
    "error event in a stream": (
        sends(_events(token(), b'{"error":{"message":"out of memory","code":500}}', b"[DONE]") + END),
        Status.SERVER_ERROR, "out of memory",
    ),
    "503 as an event, for the 200 was sent": (  # so vLLM's front end, between its two looks at the queue
        sends(_events(b'{"error":{"message":"queue is full","code":503}}', b"[DONE]") + END),
        Status.REJECTED, "queue is full",
    ),
    "429 as an event, then cut": (
        closes(_events(b'{"error":{"message":"too many","code":"429"}}')), Status.REJECTED, "too many",
    ),
    "503 as an event after a token": (
        sends(_events(token(), b'{"error":{"message":"try again","code":503}}', b"[DONE]") + END),
        Status.SERVER_ERROR, "try again",
    ),
    "error event, then cut": (
        closes(_events(token(), b'{"error":{"message":"engine died"}}')), Status.SERVER_ERROR, "engine died",
    ),
    "not HTTP": (closes(b"SSH-2.0-OpenSSH_9.6\r\n"), Status.BAD_RESPONSE, "not HTTP"),
    "HTTP/2 frames": (closes(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 3), Status.BAD_RESPONSE, "not HTTP"),
    "switches protocols": (
        sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        Status.BAD_RESPONSE, "switched protocols",
    ),
    "a bad chunk size": (closes(CHUNKED + b"zz\r\n"), Status.BAD_RESPONSE, "not HTTP"),
    "an event that is not JSON": (sends(_events(b"{]", b"[DONE]") + END), Status.BAD_RESPONSE, "not JSON"),
    "an event of another API": (sends(_events(b'{"type":"ping"}') + END), Status.BAD_RESPONSE, "neither choices"),
    "an event that is a number": (sends(_events(b"17") + END), Status.BAD_RESPONSE, "not an object"),
    "a web page": (
        _sized(200, b"<html>\n\n<h1>Welcome to nginx!</h1></html>", "text/html"), Status.BAD_RESPONSE, "Welcome",
    ),
    "a stream without a token": (sends(_events(b"[DONE]") + END), Status.BAD_RESPONSE, "without a token"),
    "a stream of usage alone": (
        sends(_events(scripted.usage(8, 4), b"[DONE]") + END), Status.BAD_RESPONSE, "without a token",
    ),
    "an answer of no tokens, and so it says": (sends(_events(scripted.usage(8, 0), b"[DONE]") + END), Status.OK, None),
    "an empty answer": (sends(head(200, "Content-Length: 0")), Status.BAD_RESPONSE, "single event"),
    "not streamed though asked": (
        _sized(200, b'{"choices":[{"text":"x","finish_reason":"length"}],"usage":{"completion_tokens":1}}'),
        Status.BAD_RESPONSE, "asked for a stream",
    ),
    "an error with status 200": (
        _sized(200, b'{"error":{"message":"no such model"}}'), Status.SERVER_ERROR, "no such model",
    ),
    "a 503 with status 200": (
        _sized(200, b'{"error":{"message":"queue is full","code":503}}'), Status.REJECTED, "queue is full",
    ),
    "an absurd usage": (
        sends(_events(token(finish="length"), scripted.usage(2**70, 2**63), b"[DONE]") + END), Status.OK, None,
    ),
    "no answer in time": (hangs(), Status.TIMEOUT, "within the request's timeout"),
    "half an answer in time": (hangs(_events(token(), token())), Status.TIMEOUT, "within the request's timeout"),
    "a second answer nobody asked for": (sends(scripted.ok() + scripted.ok()), Status.OK, None),
    "garbage behind the answer": (sends(scripted.ok() + b"\x00\xff garbage\r\n\r\n"), Status.OK, None),
}  # fmt: skip
NAMES = list(SCENARIOS)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    def answer(peer: Peer, request: Request) -> None:
        SCENARIOS[NAMES[request.index]][0](peer)

    with ScriptedServer(answer) as server:
        # Far enough apart that one scenario's kept connection may serve the next one.
        rows = [{"at_ms": 5.0 * k} for k in range(len(NAMES))]
        yield drive(tmp_path_factory.mktemp("statuses"), [server.url], rows, timeout_ns=1_500 * MS)


@pytest.mark.parametrize("name", NAMES)
def test_each_end_has_its_status(outcome: Outcome, name: str) -> None:
    row = outcome.records[NAMES.index(name)]
    assert row["status"] == SCENARIOS[name][1], row


@pytest.mark.parametrize("name", [name for name in NAMES if SCENARIOS[name][2]])
def test_an_error_says_what_happened(outcome: Outcome, name: str) -> None:
    said = SCENARIOS[name][2]
    assert said is not None
    assert said in outcome.records[NAMES.index(name)]["error"]


def test_every_planned_row_ends_in_exactly_one_record(outcome: Outcome) -> None:
    assert sorted(outcome.records) == list(range(len(NAMES)))  # `records` refuses doubles


def test_misbehaving_servers_do_not_stop_the_run(outcome: Outcome) -> None:
    assert outcome.exit_code == 0
    assert outcome.end["failure"] is None


def test_the_end_counts_what_the_records_say(outcome: Outcome) -> None:
    counted: dict[str, int] = {}
    for status in outcome.statuses().values():
        counted[status] = counted.get(status, 0) + 1
    assert outcome.end["statuses"] == counted


def test_arrivals_before_a_cut_are_kept(outcome: Outcome) -> None:
    for name in ("cut inside the stream", "half an answer in time", "no [DONE], no finish reason"):
        row = outcome.records[NAMES.index(name)]
        assert row["chunks"] == len(row["arrivals_us"]) == 2
        assert row["first_token_ns"] is not None


def test_every_record_with_arrivals_has_as_many_as_it_says(outcome: Outcome) -> None:
    for row in outcome.records.values():
        assert len(row["arrivals_us"] or ()) == row["chunks"], row


def test_an_http_error_keeps_its_code(outcome: Outcome) -> None:
    for name, code in (("500", 500), ("429", 429), ("503", 503), ("a whole answer", 200), ("302", 302)):
        assert outcome.records[NAMES.index(name)]["http_status"] == code
    assert outcome.records[NAMES.index("cut inside the head")]["http_status"] is None


def test_a_timeout_ends_close_to_its_deadline(outcome: Outcome) -> None:
    row: dict[str, Any] = outcome.records[NAMES.index("no answer in time")]
    late = row["end_ns"] - row["scheduled_ns"] - 1_500 * MS
    assert 0 <= late < 200 * MS  # it is looked for every 20 ms
