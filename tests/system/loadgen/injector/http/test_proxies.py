"""Proxies named by the environment: tunnels for TLS, absolute targets for plain HTTP, and who is exempt."""

import contextlib
import socket
import threading
from pathlib import Path

import pytest
import trustme
from tests.kit.driving import Driven, Outcome, drive
from tests.kit.scripted import Peer, Request, ScriptedServer, answer_ok, head

from tailgate.loadgen.injector.http.endpoint import Trust

# "ann:p@ss" in base64, as RFC 7617 wants it.
ANN = "Basic YW5uOnBAc3M="
NAME = "model.invalid"


class Tunnel:
    """An HTTP proxy that knows CONNECT; ``want``: the only Proxy-Authorization it takes."""

    def __init__(self, want: str | None = None, refusal: bytes = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"):
        self.want, self.refusal = want, refusal

    def __call__(self, peer: Peer, request: Request) -> None:
        if request.method != "CONNECT" or (self.want and request.headers.get("proxy-authorization") != self.want):
            peer.send(self.refusal)
            peer.close()
            return
        _, _, port = request.target.rpartition(":")
        with socket.create_connection(("127.0.0.1", int(port))) as there:
            # The answer comes in two pieces: a client must wait for its end.
            peer.send(b"HTTP/1.1 200 Connection est", b"ablished\r\nVia: me\r\n\r\n")
            up = threading.Thread(target=_pump, args=(peer.sock, there), daemon=True)
            up.start()
            _pump(there, peer.sock)
            up.join(10)
        peer.open = False


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, str]:
    made = trustme.CA()
    file = str(tmp_path_factory.mktemp("ca") / "ca.pem")
    made.cert_pem.write_to_path(file)
    return made, file


def through(folder: Path, ca: tuple[trustme.CA, str], tunnel: Tunnel, user: str = "", host: str = NAME) -> tuple[
    Outcome, ScriptedServer, ScriptedServer
]:  # fmt: skip
    """Two requests to a TLS server behind a tunnel, which alone knows its name; the outcome, the proxy, the server."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca[0].issue_cert(NAME, "127.0.0.1").configure_cert(context)
    with ScriptedServer(answer_ok, tls=context) as server, ScriptedServer(tunnel) as proxy:
        environment = {"HTTPS_PROXY": proxy.url.replace("//", f"//{user}"), "NO_PROXY": ""}
        rows = [{"at_ms": 0.0}, {"at_ms": 200.0}]
        url = f"https://{host}:{server.port}"
        outcome = drive(folder, [url], rows, environment=environment, trust=Trust(ca=ca[1]))
    return outcome, proxy, server


def test_tls_goes_through_a_tunnel(tmp_path: Path, ca: tuple[trustme.CA, str]) -> None:
    outcome, proxy, server = through(tmp_path, ca, Tunnel())
    assert outcome.statuses() == {0: "ok", 1: "ok"}
    assert [r.method for r in proxy.requests] == ["CONNECT"]  # the connection is kept
    assert proxy.requests[0].target == f"{NAME}:{server.port}"
    assert outcome.records[0]["endpoint"] == f"https://{NAME}:{server.port}"


def test_the_proxy_s_password_is_percent_decoded_and_goes_to_the_proxy_only(
    tmp_path: Path, ca: tuple[trustme.CA, str]
) -> None:
    outcome, _, server = through(tmp_path, ca, Tunnel(want=ANN), user="ann:p%40ss@")
    assert outcome.statuses() == {0: "ok", 1: "ok"}
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_that_refuses_is_a_connect_error_with_its_answer(tmp_path: Path, ca: tuple[trustme.CA, str]) -> None:
    outcome, proxy, server = through(tmp_path, ca, Tunnel(want=ANN), user="ann:wrong@")
    assert outcome.statuses() == {0: "connect_error", 1: "connect_error"}
    error = outcome.records[0]["error"]
    assert "407 Proxy Authentication Required" in error and "wrong" not in error
    assert f"through the proxy http://127.0.0.1:{proxy.port} (HTTPS_PROXY)" in error
    assert server.requests == []


@pytest.mark.parametrize("refusal", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200", b"x" * 20_000])
def test_a_proxy_that_is_none_is_a_connect_error(tmp_path: Path, ca: tuple[trustme.CA, str], refusal: bytes) -> None:
    outcome, _, _ = through(tmp_path, ca, Tunnel(want="nobody", refusal=refusal))
    assert outcome.statuses() == {0: "connect_error", 1: "connect_error"}


def test_loopback_goes_straight(tmp_path: Path, ca: tuple[trustme.CA, str]) -> None:
    outcome, proxy, _ = through(tmp_path, ca, Tunnel(), host="127.0.0.1")
    assert outcome.statuses() == {0: "ok", 1: "ok"}
    assert proxy.connections == 0


def test_plain_http_names_the_whole_url_to_the_proxy_and_authorizes_each_request(tmp_path: Path) -> None:
    with ScriptedServer(answer_ok) as proxy:
        environment = {"http_proxy": proxy.url.replace("//", "//ann:p%40ss@")}
        rows = [{"at_ms": 0.0}, {"at_ms": 150.0}]
        outcome = drive(tmp_path, ["http://model.invalid:8000/base"], rows, environment=environment)
    assert outcome.statuses() == {0: "ok", 1: "ok"}
    for request in proxy.requests:
        assert request.target == "http://model.invalid:8000/base/v1/completions"
        assert request.headers["host"] == "model.invalid:8000"
        assert request.headers["proxy-authorization"] == ANN
    assert proxy.connections == 1


def test_a_plain_proxy_that_refuses_is_an_http_error(tmp_path: Path) -> None:
    with ScriptedServer(lambda peer, _r: peer.send(head(407, "Content-Length: 0"))) as proxy:
        outcome = drive(tmp_path, ["http://model.invalid"], [{}], environment={"http_proxy": proxy.url})
    assert (outcome.records[0]["status"], outcome.records[0]["http_status"]) == ("http_error", 407)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128", "http://127.0.0.1:banana"])
def test_a_proxy_we_can_t_speak_to_is_refused_before_any_load(tmp_path: Path, proxy: str) -> None:
    with Driven(tmp_path, [f"http://{NAME}:9"], [{}], environment={"http_proxy": proxy}) as driven:
        refusal = driven.prepare()
    assert refusal["op"] == "refused"
    assert "http_proxy" in refusal["where"]
