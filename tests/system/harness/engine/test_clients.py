"""Clients that aren't polite: old ones, ones that go at any moment, and ones that send far too much."""

import asyncio
import json
import socket
import struct
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kit.engine import engine_process
from tests.system.harness.engine.test_api import call, metrics

BODY = {"prompt": [1, 2, 3], "max_tokens": 30, "ignore_eos": True}


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=20)


def message(body: object, version: str = "1.1", more: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nContent-Length: {len(content)}\r\n{more}\r\n"
    return head.encode() + content


def everything(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
def test_a_client_of_http_1_0_gets_its_stream_without_chunks_until_the_connection_ends(url: str, more: str):
    with connect(url) as connection:
        connection.sendall(message({**BODY, "stream": True}, "1.0", more))
        head, _, stream = everything(connection).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0] and b"chunked" not in head.lower() and b"keep-alive" not in head.lower()
    events = stream.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""] and len(events) == 32
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events[:-2])


def test_a_client_of_http_1_0_gets_a_whole_answer_too(url: str):
    with connect(url) as connection:
        connection.sendall(message(BODY, "1.0"))
        head, _, answer = everything(connection).partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0] and json.loads(answer)["usage"]["completion_tokens"] == 30


def test_a_stop_string_ends_a_stream_as_it_ends_a_whole_answer(url: str):
    _, full = call(f"{url}/v1/completions", BODY)
    words = full["choices"][0]["text"].split()
    stop = f" {words[7]}"
    _, whole = call(f"{url}/v1/completions", {**BODY, "stop": stop})
    assert whole["choices"][0]["text"] == full["choices"][0]["text"].partition(stop)[0]
    assert (whole["choices"][0]["finish_reason"], whole["choices"][0]["stop_reason"]) == ("stop", stop)
    with connect(url) as connection:
        connection.sendall(message({**BODY, "stop": stop, "stream": True}, "1.0"))
        stream = everything(connection).partition(b"\r\n\r\n")[2].decode()
    chunks = [json.loads(event[6:])["choices"][0] for event in stream.split("\n\n")[:-2]]
    assert "".join(chunk["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert len(chunks) == whole["usage"]["completion_tokens"] < 30
    assert (chunks[-1]["finish_reason"], chunks[-1]["stop_reason"]) == ("stop", stop)


@settings(max_examples=60)
@given(st.data())
def test_wherever_clients_go_away_the_books_come_back_to_zero(url: str, data: st.DataObject):
    """Five at once, each gone after some bytes of its request or of its answer, politely or by a reset."""
    before = metrics(url)
    for _ in range(5):
        streamed, version = data.draw(st.booleans()), data.draw(st.sampled_from(["1.0", "1.1"]))
        sent = message({**BODY, "max_tokens": data.draw(st.integers(1, 400)), "stream": streamed}, version)
        cut = data.draw(st.one_of(st.just(len(sent)), st.integers(0, len(sent))))
        wanted = data.draw(st.sampled_from([0, 0, 1, 200, 2000])) if cut == len(sent) else 0
        with connect(url) as connection:
            connection.sendall(sent[:cut])
            if wanted:
                connection.recv(wanted)
            if data.draw(st.booleans()):  # a reset in place of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    idle = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    deadline = time.monotonic() + 20
    while True:
        now = metrics(url)
        if call(f"{url}/load")[1] == {"server_load": 0} and not any(now[name] for name in idle):
            break
        assert time.monotonic() < deadline, {name: now[name] for name in idle}
    ended = sum(now[name] - before[name] for name in now if name.startswith("vllm:request_success_total/"))
    assert 0 <= ended <= 5
    assert call(f"{url}/v1/completions", BODY)[1]["usage"]["completion_tokens"] == 30


def test_a_request_id_that_is_no_text_is_no_reason_to_fail(url: str):
    with connect(url) as connection:
        head = message({**BODY, "stream": True}, "1.0").replace(b"Host: x", b"Host: x\r\nX-Request-Id: a\xff")
        connection.sendall(head)
        assert everything(connection).endswith(b"data: [DONE]\n\n")


@pytest.mark.alone
@pytest.mark.parametrize(
    "prompt",
    [b'"' + b"a " * 2**21 + b'"', b'"' + b"a " * 15_000_000 + b'"', b"[" + b"1," * 15_000_000 + b"1]"],
    ids=["4 MB of text", "30 MB of text", "30 MB of token ids"],
)
def test_a_prompt_of_many_megabytes_is_refused_and_holds_nobody_up(prompt: bytes):
    with engine_process() as (url, _):

        async def longest_wait(stop: threading.Event) -> float:
            worst = 0.0
            while not stop.is_set():
                began = time.monotonic()
                await asyncio.to_thread(call, f"{url}/health")
                worst = max(worst, time.monotonic() - began)
            return worst

        refusals: list[tuple[int, str]] = []

        def send(stop: threading.Event) -> None:
            try:
                request = urllib.request.Request(f"{url}/v1/completions", b'{"prompt":' + prompt + b"}")
                status, answer = call_raw(request)
                refusals.append((status, answer["error"]["message"]))
            finally:
                stop.set()

        stop = threading.Event()
        sender = threading.Thread(target=send, args=(stop,))
        sender.start()
        worst = asyncio.run(longest_wait(stop))
        sender.join()
    [(status, words)] = refusals
    assert status == 400 and "This model's maximum context length is" in words and "upper bound" in words
    assert worst < 0.5


def call_raw(request: urllib.request.Request) -> tuple[int, dict[str, dict[str, str]]]:
    """Status and JSON of a request whose body is bytes already."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
