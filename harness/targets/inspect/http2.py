"""Does a server speak only HTTP/2? Asked when it did not answer in HTTP/1.1, so that the person learns why.

The injector speaks HTTP/1.1: one stream a connection, so that no stream waits for another's bytes and each read's
kernel stamp is one stream's. A gateway that insists on HTTP/2 can't be measured through; it is named as such.
"""

import asyncio
import contextlib
import ssl
from typing import Final
from urllib.parse import urlsplit

# RFC 9113, 3.4: the client's preface, then a SETTINGS frame (empty); the server's own begins with one as well.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS: Final = 4
_FRAME_HEAD: Final = 9
_TIMEOUT_S: Final = 5.0


async def speaks_http2(url: str) -> bool:
    """Whether the server behind a base URL chooses HTTP/2 when it may, or understands it without TLS.

    Nothing secret is sent, so nobody's certificate matters here.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port or (443 if secure else 80), ssl=_context() if secure else None
            )
            with contextlib.closing(writer):
                if secure:
                    chosen: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
                    return chosen == "h2"
                writer.write(_PREFACE)
                head = await reader.readexactly(_FRAME_HEAD)
                return head[3] == _SETTINGS and head[5:] == bytes(4)  # of stream 0
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return False


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context
