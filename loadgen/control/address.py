"""HOST:PORT as a person writes it."""

from workloads.errors import UserError


def split_address(text: str, default_port: int, where: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPv6]`` or ``[IPv6]:PORT``.

    Raises:
        UserError: it is neither.
    """
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
    if not host or (port and not port.isdigit()):
        raise wrong
    number = int(port) if port else default_port
    if not 0 < number < 65536:
        raise wrong
    return host, number
