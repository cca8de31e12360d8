"""Where requests go: a base URL resolved to an address, a TLS context, and a proxy if the environment names one."""

import base64
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from tailgate.loadgen.injector.http.proxies import Route, route
from tailgate.loadgen.loopback import is_loopback
from tailgate.workloads.common.errors import UserError

# A name with several addresses (localhost is ::1 and 127.0.0.1): each is tried this long before the run.
_TRY_S: Final = 2.0


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
    authorization: str = ""  # from the user and password of the URL
    proxy_authorization: str = ""  # for a proxy that is asked for each request, not for a tunnel
    via: str = ""  # the proxy and the variable that names it, as errors show them

    @property
    def on_loopback(self) -> bool:
        """Whether its peer runs on this machine, by its address."""
        return is_loopback(str(self.address[0]))


@dataclass(frozen=True)
class Trust:
    """How a TLS peer is verified, and how we show who we are."""

    ca: str | None = None
    insecure: bool = False
    client_cert: str | None = None
    client_key: str | None = None


def public_name(url: str) -> str:
    """The URL without user, password, query and fragment, any of which may be secret."""
    try:
        parts = urlsplit(url)
        if parts.netloc:
            return f"{parts.scheme}://{_host_port(parts)}{parts.path}".rstrip("/")
    except ValueError:  # a port or an IPv6 address that is none
        pass
    return url.rpartition("@")[2].partition("?")[0]


def redirect_target(address: str, location: str) -> str:
    """Where a redirect of an address points, in public; empty for a location that is missing or can't be read."""
    try:
        return public_name(urljoin(address, location)) if location else ""
    except ValueError:  # half an IPv6 address
        return ""


def resolve(base_url: str, path: str, trust: Trust) -> Endpoint:
    """The endpoint for POSTs to ``base_url`` + ``path``."""
    parts, host, port = _taken_apart(base_url, "target")
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{public_name(base_url)!r} is not an http:// or https:// URL", where="target")
    target = parts.path.rstrip("/") + path
    authority = f"{_bracketed(host)}:{parts.port}" if parts.port else _bracketed(host)
    tls = tls_context(trust) if parts.scheme == "https" else None
    connect_to, tunnel, proxy_authorization = (host, port), b"", ""
    way = checked_route(base_url)
    if way.proxy:
        proxy_parts, proxy_host, proxy_port = _taken_apart(way.proxy, way.variable)
        connect_to = (proxy_host, proxy_port)
        proxy_authorization = _basic(proxy_parts)
        if tls:
            where = f"{_bracketed(host)}:{port}"
            credentials = f"Proxy-Authorization: {proxy_authorization}\r\n" if proxy_authorization else ""
            tunnel = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{credentials}\r\n".encode()
            proxy_authorization = ""
        else:
            target = f"http://{authority}{target}"
    family, address = _look_up(*connect_to, where=way.variable if way.proxy else "target")
    return Endpoint(
        name=public_name(base_url),
        family=family,
        address=address,
        host_header=authority,
        target=target,
        server_name=host,
        tls=tls,
        tunnel_request=tunnel,
        authorization=_basic(parts),
        proxy_authorization=proxy_authorization,
        via=told(way) if way.proxy else "",
    )


def checked_route(base_url: str) -> Route:
    """The way to a base URL; a UserError where it has a query, or its proxy is one that we can't speak to."""
    taken_apart, _, _ = _taken_apart(base_url, "target")
    if taken_apart.query:
        raise UserError(
            f"{public_name(base_url)!r} was given with a query, which no request would have",
            where="target",
            remedy="Leave the query out; what the server wants to know can be a header (--header, target.headers).",
        )
    way = route(base_url)
    if way.proxy:
        named = f"the environment's {way.variable}"
        parts, _, _ = _taken_apart(way.proxy, named)
        if parts.scheme != "http":
            raise UserError(
                f"a proxy that is spoken to in {parts.scheme} is not supported",
                where=named,
                remedy="Name an http:// proxy (it tunnels TLS as well), or exempt the target with NO_PROXY.",
            )
    return way


def told(way: Route) -> str:
    """A route in words, without secrets; empty where the environment names no proxy."""
    if way.proxy:
        return f"through the proxy {public_name(way.proxy)} ({way.variable})"
    return f"past the proxy of {way.variable}: {way.bypass}" if way.bypass else ""


def _taken_apart(url: str, where: str) -> tuple[SplitResult, str, int]:
    """A URL's parts, its host as the DNS writes it, and its port."""
    wrong = UserError(f"{public_name(url)!r} is not an http:// or https:// URL", where=where)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        if host and not host.isascii():
            host = host.encode("idna").decode()
    except ValueError:  # an impossible port or name
        raise wrong from None
    if not host or not parts.scheme:
        raise wrong
    return parts, host, port


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Verified unless told otherwise; HTTP/1.1 by ALPN, since that is what the injector speaks."""
    try:
        context = ssl.create_default_context(cafile=trust.ca)
    except OSError as error:  # SSLError is one
        raise _unfit("target.tls.ca", error, "PEM file with the authority's certificate", trust.ca) from error
    if trust.client_cert:
        files = (trust.client_cert, *([trust.client_key] if trust.client_key else []))
        try:
            # A key that needs a password is refused: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(trust.client_cert, trust.client_key, password=lambda: "")
        except OSError as error:
            what = "PEM file with the client's certificate and one with its key, which needs no password"
            raise _unfit("target.tls.cert, key", error, what, *files) from error
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _unfit(where: str, error: OSError, wanted: str, *files: str | None) -> UserError:
    missing = [name for name in files if name and not Path(name).is_file()]
    why = "no such file" if missing else error.strerror or str(error)
    named = ", ".join(missing or [name for name in files if name])
    return UserError(
        f"can't load the certificates: {named}: {why}",
        where=where,
        remedy=f"Give a {wanted}; names in a spec are relative to it.",
    )


def _look_up(host: str, port: int, where: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"can't resolve {host!r}: {error}", where=where, remedy="Check the host name.") from error
    if len(found) > 1:
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.settimeout(_TRY_S)
                if probe.connect_ex(address) == 0:
                    return family, address
    return found[0][0], found[0][4]


def _basic(parts: SplitResult) -> str:
    """The user and password of a URL as a header's value (RFC 7617), or an empty string."""
    if not parts.username:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host_port(parts: SplitResult) -> str:
    host = _bracketed(parts.hostname or "")
    return f"{host}:{parts.port}" if parts.port else host
