"""What must hold for whatever bytes a codec is fed. `check` raises `AssertionError` where something does not.

- Only `ProtocolError` is raised.
- However the bytes are split, the same is read, and the same is said of what is wrong, to the word.
- What a codec keeps is never more than it was fed and has not given out; and while it asks for more, never more than
  the largest thing that it must see whole: a head, or the trailers; once it is broken, nothing. Parts do not go on for
  ever.
- A part holds nothing that could break out of where it will be written, and nothing that could be read two ways: one
  framing field at most, one Host. A message ends once, and a body is as long as was announced.
- Written again by our client's side, what was accepted is read again by our server's side as the same; and the other
  way about for answers. The head that is written frames the message once, and h11 reads it as we do.
- Plain h11 has read the same, but for what the written lists allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from coulee.core.codec import Codec, NeedData, Paused
from coulee.core.config import Limits
from coulee.core.headers import TOKEN, Headers
from coulee.core.http1 import Http1Codec
from coulee.core.parts import Interim, Part, Request, Response, Trailers
from coulee.core.seam import Bytes
from fuzz.case import Case
from tests.differential.reading import Event, Reading, asking, normal, read, read_by_h11
from tests.differential.verdicts import compare

VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
ROOMY: Final = Limits(head_bytes_max=65536, line_bytes_max=32768, fields_max=200, interims_max=200)
"""What was accepted may have grown a little when it is read again: it has our framing, and perhaps a Host."""

FRAMING: Final = (b"content-length", b"transfer-encoding")


def check(case: Case, codec_class: type[Http1Codec] = Http1Codec) -> Reading:
    """All of it, for one case."""
    whole = run(case, codec_class, [case.stream] if case.stream else [])
    every_byte = [case.stream[at : at + 1] for at in range(len(case.stream))]
    for pieces in (case.pieces, every_byte):
        again = run(case, codec_class, pieces)
        assert again.same(whole), f"whole: {shown(whole)}; in {len(pieces)} pieces: {shown(again)}"
    check_parts(case, whole)
    messages = messages_of(whole.parts)
    if case.role == "server":
        for message in messages:
            check_request_again(message, codec_class)
    elif messages:
        check_answer_again(case.asked, messages[0], codec_class)
    theirs = read_by_h11(case.role, case.asked, case.stream)
    wrong = compare(whole, theirs, case.stream)
    assert not wrong, f"{wrong}: ours {shown(whole)}; h11's {shown(theirs)}"
    return whole


def shown(reading: Reading) -> str:
    """A reading in one line."""
    return f"{reading.events!r} {reading.status} {reading.reason} {reading.fault!r}"


# ----------------------------------------------------------------------------------------------------- reading


def run(case: Case, codec_class: type[Http1Codec], pieces: Iterable[bytes]) -> Reading:
    """Read the pieces, watching what the codec keeps."""
    codec = codec_class(case.role, case.limits)
    if case.role == "client":
        asking(codec, case.asked)
    limits = case.limits
    incomplete_max = max(limits.head_bytes_max, limits.trailers_bytes_max + 3)
    parts = 0

    def watch(codec: Codec, fed: int, given: int, more_wanted: bool) -> None:
        nonlocal parts
        parts += 1
        assert parts <= 4 * len(case.stream) + 8, "parts without end"
        assert codec.buffered <= fed - given, f"{codec.buffered} bytes kept of {fed} that came and {given} that went"
        assert kept_by(codec) <= codec.buffered, "more is kept than is said"
        if more_wanted:
            assert codec.buffered <= incomplete_max, f"{codec.buffered} bytes are kept, and more are wanted"

    reading = read(codec, case.role, pieces, early=case.early, watch=watch)
    assert not reading.fault or codec.buffered == kept_by(codec) == 0, "a broken codec keeps what nobody will read"
    return reading


def kept_by(codec: Codec) -> int:
    """The bytes that the codec's attributes hold."""
    total = 0
    for name in {slot for kind in type(codec).__mro__ for slot in getattr(kind, "__slots__", ())}:
        value = getattr(codec, name, None)
        if isinstance(value, bytes | bytearray):
            total += len(value)
        elif isinstance(value, list):
            total += sum(len(each) for each in value if isinstance(each, bytes))
    return total


# ------------------------------------------------------------------------------------------------------- parts


def check_parts(case: Case, reading: Reading) -> None:
    """Each part is clean in itself, and they come in an order that makes messages."""
    open_message = False
    left: int | None = None
    for part in reading.parts:
        if isinstance(part, Request | Response):
            assert not open_message, "a head in a message"
            check_head(part)
            bodiless = isinstance(part, Response) and (part.status in (204, 304) or case.asked == "HEAD")
            assert not (bodiless and (part.data or not part.ended)), "a body where there is none"
            left = None if bodiless else part.length
        elif isinstance(part, Interim):
            assert not open_message, "an interim answer in a message"
            check_fields(part.headers)
            assert not framing_in(part.headers), "an interim answer with a body"
            continue
        else:
            assert open_message, f"{part!r} behind the end of its message"
        if isinstance(part, Trailers):
            check_fields(part.headers)
            assert not framing_in(part.headers), "framing among the trailers"
            assert "host" not in part.headers, "a host among the trailers"
            assert left is None, "trailers behind a body of a known length"
            open_message = False
            continue
        if left is not None:
            left -= len(part.data)
            assert left >= 0 if not part.ended else left == 0, "a body that is not as long as was announced"
        open_message = not part.ended
    assert reading.fault or not open_message, "a message without an end, and no fault"


