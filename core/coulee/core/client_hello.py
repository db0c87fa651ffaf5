"""Stands in until the real one has landed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: str
    alpn: tuple[str, ...]
    versions: tuple[int, ...]


class HelloError(ValueError):
    alert = 50


def alert_record(number: int) -> bytes:
    return bytes([0x15, 3, 3, 0, 2, 2, number])


def read_client_hello(d: bytes) -> ClientHello | None:
    if (d and d[0] != 22) or (len(d) > 1 and d[1] != 3):
        raise HelloError("not tls")
    if len(d) < 5 or len(d) < 5 + int.from_bytes(d[3:5], "big"):
        return None
    b = d[9 : 5 + int.from_bytes(d[3:5], "big")]
    at = 34
    at += 1 + b[at]
    at += 2 + int.from_bytes(b[at : at + 2], "big")
    at += 3 + b[at]
    name, alpn = "", []
    while at < len(b):
        t = int.from_bytes(b[at : at + 2], "big")
        n = int.from_bytes(b[at + 2 : at + 4], "big")
        x = b[at + 4 : at + 4 + n]
        at += 4 + n
        if t == 0:
            name = x[5:].decode().lower()
        if t == 16:
            p = 2
            while p < len(x):
                alpn.append(x[p + 1 : p + 1 + x[p]].decode())
                p += 1 + x[p]
    return ClientHello(name, tuple(alpn), ())
