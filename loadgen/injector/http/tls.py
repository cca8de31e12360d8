"""A connection with TLS over the raw socket, so that reads keep their kernel stamps."""

import ssl
from typing import Final

from tailgate.loadgen.injector.event_loop import READABLE
from tailgate.loadgen.injector.http.connection import Connection
from tailgate.loadgen.injector.http.transport import READ_BYTES
from tailgate.loadgen.records import Status

_RECORD_HEAD: Final = 5  # type, version, length


class TlsConnection(Connection):
    """TLS through memory BIOs: `SSLSocket.recvmsg` raises, which is why the socket stays raw."""

    def _on_transport(self) -> None:
        context = self.endpoint.tls
        assert context is not None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._record_head, self._record_left = b"", 0
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self.endpoint.server_name)
        self._loop.change(self._fd, self._on_handshake, READABLE)
        self._shake_hands()

    def _ends_between_records(self, raw: bytes) -> bool:
        """Follow the records (RFC 8446, 5.1); whether the bytes so far end with one.

        The stamp of a read that ends inside a record is that of bytes which nobody can read yet.
        """
        at = min(self._record_left, len(raw))
        self._record_left -= at
        data = self._record_head + raw[at:]
        self._record_head = b""
        at = 0
        while at < len(data):
            if len(data) - at < _RECORD_HEAD:
                self._record_head = data[at:]
                return False
            length = int.from_bytes(data[at + 3 : at + _RECORD_HEAD], "big")
            at += _RECORD_HEAD + length
            self._record_left = max(at - len(data), 0)
        return not self._record_left

    def _on_handshake(self, _mask: int) -> None:
        received = self._receive()
        if received is None:
            return
        if received[0]:
            self._ends_between_records(received[0])
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
        self._note_sending(exchange)
        self._tls.write(exchange.payload)
        self._flush()

    def _readable(self, _mask: int) -> None:
        received = self._receive()
        if received is None:
            return
        raw, read = received
        if not raw:
            self._on_eof(read)
            return
        between = self._ends_between_records(raw)
        read = (*read[:3], read[3] and between)
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
            self._take(b"".join(plain), read)
        if broken is not None and self._sock is not None:
            exchange = self._exchange
            refused = exchange is not None and not exchange.reused and not exchange.bytes_received
            # With TLS 1.3 the refusal of our certificate comes when our half of the handshake is over.
            self._fail(Status.CONNECT_ERROR if refused else Status.RESET, f"TLS: {broken.reason}")
        elif closed and self._sock is not None:
            self._on_eof(read)
