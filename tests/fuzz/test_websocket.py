"""The fuzzer of WebSocket: its cases, and that its properties would find what they are there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from coulee.core.websocket import Message
from coulee.core.websocket_codec import Fault, News, Ping, WebSocketCodec
from fuzz import corpus
from fuzz.__main__ import main
from fuzz.targets import TARGETS
from fuzz.websocket_case import FRAMES_MAX, Case, Frame
from fuzz.websocket_properties import check

WEBSOCKET = TARGETS["websocket"]
BY_HAND, FOUND = corpus.load(WEBSOCKET.corpus, Case.from_line)


def test_the_corpus_breaks_rules_of_every_kind() -> None:
    assert {check(case).code for case in BY_HAND} == {0, 1002, 1007, 1009}


def test_a_case_is_the_same_as_bytes_and_as_a_line() -> None:
    odd = (Frame(0x81, bytes(range(250)), 0xFC), Frame(0, b""), Frame(255, b" \\x", 0, 200))
    for case in [*BY_HAND, *FOUND, Case(odd, "client", small=True, compression="anew", cuts=(0, 127, 255))]:
        assert Case.from_bytes(case.to_bytes()) == case
        assert Case.from_line(case.to_line()) == case
    assert Case.from_bytes(b"") == Case((), cuts=(0, 0, 0)), "every input means something"
    assert len(Case.from_bytes(bytes(4000)).frames) == FRAMES_MAX
    for line in ("server huge plain 00:00:00", "server small gzip 00:00:00", "server small plain 00:00:00 8:x"):
        with pytest.raises(ValueError, match="does not begin like|is no frame"):
            Case.from_line(line)


def test_a_find_is_replayed_without_the_fuzzer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crash-1"
    path.write_bytes(Case((HELLO, Frame(0x83, b""))).to_bytes())
    assert main(["websocket", "--replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert "81:hello 83:" in out
    assert "Message(data='hello'" in out
    assert "refused: 1002 Invalid opcode 0x3" in out


# ------------------------------------------------------------------------------- codecs with a fault of each kind

HELLO = Frame(0x81, b"hello")
BEGINS = Frame(0x01, b"hello" * 20)
ENDS = Frame(0x80, b"!")
ASKS = Frame(0x89, b"?")
BROKEN = Frame(0x83, b"")
CLOSES = Frame(0x88, b"\x03\xe8")


class Raises(WebSocketCodec):
    def feed(self, data: bytes) -> None:
        if b"hello" in data:
            raise ValueError("not ours")
        super().feed(data)


class MindsTheSplit(WebSocketCodec):
    def feed(self, data: bytes) -> None:
        super().feed(data if len(data) > 1 else data.replace(b"h", b"H"))


class ReadsOn(WebSocketCodec):
    broken = False

    def next_news(self) -> News | None:
        if self.broken:
            return Ping(b"")
        try:
            return super().next_news()
        except Fault:
            self.broken = True
            raise


class OtherCodes(WebSocketCodec):
    def next_news(self) -> News | None:
        try:
            return super().next_news()
        except Fault as fault:
            raise Fault(1011, fault.detail) from None


class NeverStops(WebSocketCodec):
    def next_news(self) -> News | None:
        return Ping(b"")


class KeepsMuch(WebSocketCodec):
    def feed(self, data: bytes) -> None:
        super().feed(data)
        if data and self._text is not None:
            self._text.write("x" * 1000)


class Hoards(WebSocketCodec):
    def next_news(self) -> News | None:
        news = super().next_news()
        if news is None:
            self._frames._frame_decoder.buffer.feed(bytes(200))
        return news


class SpeaksBehindTheEnd(WebSocketCodec):
    def next_news(self) -> News | None:
        news = super().next_news()
        if news is None and self._read and not self._frames._frame_decoder.buffer.bytes_used:
            self._frames._frame_decoder.buffer.bytes_used = 1
            return Ping(b"")
        return news


class Trims(WebSocketCodec):
    def next_news(self) -> News | None:
        news = super().next_news()
        if isinstance(news, Message):
            news.data = news.data[:4]
        return news


class MindsNothing(WebSocketCodec):
    def next_news(self) -> News | None:
        try:
            return super().next_news()
        except Fault:
            return None


class MindsTooMuch(WebSocketCodec):
    def next_news(self) -> News | None:
        news = super().next_news()
        if isinstance(news, Ping):
            self._read = True
            raise Fault(1002, "a ping")
        return news


class WritesOtherwise(WebSocketCodec):
    def write(self, data: str | bytes) -> bytes:
        return super().write(data if isinstance(data, bytes) else data.upper())


class WritesInPieces(WebSocketCodec):
    def write(self, data: str | bytes) -> bytes:
        assert isinstance(data, str)
        return bytes(self._frames.send_data(data[:1], False) + self._frames.send_data(data[1:], True))


FAULTY = [
    (MindsTheSplit, Case((HELLO,)), r"in \d+ pieces"),
    (ReadsOn, Case((BROKEN,)), "reads on behind a fault"),
    (OtherCodes, Case((BROKEN,)), "closed with 1011"),
    (NeverStops, Case((HELLO,)), "news without end"),
    (KeepsMuch, Case((BEGINS, ENDS), small=True), "kept of a message"),
    (Hoards, Case((HELLO,)), "200 bytes kept"),
    (SpeaksBehindTheEnd, Case((CLOSES, HELLO)), "behind a close frame"),
    (Trims, Case((HELLO,)), "another's"),
    (MindsNothing, Case((BROKEN,)), "not minded: the opcode 3"),
    (MindsTooMuch, Case((ASKS,)), "minded without a reason"),
    (WritesOtherwise, Case((HELLO,)), "written again"),
    (WritesInPieces, Case((HELLO,)), "a frame for each"),
]  # fmt: skip


@pytest.mark.parametrize(("faulty", "case", "words"), FAULTY, ids=[row[0].__name__ for row in FAULTY])
def test_the_properties_find_a_codec_that_lacks_one(faulty: type[WebSocketCodec], case: Case, words: str) -> None:
    check(case)
    with pytest.raises(AssertionError, match=words):
        check(case, faulty)


def test_another_exception_is_a_find_too() -> None:
    with pytest.raises(ValueError, match="not ours"):
        check(Case((HELLO, ENDS)), Raises)