def check_head(part: Request | Response) -> None:
    """Nothing in a head could end its line, or pass for something else."""
    check_fields(part.headers)
    framing = framing_in(part.headers)
    assert len(framing) <= 1, f"framed by {framing!r}"
    for name, value in framing:
        assert value.isdigit() if name == b"content-length" else (value, part.version) == (b"chunked", (1, 1)), value
    if isinstance(part, Response):
        assert VALUE.fullmatch(part.reason.encode("latin-1"))
        assert 200 <= part.status <= 999
        return
    hosts = len(part.headers.get_all("host"))
    assert hosts == 1 or (hosts == 0 and part.version == (1, 0)), f"{hosts} hosts"
    assert TOKEN.fullmatch(part.method.encode("latin-1"))
    assert VISIBLE.fullmatch(part.target), f"{part.target!r} is no target"
    assert part.target.startswith("/") or (part.target == "*" and part.method == "OPTIONS")
    assert "#" not in part.target
    assert VISIBLE.fullmatch(part.authority) if part.authority else part.version == (1, 0)
    assert not set(part.authority) & set("/?#@\\ "), "an authority that could be read as more"


def framing_in(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The fields that frame a message."""
    return [pair for pair in normal(headers.raw()) if pair[0] in FRAMING]


def check_fields(headers: Headers) -> None:
    """Names are tokens and values have no control characters."""
    assert headers.block == b"" or headers.block.startswith(b"\r\n")
    for name, value in headers.raw():
        assert TOKEN.fullmatch(name), name
        assert VALUE.fullmatch(value), value


# ----------------------------------------------------------------------------------------------- written again


def messages_of(parts: list[Part]) -> list[list[Part]]:
    """The parts of each message that ended; interim answers belong to the answer behind them."""
    messages: list[list[Part]] = []
    current: list[Part] = []
    for part in parts:
        current.append(part)
        if isinstance(part, Trailers) or (not isinstance(part, Interim) and part.ended):
            messages.append(current)
            current = []
    return messages


def check_request_again(message: list[Part], codec_class: type[Http1Codec]) -> None:
    """What we would send on to an origin is the request that we read."""
    head = message[0]
    assert isinstance(head, Request)
    headers = head.headers.copy()
    if "host" not in headers:
        headers.set("Host", "a")  # HTTP/1.0 may have none
    if head.version == (1, 0):
        headers.remove("expect")  # which means nothing there
    sent = Request(head.method, head.target, headers, (1, 1), "http", head.authority or "a", head.length, head.data,
                   head.ended)  # fmt: skip
    writer = codec_class("client", ROOMY)
    data = written(writer, [sent, *message[1:]])
    reader = codec_class("server", ROOMY)
    again = read(reader, "server", [data])
    compare_again(data, again, read_by_h11("server", "", data), [sent, *message[1:]])


def check_answer_again(asked: str, message: list[Part], codec_class: type[Http1Codec]) -> None:
    """What we would send on to a client is the answer that we read."""
    writer = codec_class("server", ROOMY)
    writer.feed(f"{asked} {'*' if asked == 'OPTIONS' else '/'} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert not isinstance(writer.next_part(), NeedData | Paused)
    data = written(writer, message)
    reader = codec_class("client", ROOMY)
    asking(reader, asked)
    again = read(reader, "client", [data])
    compare_again(data, again, read_by_h11("client", asked, data), message)


def compare_again(data: bytes, again: Reading, theirs: Reading, message: list[Part]) -> None:
    """What was written has been read as what it was, by us and by h11."""
    assert not again.fault, f"we wrote {data!r} and refuse it: {again.fault}"
    assert unframed(again.events) == unframed(events_of(message)), f"written as {data!r}, read as {again.events!r}"
    assert again.events == theirs.events, f"we wrote {data!r}, and h11 reads {shown(theirs)}"


def written(writer: Codec, message: list[Part]) -> bytes:
    """The bytes of a message; its head is looked at."""
    out = b""
    for part in message:
        data = joined(writer.write(1, part))
        if isinstance(part, Request | Response | Interim):
            check_written_head(data.partition(b"\r\n\r\n")[0])
        out += data
    return out


def joined(data: Bytes) -> bytes:
    """One piece of what may be several."""
    return data if isinstance(data, bytes) else b"".join(data)


def check_written_head(head: bytes) -> None:
    """Every line is clean, and one at most frames the message."""
    framing = 0
    for line in head.split(b"\r\n"):
        assert VALUE.fullmatch(line), line
        framing += line.lower().startswith(tuple(name + b":" for name in FRAMING))
    assert framing <= 1, f"framed twice: {head!r}"


def events_of(message: list[Part]) -> list[Event]:
    """A message as `read` would tell it."""
    return read(_Played(message), "client", []).events


class _Played(Http1Codec):
    """A codec that reads what it was given to read."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[Part]) -> None:
        super().__init__("client", Limits())
        self._parts = list(parts)

    def next_part(self) -> tuple[int, Part] | Paused:
        """The next of them."""
        return (1, self._parts.pop(0)) if self._parts else Paused()


def unframed(events: list[Event]) -> list[Event]:
    """Without the framing that was among the fields, the version, which is ours, and what became of the connection. A
    phrase that was missing may have been filled in."""
    out: list[Event] = []
    for event in events:
        if event[0] == "request":
            out.append((*event[:3], *event[4:6], _without_framing(event[6])))
        elif event[0] == "answer":
            out.append((*event[:2], event[4], _without_framing(event[5])))
        elif event[0] == "interim":
            out.append((*event[:2], event[3]))
        elif event[0] != "end":
            out.append(event)
    return out


def _without_framing(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in fields if pair[0] not in FRAMING and pair != (b"connection", b"close")]
