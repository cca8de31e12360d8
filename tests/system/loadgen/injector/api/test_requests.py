"""What goes out on the wire, and on which connection."""

import errno
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.kit import scripted
from tests.kit.driving import MS, S, drive
from tests.kit.scripted import Peer, Request, ScriptedServer, answer_ok, chunk, event, head
from tests.kit.wire import endpoint, new_exchange

from tailgate.loadgen.injector.client_stats import ClientStats
from tailgate.loadgen.injector.event_loop import EventLoop
from tailgate.loadgen.injector.exchange import Exchange
from tailgate.loadgen.injector.http.connection import Connection

SPACED = [{"at_ms": 0.0}, {"at_ms": 150.0}, {"at_ms": 300.0}]


def test_a_completion_asks_for_exactly_what_the_plan_says(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        rows = [{"prompt_tokens": 37, "output_tokens": 11, "priority": 2}]
        drive(tmp_path, [server.url], rows, extra={"top_p": 0.5, "temperature": 1})
    sent = orjson.loads(server.requests[0].body)
    assert len(sent.pop("prompt")) == 37
    assert sent == {
        "model": "m", "max_tokens": 11, "min_tokens": 11, "ignore_eos": True, "priority": 2, "temperature": 1,
        "top_p": 0.5, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert (server.requests[0].method, server.requests[0].target) == ("POST", "/v1/completions")


def test_a_chat_asks_for_messages(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        said = [scripted.delta("", role="assistant"), scripted.delta(), scripted.delta("", finish="stop")]
        peer.send(
            scripted.CHUNKED
            + b"".join(chunk(event(p)) for p in [*said, scripted.usage(9, 2), b"[DONE]"])
            + scripted.END
        )

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}], api="chat", content_options={"mode": "chat"})
    request = server.requests[0]
    assert request.target == "/v1/chat/completions"
    assert [message["role"] for message in orjson.loads(request.body)["messages"]] == ["user"]
    assert outcome.records[0]["status"] == "ok"
    assert outcome.records[0]["chunks"] == 2  # the role brings no token


