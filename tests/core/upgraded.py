"""Both ends of an upgrade, each of HTTP/1.1 or of HTTP/2, played in a `World` by the same words; HTTP/2 is spoken by
python-hyper's h2, whose judgement of what we send is its own.

client, origin = asked(world, "h2")           # who asks speaks HTTP/2; the proxy's transport says what the origin does
origin.accepts()
assert client.status == 101
client.says(b"hello")
assert origin.heard() == b"hello"
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from copy import copy
from hashlib import sha1
from typing import Final, Literal, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from coulee.core.seam import Received
from tests.core.world import World
from tests.http2.frames import GOAWAY, PREFACE, Frame, cut

SAMPLE: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455 section 1.3, and its proof."""
PROOF: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

NOTHING: Final[Mapping[int, int]] = {}
OFFERED: Final[Mapping[int, int]] = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}


def proof_of(key: str) -> str:
    """RFC 6455 section 4.2.2, once more."""
    assert len(b64decode(key, validate=True)) == 16, key
    return b64encode(sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()


class End:
    """One of them. What it has heard of the other side is in `status` or `method`, `fields`, `heard()`, `ended`,
    `reset`."""

    def __init__(self, world: World, conn: int) -> None:
        self.world = world
        self.conn = conn
        self.start = ""  # the first line, or what stands for it
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body: bytes = b""

    def listen(self) -> None:
        """Take what has come."""
        raise NotImplementedError

    def heard(self) -> bytes:
        """Bytes behind the head since the last call."""
        self.listen()
        body, self.body = self.body, b""
        return body

    def _gives(self, raw: bytes) -> None:
        if raw or self.conn not in self.world.closing:
            assert self.world.reading.get(self.conn), "no Receive stands"
            self.world.gives(Received(self.conn, raw))


# ------------------------------------------------------------------------------------------------------ HTTP/1.1


class End1(End):
    """An end that speaks HTTP/1.1."""

    def __init__(self, world: World, conn: int) -> None:
        super().__init__(world, conn)
        self.raw = b""

    def listen(self) -> None:
        self.raw += self.world.sent(self.conn)
        if not self.start:
            head, mark, rest = self.raw.partition(b"\r\n\r\n")
            if not mark:
                return
            self.start, *lines = head.decode().split("\r\n")
            self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.raw = rest
            if self.start.startswith("HTTP/1.1 "):
                self.status = int(self.start.split()[1])
        self.body += self.raw
        self.raw = b""

    def says(self, data: bytes) -> None:
        """Bytes behind the head."""
        self._gives(data)

    def ends(self) -> None:
        """A half-close."""
        self._gives(b"")

    def resets(self) -> None:
        """The connection dies."""
        self.world.resets(self.conn)

    def leaves(self) -> None:
        """Close the connection, where that was not done for it."""
        if self.conn not in self.world.closed:
            self._gives(b"")

    @property
    def ended(self) -> bool:
        """Whether the other side sends no more."""
        return self.conn in self.world.eofs or self.world.closing.get(self.conn) is False

    @property
    def reset(self) -> bool:
        """Whether it was cut."""
        return self.world.closing.get(self.conn) is True


class Client1(End1):
    """A client."""

    def __init__(self, world: World) -> None:
        super().__init__(world, world.client())

    def asks(self, early: bytes = b"", fields: Iterable[tuple[str, str]] = (), key: str = SAMPLE) -> None:
        """For a WebSocket."""
        lines = [
            "GET /chat HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Key: {key}"] if key else []), *(f"{name}: {value}" for name, value in fields),
        ]  # fmt: skip
        self._gives("\r\n".join([*lines, "", ""]).encode() + early)


