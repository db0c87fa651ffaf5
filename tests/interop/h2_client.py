"""A client of HTTP/2 that blocks, made of frames (hyperframe) and header compression (hpack), without a state machine
that would keep it from doing what it should not; and one of HTTP/1.1 by h11 that is asked in the same way.

Rules: nothing is sent or read but in a call. Windows are kept and given back at once, but on streams that are `held`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import h11
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

HOST: Final = "127.0.0.1"
WITHIN_S: Final = 15.0
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES: Final = 16384

Fields = list[tuple[str, str]]


class Cut(Exception):
    """The answer, or the connection, has ended before its end."""


@dataclass
class Answer:
    """What has come of one so far."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    interims: list[tuple[int, Fields]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    """The code of an RST_STREAM."""

    size: int = 0
    """Of the body, also where that is not kept."""

    keep: Callable[[bytes], object] | None = None
    """What takes the body; None keeps it."""

    held: bool = False
    """Its window is not given back."""

    owed: int = 0
    """What of its window has not been."""

    room: int = 65535
    """What we may send."""

    begun_at: float = 0.0
    ended_at: float = 0.0

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


def dialled(port: int, context: ssl.SSLContext | None = None, alpn: Sequence[str] = ("h2",)) -> socket.socket:
    """A connection to loopback; by TLS, where there is a context for it."""
    sock = socket.create_connection((HOST, port), timeout=WITHIN_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(sock, server_hostname="localhost")


class Http2Client:
    """One connection."""

    def __init__(
        self, sock: socket.socket, *, scheme: str = "", window: int = 65535, settings: dict[int, int] | None = None
    ) -> None:
        self.sock = sock
        self.scheme = scheme or ("https" if isinstance(sock, ssl.SSLSocket) else "http")
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_header_list_size = 1 << 20
        self.answers: dict[int, Answer] = {}
        self.next = 1
        self.room = self.first_room = 65535
        self.frames_max = FRAME_BYTES
        self.their_settings: dict[int, int] = {}
        self.goaways: list[tuple[int, int, bytes]] = []
        self.pongs = self.resets = 0
        self.closed = self.acknowledged = False
        self.early = b""
        self.block = b""
        self.block_ends = False
        ours = {SettingsFrame.INITIAL_WINDOW_SIZE: window, SettingsFrame.ENABLE_PUSH: 0, **(settings or {})}
        self.send(PREFACE, SettingsFrame(0, settings=ours))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()

    # -- out

    def send(self, *what: Frame | bytes) -> None:
        """Whatever it is."""
        self.sock.sendall(b"".join(each if isinstance(each, bytes) else each.serialize() for each in what))

    def head(
        self, method: str, target: str, fields: Iterable[tuple[str, str]] = (), authority: str = "localhost"
    ) -> Any:
        """A block of fields."""
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", authority), (":path", target)]
        return self.encoder.encode([*pseudo, *fields])

    def ask(
        self, method: str, target: str, fields: Iterable[tuple[str, str]] = (), *, ended: bool = True,
        keep: Callable[[bytes], object] | None = None, held: bool = False,
    ) -> int:  # fmt: skip
        """Begin a request; the number of its stream."""
        number, self.next = self.next, self.next + 2
        self.answers[number] = Answer(room=self.first_room, keep=keep, held=held, begun_at=time.monotonic())
        block = self.head(method, target, fields)
        first, rest = (
            block[:FRAME_BYTES],
            [block[at : at + FRAME_BYTES] for at in range(FRAME_BYTES, len(block), FRAME_BYTES)],
        )
        frames: list[Frame] = [HeadersFrame(number, first)]
        frames += [ContinuationFrame(number, piece) for piece in rest]
        if ended:
            frames[0].flags.add("END_STREAM")
        frames[-1].flags.add("END_HEADERS")
        self.send(*frames)
        return number

    def data(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """Send it, and take what comes while there is no room for it. An answer that is whole before that is enough.
        Raises `Cut`."""
        answer = self.answers[number]
        while data and not answer.ended:
            room = min(self.room, answer.room, self.frames_max)
            if room <= 0:
                if answer.reset is not None or not self.take():
                    raise Cut(answer)
                continue
            piece, data = data[:room], data[room:]
            self.room -= len(piece)
            answer.room -= len(piece)
            frame = DataFrame(number, piece)
            if ended and not data:
                frame.flags.add("END_STREAM")
                ended = False
            self.send(frame)
        if ended and not answer.over:
            self.send(DataFrame(number, flags=["END_STREAM"]))

    def trailers(self, number: int, fields: Iterable[tuple[str, str]]) -> None:
        """The end of a request."""
        if not self.answers[number].over:
            self.send(HeadersFrame(number, self.encoder.encode(list(fields)), flags=["END_HEADERS", "END_STREAM"]))

    def cancel(self, number: int, code: int = 8) -> None:
        """Take a request back."""
        self.send(RstStreamFrame(number, error_code=code))

    def release(self, number: int) -> None:
        """Give back what was held of its window, and what comes."""
        answer = self.answers[number]
        answer.held = False
        owed, answer.owed = answer.owed, 0
        if owed and not answer.over:
            self.opened(number, owed)

    def opened(self, number: int, size: int) -> None:
        """There is room for so much more of an answer."""
        self.send(WindowUpdateFrame(number, window_increment=size))

    # -- in

    def take(self) -> bool:
        """Take what comes next, however long that takes; whether there was anything."""
        try:
            data = self.sock.recv(1 << 18)
        except (ConnectionError, ssl.SSLError) as error:
            if isinstance(error, TimeoutError | ssl.SSLWantReadError):
                raise
            data = b""
        if not data:
            self.closed = True
            return False
        data = self.early + data
        at = 0
        while len(data) - at >= 9:
            frame, size = Frame.parse_frame_header(memoryview(data)[at : at + 9])
            if len(data) - at < 9 + size:
                break
            frame.parse_body(memoryview(data)[at + 9 : at + 9 + size])
            at += 9 + size
            self._frame(frame)
        self.early = data[at:]
        return True

    def _frame(self, frame: Frame) -> None:
        answer = self.answers.get(frame.stream_id)
        match frame:
            case SettingsFrame():
                if "ACK" in frame.flags:
                    self.acknowledged = True
                else:
                    self._settings(frame.settings)
            case PingFrame():
                if "ACK" in frame.flags:
                    self.pongs += 1
                else:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            case GoAwayFrame():
                self.goaways.append((frame.last_stream_id, frame.error_code, bytes(frame.additional_data)))
            case WindowUpdateFrame():
                if frame.stream_id == 0:
                    self.room += frame.window_increment
                elif answer is not None:
                    answer.room += frame.window_increment
            case RstStreamFrame():
                self.resets += 1
                if answer is not None:  # else it was asked by hand
                    answer.reset = frame.error_code
                    answer.ended_at = time.monotonic()
            case HeadersFrame() | ContinuationFrame():
                self.block += frame.data
                if isinstance(frame, HeadersFrame):
                    self.block_ends = "END_STREAM" in frame.flags
                if "END_HEADERS" in frame.flags:
                    block, self.block = self.block, b""
                    fields = self.decoder.decode(block)
                    if answer is not None:
                        self._headers(answer, fields)
            case DataFrame() if answer is not None:
                self._data(answer, frame)
            case _:
                pass

    def _settings(self, settings: dict[int, int]) -> None:
        self.their_settings |= settings
        window = settings.get(SettingsFrame.INITIAL_WINDOW_SIZE)
        if window is not None:
            for answer in self.answers.values():
                answer.room += window - self.first_room
            self.first_room = window
        self.frames_max = min(settings.get(SettingsFrame.MAX_FRAME_SIZE, FRAME_BYTES), FRAME_BYTES)
        if SettingsFrame.HEADER_TABLE_SIZE in settings:
            self.encoder.header_table_size = min(4096, settings[SettingsFrame.HEADER_TABLE_SIZE])
        self.send(SettingsFrame(0, flags=["ACK"]))

    def _headers(self, answer: Answer, fields: Any) -> None:
        named: Fields = [tuple(each.decode() if isinstance(each, bytes) else each for each in pair) for pair in fields]  # type: ignore[misc]
        if not answer.status:
            [status] = [int(value) for name, value in named if name == ":status"]
            rest = [(name, value) for name, value in named if name != ":status"]
            if status < 200:
                assert not self.block_ends
                answer.interims.append((status, rest))
                return
            answer.status, answer.fields = status, rest
        else:
            assert self.block_ends, "a second head"
            answer.trailers = named
        self._ends(answer, self.block_ends)

    def _data(self, answer: Answer, frame: DataFrame) -> None:
        assert answer.status, "a body without a head"
        assert not answer.ended, "data after the end"
        size = frame.flow_controlled_length
        answer.size += len(frame.data)
        (answer.keep or answer.body.extend)(frame.data)
        ended = "END_STREAM" in frame.flags
        updates = []
        if size:
            updates.append(WindowUpdateFrame(0, window_increment=size))
            if answer.held:
                answer.owed += size
            elif not ended and answer.reset is None:
                updates.append(WindowUpdateFrame(frame.stream_id, window_increment=size))
        if updates:
            with contextlib.suppress(OSError):  # it may have closed behind its last byte
                self.send(*updates)
        self._ends(answer, ended)

    def _ends(self, answer: Answer, ended: bool) -> None:
        if ended:
            answer.ended = True
            answer.ended_at = time.monotonic()

    # -- both

    def until(self, look: Callable[[], object], what: str = "", within_s: float = WITHIN_S) -> None:
        """Take what comes until that is so. Raises `Cut` where the connection ends before."""
        deadline = time.monotonic() + within_s
        while not look():
            assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
            if not self.take():
                if look():
                    return
                raise Cut(f"{what}: {self.goaways}")

    def settle(self) -> None:
        """Until both know what SETTINGS the other has."""
        self.until(lambda: self.acknowledged and self.their_settings, "SETTINGS come")

    def answer(self, number: int, within_s: float = WITHIN_S) -> Answer:
        """The whole one. Raises `Cut`."""
        answer = self.answers[number]
        self.until(lambda: answer.over, f"the answer of stream {number}", within_s)
        if not answer.ended:
            raise Cut(answer)
        return answer

    def fetch(
        self, method: str, target: str, fields: Iterable[tuple[str, str]] = (), pieces: Iterable[bytes] | None = None,
        trailers: Fields | None = None,
    ) -> Answer:  # fmt: skip
        """A request, and the whole answer. Without `pieces` it has no body. Raises `Cut`."""
        number = self.ask(method, target, fields, ended=pieces is None)
        if pieces is not None:
            for piece in pieces:
                self.data(number, piece)
            if trailers:
                self.trailers(number, trailers)
            else:
                self.data(number, b"", ended=True)
        return self.answer(number)


class Http1Client:
    """One connection of HTTP/1.1, one request after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.h11 = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def fetch(
        self, method: str, target: str, fields: Iterable[tuple[str, str]] = (), pieces: Iterable[bytes] | None = None,
        trailers: Fields | None = None,
    ) -> Answer:  # fmt: skip
        """A request, and the whole answer. Without `pieces` it has no body; they are chunks, where no field says how
        long they are. Raises `Cut`."""
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        headers = [("host", "localhost"), *fields]
        if pieces is not None and not any(name == "content-length" for name, _ in headers):
            headers.append(("transfer-encoding", "chunked"))
        self._send(h11.Request(method=method, target=target, headers=headers))
        for piece in pieces or ():
            self._send(h11.Data(data=piece))
        self._send(h11.EndOfMessage(headers=trailers or []))
        answer = Answer()
        while not answer.ended:
            self._event(answer)
        return answer

    def _send(self, event: Any) -> None:
        self.sock.sendall(self.h11.send(event) or b"")

    def _event(self, answer: Answer) -> None:
        try:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                self.h11.receive_data(self.sock.recv(1 << 18))
                return
        except (h11.RemoteProtocolError, ConnectionError) as error:
            raise Cut(str(error)) from error
        match event:
            case h11.InformationalResponse():
                answer.interims.append((event.status_code, _decoded(event.headers)))
            case h11.Response():
                answer.status, answer.fields = event.status_code, _decoded(event.headers)
            case h11.Data():
                answer.body += event.data
                answer.size += len(event.data)
            case h11.EndOfMessage():
                answer.trailers, answer.ended = _decoded(event.headers), True
            case _:
                raise Cut(repr(event))


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode(), value.decode()) for name, value in headers]