def test_natural_output_asks_for_no_minimum(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        drive(tmp_path, [server.url], [{}], forced_output=False)
    assert {"min_tokens", "ignore_eos"}.isdisjoint(orjson.loads(server.requests[0].body))


def test_a_class_with_an_adapter_asks_for_that_model(tmp_path: Path) -> None:
    rows = [{"class": "plain"}, {"class": "tuned", "at_ms": 100.0}]
    with ScriptedServer(answer_ok) as server:
        drive(tmp_path, [server.url], rows, adapters={"tuned": "lora-b"})
    assert [orjson.loads(request.body)["model"] for request in server.requests] == ["m", "lora-b"]


def test_a_prompt_as_text_is_text(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        drive(tmp_path, [server.url], [{"prompt_tokens": 9}], content_options={"mode": "text"})
    assert isinstance(orjson.loads(server.requests[0].body)["prompt"], str)


LOGGED = {
    "model": "gpt-4", "prompt": "Say hi", "tools": [{"type": "function"}], "temperature": 0.7, "stream": False,
    "max_tokens": 900, "stream_options": {"continuous_usage_stats": True},
}  # fmt: skip


def replayed(folder: Path, rows: list[dict[str, Any]], *bodies: dict[str, Any], **job: Any) -> list[dict[str, Any]]:
    """The bodies that arrive when these are replayed from a log."""
    log = folder / "log.jsonl"
    log.write_bytes(b"\n".join(orjson.dumps({"request": body}) for body in bodies))
    with ScriptedServer(answer_ok) as server:
        drive(folder, [server.url], rows, bodies=str(log), **job)
    return [orjson.loads(request.body) for request in server.requests]


def test_a_replayed_body_is_the_logs_with_model_and_streaming_set_over_it(tmp_path: Path) -> None:
    (sent,) = replayed(tmp_path, [{"content_seed": 2}], {"prompt": "other"}, LOGGED, forced_output=False)
    assert sent == LOGGED | {
        "model": "m", "stream": True, "stream_options": {"continuous_usage_stats": True, "include_usage": True},
    }  # fmt: skip


def test_a_replayed_body_keeps_its_model_where_the_target_serves_it(tmp_path: Path) -> None:
    (sent,) = replayed(tmp_path, [{"content_seed": 1}], LOGGED, served=["m", "gpt-4"])
    assert sent["model"] == "gpt-4"


def test_a_forced_length_goes_over_a_replayed_bodys_own_limits(tmp_path: Path) -> None:
    rows = [{"content_seed": 1, "output_tokens": 5}]
    (sent,) = replayed(tmp_path, rows, LOGGED | {"max_completion_tokens": 40}, extra={"cache_salt": "x"})
    assert "max_completion_tokens" not in sent
    assert (sent["max_tokens"], sent["min_tokens"], sent["ignore_eos"], sent["cache_salt"]) == (5, 5, True, "x")


def test_a_log_without_a_body_in_a_planned_line_is_refused_before_any_load(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"usage": {}}')
    with ScriptedServer(answer_ok) as server, _driven(tmp_path, [server.url], bodies=str(log)) as driven:
        refusal = driven.prepare()
    assert refusal["op"] == "refused" and "line" in refusal["where"] + refusal["what"]


def test_an_answer_that_is_not_streamed_is_read_whole(tmp_path: Path) -> None:
    body = orjson.dumps(
        {"choices": [{"text": "x y", "finish_reason": "length"}],
         "usage": {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}}
    )  # fmt: skip

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(head(200, f"Content-Length: {len(body)}", content_type="application/json") + body[:20], body[20:])

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}], streamed=False)
    assert "stream" not in orjson.loads(server.requests[0].body)
    row = outcome.records[0]
    assert (row["status"], row["prompt_tokens"], row["cached_tokens"], row["output_tokens"]) == ("ok", 8, 4, 3)
    assert (row["chunks"], row["first_token_ns"], row["arrivals_us"]) == (0, None, None)
    assert row["last_token_ns"] == row["end_ns"]


def test_no_compression_is_asked_for_and_one_that_comes_is_refused(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(head(200, "Content-Encoding: gzip", "Content-Length: 4") + b"\x1f\x8b\x08\x00")

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}])
    assert "accept-encoding" not in server.requests[0].headers
    assert outcome.records[0]["status"] == "bad_response"
    assert "gzip" in outcome.records[0]["error"]


def test_each_request_carries_its_id_and_the_record_has_it(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], SPACED, run_nonce="abcd")
    assert [r.headers["x-request-id"] for r in server.requests] == ["tg-abcd-0", "tg-abcd-1", "tg-abcd-2"]
    assert [outcome.records[k]["request_id"] for k in range(3)] == ["tg-abcd-0", "tg-abcd-1", "tg-abcd-2"]


def test_own_headers_replace_ours_in_any_case(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        drive(tmp_path, [server.url], [{}], headers={"user-agent": "mine", "Host": "virtual", "X-Percent": "100%b"})
    headers = server.requests[0].headers
    assert (headers["user-agent"], headers["host"], headers["x-percent"]) == ("mine", "virtual", "100%b")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "one\r\nX-B: two"},
        {"X A": "v"},
        {"": "v"},
        {"X-A": "\u20ac"},
        {"Content-Length": "7"},
        {"Transfer-Encoding": "chunked"},
    ],
)
def test_headers_that_would_break_the_framing_are_refused_before_any_load(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with ScriptedServer(answer_ok) as server, _driven(tmp_path, [server.url], headers=headers) as driven:
        refusal = driven.prepare()
    assert refusal["op"] == "refused"
    assert refusal["where"] == "target.headers"
    assert server.connections == 0


def _driven(folder: Path, urls: Sequence[str], **job: Any) -> Any:
    from tests.kit.driving import Driven

    return Driven(folder, urls, [{}], job)


def test_a_path_in_front_of_v1_is_kept(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [f"{server.url}/proxy/model-a/"], [{}])
    assert server.requests[0].target == "/proxy/model-a/v1/completions"
    assert outcome.records[0]["endpoint"] == f"{server.url}/proxy/model-a"


def test_user_and_password_of_the_url_are_sent_and_not_recorded(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url.replace("//", "//ann:p%40ss@")], [{}])
    assert server.requests[0].headers["authorization"] == "Basic YW5uOnBAc3M="
    assert outcome.records[0]["endpoint"] == server.url


