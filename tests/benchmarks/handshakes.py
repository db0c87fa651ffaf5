"""A client of TLS 1.3 that does nothing but handshakes: full ones, or such that resume a session.

Rules: connections come in batches, of which all have said hello before the first answer is awaited, so that a peer has
as many at once as it likes; each is ended with a close_notify on both sides, so that what counts has been done whole.
One that was resumed where it was not to be, or the other way round, is an error. The last line it prints is one JSON
object, as that of `blast.py`. Usage: handshakes.py PORT BATCH SECONDS full|resumed
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import time

HOST = "127.0.0.1"
ANSWER_WITHIN_S = 10.0


def context() -> ssl.SSLContext:
    """Verifies nothing, for that would be at our cost alone."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def say_hello(tls: ssl.SSLContext, port: int, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """A connection whose handshake has begun."""
    plain = socket.create_connection((HOST, port), timeout=ANSWER_WITHIN_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = tls.wrap_socket(plain, do_handshake_on_connect=False, session=session)
    connection.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return connection


def finish(connection: ssl.SSLSocket) -> bool:
    """The rest of a handshake, and the end. Whether a session was resumed."""
    connection.settimeout(ANSWER_WITHIN_S)
    connection.do_handshake()
    resumed = bool(connection.session_reused)
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # some do not answer a farewell
        connection.unwrap()
    connection.close()
    return resumed


def session_of(tls: ssl.SSLContext, port: int) -> ssl.SSLSession | None:
    """One that can be resumed: its ticket comes before the first answer."""
    with tls.wrap_socket(socket.create_connection((HOST, port), timeout=ANSWER_WITHIN_S)) as connection:
        connection.sendall(f"GET /small HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode("ascii"))
        connection.recv(1)
        return connection.session


def run(port: int, batch: int, seconds: float, resumed: bool) -> dict[str, int]:
    """Shake hands for so long; the counts."""
    tls = context()
    session = session_of(tls, port) if resumed else None
    counts = {"requests": 0, "bytes": 0, "errors": 0}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for connection in [say_hello(tls, port, session) for _ in range(batch)]:
            counts["requests" if finish(connection) is resumed else "errors"] += 1
    return counts


def main() -> None:
    port, batch, seconds, kind = sys.argv[1:]
    try:
        print(json.dumps(run(int(port), int(batch), float(seconds), kind == "resumed")))
    except OSError as error:
        sys.exit(f"handshakes: {error}")


if __name__ == "__main__":
    main()