class Origin1(End1):
    """An origin: that of the oldest `Connect`."""

    def __init__(self, world: World) -> None:
        super().__init__(world, world.connects())

    def accepts(self, early: bytes = b"", fields: Iterable[tuple[str, str]] = (), accept: str | None = None) -> None:
        """Switch; `accept` is the proof, where it is not the right one, "" is none."""
        self.listen()
        if accept is None:
            accept = proof_of(self.fields["sec-websocket-key"])
        lines = [
            "HTTP/1.1 101 Switching Protocols", "Date: now", "Upgrade: websocket", "Connection: Upgrade",
            *([f"Sec-WebSocket-Accept: {accept}"] if accept else []), *(f"{name}: {value}" for name, value in fields),
        ]  # fmt: skip
        self._gives("\r\n".join([*lines, "", ""]).encode() + early)

    def answers(self, status: int, body: bytes, *, length: int | None = None) -> None:
        """Switch to nothing."""
        length = len(body) if length is None else length
        self._gives(b"HTTP/1.1 %d X\r\nDate: now\r\nContent-Length: %d\r\n\r\n" % (status, length) + body)


# ------------------------------------------------------------------------------------------------------ HTTP/2


class End2(End):
    """One stream of an end that speaks HTTP/2, and its connection."""

    def __init__(
        self, world: World, conn: int, h2: H2Connection, stream: int = 1, settings: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(world, conn)
        self.h2 = h2
        self.stream = stream
        self.streams: list[End2] = [self]
        self.raw = b""
        self.preface = b"" if h2.config.client_side else PREFACE
        self.ended = False
        self.reset: ErrorCodes | int | None = None
        self.told_to_go = False
        self.takes = True  # windows are opened as bytes come
        if settings is not None:
            self.begins(settings)

    def begins(self, settings: Mapping[int, int]) -> None:
        """Send the first frames, which have these settings."""
        values = {SettingCodes(number): value for number, value in settings.items()}
        self.h2.local_settings = Settings(client=self.h2.config.client_side is True, initial_values=values)
        self.h2.initiate_connection()
        self.flush()
        self.listen()

    def beside(self, stream: int) -> Self:
        """Another stream of the same connection."""
        other = copy(self)
        other.stream = stream
        other.start, other.status, other.fields, other.body, other.ended, other.reset = "", 0, {}, b"", False, None
        self.streams.append(other)
        return other

    def flush(self) -> None:
        """Send what h2 has to say."""
        raw = self.h2.data_to_send()
        if raw and self.conn not in self.world.closed:
            self._gives(raw)

    def listen(self) -> None:
        while raw := self.world.sent(self.conn):
            if self.preface:
                assert raw.startswith(self.preface), raw
                self.h2.receive_data(self.preface)
                raw = raw[len(self.preface) :]
                self.preface = b""
            frames, rest = cut(self.raw + raw)
            self.raw = rest
            for frame in frames:
                self._hear(frame)
            self.flush()

    def _hear(self, frame: Frame) -> None:
        if frame.type == GOAWAY:  # behind which h2 would take nothing more
            self.told_to_go = True
            return
        head = len(frame.payload).to_bytes(3) + bytes((frame.type, frame.flags)) + frame.stream.to_bytes(4)
        for event in self.h2.receive_data(head + frame.payload):
            for each in self.streams:
                each._note(event)

    def _note(self, event: object) -> None:
        if getattr(event, "stream_id", 0) != self.stream:
            return
        assert not isinstance(event, TrailersReceived), "trailers of what is no HTTP"
        if isinstance(event, RequestReceived | ResponseReceived):
            pairs = [(bytes(name).decode(), bytes(value).decode()) for name, value in event.headers]
            assert len(dict(pairs)) == len(pairs), pairs
            self.fields = dict(pairs)
            if isinstance(event, ResponseReceived):
                status = int(self.fields.pop(":status"))
                self.status = 101 if 200 <= status < 300 else status
            else:
                self.start = " ".join(
                    self.fields.get(name, "-") for name in (":method", ":protocol", ":scheme", ":path")
                )
        elif isinstance(event, DataReceived):
            self.body += event.data
            if self.takes:
                self.h2.acknowledge_received_data(event.flow_controlled_length, self.stream)
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, StreamReset):
            self.reset = ErrorCodes(event.error_code)

    def says(self, data: bytes) -> None:
        """Bytes behind the head."""
        for at in range(0, len(data), self.h2.max_outbound_frame_size):
            self.h2.send_data(self.stream, data[at : at + self.h2.max_outbound_frame_size])
        self.flush()

    def ends(self) -> None:
        """A half-close (RFC 8441 section 5)."""
        self.h2.end_stream(self.stream)
        self.flush()

    def resets(self) -> None:
        """A reset (section 5)."""
        self.h2.reset_stream(self.stream, ErrorCodes.CANCEL)
        self.flush()

    def leaves(self) -> None:
        """Close the connection, where that was not done for it."""
        self.listen()
        if self.conn not in self.world.closed:
            self._gives(b"")


