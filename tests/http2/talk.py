"""A client of HTTP/2 that says whatever a test wants, and watches that it is answered as RFC 9113 allows.

    talk = Talk(wire)
    talk.begin()
    talk.send(headers(1, get("/a")))
    assert talk.until(lambda: talk.ended(1))
    assert talk.answers[1].status == 200

Whatever the client does, the other side has to keep its own rules: `Talk` asserts them for each frame as it comes in
(`_keeps_the_rules`). A `Wire` carries the bytes; it is a machine in a played world, or a socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hpack import Decoder

from tests.http2 import frames as f
from tests.http2.frames import Code, Frame, Pairs

PATIENCE_S = 5.0
"""Longer than anything takes that is to happen at once; shorter than any time limit for a request."""

CONNECTION_SPECIFIC = {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "te"}


class Wire(Protocol):
    """What carries bytes."""

    @property
    def closed(self) -> bool:
        """The other side has closed."""
        ...

    def send(self, raw: bytes) -> None:
        """Bytes go to the other side. Where it has closed, they are lost, and nobody minds."""
        ...

    def receive(self, patience_s: float) -> bytes:
        """What came, as soon as there is something; b"" where nothing came in time, or the other side has closed."""
        ...

    def go(self) -> None:
        """The origins answer what they have held."""
        ...


@dataclass
class Answer:
    """What has come on a stream."""

    interims: list[Pairs] = field(default_factory=list)
    head: Pairs | None = None
    body: bytes = field(default=b"", repr=False)
    trailers: Pairs | None = None
    ended: bool = False

    @property
    def status(self) -> int:
        """0 where there was no head."""
        return 0 if self.head is None else int(self.head[0][1])


class Talk:
    """One connection, seen by the client."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.frames: list[Frame] = []
        self.answers: dict[int, Answer] = {}
        self.resets: dict[int, Code] = {}
        self.goaways: list[Frame] = []
        self.theirs: dict[int, int] = {f.INITIAL_WINDOW_SIZE: f.WINDOW, f.MAX_FRAME_SIZE: f.FRAME_MAX}
        self.credits: dict[int, int] = {0: f.WINDOW}  # what we may send
        self._rest = b""  # of a frame that has come in part
        self._half = b""  # of one that was sent in part
        self._decoder = Decoder()
        self._unacked: deque[dict[int, int]] = deque()  # SETTINGS of ours
        self._ours = {f.INITIAL_WINDOW_SIZE: f.WINDOW, f.MAX_FRAME_SIZE: f.FRAME_MAX}
        self._opened: dict[int, int] = {0: f.WINDOW}  # what they may send, without what they did
        self._block: list[Frame] = []

    # -- the client's doing

    def begin(self, values: dict[int, int] | None = None) -> None:
        """The preface, and what each side has to say about itself."""
        self.send(f.PREFACE + f.settings(values or {}))
        assert self.until(lambda: bool(self.frames)), "no SETTINGS"
        self.send(f.settings(ack=True))

    def send(self, raw: bytes) -> None:
        """Anything. What of it is well formed counts for what the other side may do."""
        self._note_sent(raw)
        self.wire.send(raw)
        self._take(self.wire.receive(0))

    def upload(self, stream: int, size: int) -> bool:
        """A body, as fast as the windows let it go; False where they do not open any more."""
        left = size
        while left:
            room = min(left, self.credits[0], self.credit(stream), f.FRAME_MAX)
            if room <= 0 and not self.until(lambda: min(self.credits[0], self.credit(stream)) > 0):
                return False
            room = min(left, self.credits[0], self.credit(stream), f.FRAME_MAX)
            left -= room
            self.send(f.data(stream, bytes(room), end=not left))
        return True

    def credit(self, stream: int) -> int:
        """What may be sent on a stream, whatever the connection allows."""
        return self.credits.get(stream, 0) + self.theirs[f.INITIAL_WINDOW_SIZE]

    def room(self, stream: int) -> int:
        """What the other side may still send on a stream; below 0 where SETTINGS have taken some of it back."""
        return min(self._opened[0], self._opened.get(stream, 0) + self._ours[f.INITIAL_WINDOW_SIZE])

    # -- what becomes of it

    def until(self, happened: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        """Read on until something has happened; False where it has not."""
        while not happened():
            raw = self.wire.receive(patience_s)
            if not raw:
                return happened()
            self._take(raw)
        return True

    def ended(self, stream: int) -> bool:
        """Whether nothing more will come on a stream."""
        return stream in self.resets or (stream in self.answers and self.answers[stream].ended)

    def acks(self, kind: int) -> list[Frame]:
        """The acknowledgements of SETTINGS, or of PING."""
        return [each for each in self.frames if each.type == kind and each.acks]

    # -- bookkeeping of what was sent

    def _note_sent(self, raw: bytes) -> None:
        """Count the frames that have become whole."""
        whole, self._half = f.cut(self._half + raw.removeprefix(f.PREFACE), strict=False)
        for each in whole:
            if each.type == f.SETTINGS and not each.acks and len(each.payload) % 6 == 0:
                self._unacked.append(each.values)
            elif each.type == f.WINDOW_UPDATE and len(each.payload) == 4:
                self._opened[each.stream] = self._opened.get(each.stream, 0) + (each.increment & 0x7FFFFFFF)
            elif each.type == f.DATA:
                for key in (0, each.stream):
                    self.credits[key] = self.credits.get(key, 0) - len(each.payload)

    # -- the rules that the other side has to keep

    def _take(self, raw: bytes) -> None:
        found, self._rest = f.cut(self._rest + raw)
        for each in found:
            self._keeps_the_rules(each)
            self.frames.append(each)

    def _keeps_the_rules(self, each: Frame) -> None:
        assert self.frames or (each.type == f.SETTINGS and not each.acks), f"first comes SETTINGS, not {each} (3.4)"
        assert each.type != f.PUSH_PROMISE, "nobody wants a push"
        assert len(each.payload) <= self._ours[f.MAX_FRAME_SIZE], f"{each} is longer than we take (4.2)"
        assert (each.type == f.CONTINUATION) is bool(self._block), f"{each} in a field block, or out of one (6.10)"
        if each.type == f.SETTINGS:
            self._settings(each)
        elif each.type == f.WINDOW_UPDATE:
            assert len(each.payload) == 4
            assert 0 < each.increment < 2**31, each
            assert each.stream not in self.resets, f"{each} behind RST_STREAM (5.1)"
            self.credits[each.stream] = self.credits.get(each.stream, 0) + each.increment
            room = self.credits[0] if each.stream == 0 else self.credit(each.stream)
            assert room < 2**31, "a window that is too large (6.9.1)"
        elif each.type == f.GOAWAY:
            assert each.stream == 0
            assert not self.goaways or self.goaways[-1].last >= each.last, "GOAWAY took a stream on again (6.8)"
            self.goaways.append(each)
        elif each.type == f.PING:
            assert each.stream == 0
            assert len(each.payload) == 8
        elif each.type in (f.HEADERS, f.CONTINUATION, f.DATA, f.RST_STREAM):
            self._of_a_stream(each)

    def _settings(self, each: Frame) -> None:
        assert each.stream == 0
        if each.acks:
            assert not each.payload
            assert self._unacked, "an acknowledgement of nothing (6.5.3)"
            values = self._unacked.popleft()
            self._ours.update(values)
            if f.HEADER_TABLE_SIZE in values:
                self._decoder.max_allowed_table_size = values[f.HEADER_TABLE_SIZE]
        else:
            assert each.values.get(f.ENABLE_PUSH, 0) == 0, "a server that wants pushes (6.5.2)"
            assert each.values.get(f.INITIAL_WINDOW_SIZE, 0) < 2**31
            assert f.FRAME_MAX <= each.values.get(f.MAX_FRAME_SIZE, f.FRAME_MAX) < 2**24
            self.theirs.update(each.values)

    def _of_a_stream(self, each: Frame) -> None:
        assert each.stream % 2 == 1, f"{each} on no stream of ours (5.1.1)"
        again = each.type == f.RST_STREAM and each.code == Code.STREAM_CLOSED  # to what came behind it (5.4.2)
        assert again or each.stream not in self.resets, f"{each} behind RST_STREAM (5.1)"
        answer = self.answers.setdefault(each.stream, Answer())
        if each.type == f.RST_STREAM:
            assert len(each.payload) == 4
            self.resets.setdefault(each.stream, each.code)
            return
        assert not answer.ended or self._block, f"{each} behind the end of its stream (5.1)"
        if each.type == f.DATA:
            assert answer.head is not None, "DATA before a head (8.1)"
            answer.body += each.content
            answer.ended = each.ends
            for key, start in ((0, 0), (each.stream, self._ours[f.INITIAL_WINDOW_SIZE])):
                self._opened[key] = self._opened.get(key, 0) - len(each.payload)
                assert not each.payload or self._opened[key] + start >= 0, f"{each} is more than a window has (6.9)"
            return
        self._block.append(each)
        if each.flags & f.END_HEADERS:
            [(_, pairs, ends)] = f.decoded(self._block, self._decoder)
            self._block = []
            self._field_list(answer, pairs, ends)

    def _field_list(self, answer: Answer, pairs: Pairs, ends: bool) -> None:
        names = [name for name, _ in pairs]
        assert all(name == name.lower() and name not in CONNECTION_SPECIFIC for name in names), f"{names} (8.2)"
        answer.ended = ends
        if answer.head is not None:
            assert ends, "trailers that are not the end (8.1)"
            assert not any(name.startswith(":") for name in names), f"{names} in trailers (8.1)"
            answer.trailers = pairs
            return
        assert names[0] == ":status", f"{names} (8.3.2)"
        assert not any(name.startswith(":") for name in names[1:]), f"{names} (8.3.2)"
        if 100 <= int(pairs[0][1]) < 200:
            assert not ends, "an interim answer that is the end (8.1)"
            answer.interims.append(pairs)
        else:
            answer.head = pairs
