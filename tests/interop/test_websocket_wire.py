"""WebSocket byte by byte on the wire, through the real program: frames in pieces of one byte, half-closes, resets, and
what no frame may be. Both ends are raw connections; what they say is made and read by the package `websockets`.

The short form runs with every test run, on one backend; WEBSOCKET_LONG=1 makes it all (`make websockets`).
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import EVERY_BACKEND, Wire, installed
from tests.interop.fleet import HOST, WITHIN_S
from tests.interop.websocket_doors import LONG, WAYS, before

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee

pytest.importorskip("websockets", reason="the package websockets is not installed")

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

BACKENDS = EVERY_BACKEND if LONG else ["asyncio"]
SPLIT = 300
"""So many bytes of what is said at once go out one by one; then the rest does in one piece."""

NUMBERS = itertools.count()


class End:
    """One end of a WebSocket."""

    def __init__(self, wire: Wire, protocol: Protocol) -> None:
        self.wire = wire
        self.protocol = protocol
        self.early: list[Any] = []
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.sock.settimeout(WITHIN_S)

    def flush(self) -> None:
        """Byte by byte."""
        for data in self.protocol.data_to_send():
            for at in range(min(len(data), SPLIT)):
                self.wire.send(data[at : at + 1])
            self.wire.send(data[SPLIT:])

    def text(self, *pieces: str) -> None:
        """One message, in so many frames, with a ping after the first."""
        for number, piece in enumerate(pieces):
            fin = number == len(pieces) - 1
            say = self.protocol.send_continuation if number else self.protocol.send_text
            say(piece.encode(), fin)
            if number == 0 and not fin:
                self.protocol.send_ping(b"in between")
        self.flush()

    def close(self, code: int) -> None:
        self.protocol.send_close(code)
        self.flush()

    def event(self) -> Any:
        """The next frame, or the answer to a handshake. Raises EOFError at the end."""
        while not self.early:
            data = self.wire.more()
            if not data:
                raise EOFError
            self.protocol.receive_data(data)
            self.early += self.protocol.events_received()
        return self.early.pop(0)

    def message(self) -> str:
        """The next one, in however many frames; control frames are passed over."""
        data = b""
        while True:
            frame = self.event()
            assert isinstance(frame, Frame)
            assert frame.opcode is not Opcode.CLOSE
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                data += frame.data
                if frame.fin:
                    return data.decode()

    def half_close(self) -> None:
        self.wire.sock.shutdown(socket.SHUT_WR)

    def closed(self) -> int:
        """The code of the close frame that comes."""
        while True:
            with contextlib.suppress(EOFError):
                self.event()
            if self.protocol.close_rcvd is not None:
                return self.protocol.close_rcvd.code


class Origin:
    """A listener, whose connections the test takes itself."""

    def __init__(self) -> None:
        self.listening = socket.create_server((HOST, 0))
        self.listening.settimeout(WITHIN_S)
        self.url = f"http://{HOST}:{self.listening.getsockname()[1]}"

    def accept(self) -> End:
        """The next connection that brings a request, which is agreed to. (When it starts coulee looks whether somebody
        listens; that connection brings none.)"""
        while True:
            wire = Wire(self.listening.accept()[0])
            with contextlib.suppress(EOFError):
                head = wire.read_until(b"\r\n\r\n") + b"\r\n\r\n"
                break
            wire.close()
        protocol = ServerProtocol()
        protocol.receive_data(head)
        [request] = protocol.events_received()
        protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]
        end = End(wire, protocol)
        end.flush()
        return end


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.listening.close()


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Whether a filter sees the messages."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def proxy(origin: Origin, way: str, backend: str) -> Generator[Coulee, None, None]:
    with before(origin.url, way, backend) as child:
        yield child


class Pair:
    """A client and an origin that have agreed, by way of coulee."""

    def __init__(self, proxy: Coulee, origin: Origin) -> None:
        self.proxy = proxy
        self.target = f"/{next(NUMBERS)}"
        protocol = ClientProtocol(parse_uri(f"ws://{HOST}:{proxy.port}{self.target}"))
        protocol.send_request(protocol.connect())
        self.client = End(Wire.to(proxy.port), protocol)
        self.client.flush()
        self.origin = origin.accept()
        self.client.event()
        assert protocol.handshake_exc is None

    def record(self) -> dict[str, Any]:
        return self.proxy.record(self.target)

    def close(self) -> None:
        self.client.wire.close()
        self.origin.wire.close()


@pytest.fixture
def pair(proxy: Coulee, origin: Origin) -> Generator[Pair, None, None]:
    pair = Pair(proxy, origin)
    yield pair
    pair.close()


# -------------------------------------------------------------------------------------------------------- tests


def test_frames_in_pieces_of_one_byte(pair: Pair) -> None:
    """Lengths of one, three and nine bytes; a message in frames with a ping between; both ways."""
    for sender, receiver in ((pair.client, pair.origin), (pair.origin, pair.client)):
        for size in (0, 1, 125, 126, 1000, 65_535, 65_536):
            text = "abcdefg"[size % 7] * size
            sender.text(text)
            assert receiver.message() == text
        sender.text("one ", "", "\N{GRINNING FACE}", " two")
        assert receiver.message() == "one \N{GRINNING FACE} two"
    pair.client.close(4001)
    assert pair.origin.closed() == 4001
    pair.origin.flush()  # its answer
    assert pair.client.closed() == 4001
    pair.origin.wire.close()
    with pytest.raises(EOFError):
        pair.client.event()
    pair.client.wire.close()
    record = pair.record()
    assert (record["status"], record["reason"]) == (101, "")


@pytest.mark.parametrize("by", ["client", "origin"])
def test_half_close(pair: Pair, by: str) -> None:
    """Who will say no more can still be told all."""
    quiet, talking = (pair.client, pair.origin) if by == "client" else (pair.origin, pair.client)
    quiet.text("my last")
    quiet.half_close()
    assert talking.message() == "my last"
    with pytest.raises(EOFError):
        talking.event()
    for number in range(3):
        talking.text(f"still {number}")
        assert quiet.message() == f"still {number}"
    talking.half_close()
    with pytest.raises(EOFError):
        quiet.event()
    assert pair.record()["status"] == 101


@pytest.mark.parametrize("by", ["client", "origin"])
def test_reset(pair: Pair, by: str, way: str) -> None:
    left, other = (pair.client, pair.origin) if by == "client" else (pair.origin, pair.client)
    left.text("hello")
    assert other.message() == "hello"
    left.wire.reset()
    with pytest.raises(ConnectionResetError):
        other.event()
    record = pair.record()
    assert record["reason"] == ("client_gone" if by == "client" else "upstream_reset")
    assert record["tags"] == ({"websocket_close": 1006} if way == "filtered" else {})


BAD = {
    "a reserved bit": (b"\xc1\x81\0\0\0\0a", 1002, "websocket_error"),
    "an opcode that there is not": (b"\x83\x80\0\0\0\0", 1002, "websocket_error"),
    "no mask": (b"\x81\x01a", 1002, "websocket_error"),
    "no text": (b"\x81\x81\0\0\0\0\xff", 1007, "websocket_error"),
    "a ping in pieces": (b"\x09\x80\0\0\0\0", 1002, "websocket_error"),
    "a long ping": (b"\x89\xfe\0\x7e\0\0\0\0", 1002, "websocket_error"),
    "a piece of nothing": (b"\x80\x80\0\0\0\0", 1002, "websocket_error"),
    "a close code that there is not": (b"\x88\x82\0\0\0\0\x03\xed", 1002, "websocket_error"),
    "17 MiB": (b"\x82\xff\0\0\0\0\x01\x10\0\0\0\0\0\0", 1009, "websocket_too_large"),
}


@pytest.mark.parametrize(("data", "code", "reason"), BAD.values(), ids=[name.replace(" ", "_") for name in BAD])
@pytest.mark.parametrize("way", ["filtered"], scope="module", indirect=True)
def test_what_no_client_may_do(pair: Pair, data: bytes, code: int, reason: str) -> None:
    """The client hears which rule it broke, the origin that it has gone."""
    for at in range(len(data)):
        pair.client.wire.send(data[at : at + 1])
    assert pair.client.closed() == code
    assert pair.origin.closed() == 1001
    pair.origin.flush()
    pair.close()  # or coulee would wait for it
    record = pair.record()
    assert (record["reason"], record["tags"]) == (reason, {"websocket_close": code})


@pytest.mark.parametrize("way", ["passed"], scope="module", indirect=True)
def test_bytes_pass_as_they_are(pair: Pair) -> None:
    """Even what no frame may be: whoever understands it judges it."""
    for data, _, _ in BAD.values():
        pair.client.wire.send(data)
        assert pair.origin.wire.read(len(data)) == data
        pair.origin.wire.send(data)
        assert pair.client.wire.read(len(data)) == data
