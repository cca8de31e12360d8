"""A base URL taken apart: names, addresses, and what of it is a secret."""

import socket

import pytest

from tailgate.loadgen.injector.http.endpoint import Trust, public_name, redirect_target, resolve
from tailgate.workloads.common.errors import UserError


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_public_names_hold_no_secret() -> None:
    assert public_name("https://ann:secret@host:8443/v1/?key=secret#secret") == "https://host:8443/v1"
    assert "secret" not in public_name("http://ann:secret@host:banana/x?key=secret")
    assert "secret" not in public_name("ann:secret@host:8000")
    assert public_name("localhost:8000") == "localhost:8000"


def test_a_query_is_refused_without_showing_it() -> None:
    with pytest.raises(UserError, match=r"'http://127.0.0.1/base' was given with a query") as refused:
        resolve("http://127.0.0.1/base?sig=secret", "/v1/completions", Trust())
    assert "secret" not in str(refused.value)


def test_a_location_that_can_t_be_read_is_none() -> None:
    assert redirect_target("http://h/v1", "https://ann:pw@new/v1?key=x") == "https://new/v1"
    assert redirect_target("http://h/v1", "../v2") == "http://h/v2"
    for location in ("", "http://[bad", "//[::1"):
        assert redirect_target("http://h/v1", location) == ""


def test_default_ports_and_paths() -> None:
    plain = resolve("http://127.0.0.1", "/v1/completions", Trust())
    assert (plain.address, plain.host_header, plain.target) == (("127.0.0.1", 80), "127.0.0.1", "/v1/completions")
    tls = resolve("https://127.0.0.1/base/", "/v1/completions", Trust())
    assert (tls.address[1], tls.target) == (443, "/base/v1/completions")


def test_international_names_are_looked_up_as_the_dns_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    made = resolve("https://bücher.example", "/x", Trust())
    assert asked == ["xn--bcher-kva.example"]
    assert made.server_name == "xn--bcher-kva.example"
    made.host_header.encode("ascii")


@pytest.mark.parametrize("url", ["host:8000", "//host", "http://", "http://host:0x1", "http://[::1", "file:///etc", ""])
def test_what_is_no_url_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(UserError, match="not an http:// or https:// URL"):
        resolve(url, "/x", Trust())


def test_a_client_key_with_a_password_is_refused_instead_of_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    import trustme
    from cryptography.hazmat.primitives import serialization as s

    folder = tmp_path_factory.mktemp("key")
    made = trustme.CA().issue_cert("me@example.org")
    (folder / "cert.pem").write_bytes(made.cert_chain_pems[0].bytes())
    key = s.load_pem_private_key(made.private_key_pem.bytes(), None)
    locked = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"pw"))
    (folder / "key.pem").write_bytes(locked)
    trust = Trust(client_cert=str(folder / "cert.pem"), client_key=str(folder / "key.pem"))
    with pytest.raises(UserError, match="can't load the certificates"):
        resolve("https://127.0.0.1", "/x", trust)
