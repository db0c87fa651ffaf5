"""Cases of RFC 6455 sections 5, 7 and 8, by section."""

from __future__ import annotations

from typing import Final

from tests.core.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.websocket.case import (
    FRAGMENTS_MAX,
    MESSAGE_BYTES_MAX,
    Closes,
    Fails,
    Leaves,
    Passes,
    binary,
    f,
    long,
    mismasked,
    pinged,
    ponged,
    raw,
    row,
    shut,
    text,
)

BROKEN: Final = Fails(1002)
NO_UTF8: Final = Fails(1007)
TOO_LARGE: Final = Fails(1009)
OPEN: Final = f(TEXT, b"a", fin=False)
KINDS: Final = {
    CONTINUATION: "continuation",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}

MASKS = [
    *[row("5.1", f"{KINDS[opcode]}, its mask", BROKEN, mismasked(opcode))
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)],
    row("5.1", "the second one, its mask", Fails(1002, text("a").frames), f(TEXT, b"a"), mismasked(TEXT, b"b")),
    row("5.1", "a continuation, its mask", BROKEN, OPEN, mismasked(CONTINUATION, b"b")),
    row("5.3", "keys that differ", text("ab"), f(TEXT, b"a", fin=False, key=b"abcd"),
        f(CONTINUATION, b"b", key=b"\x00\xff\x00\xff")),
    row("5.3", "a key of zeros", text("hello"), f(TEXT, b"hello", key=bytes(4))),
    row("5.3", "a key that makes zeros", text("maskmask"), f(TEXT, b"maskmask", key=b"mask")),
]  # fmt: skip

RESERVED = [
    *[row("5.2", f"reserved bits {rsv}, {KINDS[opcode]}", BROKEN, f(opcode, rsv=rsv)) for rsv in (1, 2, 4, 7)
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)],
    *[row("5.2", f"reserved bits {rsv}, continuation", BROKEN, OPEN, f(CONTINUATION, rsv=rsv))
        for rsv in (1, 2, 4, 7)],
    *[row("5.2", f"opcode {opcode}", Fails(1002, text("a").frames), f(TEXT, b"a"), f(opcode, b"b"))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    *[row("5.2", f"opcode {opcode} in a message", BROKEN, OPEN, f(opcode, b"b", fin=False))
        for opcode in (3, 7, 11, 15)],
]  # fmt: skip

LENGTHS = [
    *[row("5.2", f"{size} bytes", binary(b"x" * size), f(BINARY, b"x" * size))
        for size in (0, 1, 124, 125, 126, 127, 128, 65535, 65536, MESSAGE_BYTES_MAX)],
    *[row("5.2", f"{KINDS[opcode]}, {size} bytes in {octets} octets", BROKEN, long(opcode, b"x" * size, octets))
        for opcode, octets, size in (
            (TEXT, 2, 0), (BINARY, 2, 125), (TEXT, 8, 0), (TEXT, 8, 125), (BINARY, 8, 126), (TEXT, 8, 65535),
            (PING, 2, 5), (PING, 8, 5), (CLOSE, 2, 0))],
    row("5.2", "126 bytes in 2 octets", text("x" * 126), long(TEXT, b"x" * 126, 2)),
    row("5.2", "65536 bytes in 8 octets", text("x" * 65536), long(TEXT, b"x" * 65536, 8)),
    *[row("5.2", f"the top bit of 64, {length:#x}", BROKEN, long(TEXT, b"", 8, length))
        for length in (1 << 63, (1 << 64) - 1, 1 << 63 | 5)],
]  # fmt: skip

