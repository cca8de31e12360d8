"""Which proxy a request goes through: what the environment names, and what is exempt from it.

One rule for all that we send, the questions before the load and the load itself: `HTTP_PROXY` or `HTTPS_PROXY` by the
URL's scheme (small letters win), unless `NO_PROXY` exempts the host. A loopback address never has a proxy.
`ALL_PROXY` is not heeded.

`NO_PROXY` is a list with commas: `*`, a name (which exempts what is below it, too), an address, a network such as
10.0.0.0/8; each but the networks may end with a port.
"""

import ipaddress
import os
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from tailgate.loadgen.loopback import address_of, is_loopback


@dataclass(frozen=True)
class Route:
    """How a server is reached. Where the environment names no proxy for it, all fields are empty."""

    proxy: str = ""  # the proxy's URL, with its user and password; empty: straight
    variable: str = ""  # the variable that names it, or would but for `bypass`
    bypass: str = ""  # why the proxy that the environment names is not used


def route(url: str) -> Route:
    """The way to a base URL, by the environment as it is now."""
    parts = urlsplit(url)
    scheme, host = parts.scheme, (parts.hostname or "").rstrip(".")
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme)
    if not proxy:
        return Route(variable="ALL_PROXY", bypass="ALL_PROXY is not heeded") if proxies.get("all") else Route()
    variable = _variable(f"{scheme}_proxy")
    if is_loopback(host):
        return Route(variable=variable, bypass="a loopback address has no proxy")
    port = parts.port or (443 if scheme == "https" else 80)
    for entry in (entry.strip() for entry in proxies.get("no", "").split(",")):
        if entry and _exempts(entry.lower(), host, port):
            return Route(variable=variable, bypass=f"NO_PROXY exempts it ({entry})")
    return Route(proxy if "://" in proxy else f"http://{proxy}", variable)


def _variable(name: str) -> str:
    """A variable as the environment spells it."""
    spelled = [name, *(given for given in os.environ if given.lower() == name)]
    return next((given for given in spelled if os.environ.get(given)), name.upper())


def _exempts(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(entry, host)
    if entry.startswith("[") or entry.count(":") == 1:
        entry, _, wanted = entry.rpartition(":") if not entry.endswith("]") else (entry, "", "")
        entry = entry.strip("[]")
        if wanted and wanted != str(port):
            return False
    address = address_of(host)
    if address is not None:
        return address_of(entry) == address
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _in_network(network: str, host: str) -> bool:
    address = address_of(host)
    try:
        return address is not None and address in ipaddress.ip_network(network, strict=False)
    except ValueError:  # not a network
        return False
