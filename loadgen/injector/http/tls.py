"""A connection with TLS over the raw socket, so that reads keep their kernel stamps."""

import ssl

from tailgate.loadgen.injector.event_loop import READABLE
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.transport import READ_BYTES, REALTIME, clock
from tailgate.loadgen.records import Status


class TlsConnection(Connection):
    """TLS through memory BIOs: `SSLSocket.recvmsg` raises, which is why the socket stays raw."""

    def _on_transport(self) -> None:
        context = self.endpoint.tls
        assert context is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self.endpoint.server_name)
        self._loop.change(self._fd, self._on_handshake, READABLE)
        self._shake_hands()

    def _on_handshake(self, _mask: int) -> None:
        received = self._receive()
        if received is None:
            return
        if received[0]:
            self._incoming.write(received[0])
            self._shake_hands()
        else:
            self._fail(Status.CONNECT_ERROR, "the server closed the connection in the TLS handshake")

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(Status.CONNECT_ERROR, f"TLS: {getattr(error, 'verify_message', None) or error.reason}")
            return
        self._flush()
        if self._sock is not None:
            self._on_connected()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            super()._write(data)

    def _send_request(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.sent_ns = clock(REALTIME)
        self._tls.write(exchange.payload)
        self._flush()

    def _readable(self, _mask: int) -> None:
        received = self._receive()
        if received is None:
            return
        raw, stamp, read = received
        if not raw:
            self._on_eof(stamp)
            return
        self._incoming.write(raw)
        plain = []
        closed = False
        broken: ssl.SSLError | None = None
        try:
            while data := self._tls.read(READ_BYTES):
                plain.append(data)
            closed = True  # the peer's close_notify
        except ssl.SSLWantReadError:
            self._flush()  # key updates
        except ssl.SSLError as error:
            broken = error
        if plain:  # what came in front of a broken record came
            self._take(b"".join(plain), stamp, read)
        if broken is not None and self._sock is not None:
            exchange = self._exchange
            refused = exchange is not None and not exchange.reused and not exchange.bytes_received
            # With TLS 1.3 the refusal of our certificate comes when our half of the handshake is over.
            self._fail(Status.CONNECT_ERROR if refused else Status.RESET, f"TLS: {broken.reason}")
        elif closed and self._sock is not None:
            self._on_eof(stamp)