FRAGMENTS = [
    row("5.4", "in two", text("ab"), f(TEXT, b"a", fin=False), f(CONTINUATION, b"b")),
    row("5.4", "bytes in three", binary(b"\xff\x00"), f(BINARY, b"\xff", fin=False), f(CONTINUATION, b"", fin=False),
        f(CONTINUATION, b"\x00")),
    row("5.4", "empty ones", text(""), f(TEXT, fin=False), f(CONTINUATION, fin=False), f(CONTINUATION)),
    row("5.4", "two messages", Passes(text("ab").frames + binary(b"cd").frames), f(TEXT, b"a", fin=False),
        f(CONTINUATION, b"b"), f(BINARY, b"c", fin=False), f(CONTINUATION, b"d")),
    row("5.4", "controls between", Passes((*pinged(b"1"), *ponged(b"2"), *pinged(b"3"), *text("abc").frames)), OPEN,
        f(PING, b"1"), f(CONTINUATION, b"b", fin=False), f(PONG, b"2"), f(PING, b"3"), f(CONTINUATION, b"c")),
    row("5.4", "a continuation of nothing", BROKEN, f(CONTINUATION, b"a")),
    row("5.4", "a continuation of nothing, with more to come", BROKEN, f(CONTINUATION, b"a", fin=False)),
    row("5.4", "an empty continuation of nothing", BROKEN, f(CONTINUATION)),
    row("5.4", "a continuation of a whole message", Fails(1002, text("a").frames), f(TEXT, b"a"),
        f(CONTINUATION, b"b")),
    row("5.4", "a continuation behind the last", Fails(1002, text("ab").frames), OPEN, f(CONTINUATION, b"b"),
        f(CONTINUATION, b"c")),
    row("5.4", "a continuation of a ping", Fails(1002, pinged(b"a")), f(PING, b"a"), f(CONTINUATION, b"c")),
    *[row("5.4", f"a new {KINDS[opcode]} within a message, fin={fin}", BROKEN, OPEN, f(opcode, b"b", fin=fin))
        for opcode in (TEXT, BINARY) for fin in (True, False)],
    row("5.4", "a new one within a message of bytes", BROKEN, f(BINARY, b"a", fin=False), f(TEXT, b"b")),
    row("5.4", "an empty new one within a message", BROKEN, OPEN, f(TEXT)),
    row("5.4", "a new one within, behind a ping", Fails(1002, pinged(b"")), OPEN, f(PING), f(TEXT, b"b")),
    row("5.4", "as many as may be", text("abbc"), OPEN, *[f(CONTINUATION, b"b", fin=False)] * (FRAGMENTS_MAX - 2),
        f(CONTINUATION, b"c")),
    row("5.4", "one more", TOO_LARGE, OPEN, *[f(CONTINUATION, b"b", fin=False)] * (FRAGMENTS_MAX - 1),
        f(CONTINUATION, b"c")),
    row("5.4", "one more, and empty", TOO_LARGE, f(TEXT, fin=False),
        *[f(CONTINUATION, fin=False)] * (FRAGMENTS_MAX - 1), f(CONTINUATION)),
    row("5.4", "pings are no fragments", Passes(pinged(b"") * 9 + text("ab").frames), OPEN, *[f(PING)] * 9,
        f(CONTINUATION, b"b")),
]  # fmt: skip

CONTROLS = [
    *[row("5.5", f"{KINDS[opcode]} in fragments", BROKEN, f(opcode, fin=False), f(CONTINUATION))
        for opcode in (CLOSE, PING, PONG)],
    row("5.5", "a ping in fragments within a message", BROKEN, OPEN, f(PING, b"b", fin=False)),
    *[row("5.5", f"{KINDS[opcode]} of {size} bytes", BROKEN, f(opcode, b"\x03\xe8" + b"x" * (size - 2)))
        for opcode in (CLOSE, PING, PONG) for size in (126, 127, 65536)],
    *[row("5.5.2", f"ping of {size} bytes", Passes(pinged(b"\xff" * size)), f(PING, b"\xff" * size))
        for size in (0, 1, 125)],
    row("5.5.2", "pings in order", Passes((*pinged(b"1", b"2"), *text("a").frames, *pinged(b"1"))), f(PING, b"1"),
        f(PING, b"2"), f(TEXT, b"a"), f(PING, b"1")),
    *[row("5.5.3", f"a pong of {size} bytes, unasked", Passes(ponged(b"\xff" * size)), f(PONG, b"\xff" * size))
        for size in (0, 1, 125)],
]  # fmt: skip

CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]

BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 32768, 65535]

ENDS = [
    row("5.5.1", "no code", Closes(b""), f(CLOSE)),
    row("5.5.1", "half a code", BROKEN, f(CLOSE, b"\x03")),
    row("5.5.1", "behind a message", Closes(b"\x03\xe8", text("a").frames), f(TEXT, b"a"), shut(1000)),
    row("5.5.1", "in a message", Closes(b"\x03\xe8"), OPEN, shut(1000)),
    row("5.5.1", "a message behind", Closes(b"\x03\xe8"), shut(1000), f(TEXT, b"b")),
    row("5.5.1", "a ping behind", Closes(b"\x03\xe9"), shut(1001), f(PING, b"b")),
    row("5.5.1", "another behind", Closes(b"\x0f\xa0"), shut(4000), shut(4001)),
    row("5.5.1", "the rest of a message behind", Closes(b""), OPEN, f(CLOSE), f(CONTINUATION, b"b")),
    row("5.5.1", "nonsense behind", Closes(b"\x03\xe8"), shut(1000), raw(b"\xff" * 50)),
    row("5.5.1", "123 bytes of reason", Closes(b"\x03\xe8" + b"x" * 123), shut(1000, b"x" * 123)),
    row("5.5.1", "a reason of other letters", Closes(b"\x0f\xa0" + "für".encode()), shut(4000, "für".encode())),
    *[row("7.4", f"{code}", Closes(code.to_bytes(2, "big")), shut(code)) for code in CODES],
    *[row("7.4", f"{code} with a reason", Closes(code.to_bytes(2, "big") + b"bye"), shut(code, b"bye"))
        for code in CODES],
    *[row("7.4", f"{code}, which is none", BROKEN, shut(code)) for code in BAD_CODES],
    row("7.4", "1006, which is none, with a reason", BROKEN, shut(1006, b"bye")),
    row("7.1.5", "nothing", Leaves()),
    row("7.1.5", "half a head", Leaves(), raw(b"\x81")),
    row("7.1.5", "half a message", Leaves(), OPEN),
    row("7.1.5", "half a frame", Leaves(), long(TEXT, b"abc", 2, 300)),
    row("7.1.5", "half a ping", Leaves(), lambda mask: f(PING, b"abc")(mask)[:-1]),
]  # fmt: skip

