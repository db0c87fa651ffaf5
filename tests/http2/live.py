"""Cases over real sockets: the `Wire` of a client, and an origin on threads. See `talk.py` and `origin.py`."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading

from tests.http2.frames import CONTINUATION, HEADERS, PREFACE, cut, frame, string
from tests.http2.origin import Asked, Origin

HOST = "127.0.0.1"
READ_BYTES = 65536
WITHIN_S = 15.0  # for anything that should happen at once, on a machine that may be busy
AS_SECURE = [
    (string(name) + string(plain), string(name) + string(secure))
    for name, plain, secure in [
        (":scheme", "http", "https"), (":authority", "a", "localhost"), ("host", "a", "localhost"),
    ]
]  # fmt: skip
"""What cases say of their connection, in literals, and what it is by TLS."""


class SocketWire:
    """From a client to whoever listens at a port."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=WITHIN_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, raw: bytes) -> None:
        try:
            self.sock.settimeout(WITHIN_S)
            self.sock.sendall(raw)
        except OSError:
            pass  # what it has said before it closed is still to be read

    def receive(self, patience_s: float) -> bytes:
        if self._closed:
            return b""
        self.sock.settimeout(min(max(patience_s, 0.001), WITHIN_S))
        try:
            raw = self.sock.recv(READ_BYTES)
        except TimeoutError:
            return b""
        except OSError:
            raw = b""
        self._closed = not raw
        return raw

    def go(self) -> None:
        raise NotImplementedError("nobody can tell when a real origin has got a request")

    def close(self) -> None:
        self.sock.close()


class SecureWire(SocketWire):
    """... by TLS. What a case says of its connection is made to be so."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        assert self.sock.selected_alpn_protocol() == "h2"

    def send(self, raw: bytes) -> None:
        start = len(PREFACE) if raw.startswith(PREFACE) else 0
        whole, rest = cut(raw[start:], strict=False)
        out = raw[:start]
        for each in whole:
            payload = each.payload
            if each.type in (HEADERS, CONTINUATION):
                for plain, secure in AS_SECURE:
                    payload = payload.replace(plain, secure)
            out += frame(each.type, each.flags, each.stream, payload)
        super().send(out + rest)


class ServedOrigin:
    """`Origin` on a port of loopback, a thread for each connection."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.listening = socket.create_server((HOST, 0), backlog=128)
        self.port: int = self.listening.getsockname()[1]
        self._stops, self._stop = socket.socketpair()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while self.listening in (ready := select.select([self.listening, self._stops], [], [])[0]):
            thread = threading.Thread(target=self._serve, args=(self.listening.accept()[0],))
            self._threads.append(thread)
            thread.start()
        assert self._stops in ready

    def _serve(self, sock: socket.socket) -> None:
        origin = Origin(self.asked)
        with sock, contextlib.suppress(OSError):
            while sock in select.select([sock, self._stops], [], [])[0]:
                raw = sock.recv(READ_BYTES)
                if not raw:
                    return
                sock.sendall(origin.feed(raw))

    def close(self) -> None:
        """Ends all of it."""
        self._stop.send(b"x")  # it is never read, so that every thread sees it
        for thread in self._threads:
            thread.join(10)
        for each in (self.listening, self._stops, self._stop):
            each.close()