# --- connections ------------------------------------------------------------------------------------


def test_a_kept_connection_is_used_again(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], SPACED)
    assert server.connections == 1
    assert [outcome.records[k]["connection_reused"] for k in range(3)] == [False, True, True]
    assert [outcome.records[k]["connected_ns"] is None for k in range(3)] == [False, True, True]


def test_connection_close_is_obeyed(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        body = scripted.body()
        peer.send(head(200, "connection: CLOSE", f"Content-Length: {len(body)}") + body)
        peer.wait_hung_up()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], SPACED)
    assert list(outcome.statuses().values()) == ["ok"] * 3
    assert server.connections == 3


def test_http_1_0_is_not_kept(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(head(200, version="1.0") + scripted.body())
        peer.close()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], SPACED)
    assert list(outcome.statuses().values()) == ["ok"] * 3
    assert server.connections == 3


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_server_that_closes_idle_connections_costs_no_request(tmp_path: Path, how: str) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(scripted.ok())
        time.sleep(0.05)
        getattr(peer, how)()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], SPACED)
    assert list(outcome.statuses().values()) == ["ok"] * 3
    assert server.connections == 3


def test_an_idle_connection_older_than_the_keep_alive_is_not_used(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        drive(tmp_path, [server.url], SPACED, keepalive_ns=100 * MS)
    assert server.connections == 3


def test_nothing_waits_for_a_connection(tmp_path: Path) -> None:
    everyone = threading.Barrier(40)

    def answer(peer: Peer, _request: Request) -> None:
        everyone.wait(20)  # passes only if all 40 are in flight at once
        peer.send(scripted.ok())

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}] * 40)
    assert list(outcome.statuses().values()) == ["ok"] * 40
    assert server.connections == 40


def test_a_request_of_megabytes_goes_out_in_parts(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url], [{"prompt_tokens": 900_000}])
    assert outcome.records[0]["status"] == "ok"
    assert len(server.requests[0].body) > 4_000_000
    assert len(orjson.loads(server.requests[0].body)["prompt"]) == 900_000


def test_tokens_that_come_while_a_large_request_still_goes_out_are_read(tmp_path: Path) -> None:
    """A server may begin its answer early, as long as it reads on."""
    with EarlyServer(then=b"") as server:
        outcome = drive(tmp_path, [server.url], [{"prompt_tokens": 900_000}])
    assert (outcome.records[0]["status"], outcome.records[0]["chunks"]) == ("ok", 3)


def test_a_refusal_of_a_large_request_is_read_although_the_server_stopped_reading(tmp_path: Path) -> None:
    refusal = head(413, "Content-Length: 8", "Connection: close", content_type="text/plain") + b"too long"
    with EarlyServer(then=refusal) as server:
        outcome = drive(tmp_path, [server.url], [{"prompt_tokens": 900_000}])
    row = outcome.records[0]
    assert (row["status"], row["http_status"], row["error"]) == ("http_error", 413, "too long")