GOOD_TEXT = [chr(point) for point in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFEFF, 0xFFFF, 0x10000, 0x10FFFF)]
BAD_TEXT = {
    "a lone continuation": b"\x80", "two of them": b"a\xbf\xbf", "fe": b"\xfe", "ff": b"\xff",
    "five bytes": b"\xf8\x88\x80\x80\x80", "overlong in two": b"\xc0\x80", "overlong in two, c1": b"\xc1\xbf",
    "overlong in three": b"\xe0\x9f\xbf", "overlong in four": b"\xf0\x8f\xbf\xbf", "a surrogate": b"\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf", "a pair of them": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond the last": b"\xf4\x90\x80\x80", "f5": b"\xf5\x80\x80\x80", "one of two": b"a\xc3",
    "two of three": b"\xe2\x82", "three of four": b"\xf0\x9f\x98", "a letter in one": b"\xe2a\x82",
}  # fmt: skip

UTF_8 = [
    *[row("8.1", f"U+{ord(letter):04X}", text(letter), f(TEXT, letter.encode())) for letter in GOOD_TEXT],
    *[row("8.1", name, Fails(1007, text("good").frames), f(TEXT, b"good"), f(TEXT, bad))
        for name, bad in BAD_TEXT.items()],
    row("8.1", "bytes are no text", binary(*BAD_TEXT.values()), *[f(BINARY, bad) for bad in BAD_TEXT.values()]),
    *[row("8.1", f"{name}, in a reason", NO_UTF8, shut(1000, bad)) for name, bad in BAD_TEXT.items()],
    *[row("8.1", f"{name}, in a second frame", NO_UTF8, OPEN, f(CONTINUATION, bad)) for name, bad in BAD_TEXT.items()],
    row("8.1", "broken before the last frame", NO_UTF8, f(TEXT, b"\xff", fin=False), f(PING)),
    row("8.1", "a letter over two frames", text("€"), f(TEXT, b"\xe2\x82", fin=False), f(CONTINUATION, b"\xac")),
    row("8.1", "a letter over four frames, with a ping", Passes(pinged(b"") + text("😀").frames),
        f(TEXT, b"\xf0", fin=False), f(CONTINUATION, b"\x9f", fin=False), f(PING),
        f(CONTINUATION, b"\x98", fin=False), f(CONTINUATION, b"\x80")),
    row("8.1", "a letter that a frame breaks off", NO_UTF8, f(TEXT, b"\xe2\x82", fin=False), f(CONTINUATION, b"a")),
    row("8.1", "half a letter at the end of the last frame", NO_UTF8, OPEN, f(CONTINUATION, b"\xe2\x82")),
    row("8.1", "a letter over two messages", NO_UTF8, f(TEXT, b"\xe2\x82"), f(TEXT, b"\xac")),
    row("8.1", "half a letter and an empty frame", NO_UTF8, f(TEXT, b"\xe2\x82", fin=False), f(CONTINUATION)),
]  # fmt: skip

SIZES = [
    row("10.4", "one byte too many", TOO_LARGE, f(BINARY, b"x" * (MESSAGE_BYTES_MAX + 1))),
    row("10.4", "too many are announced", TOO_LARGE, long(BINARY, b"", 8, MESSAGE_BYTES_MAX + 1)),
    row("10.4", "the most are announced", TOO_LARGE, long(TEXT, b"", 8, (1 << 63) - 1)),
    row("10.4", "too many in two frames", TOO_LARGE, f(BINARY, b"x" * MESSAGE_BYTES_MAX, fin=False),
        f(CONTINUATION, b"x")),
    row("10.4", "too many are announced in a second frame", TOO_LARGE, OPEN,
        long(CONTINUATION, b"", 8, MESSAGE_BYTES_MAX)),
    row("10.4", "as many as may be in two frames", text("a" * MESSAGE_BYTES_MAX), OPEN,
        f(CONTINUATION, b"a" * (MESSAGE_BYTES_MAX - 1))),
    row("10.4", "as many as may be, twice", binary(*[b"x" * MESSAGE_BYTES_MAX] * 2),
        *(f(BINARY, b"x" * MESSAGE_BYTES_MAX),) * 2),
]  # fmt: skip

CASES: Final = [*MASKS, *RESERVED, *LENGTHS, *FRAGMENTS, *CONTROLS, *ENDS, *UTF_8, *SIZES]
