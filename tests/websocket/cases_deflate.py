"""Cases of RFC 7692, by section."""

from __future__ import annotations

import zlib
from hashlib import shake_128
from typing import Final

from tests.core.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.websocket.case import (
    FRAGMENTS_MAX,
    MESSAGE_BYTES_MAX,
    Fails,
    Passes,
    Piece,
    binary,
    f,
    pinged,
    text,
    zrow,
)

BROKEN: Final = Fails(1002)
COMPRESSED: Final = 4
HELLO: Final = bytes.fromhex("f248cdc9c90700")


def squeezed(data: bytes) -> bytes:
    """A message, deflated."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def z(opcode: int, payload: bytes, *, fin: bool = True) -> Piece:
    """The first frame of a compressed message."""
    return f(opcode, payload, fin=fin, rsv=COMPRESSED)


# Bytes that do not get fewer.
NOISE: Final = shake_128(b"noise").digest(7200)
LARGE: Final = NOISE + bytes(MESSAGE_BYTES_MAX - len(NOISE))  # as large as may be, and some ten times less on the line

DEFLATE: Final = [
    zrow("7.2.3.1", "one block", text("Hello"), z(TEXT, HELLO)),
    zrow("7.2.3.1", "in two frames", text("Hello"), z(TEXT, HELLO[:3], fin=False), f(CONTINUATION, HELLO[3:])),
    zrow("7.2.3.2", "the window is kept", text("Hello", "Hello"), z(TEXT, HELLO), z(TEXT, bytes.fromhex("f200110000"))),
    zrow("7.2.3.2", "the window is not needed", text("Hello", "Hello"), z(TEXT, HELLO), z(TEXT, HELLO)),
    zrow("7.2.3.3", "a block that is stored", text("Hello"), z(TEXT, bytes.fromhex("000500faff48656c6c6f00"))),
    zrow("7.2.3.4", "a final block", text("Hello", "Hello"), *[z(TEXT, bytes.fromhex("f348cdc9c9070000"))] * 2),
    zrow("7.2.3.5", "two blocks", text("Hello"), z(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700"))),
    zrow("7.2.3.6", "an empty message", text("", "Hello"), z(TEXT, b"\0"), z(TEXT, HELLO)),
    zrow("6.1", "one that is not compressed between", text("Hello", "plain", "Hello"), z(TEXT, HELLO),
        f(TEXT, b"plain"), z(TEXT, bytes.fromhex("f200110000"))),
    zrow("6.1", "a ping between the frames", Passes(pinged(b"?") + text("Hello").frames), z(TEXT, HELLO[:4], fin=False),
        f(PING, b"?"), f(CONTINUATION, HELLO[4:])),
    zrow("6.1", "bytes", binary(b"\xff" * 500), z(BINARY, squeezed(b"\xff" * 500))),
    zrow("6.1", "a letter over two frames", text("€" * 9), z(TEXT, squeezed("€".encode() * 9)[:3], fin=False),
        f(CONTINUATION, squeezed("€".encode() * 9)[3:])),
    *[zrow("6.1", f"the bit on opcode {opcode}", BROKEN, f(opcode, rsv=COMPRESSED)) for opcode in (CLOSE, PING, PONG)],
    zrow("6.1", "the bit on a continuation", BROKEN, z(TEXT, HELLO[:3], fin=False),
        f(CONTINUATION, HELLO[3:], rsv=COMPRESSED)),
    zrow("6.1", "the bit on the continuation of one not compressed", BROKEN, f(TEXT, b"a", fin=False),
        f(CONTINUATION, HELLO, rsv=COMPRESSED)),
    zrow("6.1", "the bit on a continuation of nothing", BROKEN, f(CONTINUATION, HELLO, rsv=COMPRESSED)),
    zrow("6.1", "a continuation of a whole one", Fails(1002, text("Hello").frames), z(TEXT, HELLO),
        f(CONTINUATION, b"\xff" * 20)),
    zrow("6.1", "a new one within", BROKEN, z(TEXT, HELLO[:3], fin=False), z(TEXT, HELLO)),
    zrow("6.1", "one not compressed within", BROKEN, z(TEXT, HELLO[:3], fin=False), f(TEXT, b"a")),
    *[zrow("6.1", f"a new one within, which is no more of it, rsv {rsv}", BROKEN, z(TEXT, HELLO[:3], fin=False),
        f(BINARY, b"\x07\xff\xff\xff", rsv=rsv)) for rsv in (0, COMPRESSED)],
    *[zrow("6.1", f"reserved bits {rsv}", BROKEN, f(TEXT, HELLO, rsv=rsv)) for rsv in (1, 2, 3, 5, 6, 7)],
    zrow("7.2.2", "no deflate", Fails(1007), z(TEXT, b"\xff\xff")),
    zrow("7.2.2", "no deflate in a second frame", Fails(1007, text("Hello").frames), z(TEXT, HELLO),
        z(TEXT, HELLO[:3], fin=False), f(CONTINUATION, b"\xff" * 20)),
    zrow("7.2.2", "a distance too far back", Fails(1007), z(TEXT, bytes.fromhex("f200110000"))),
    zrow("7.2.2", "text that is none", Fails(1007), z(TEXT, squeezed(b"\xc3("))),
    zrow("7.2.2", "half a letter at the end", Fails(1007), z(TEXT, squeezed(b"\xe2\x82"))),
    zrow("8.1 of 6455", "bytes in no frame of their own", text("ä" * 99), z(TEXT, squeezed("ä".encode() * 99))),
    zrow("10.4 of 6455", "as large as may be", binary(LARGE), z(BINARY, squeezed(LARGE))),
    zrow("10.4 of 6455", "one byte larger", Fails(1009), z(BINARY, squeezed(LARGE + b"\0"))),
    zrow("10.4 of 6455", "one byte larger in two frames", Fails(1009), z(BINARY, squeezed(LARGE)[:500], fin=False),
        f(CONTINUATION, squeezed(LARGE + b"\0")[500:])),
    zrow("10.4 of 6455", "so much is free", binary(bytes(10_000)), z(BINARY, squeezed(bytes(10_000)))),
    zrow("10.4 of 6455", "a bomb", Fails(1009), z(BINARY, squeezed(bytes(10_001)))),
    zrow("10.4 of 6455", "a large bomb", Fails(1009, text("Hello").frames), z(TEXT, HELLO),
        z(BINARY, squeezed(bytes(10**6)))),
    zrow("10.4 of 6455", "a bomb in fragments", Fails(1009), z(BINARY, squeezed(bytes(20_000))[:5], fin=False),
        f(CONTINUATION, squeezed(bytes(20_000))[5:8], fin=False), f(CONTINUATION, squeezed(bytes(20_000))[8:])),
    zrow("10.4 of 6455", "a bomb before the last frame", Fails(1009), z(BINARY, squeezed(bytes(20_000)), fin=False)),
    zrow("10.4 of 6455", "too many frames", Fails(1009), z(TEXT, HELLO, fin=False),
        *[f(CONTINUATION, fin=False)] * FRAGMENTS_MAX),
    zrow("10.4 of 6455", "too large on the line", Fails(1009), z(BINARY, squeezed(NOISE) + bytes(MESSAGE_BYTES_MAX))),
]  # fmt: skip
