"""TLS over the raw socket: who is trusted, who we are, and that kernel stamps survive it."""

import os
import ssl
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from tests.kit import scripted
from tests.kit.driving import MS, Outcome, drive
from tests.kit.scripted import CHUNKED, END, Peer, Request, ScriptedServer, answer_ok, at_times, chunk, event

from tailgate.loadgen.injector.http.endpoint import Trust


@dataclass
class Authority:
    """A certificate authority with its file, and servers' contexts signed by it."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.file = str(self.folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def server(self, *names: str, alpn: tuple[str, ...] = ("http/1.1",), clients: bool = False) -> ssl.SSLContext:
        """A server's context; ``clients``: it wants a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
        context.set_alpn_protocols(list(alpn))
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context

    def client(self) -> tuple[str, str]:
        """Files of a client's certificate and key."""
        made = self.ca.issue_cert("me@example.org")
        cert, key = self.folder / "client.pem", self.folder / "client.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(key))
        return str(cert), str(key)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def run(folder: Path, context: ssl.SSLContext, rows: Any = ({},), answer: Any = answer_ok, **trust: Any) -> Outcome:
    with ScriptedServer(answer, tls=context) as server:
        return drive(folder, [server.url], rows, trust=Trust(**trust))


def test_a_server_of_a_known_authority_is_trusted(tmp_path: Path, authority: Authority) -> None:
    outcome = run(tmp_path, authority.server(), ca=authority.file)
    assert outcome.statuses() == {0: "ok"}
    assert outcome.records[0]["endpoint"].startswith("https://127.0.0.1:")


def test_an_unknown_authority_is_a_connect_error_that_says_why(tmp_path: Path, authority: Authority) -> None:
    row = run(tmp_path, authority.server()).records[0]
    assert row["status"] == "connect_error"
    assert "unable to get local issuer certificate" in row["error"]
    assert row["sent_ns"] is None


def test_a_certificate_of_another_name_is_refused(tmp_path: Path, authority: Authority) -> None:
    row = run(tmp_path, authority.server("example.org"), ca=authority.file).records[0]
    assert row["status"] == "connect_error"
    assert "127.0.0.1" in row["error"]


def test_insecure_takes_any_certificate(tmp_path: Path, authority: Authority) -> None:
    assert run(tmp_path, authority.server("example.org"), insecure=True).statuses() == {0: "ok"}


