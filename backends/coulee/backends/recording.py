"""The file of a recording: all that a machine was told, turn by turn, and a checksum of all that it asked for.

Layout: a line of JSON, which says what was recorded (`Header`), and then frames. A frame is a completion (its code, the
time, its number, the length of its content, the content), the number of operations that the machine answered with, and
for each of these its code, its number and a checksum of its content. The last frame says why there are no more.

Rules:

- What is written is enough to run a fresh machine of the same definition through the same turns, and to see where it
  does otherwise. Operations are not kept, for a replay makes them anew.
- A file may end anywhere, for a process may: reading gives every whole frame, and then says that it broke off.
- Times are those of the machine's clock, as it was told them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from itertools import count
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, Final, cast
from zlib import crc32

from coulee.backends import plain
from coulee.backends.recorded_listeners import from_plain, to_plain
from coulee.backends.trace import CODES, content_of, number_of
from coulee.core.seam import (
    Accepted,
    Blocked,
    Closed,
    Completion,
    Connected,
    Drain,
    Finished,
    ListenAt,
    Listening,
    Operation,
    PeerCertificate,
    Received,
    Report,
    Secured,
    Security,
    Send,
    Sent,
)

FORMAT: Final = 2  # the first had addresses only, and is read too
_MARK: Final = "coulee recording"
_head: Final = Struct("<BdQI")  # code, time, number, length of the content
_count: Final = Struct("<I")
_operation: Final = Struct("<BQI")  # code, number, checksum
_HEADER_BYTES_MAX: Final = 16 << 20
_PACKED: Final = 253  # a Received whose content is compressed
_PACKED_FROM_BYTES: Final = 256
_LARGE_BYTES: Final = 1 << 20
_READ_BYTES_MAX: Final = 64 << 20
_NO_COMPLETION: Final = 254  # a turn because time has passed
_LAST: Final = 255
_RAISED: Final = 0xFFFFFFFF  # in the place of the number of operations
_KINDS: Final = {code: kind for kind, code in CODES.items()}

Said = tuple[type, int, int]
"""An operation as it is kept: what it is, its number, and the checksum of its content."""

Redact = Callable[[Send], Send]
"""What hides from a Send, before its checksum is made, what a recording is to hide."""


class RecordingError(ValueError):
    """A file that is no recording, or one that cannot be read: what is wrong, in one line."""


@dataclass(slots=True)
class Header:
    """What was recorded.

    `seed` is that of the machine's randomness, `wall_clock_offset_s` and `listen` are what else `Machine.fresh` was
    given. `redacted` names what was made unreadable; `about` is for who records: program, backend, configuration.
    `defined` are the listeners that the definition has itself.
    """

    seed: int
    wall_clock_offset_s: float
    listen: list[ListenAt]
    redacted: list[str] = field(default_factory=list[str])
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    defined: list[ListenAt] = field(default_factory=list[ListenAt])

    def to_line(self) -> bytes:
        """The first line of the file."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["listen"] = [to_plain(where) for where in self.listen]
        values["defined"] = [to_plain(where) for where in self.defined]
        return json.dumps({_MARK: FORMAT, **values}, default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Header:
        """Raises `RecordingError`."""
        try:
            values = json.loads(line)
            found = values.pop(_MARK)
            if found not in (1, FORMAT):
                raise RecordingError(f"its format is {found}, and this version of coulee reads {FORMAT}")
            header = cls(**values)
            header.listen = [from_plain(where) for where in values["listen"]]
            header.defined = [from_plain(where) for where in values.get("defined", ())]
        except RecordingError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise RecordingError("this is no recording of coulee's") from None
        return header


# ----------------------------------------------------------------------------------------------------- writing


def completion_bytes(completion: Completion | None, now: float, *, redacted: bool = False) -> bytes:
    """The first half of a frame. What was `redacted` is mostly one letter, and takes next to no room."""
    if redacted and type(completion) is Received and len(completion.data) >= _PACKED_FROM_BYTES:
        content = zlib.compress(completion.data, 1)
        return _head.pack(_PACKED, now, completion.conn, len(content)) + content
    if type(completion) is Received:  # so it nearly always is
        return _head.pack(CODES[Received], now, completion.conn, len(completion.data)) + completion.data
    if completion is None:
        return _head.pack(_NO_COMPLETION, now, 0, 0)
    content = _CONTENTS[type(completion)](completion)
    return _head.pack(CODES[type(completion)], now, number_of(completion), len(content)) + content


def operations_bytes(operations: Sequence[Operation], redact: Redact | None = None) -> bytes:
    """The second half of a frame."""
    pack = _operation.pack
    pieces = [_count.pack(len(operations))]
    pieces += [pack(CODES[kind], number, checksum) for kind, number, checksum in told(operations, redact)]
    return b"".join(pieces)


def told(operations: Sequence[Operation], redact: Redact | None = None) -> Iterator[Said]:
    """Operations as they are kept."""
    for operation in operations:
        kind = type(operation)
        if kind is Report:
            content = _report_bytes(operation, redact is not None)
        elif kind is Send and redact is not None:
            content = content_of(redact(cast("Send", operation)))
        else:
            content = content_of(operation)
        yield kind, number_of(operation), crc32(content) if content else 0


def raised_bytes() -> bytes:
    """The second half of a frame whose turn came to no end."""
    return _count.pack(_RAISED)


def last_bytes(why: str) -> bytes:
    """The last frame."""
    content = why.encode()
    return _head.pack(_LAST, 0.0, 0, len(content)) + content


def _report_bytes(operation: Any, redacted: bool) -> bytes:
    """A report, but for what another process would say in another way; and where the recording hides something, which
    a report may tell, only what it is."""
    return content_of(operation) if redacted else _compared(operation.record)


def _compared(value: object) -> bytes:
    """An object's class and, of a dataclass, its fields. Tracebacks tell paths, which are not those of a replay."""
    kind: Any = type(value)
    name, names = _shape_of(kind)
    leaves: list[Any] = []
    pieces = [name]
    for each in names:
        content: Any = getattr(value, each)
        if content.__class__ in _LEAVES:
            leaves.append(content)  # nearly all are, and are told at once
        else:
            pieces.append(plain.encode(_untraced(content) if isinstance(content, dict) else content, _compared))
    return b"".join([*pieces, ascii(leaves).encode()])


def _untraced(content: Any) -> Any:
    return {key: item for key, item in content.items() if key != "traceback"}


_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})