class EarlyServer:
    """Answers when it has seen the head only. ``then``: instead of the rest, this, and then a reset."""

    def __init__(self, then: bytes) -> None:
        self._then = then

    def __enter__(self) -> "EarlyServer":
        self._listener = socket.create_server(("127.0.0.1", 0))
        # A small window, so that most of the request is still with the client.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            got = sock.recv(1024)
            if self._then:
                sock.sendall(self._then)
                return  # closing with unread bytes resets
            sock.sendall(scripted.ok())
            length = int(got.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            left = length - len(got.partition(b"\r\n\r\n")[2])
            while left > 0:
                left -= len(sock.recv(1 << 20)) or left

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()


def test_ipv6(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with ScriptedServer(answer_ok, host="::1") as server:
        outcome = drive(tmp_path, [server.url], [{}])
    assert outcome.records[0]["status"] == "ok"
    assert server.requests[0].headers["host"] == f"[::1]:{server.port}"
    assert outcome.records[0]["endpoint"] == server.url


def test_a_refused_port_is_a_connect_error_and_does_not_stop_the_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with ScriptedServer(answer_ok) as server:
        outcome = drive(tmp_path, [server.url, closed], [{"at_ms": 0.0}] * 4)
    assert outcome.statuses() == {0: "ok", 1: "connect_error", 2: "ok", 3: "connect_error"}
    assert outcome.records[1]["error"] == "Connection refused"
    assert outcome.records[1]["sent_ns"] is None


def test_without_file_descriptors_requests_fail_by_our_own_fault_and_the_run_goes_on(tmp_path: Path) -> None:
    import resource

    release = threading.Event()

    def answer(peer: Peer, _request: Request) -> None:
        release.wait(20)
        peer.send(scripted.ok())

    rows = [{"at_ms": 0.0}] * 80 + [{"at_ms": 600.0}]

    def meanwhile(_driven: Any) -> None:
        time.sleep(0.4)
        release.set()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], rows, meanwhile, limits={resource.RLIMIT_NOFILE: 60}, drain_ns=10 * S)
    statuses = list(outcome.statuses().values())
    assert statuses.count("client_error") >= 20 and statuses.count("ok") >= 20
    assert len(statuses) == 81 and statuses[80] == "ok"
    failed = next(row for row in outcome.records.values() if row["status"] == "client_error")
    assert "Too many open files" in failed["error"]


@pytest.mark.parametrize("code", ["EADDRNOTAVAIL", "ENOBUFS"])
def test_without_local_ports_or_buffers_it_is_our_own_fault(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word is put into its mouth: to use up all ports would take the machine's other tests with it."""
    ended: list[Exchange] = []

    class Exhausted(socket.socket):
        def connect_ex(self, _address: Any) -> int:
            return int(getattr(errno, code))

    loop = EventLoop()
    there = endpoint(("127.0.0.1", 9))
    monkeypatch.setattr(socket, "socket", Exhausted)
    Connection(loop, there, ClientStats(0), lambda _connection, it: ended.append(it)).send(new_exchange())
    loop.close()
    assert [str(it.status) for it in ended] == ["client_error"]
    assert ended[0].error == {"EADDRNOTAVAIL": "no free local port", "ENOBUFS": "No buffer space available"}[code]


def test_a_connection_that_is_never_accepted_ends_by_the_deadline(tmp_path: Path) -> None:
    """A full backlog: the kernel drops the SYN, as a firewall would."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(address)
        row = drive(tmp_path, [f"http://127.0.0.1:{address[1]}"], [{}], timeout_ns=400 * MS).records[0]
        for sock in filling:
            sock.close()
    assert row["status"] == "timeout"
    assert (row["connected_ns"], row["sent_ns"]) == (None, None)


def test_a_kept_connection_that_dies_under_a_request_is_said_to_have_been_kept(tmp_path: Path) -> None:
    def answer(peer: Peer, request: Request) -> None:
        peer.send(scripted.ok()) if request.index == 0 else peer.close()

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{"at_ms": 0.0}, {"at_ms": 150.0}])
    assert outcome.statuses() == {0: "ok", 1: "reset"}
    assert outcome.records[1]["connection_reused"] is True
    assert "a kept connection" in outcome.records[1]["error"]


def test_an_error_s_text_can_t_move_the_cursor_of_a_terminal(tmp_path: Path) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        body = b"\x1b[2J\x1b]0;pwned\x07 out of\nmemory"
        peer.send(head(500, f"Content-Length: {len(body)}", content_type="text/plain") + body)

    with ScriptedServer(answer) as server:
        outcome = drive(tmp_path, [server.url], [{}])
    assert outcome.records[0]["error"].endswith("out of memory")
    assert outcome.records[0]["error"].isprintable()
