"""Whether a host is this machine, by its letters: no name is looked up."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine.

    So it does for ``localhost`` and names below it (RFC 6761), 127.0.0.0/8 and ::1, also inside IPv6. 0.0.0.0 and ::
    belong to them: a connection to them goes to loopback, though whoever listens there is reached from everywhere.
    """
    host = host.rstrip(".").lower()
    address = address_of(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, an IPv4 one inside IPv6 as itself; None for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