@cache
def _shape_of(kind: Any) -> tuple[bytes, tuple[str, ...]]:
    """The name of a class, and those of its fields."""
    return kind.__qualname__.encode(), tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


_CONTENTS: Final[dict[type, Callable[[Any], bytes]]] = {
    Listening: lambda item: plain.encode(item.local),
    Accepted: lambda item: plain.encode((item.peer, item.local)),
    Connected: lambda item: plain.encode((item.peer, item.local)),
    Blocked: lambda _: b"",
    Sent: lambda _: b"",
    Closed: lambda item: plain.encode((item.error, item.detail)),
    Finished: lambda item: plain.encode((item.value, item.error)),
    Drain: lambda item: plain.encode(item.grace_s),
    Secured: lambda item: plain.encode(_told_of(item.security)),
}


def _told_of(security: Security) -> tuple[Any, ...]:
    """What a handshake came to, as plain values."""
    certificate = security.certificate
    return (*_values(security)[:-1], None if certificate is None else _values(certificate))


def _values(item: Any) -> tuple[Any, ...]:
    return tuple(getattr(item, each.name) for each in fields(item))


# ----------------------------------------------------------------------------------------------------- reading


@dataclass(slots=True)
class Turn:
    """One turn of the machine: what it was told and when, and what it asked for; None where it raised."""

    completion: Completion | None
    now: float
    said: list[Said] | None


class Recording:
    """A recording to be read. Iterate over it for its turns, as often as you like; `end` then says why they ended.

    `trusted`: unpickle what jobs have returned, which may run any code. Raises `RecordingError`, and OSError.
    """

    def __init__(self, path: str | Path, *, trusted: bool = False) -> None:
        self.path = Path(path)
        self.end = ""
        self._trusted = trusted
        with self.path.open("rb") as file:
            try:
                self.header = Header.from_line(file.readline(_HEADER_BYTES_MAX))
            except RecordingError as error:
                raise RecordingError(f"{path}: {error}") from None
            self._begins = file.tell()

    def __iter__(self) -> Iterator[Turn]:
        """Raises `RecordingError` where a frame makes no sense, or holds what must not be read."""
        with self.path.open("rb") as file:
            file.seek(self._begins)
            for number in count():
                try:
                    turn = self._turn(file)
                except EOFError:
                    self.end = "the file breaks off: its process was ended, or is still at it"
                    return
                except plain.Untrusted as error:
                    raise RecordingError(f"turn {number}: a job has returned {error} (--trust)") from None
                except (ValueError, KeyError, TypeError, zlib.error) as error:
                    raise RecordingError(f"turn {number} is damaged: {error}") from None
                if turn is None:
                    return
                yield turn

    def _turn(self, file: BinaryIO) -> Turn | None:
        code, now, number, length = _head.unpack(_exactly(file, _head.size))
        content = _exactly(file, length)
        if code == _LAST:
            if not content:
                raise ValueError("an end without a word")
            self.end = content.decode()
            return None
        completion = None if code == _NO_COMPLETION else self._completion(code, number, content)
        (operations,) = _count.unpack(_exactly(file, _count.size))
        if operations == _RAISED:
            return Turn(completion, now, None)
        data = _exactly(file, operations * _operation.size)
        return Turn(
            completion, now, [(_KINDS[code], number, sum_) for code, number, sum_ in _operation.iter_unpack(data)]
        )

    def _completion(self, code: int, number: int, content: bytes) -> Completion:
        if code == _PACKED:
            return Received(number, _unpacked(content))
        kind: Any = _KINDS[code]
        if kind is Received:
            return Received(number, content)
        if kind is Blocked or kind is Sent:
            return cast("Completion", kind(number))
        values = plain.decode(content, trusted=self._trusted)
        if kind is Listening:
            return Listening(number, values)
        if kind is Drain:
            return Drain(values)
        if kind is Secured:
            version, cipher, alpn, resumed, shown = values
            certificate = None if shown is None else PeerCertificate(*shown)
            return Secured(number, Security(version, cipher, alpn, resumed, certificate))
        if kind not in (Accepted, Connected, Closed, Finished):
            raise ValueError(f"{kind.__name__} is no completion")
        return cast("Completion", kind(number, *values))


def _unpacked(content: bytes) -> bytes:
    """What was compressed; no file makes more of it than a backend could have read."""
    opened = zlib.decompressobj()
    data = opened.decompress(content, _READ_BYTES_MAX)
    if not opened.eof:
        raise ValueError("a read that is larger than any")
    return data


def _exactly(file: BinaryIO, length: int) -> bytes:
    if length > _LARGE_BYTES and length > os.fstat(file.fileno()).st_size - file.tell():
        raise EOFError  # before room is made for what a damaged length promises
    data = file.read(length) if length else b""
    if len(data) < length:
        raise EOFError
    return data
