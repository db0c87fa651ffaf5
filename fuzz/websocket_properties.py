"""What must hold for whatever frames a codec of WebSocket is fed. `check` raises `AssertionError` where it does not.

- Only `Fault` is raised, with a code that may be sent; behind it, and behind a close frame, nothing is read.
- However the bytes are split, the same is read, and the same is said of what is wrong: with compression, that something
  is.
- What is kept, and what is given out, is never more than is allowed.
- A reader that shares no code with the codec reads the same, and minds what it minds.
- What was read is the same when it is written on, by either side, and is read there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from coulee.backends.websocket_speech import Reader
from coulee.core.codec import Role
from coulee.core.config import WebSocket
from coulee.core.websocket import Closing, Message
from coulee.core.websocket_codec import NO_UTF8, TOO_LARGE, Fault, News, Ping, Pong, WebSocketCodec
from coulee.core.websocket_deflate import Deflate
from fuzz.websocket_case import Case

CODES: Final = (1002, NO_UTF8, TOO_LARGE)
"""What a peer is closed with that breaks a rule."""

ROOMY: Final = WebSocket(inflate_ratio_max=1e9, message_bytes_max=2**30)
"""What was read may be written so that it inflates to more than was allowed of the peer."""

HEADER_BYTES_MAX: Final = 14
CONTROL_BYTES_MAX: Final = 125
PIECES_MAX: Final = 400


@dataclass
class Reading:
    """What came of a stream."""

    news: list[News] = field(default_factory=list[News])
    fault: str = ""

    @property
    def events(self) -> list[News]:
        """For people."""
        return self.news

    @property
    def refused(self) -> str:
        """What is wrong, for people."""
        return self.fault

    @property
    def code(self) -> int:
        """What the peer is closed with; 0 where nothing is wrong."""
        return int(self.fault.partition(" ")[0] or 0)


def check(case: Case, codec_class: type[WebSocketCodec] = WebSocketCodec) -> Reading:
    """All of it, for one case."""
    whole = play(case, codec_class, [case.stream] if case.stream else [])
    size = max(1, len(case.stream) // PIECES_MAX)
    small = [case.stream[at : at + size] for at in range(0, len(case.stream), size)]
    for pieces in (case.pieces, small):
        again = play(case, codec_class, pieces)
        # What was deflated may be too large, no text, and not even deflated: then it depends which of it shows first.
        same = bool(again.code) == bool(whole.code) if case.compression != "plain" else again.fault == whole.fault
        assert same and again.news == whole.news, f"whole: {whole}; in {len(pieces)} pieces: {again}"
    check_sizes(case, whole)
    check_by_another(case, whole)
    for role in ("server", "client"):
        check_again(case, whole, role, codec_class)
    return whole


# ------------------------------------------------------------------------------------------------------- reading


def a_codec(
    role: Role, settings: WebSocket, deflate: Deflate | None, codec_class: type[WebSocketCodec]
) -> WebSocketCodec:
    return codec_class(role, "downstream" if role == "server" else "upstream", settings, deflate, Random(1))


def play(case: Case, codec_class: type[WebSocketCodec], pieces: Iterable[bytes]) -> Reading:
    """Read the pieces, and look at what is kept."""
    codec = a_codec(case.role, case.settings, case.deflate(case.settings), codec_class)
    reading = Reading()
    try:
        for piece in pieces:
            codec.feed(piece)
            while (news := codec.next_news()) is not None:
                reading.news.append(news)
                assert len(reading.news) <= len(case.frames), "news without end"
            check_kept(case, codec, bool(reading.news) and isinstance(reading.news[-1], Closing))
    except Fault as fault:
        reading.fault = f"{fault.code} {fault.detail}"
        codec.feed(case.stream)
    else:
        return reading
    assert codec.next_news() is None, "it reads on behind a fault"
    assert reading.code in CODES, f"closed with {reading.code}"
    return reading


def check_kept(case: Case, codec: WebSocketCodec, ended: bool) -> None:
    """Of what it was fed, all that makes no frame yet; and of a message, no more than it may have."""
    held = len(codec._frames._frame_decoder.buffer)
    assert ended or held <= HEADER_BYTES_MAX + CONTROL_BYTES_MAX, f"{held} bytes kept"
    for kept in (codec._text, codec._binary):
        size = 0 if kept is None else kept.tell()
        assert size <= case.settings.message_bytes_max, f"{size} bytes kept of a message"


def check_sizes(case: Case, reading: Reading) -> None:
    """What is given out."""
    for each in reading.news[:-1]:
        assert not isinstance(each, Closing), "news behind a close frame"
    for each in reading.news:
        if isinstance(each, Message):
            assert each.size <= case.settings.message_bytes_max, f"a message of {each.size} bytes"
        elif isinstance(each, Ping | Pong):
            assert len(each.payload) <= CONTROL_BYTES_MAX


def check_by_another(case: Case, reading: Reading) -> None:
    """It may hear more than we do before it minds something: it looks at whole frames, and at whole messages. And it
    knows no limits."""
    other = Reader(case.role == "server", case.spoken)
    other.feed(case.stream)
    assert reading.code or not other.broken or other.closing is not None, f"not minded: {other.broken}"
    unheard = bool(other.unread) or other.in_message
    minds = bool(other.broken) or reading.code == TOO_LARGE or (reading.code == NO_UTF8 and unheard)
    assert not reading.code or minds or unheard, f"minded without a reason: {reading.fault}"
    ours: list[list[object]] = [
        [each.data for each in reading.news if isinstance(each, Message)],
        [each.payload for each in reading.news if isinstance(each, Ping)],
        [each.payload for each in reading.news if isinstance(each, Pong)],
        [(each.code, each.reason) for each in reading.news if isinstance(each, Closing)],
    ]
    theirs: list[list[object]] = [
        [*other.messages],
        [*other.pings],
        [*other.pongs],
        [] if other.closing is None else [other.closing],
    ]
    if reading.code:
        theirs = [heard[: len(mine)] for mine, heard in zip(ours, theirs, strict=True)]
    assert ours == theirs, f"ours {ours}; another's {theirs}"


# ------------------------------------------------------------------------------------------------------- writing


def check_again(case: Case, reading: Reading, role: Role, codec_class: type[WebSocketCodec]) -> None:
    """Written by our side in this role, and read by the other one, and by somebody else."""
    writer = a_codec(role, ROOMY, case.deflate(ROOMY), codec_class)
    written = b"".join([written_by(writer, each) for each in reading.news])
    reader = a_codec("client" if role == "server" else "server", ROOMY, case.deflate(ROOMY), codec_class)
    reader.feed(written)
    again: list[News] = []
    while len(again) < len(reading.news) and (news := reader.next_news()) is not None:
        again.append(news)
    assert [plain(each) for each in again] == [plain(each) for each in reading.news], f"written again: {again}"
    other = Reader(role == "client", case.spoken)
    other.feed(written)
    assert not other.broken, f"written again: {other.broken}"
    assert other.frames == len(reading.news), "a frame for each"


def written_by(codec: WebSocketCodec, news: News) -> bytes:
    """What it makes of one of them."""
    if isinstance(news, Message):
        return codec.write(news.data)
    if isinstance(news, Ping):
        return codec.write_ping(news.payload)
    if isinstance(news, Pong):
        return codec.write_pong(news.payload)
    return codec.write_close(news.code, news.reason)


def plain(news: News) -> object:
    """Without who said it."""
    if isinstance(news, Message):
        return news.data
    return (news.code, news.reason) if isinstance(news, Closing) else news
