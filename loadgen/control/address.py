"""Reads HOST:PORT as a person writes it, and checks that this machine can listen there, and who can reach it."""

import os
import socket

from tailgate.loadgen.loopback import address_of, is_loopback
from tailgate.workloads.common.errors import UserError


def split_address(text: str, default_port: int, where: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPv6]`` or ``[IPv6]:PORT``."""
    wrong = UserError(f"{text!r} is not HOST or HOST:PORT", where=where)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise wrong
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise UserError(f"{text!r}: write an IPv6 address in brackets, [ADDRESS]:PORT", where=where)
    if host.isdigit() and not port:
        raise UserError(f"{text!r} is a port without a host", where=where, remedy=f"Write e.g. 127.0.0.1:{text}.")
    if not host or (port and not port.isdigit()):
        raise wrong
    number = int(port) if port else default_port
    if not 0 < number < 65536:
        raise wrong
    return host, number


def is_private(host: str) -> bool:
    """Whether only this machine reaches who listens at a host, whose name is looked up.

    A name that can't be resolved, such as ``*``, counts as no.
    """
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(is_loopback(address) and not _is_everywhere(address) for address in addresses)


def _is_everywhere(address: str) -> bool:
    known = address_of(address)
    return known is not None and known.is_unspecified


def refuse_a_port_in_use(host: str, port: int, where: str) -> None:
    """Raise a UserError if the address is in use or not of this machine: Locust itself would end the process."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        raise UserError(
            f"can't listen on {host}:{port}: {os.strerror(number) if number > 0 else error}",
            where=where,
            remedy="Choose another port, or end what uses it.",
        ) from error
