"""A raw TCP server whose every byte, pause, close and reset is scripted by the test.

`ScriptedServer(answer)` calls ``answer(peer, request)`` for each request, in a thread per connection. What an
answer is made of (heads, chunks, events) is here too. Loopback only.
"""

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_INDEX = re.compile(r"tg-.*-(\d+)$")


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    at_ns: int  # CLOCK_REALTIME, when it was complete

    @property
    def index(self) -> int:
        """The plan's row, from X-Request-Id; -1 without one."""
        found = _INDEX.search(self.headers.get("x-request-id", ""))
        return int(found[1]) if found else -1


class Gone(Exception):
    """The client has hung up."""


@dataclass
class Peer:
    """The server's end of one connection."""

    sock: socket.socket
    number: int  # which connection of the server it is, from 0
    open: bool = True
    _rest: bytes = b""

    def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own."""
        for piece in pieces:
            try:
                self.sock.sendall(piece)
            except OSError as error:
                raise Gone from error

    def drip(self, data: bytes, size: int) -> None:
        """Pieces of ``size`` bytes."""
        self.send(*(data[at : at + size] for at in range(0, len(data), size)))

    def close(self) -> None:
        """An orderly end."""
        self.open = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()

    def reset(self) -> None:
        """A reset instead of an end."""
        self.open = False
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_hung_up(self, timeout: float = 20.0) -> int:
        """Wait for the client's end of stream (or reset); when it came, CLOCK_REALTIME ns."""
        self.sock.settimeout(timeout)
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass
        self.open = False
        return time.time_ns()

    def request(self) -> Request | None:
        """The next request; None at the end of the stream."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first.count(" ") != 2:  # a TLS hello, say: whoever asks in another protocol is hung up on
            return None
        method, target, _ = first.split(" ")
        self._rest = rest
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length:
            if not self._more():
                return None
        body, self._rest = self._rest[:length], self._rest[length:]
        return Request(method, target, headers, body, time.time_ns())

    def _more(self) -> bool:
        try:
            data = self.sock.recv(1 << 20)
        except OSError:
            return False
        self._rest += data
        return bool(data)


Answer = Callable[[Peer, Request], None]


@dataclass
class ScriptedServer:
    """A context manager; `url` is its base URL. ``tls`` wraps every connection."""

    answer: Answer
    host: str = "127.0.0.1"
    port: int = 0  # 0: any that is free
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> "ScriptedServer":
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=512)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many have been accepted."""
        return len(self.peers)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock, len(self.peers))
            self.peers.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        try:
            if self.tls is not None:
                peer.sock = self.tls.wrap_socket(peer.sock, server_side=True)
            while peer.open and (request := peer.request()) is not None:
                self.requests.append(request)
                self.answer(peer, request)
        except (Gone, ssl.SSLError, OSError):
            pass
        except Exception as error:  # noqa: BLE001 - a mistake in a test's script must not pass for a closed socket
            self.failures.append(error)
        finally:
            peer.sock.close()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self.peers):
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not self.failures, self.failures


# --- what answers are made of ---------------------------------------------------------------------------


def head(status: int = 200, *lines: str, content_type: str = "text/event-stream", version: str = "1.1") -> bytes:
    """A response's head."""
    whole = [f"HTTP/{version} {status} Whatever", f"Content-Type: {content_type}", *lines]
    return ("\r\n".join(whole) + "\r\n\r\n").encode()


def whole(body: bytes, status: int = 200, content_type: str = "text/plain") -> bytes:
    """A response of a known length."""
    return head(status, f"Content-Length: {len(body)}", content_type=content_type) + body


CHUNKED = head(200, "Transfer-Encoding: chunked")
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """In chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + payload + b"\n\n"


def token(text: str = " word", finish: str | None = None) -> bytes:
    """A completion chunk as vLLM serialises it."""
    ended = "null" if finish is None else f'"{finish}"'
    return (
        '{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"'
        + text
        + f'","logprobs":null,"finish_reason":{ended},"stop_reason":null}}],"usage":null}}'
    ).encode()


def delta(content: str | None = " word", role: str | None = None, finish: str | None = None, **more: str) -> bytes:
    """A chat chunk as vLLM serialises it."""
    fields = {"role": role, "content": content, **more}
    inner = ",".join(f'"{name}":"{value}"' for name, value in fields.items() if value is not None)
    ended = "null" if finish is None else f'"{finish}"'
    return (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{'
        + inner
        + f'}},"logprobs":null,"finish_reason":{ended}}}]}}'
    ).encode()


def usage(prompt: int, output: int) -> bytes:
    """The chunk behind the last token."""
    return (
        b'{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[],'
        b'"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}' % (prompt, prompt + output, output)
    )


def payloads(tokens: int, prompt: int = 10) -> list[bytes]:
    """The payloads of a whole completion."""
    said = [token() for _ in range(tokens - 1)] + [token(finish="length")]
    return [*said, usage(prompt, tokens), b"[DONE]"]


def body(tokens: int = 3, prompt: int = 10) -> bytes:
    """The body of a whole completion, without transfer coding."""
    return b"".join(map(event, payloads(tokens, prompt)))


def ok(tokens: int = 3, prompt: int = 10) -> bytes:
    """A whole answer in one piece, one chunk an event."""
    return CHUNKED + b"".join(chunk(event(payload)) for payload in payloads(tokens, prompt)) + END


def answer_ok(peer: Peer, _request: Request) -> None:
    """The answer of a server that has nothing to hide."""
    peer.send(ok())


def at_times(peer: Peer, times_ns: Iterable[int], pieces: Iterable[bytes]) -> list[tuple[int, int]]:
    """Send each piece at its CLOCK_REALTIME; between which two stamps each send lay."""
    spans = []
    for due, piece in zip(times_ns, pieces, strict=True):
        time.sleep(max(due - time.time_ns(), 0) / 1e9)
        before = time.time_ns()
        peer.send(piece)
        spans.append((before, time.time_ns()))
    return spans


# --- what a server does to one request

Script = Callable[[Peer], None]


def sends(*parts: bytes) -> Script:
    """Send these and keep the connection."""
    return lambda peer: peer.send(*parts)


def closes(*parts: bytes) -> Script:
    """Send these and close."""

    def script(peer: Peer) -> None:
        peer.send(*parts)
        peer.close()

    return script


def resets(*parts: bytes) -> Script:
    """Send these, and reset once the client has had the time to read them."""

    def script(peer: Peer) -> None:
        peer.send(*parts)
        peer.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            peer.sock.recv(1)
        peer.reset()

    return script


def hangs(*parts: bytes) -> Script:
    """Send these, and nothing more until the client has gone."""

    def script(peer: Peer) -> None:
        peer.send(*parts)
        peer.wait_hung_up()

    return script
