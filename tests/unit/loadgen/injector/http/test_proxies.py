"""Which proxy the environment names for a URL, and what is exempt from it."""

import os

import pytest

from tailgate.loadgen.injector.http.endpoint import checked_route, told
from tailgate.loadgen.injector.http.proxies import Route, route
from tailgate.workloads.common.errors import UserError

PROXY = "http://ann:secret@proxy:3128"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def test_the_scheme_decides_and_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert route("http://model:8000") == Route()
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert route("http://model:8000") == Route()
    assert route("https://model") == Route(PROXY, "HTTPS_PROXY")
    monkeypatch.setenv("http_proxy", "other:1")
    assert route("http://model:8000") == Route("http://other:1", "http_proxy")


def test_what_is_told_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert told(checked_route("http://model")) == "through the proxy http://proxy:3128 (HTTP_PROXY)"
    assert told(checked_route("http://localhost:1")) == "past the proxy of HTTP_PROXY: a loopback address has no proxy"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000", "http://127.0.0.1", "http://127.8.8.8:1", "http://[::1]:8000", "http://a.localhost",
        "http://0.0.0.0:8000", "http://[::]:8000", "http://[::ffff:127.0.0.1]:8000", "http://LocalHost.:1",
    ],
)  # fmt: skip
def test_loopback_never_has_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert not route(url).proxy and "loopback" in route(url).bypass


@pytest.mark.parametrize(
    ("url", "exempt", "passed"),
    [
        ("http://model.corp", "*", True),
        ("http://model.corp", "corp", True),
        ("http://model.corp", ".corp", True),
        ("http://model.corp", "*.corp", True),
        ("http://MODEL.corp.", "other, Model.Corp", True),
        ("http://model.corp", "del.corp", False),
        ("http://model.corp", "", False),
        ("http://model.corp:8000", "model.corp:8000", True),
        ("http://model.corp:8000", "model.corp:80", False),
        ("http://model.corp", "model.corp:80", True),
        ("http://10.1.2.3:8000", "10.0.0.0/8", True),
        ("http://11.1.2.3:8000", "10.0.0.0/8", False),
        ("http://10.1.2.3:8000", "10.1.2.3", True),
        ("http://10.1.2.3:8000", "2.3", False),
        ("http://10.1.2.3:8000", "10.1.2.3:8000", True),
        ("http://10.1.2.3:8000", "10.0.0.0/99", False),
        ("http://model.corp", "10.0.0.0/8", False),
        ("http://[fd00::7]:8000", "fd00::/8", True),
        ("http://[fd00::7]:8000", "fd00:0::7", True),
        ("http://[fd00::7]:8000", "[fd00::7]", True),
        ("http://[fd00::7]:8000", "[fd00::7]:8000", True),
        ("http://[fd00::7]:8000", "[fd00::7]:80", False),
    ],
)
def test_no_proxy_knows_names_addresses_networks_and_ports(
    monkeypatch: pytest.MonkeyPatch, url: str, exempt: str, passed: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", exempt)
    way = route(url)
    assert bool(way.bypass) == passed and bool(way.proxy) != passed
    assert way.variable == "HTTP_PROXY"


def test_all_proxy_is_not_heeded_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    assert route("http://model").proxy == "" and "ALL_PROXY" in told(route("http://model"))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128", "http://127.0.0.1:banana"])
def test_a_proxy_that_we_can_t_speak_to_is_refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UserError, match="HTTP_PROXY"):
        checked_route("http://model")