def test_a_client_certificate_is_shown(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.client()
    outcome = run(tmp_path, authority.server(clients=True), ca=authority.file, client_cert=cert, client_key=key)
    assert outcome.statuses() == {0: "ok"}


def test_without_the_client_certificate_it_is_a_connect_error(tmp_path: Path, authority: Authority) -> None:
    """With TLS 1.3 the server's refusal comes after our half of the handshake is over."""
    row = run(tmp_path, authority.server(clients=True), ca=authority.file).records[0]
    assert row["status"] == "connect_error"
    assert "certificate" in row["error"].lower()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_serve(tmp_path: Path, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.server()
    context.minimum_version = context.maximum_version = version
    rows = [{"at_ms": 100.0 * k} for k in range(3)]
    outcome = run(tmp_path, context, rows, ca=authority.file)
    assert list(outcome.statuses().values()) == ["ok"] * 3
    assert [row["connection_reused"] for _, row in sorted(outcome.records.items())] == [False, True, True]


def test_http_1_1_is_asked_for_by_alpn(tmp_path: Path, authority: Authority) -> None:
    chosen: list[str | None] = []

    def answer(peer: Peer, _request: Request) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        chosen.append(peer.sock.selected_alpn_protocol())
        peer.send(scripted.ok())

    run(tmp_path, authority.server(alpn=("h2", "http/1.1")), answer=answer, ca=authority.file)
    assert chosen == ["http/1.1"]


def test_a_server_that_speaks_no_tls_is_a_connect_error(tmp_path: Path) -> None:
    def shout(peer: Peer, _request: Request) -> None:
        raise AssertionError("a TLS hello is no request")

    with ScriptedServer(shout) as server:
        server.tls = None
        url = server.url.replace("http:", "https:")

        # The hello has no CRLF CRLF: the server would wait for more. It speaks first instead.
        def speak(peer: Peer) -> None:
            peer.send(b"220 mail.example.org ESMTP\r\n")
            peer.close()

        server._serve = speak  # type: ignore[method-assign]
        row = drive(tmp_path, [url], [{}]).records[0]
    assert row["status"] == "connect_error"
    assert row["error"].startswith("TLS: ")


def test_a_server_that_hangs_up_in_the_handshake_is_a_connect_error(tmp_path: Path) -> None:
    for how in ("close", "reset"):
        with ScriptedServer(answer_ok) as server:
            server._serve = lambda peer, how=how: (peer.sock.recv(1), getattr(peer, how)())  # type: ignore[method-assign, misc]
            row = drive(tmp_path / how, [server.url.replace("http:", "https:")], [{}]).records[0]
        assert row["status"] == "connect_error", row


def test_arrivals_under_tls_are_those_of_the_kernel(tmp_path: Path, authority: Authority) -> None:
    spans: list[tuple[int, int]] = []
    events = [chunk(event(payload)) for payload in scripted.payloads(5)]

    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED)
        start = time.time_ns() + 20 * MS
        spans.extend(at_times(peer, [start + 20 * MS * k for k in range(5)], events[:5]))
        peer.send(*events[5:], END)

    outcome = run(tmp_path, authority.server(), answer=answer, ca=authority.file)
    row = outcome.records[0]
    arrived = [row["first_token_ns"] + outcome.t0_ns + 1_000 * us for us in row["arrivals_us"]]
    for at, (before, after) in zip(arrived, spans, strict=True):
        assert before - 1_000 <= at <= after + 20 * MS
    assert outcome.end["unstamped"] == 0


def test_megabytes_go_out_under_tls(tmp_path: Path, authority: Authority) -> None:
    with ScriptedServer(answer_ok, tls=authority.server()) as server:
        outcome = drive(tmp_path, [server.url], [{"prompt_tokens": 900_000}], trust=Trust(ca=authority.file))
    assert outcome.statuses() == {0: "ok"}
    assert len(orjson.loads(server.requests[0].body)["prompt"]) == 900_000


def test_an_end_without_close_notify_inside_the_answer_is_truncated(tmp_path: Path, authority: Authority) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED + chunk(event(scripted.token())))
        peer.close()

    row = run(tmp_path, authority.server(), answer=answer, ca=authority.file).records[0]
    assert (row["status"], row["chunks"]) == ("truncated", 1)


def test_an_answer_until_close_notify_is_whole(tmp_path: Path, authority: Authority) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.send(scripted.head(200) + scripted.body())
        peer.open = False
        peer.sock.unwrap()

    row = run(tmp_path, authority.server(), answer=answer, ca=authority.file).records[0]
    assert (row["status"], row["chunks"]) == ("ok", 3)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_tls_records_may_be_cut_anywhere(tmp_path: Path, authority: Authority, size: int) -> None:
    """A relay in front of the server passes the ciphertext on in small pieces."""
    import socket
    import threading

    def relay(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as there:
            up = threading.Thread(target=lambda: pump(peer.sock, there, 1 << 16), daemon=True)
            up.start()
            pump(there, peer.sock, size)
            up.join(10)

    def pump(source: socket.socket, sink: socket.socket, at_most: int) -> None:
        try:
            while data := source.recv(at_most):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    with ScriptedServer(answer_ok, tls=authority.server()) as server, ScriptedServer(answer_ok) as front:
        front._serve = relay  # type: ignore[method-assign]
        url = front.url.replace("http:", "https:")
        outcome = drive(tmp_path, [url], [{}], trust=Trust(ca=authority.file))
    assert outcome.statuses() == {0: "ok"}
    gaps = [b - a for a, b in pairwise(outcome.records[0]["arrivals_us"])]
    assert all(gap >= 0 for gap in gaps)


def test_bytes_that_are_no_tls_in_the_middle_of_an_answer_end_it(tmp_path: Path, authority: Authority) -> None:
    def answer(peer: Peer, _request: Request) -> None:
        peer.send(CHUNKED + chunk(event(scripted.token())))
        os.write(peer.sock.fileno(), b"no record of TLS " * 20)
        peer.wait_hung_up()

    row = run(tmp_path, authority.server(), answer=answer, ca=authority.file).records[0]
    assert (row["status"], row["chunks"]) == ("reset", 1)
    assert row["error"].startswith("TLS: ")