class Client2(End2):
    """A client, and its stream."""

    def __init__(self, world: World, stream: int = 1, settings: Mapping[int, int] = NOTHING) -> None:
        h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        super().__init__(world, world.client(), h2, stream, settings)

    def asks(
        self, early: bytes = b"", fields: Iterable[tuple[str, str]] = (), key: str = "", *, end: bool = False,
        protocol: str = "websocket",
    ) -> None:  # fmt: skip
        """For a WebSocket (section 5.1)."""
        assert self.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1, "it is not offered"
        pairs = [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", "/chat"),
            (":authority", "a"), ("sec-websocket-version", "13"), *fields,
        ]  # fmt: skip
        if key:
            pairs.append(("sec-websocket-key", key))
        self.h2.send_headers(self.stream, [(name.lower(), value) for name, value in pairs], end_stream=end)
        if early:
            self.h2.send_data(self.stream, early)
        self.flush()


class Origin2(End2):
    """An origin, and its stream: that of the oldest `Connect`. It offers extended CONNECT at once, unless told."""

    def __init__(self, world: World, settings: Mapping[int, int] | None = OFFERED, *, conn: int = 0) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        super().__init__(world, conn or world.connects(), h2, 1, settings)

    def accepts(self, early: bytes = b"", fields: Iterable[tuple[str, str]] = (), *, end: bool = False) -> None:
        """Switch."""
        self.listen()
        pairs = [(":status", "200"), ("date", "now"), *((name.lower(), value) for name, value in fields)]
        self.h2.send_headers(self.stream, pairs, end_stream=end)
        if early:
            self.h2.send_data(self.stream, early)
        self.flush()

    def answers(self, status: int, body: bytes, *, length: int | None = None) -> None:
        """Switch to nothing."""
        self.listen()
        length = len(body) if length is None else length
        pairs = [(":status", str(status)), ("date", "now"), ("content-length", str(length))]
        self.h2.send_headers(self.stream, pairs)
        self.h2.send_data(self.stream, body, end_stream=len(body) == length)
        self.flush()


# ------------------------------------------------------------------------------------------------------ both

Client = Client1 | Client2
Origin = Origin1 | Origin2
Spoken = Literal["h1", "h2"]


def asked(world: World, down: Spoken, up: Spoken, early: bytes = b"") -> tuple[Client, Origin]:
    """A client has asked, and the origin has heard it."""
    client: Client = Client1(world) if down == "h1" else Client2(world)
    client.asks(early)
    origin: Origin = Origin1(world) if up == "h1" else Origin2(world)
    origin.listen()
    assert origin.start, "it has heard nothing"
    return client, origin


def switched(world: World, down: Spoken, up: Spoken) -> tuple[Client, Origin]:
    """Both ends behind the 101, or the 200."""
    client, origin = asked(world, down, up)
    origin.accepts()
    client.listen()
    assert client.status == 101, client.status
    return client, origin
