"""API keys are sent, renewed, and found nowhere in what is kept."""

import time
from pathlib import Path

import pytest
from tests.kit import scripted
from tests.kit.driving import Driven, drive
from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, answer_ok, chunk, event, head

from tailgate.loadgen.redact import MASK

KEY = "sk-live-0123456789abcdef"
SENT = {"Authorization": f"Bearer {KEY}", "X-Team": "blue"}


def spooled(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def _error_body(peer: Peer, request: Request) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: %b."}}' % request.headers["authorization"].encode()
    peer.send(head(401, f"Content-Length: {len(body)}", content_type="application/json") + body)


def _error_event(peer: Peer, _request: Request) -> None:
    peer.send(CHUNKED + chunk(event(b'{"error":{"message":"bad key ' + KEY.encode() + b'"}}')) + END)


def _garbage_event(peer: Peer, _request: Request) -> None:
    peer.send(CHUNKED + chunk(event(b"key was " + KEY.encode())) + END)


def _not_http(peer: Peer, _request: Request) -> None:
    peer.send(head(200, "Content-Length: 40", content_type="text/html") + f"<p>{KEY}".encode().ljust(40))


def _cut_by_our_own_limit(peer: Peer, _request: Request) -> None:
    """Of a long message we keep 500 characters: the key is cut in the middle."""
    body = b'{"error":{"message":"' + b"x" * 485 + KEY.encode() + b'"}}'
    peer.send(head(400, f"Content-Length: {len(body)}", content_type="application/json") + body)


@pytest.mark.parametrize(
    "answer", [_error_body, _error_event, _garbage_event, _not_http, _cut_by_our_own_limit], ids=lambda f: f.__name__
)
def test_a_key_that_a_server_echoes_is_masked_in_the_record(tmp_path: Path, answer: scripted.Answer) -> None:
    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}], headers=SENT)
    error = outcome.records[0]["error"]
    assert MASK in error
    assert KEY[:8] not in error
    assert KEY[:8].encode() not in spooled(tmp_path)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"  # it was sent all the same


def test_a_password_of_the_url_is_masked(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        body = b"the password hunter2hunter2 of ann is wrong"
        peer.send(head(403, f"Content-Length: {len(body)}", content_type="text/plain") + body)

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url.replace("//", "//ann:hunter2hunter2@")], [{}])
    assert outcome.records[0]["error"] == f"the password {MASK} of ann is wrong"


def test_a_closed_loop_s_messages_carry_no_key_either(tmp_path: Path) -> None:
    rows = [{"at_ms": None, "session": k} for k in range(100)]
    job = {"loop": "closed", "headers": SENT, "measure_end_ns": 60 * 10**9}
    with ScriptedServer(_error_body) as server, Driven(tmp_path, [server.url], rows, job) as driven:
        driven.prepare()
        driven.go()
        driven.tell(op="dispatch-next", user=0, at=time.time_ns())
        done = driven.until("done")
        driven.tell(op="finish")
        driven.finish()
    assert KEY not in str(done) and MASK in done["error"]


# --- renewal ------------------------------------------------------------------------------------------


def test_requests_after_a_renewal_carry_the_new_key_even_if_they_were_ready_before(tmp_path: Path) -> None:
    renewed: list[int] = []

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        driven.tell(op="headers", headers={"Authorization": "Bearer second-key-0987654321"})
        renewed.append(time.time_ns())

    rows = [{"at_ms": 0.0}] + [{"at_ms": 400.0 + k} for k in range(5)]
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], rows, meanwhile, headers=SENT)
    keys = {request.index: request.headers["authorization"] for request in server.requests}
    assert keys[0] == f"Bearer {KEY}"
    assert {keys[k] for k in range(1, 6)} == {"Bearer second-key-0987654321"}
    assert list(outcome.statuses().values()) == ["ok"] * 6


def test_both_the_old_and_the_new_key_are_masked(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        body = f"neither {KEY} nor second-key-0987654321".encode()
        peer.send(head(401, f"Content-Length: {len(body)}", content_type="text/plain") + body)

    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        driven.tell(op="headers", headers={"Authorization": "Bearer second-key-0987654321"})

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 300.0}], meanwhile, headers=SENT)
    assert outcome.records[1]["error"] == f"neither {MASK} nor {MASK}"


def test_an_unfit_renewal_is_told_and_the_old_key_serves_on(tmp_path: Path) -> None:
    def meanwhile(driven: Driven) -> None:
        while not server.requests:
            time.sleep(0.001)
        driven.tell(op="headers", headers={"Authorization": "Bearer two\nlines"})

    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 300.0}], meanwhile, headers=SENT)
    assert outcome.statuses() == {0: "ok", 1: "ok"}
    assert server.requests[1].headers["authorization"] == f"Bearer {KEY}"
    warning = next(message for message in outcome.messages if message["op"] == "warning")
    assert "Authorization" in warning["text"] and "two" not in warning["text"]


# --- the mask by itself -------------------------------------------------------------------------------
