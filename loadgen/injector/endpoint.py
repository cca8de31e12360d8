"""Where requests go: a base URL resolved to an address, a TLS context, and a proxy if the environment names one."""

import base64
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from workloads.errors import UserError


@dataclass(frozen=True)
class Endpoint:
    """One server, resolved once at the start: no name is looked up on the send path."""

    name: str  # the base URL without credentials: what records and reports show
    family: socket.AddressFamily
    address: tuple[Any, ...]
    host_header: str
    target: str  # request target: path, or the absolute URL through a plain proxy
    server_name: str
    tls: ssl.SSLContext | None = None
    tunnel_request: bytes = b""  # CONNECT to a proxy


@dataclass(frozen=True)
class Trust:
    """How a TLS peer is verified, and how we show who we are."""

    ca: str | None = None
    insecure: bool = False
    client_cert: str | None = None
    client_key: str | None = None


def public_name(url: str) -> str:
    """A URL without user, password, query and fragment: those may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_host_port(parts)}{parts.path}".rstrip("/")


def resolve(base_url: str, path: str, trust: Trust) -> Endpoint:
    """The endpoint for POSTs to ``base_url`` + ``path``.

    Raises:
        UserError: the URL is malformed, or the name does not resolve.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{public_name(base_url)!r} is not an http:// or https:// URL", where="target")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = parts.path.rstrip("/") + path
    tls = tls_context(trust) if parts.scheme == "https" else None
    connect_to, tunnel = (parts.hostname, port), b""
    if proxy := _proxy_for(parts):
        connect_to = (proxy.hostname or "", proxy.port or 80)
        credentials = _proxy_authorization(proxy)
        if tls:
            where = f"{_bracketed(parts.hostname)}:{port}"
            tunnel = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{credentials}\r\n".encode()
        else:
            target = f"http://{_host_port(parts)}{target}"
    family, address = _look_up(*connect_to)
    return Endpoint(
        name=public_name(base_url),
        family=family,
        address=address,
        host_header=_host_port(parts),
        target=target,
        server_name=parts.hostname,
        tls=tls,
        tunnel_request=tunnel,
    )


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Verified unless told otherwise; HTTP/1.1 by ALPN, since that is what the injector speaks."""
    try:
        context = ssl.create_default_context(cafile=trust.ca)
        if trust.client_cert:
            context.load_cert_chain(trust.client_cert, trust.client_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"can't load the certificates: {error}", where="target.tls") from error
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _look_up(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"can't resolve {host!r}: {error}", where="target", remedy="Check the host name.") from error
    return found[0][0], found[0][4]


def _proxy_for(parts: SplitResult) -> SplitResult | None:
    assert parts.hostname is not None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _proxy_authorization(proxy: SplitResult) -> str:
    if not proxy.username:
        return ""
    token = base64.b64encode(f"{proxy.username}:{proxy.password or ''}".encode()).decode()
    return f"Proxy-Authorization: Basic {token}\r\n"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_port(parts: SplitResult) -> str:
    host = _bracketed(parts.hostname or "")
    return f"{host}:{parts.port}" if parts.port else host
