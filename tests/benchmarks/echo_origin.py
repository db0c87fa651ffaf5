"""The origin of the benchmark of WebSockets: `python echo_origin.py PORT`. It takes any upgrade, and answers each whole
frame with one of the same length: its payload is not looked at, so that as little as can be is measured of it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import select
import socket
import sys

READ_BYTES = 256 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"\r\nsec-websocket-key: *([^\r]*)", re.IGNORECASE)


def head(size: int) -> bytes:
    """That of a binary frame, without a mask."""
    if size < 126:
        return bytes([0x82, size])
    return b"\x82\x7e" + size.to_bytes(2, "big") if size < 65536 else b"\x82\x7f" + size.to_bytes(8, "big")


def whole_frame(data: bytes) -> tuple[int, int]:
    """The length of the first frame that begins here, and that of its payload; 0 where it is not whole."""
    if len(data) < 2:
        return 0, 0
    size, at = data[1] & 0x7F, 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10], "big"), 10
    length = at + 4 * (data[1] >> 7) + size
    return (length, size) if len(data) >= length else (0, 0)


class Client:
    """One connection."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.switched = False
        self.read = b""
        self.answers: dict[int, bytes] = {}

    def hears(self) -> bool:
        """Answer what has come; False at the end."""
        try:
            data = self.conn.recv(READ_BYTES)
            self.read = self.read + data if self.read else data
            out: list[bytes] = []
            if not self.switched and b"\r\n\r\n" in self.read:
                asked, _, self.read = self.read.partition(b"\r\n\r\n")
                key = _KEY.search(asked + b"\r\n")
                accept = base64.b64encode(hashlib.sha1((key[1] if key else b"") + _GUID).digest())
                out.append(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                self.switched = True
            while self.switched:
                length, size = whole_frame(self.read)
                if not length:
                    break
                self.read = self.read[length:]
                if size not in self.answers:
                    self.answers[size] = head(size) + bytes(size)
                out.append(self.answers[size])
            if out:
                self.conn.sendall(b"".join(out))
        except OSError:
            return False
        return bool(data)


def main() -> None:
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    clients: dict[int, Client] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listening.fileno():
                conn, _ = listening.accept()
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                poll.register(conn, select.EPOLLIN)
                clients[conn.fileno()] = Client(conn)
            elif not clients[fd].hears():
                poll.unregister(fd)
                clients.pop(fd).conn.close()


if __name__ == "__main__":
    main()
