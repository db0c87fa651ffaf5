"""The fuzzer of HTTP/2: its cases, and that its properties would find what they are there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from coulee.core.codec import NeedData
from coulee.core.config import Http2
from coulee.core.http2 import Http2Codec, News, Ponged, Reset
from coulee.core.http2_frames import Code, ConnectionFault
from coulee.core.http2_writing import StreamState
from coulee.core.parts import Data, Part, Request, Response
from coulee.core.seam import Bytes
from fuzz import corpus
from fuzz.__main__ import main
from fuzz.http2_case import FRAMES_MAX, Case, Record
from fuzz.http2_properties import check
from fuzz.targets import TARGETS

HTTP2 = TARGETS["http2"]
BY_HAND, FOUND = corpus.load(HTTP2.corpus, Case.from_line)


def test_the_corpus_breaks_rules_of_every_kind() -> None:
    faults = {check(case).fault.partition(" ")[0] for case in BY_HAND}
    assert faults == {"", *(str(int(code)) for code in (
        Code.PROTOCOL_ERROR, Code.FLOW_CONTROL_ERROR, Code.STREAM_CLOSED, Code.FRAME_SIZE_ERROR, Code.COMPRESSION_ERROR,
        Code.ENHANCE_YOUR_CALM))}  # fmt: skip


def test_a_case_is_the_same_as_bytes_and_as_a_line() -> None:
    odd = Record(127, 255, 255, bytes(range(250)), 65)
    short = Record(0, 0, 0, b" \\x", 1, 200)
    for case in [
        *BY_HAND,
        *FOUND,
        Case((odd, short), "client", small=True, slow=True, begun=False, cuts=(0, 127, 255)),
    ]:
        assert Case.from_bytes(case.to_bytes()) == case
        assert Case.from_line(case.to_line()) == case
    assert Case.from_bytes(b"") == Case((), cuts=(0, 0, 0)), "every input means something"
    assert len(Case.from_bytes(bytes(4000)).records) == FRAMES_MAX
    with pytest.raises(ValueError, match="does not begin like"):
        Case.from_line("server huge late 00:00:00")


def test_a_find_is_replayed_without_the_fuzzer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crash-1"
    path.write_bytes(Case((GET, Record(6, 0, 1, bytes(8)))).to_bytes())
    assert main(["http2", "--replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert "1/5/1:\\x82\\x86\\x84A\\x01a 6/0/1:" in out
    assert "Request(method='GET'" in out
    assert "refused: 1 PING on a stream" in out


# ------------------------------------------------------------------------------- codecs with a fault of each kind

GET = Record(1, 5, 1, b"\x82\x86\x84A\x01a")
POST = Record(1, 4, 1, b"\x83\x86\x84A\x01a")
FIVE = Record(1, 4, 1, b"\x83\x86\x84A\x01a\x0f\x0d\x015")
BODY = Record(0, 0, 1, b"hello")
END = Record(0, 1, 1, b"")
SHUT = Record(4, 0, 0, b"\0\4\0\0\0\0")
LARGE = Record(0, 0, 1, b"x" * 252, 65)


class Raises(Http2Codec):
    def feed(self, data: bytes) -> None:
        if b"hello" in data:
            raise ValueError("not ours")
        super().feed(data)


class MindsTheSplit(Http2Codec):
    def feed(self, data: bytes) -> None:
        super().feed(data if len(data) > 1 else data.replace(b"h", b"H"))


class SaysOtherwise(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        before = self.buffered
        try:
            return super().next_part()
        except ConnectionFault as fault:
            raise ConnectionFault(fault.code, f"{fault.detail} ({before})") from None


class WritesOtherwise(Http2Codec):
    def feed(self, data: bytes) -> None:
        if len(data) == 1:
            self.ping(b"12345678")
        super().feed(data)


class ReadsOn(Http2Codec):
    @property
    def buffered(self) -> int:
        return 1 if self._fault else super().buffered


class LosesAWindow(Http2Codec):
    def consumed(self, stream: int, count: int) -> None:
        super().consumed(stream, count - 1)


class KeepsAStream(Http2Codec):
    def _forget(self, number: int, state: StreamState) -> None:
        pass


class KeepsSettings(Http2Codec):
    def _give(self, found):  # type: ignore[no-untyped-def]
        for number in range(100, 120):
            self._h2.remote_settings[number] = 1
        return super()._give(found)


class NeverStops(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        return (0, Ponged(b"")) if self._highest == 0 and self.glitches else super().next_part()


class EndsTwice(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        pulled = super().next_part()
        if isinstance(pulled, tuple) and isinstance(pulled[1], Data) and pulled[1].data:
            self._news.extend([(pulled[0], Data(b"", True))] * 2)
        return pulled


class Miscounts(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        pulled = super().next_part()
        if isinstance(pulled, tuple) and isinstance(pulled[1], Request) and pulled[1].length:
            pulled[1].length += 1
        return pulled


class TellsMoreOfAReset(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        pulled = super().next_part()
        if isinstance(pulled, tuple) and isinstance(pulled[1], Reset) and not pulled[1].ours:
            self._news.append((pulled[0], Reset(8, "again", ours=True)))
        return pulled


class Misreads(Http2Codec):
    def next_part(self) -> tuple[int, News] | NeedData:
        pulled = super().next_part()
        if isinstance(pulled, tuple) and isinstance(pulled[1], Request):
            pulled[1].target += " "
        return pulled


class SendsTooMuch(Http2Codec):
    def write(self, stream: int, part: Part) -> Bytes:
        if isinstance(part, Response):
            self._out.append(b"\0\x40\0\0\0\0\0\0\1" + bytes(16384))
            self._out.extend([b"\0\x40\0\0\0\0\0\0\1" + bytes(16384)] * 4)
        return super().write(stream, part)


class SendsLargeFrames(Http2Codec):
    def write(self, stream: int, part: Part) -> Bytes:
        if isinstance(part, Response):
            self._out.append(b"\0\x40\1\0\0\0\0\0\1" + bytes(16385))
        return super().write(stream, part)


class SendsNoFrames(Http2Codec):
    def write(self, stream: int, part: Part) -> Bytes:
        if isinstance(part, Response):
            self._out.append(b"\0\0")
        return super().write(stream, part)


class ForgetsWhatWaits(Http2Codec):
    def reset(self, stream: int, code: int) -> None:
        waiting, self._waiting = self._waiting, type(self._waiting)(100)
        super().reset(stream, code)
        self._waiting = waiting


FAULTY = [
    (MindsTheSplit, Case((POST, BODY, END), slow=True), r"in \d+ pieces"),
    (SaysOtherwise, Case((POST, Record(6, 0, 1, bytes(8)), BODY)), r"in \d+ pieces"),
    (WritesOtherwise, Case((GET,)), "written: whole"),
    (ReadsOn, Case((Record(6, 0, 1, bytes(8)),)), "keeps what nobody will read"),
    (LosesAWindow, Case((POST, BODY, END), slow=True), "1 bytes of the connection's window are lost"),
    (KeepsAStream, Case((GET,)), "open are"),
    (KeepsSettings, Case((GET,)), "settings are kept"),
    (NeverStops, Case((Record(6, 1, 0, bytes(8)),) * 3), "news without end"),
    (EndsTwice, Case((POST, BODY, END), slow=True), "behind the end"),
    (Miscounts, Case((FIVE, BODY, END), slow=True), "not as long as was announced"),
    (TellsMoreOfAReset, Case((POST, Record(3, 0, 1, bytes(4))), slow=True), "more of a stream that was reset"),
    (Misreads, Case((GET,)), "no target"),
    (SendsTooMuch, Case((GET,)), "more than"),
    (SendsLargeFrames, Case((GET,)), "a frame of 16385 bytes"),
    (SendsNoFrames, Case((GET,)), "that are no frame"),
    (ForgetsWhatWaits, Case((SHUT, Record(1, 4, 9, POST.payload), Record(8, 0, 9, bytes(4)))),
     "something waits of what is over"),
]  # fmt: skip


@pytest.mark.parametrize(("faulty", "case", "words"), FAULTY, ids=[row[0].__name__ for row in FAULTY])
def test_the_properties_find_a_codec_that_lacks_one(faulty: type[Http2Codec], case: Case, words: str) -> None:
    check(case)
    with pytest.raises(AssertionError, match=words):
        check(case, faulty)


def test_another_exception_is_a_find_too() -> None:
    with pytest.raises(ValueError, match="not ours"):
        check(Case((POST, BODY)), Raises)


def test_windows_are_those_of_the_configuration() -> None:
    assert Http2().stream_window_bytes < Http2().connection_window_bytes
    check(Case((POST, *[LARGE] * 4, END)))
