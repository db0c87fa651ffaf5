"""What crosses the seam, as lines for people and as bytes for checksums: the simulator's trace, and that of a replay.

Rules:

- A line tells what an operation or completion says of its number, bodies cut short. The bytes cover all of it.
- No `repr` of anybody's object, which may tell addresses: the same run gives the same lines in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from coulee.core.seam import (
    CONNECT_OPTIONS,
    LISTEN_OPTIONS,
    Accept,
    Accepted,
    Blocked,
    Cancel,
    Close,
    Closed,
    Completion,
    Connect,
    Connected,
    DownstreamTls,
    Drain,
    Finished,
    Hold,
    Listen,
    Listening,
    Operation,
    Receive,
    Received,
    Report,
    Run,
    Secure,
    Secured,
    Security,
    Send,
    Sent,
    UpstreamTls,
)

OPERATIONS: Final = (Listen, Accept, Connect, Receive, Hold, Send, Close, Run, Cancel, Report, Secure)
COMPLETIONS: Final = (Listening, Accepted, Connected, Received, Blocked, Sent, Closed, Finished, Drain, Secured)
CODES: Final[dict[type, int]] = {kind: code for code, kind in enumerate((*OPERATIONS, *COMPLETIONS))}

_NUMBERS: dict[type, Callable[[Any], int]] = {
    **dict.fromkeys(CODES, attrgetter("conn")),
    **dict.fromkeys((Listen, Listening), attrgetter("listener")),
    **dict.fromkeys((Run, Cancel, Finished), attrgetter("job")),
    **dict.fromkeys((Report, Drain), lambda _: 0),
}
_SAYING_NOTHING = frozenset({Receive, Hold, Blocked, Sent, Cancel})


def number_of(item: Operation | Completion) -> int:
    """The number an operation or completion is about; 0 for none."""
    return _NUMBERS[type(item)](item)


def content_of(item: Operation | Completion) -> bytes:
    """What the trace hash covers beside kind, number and time. No `repr`, which may tell addresses of objects."""
    if isinstance(item, Received):
        return b"%d " % len(item.data) + item.data
    if isinstance(item, Send):
        data = item.data if isinstance(item.data, bytes) else b"".join(item.data)
        return b"%d %d " % (len(data), item.eof) + data
    return b"" if type(item) in _SAYING_NOTHING else said(item).encode("utf-8", "surrogatepass")


def said(item: Operation | Completion, *, whole: bool = False) -> str:
    """What it says beside its number; of a body the beginning, or the `whole`."""
    if isinstance(item, Secure):
        return f"{_wanted(item.tls)} {shown(item.early, whole)}"
    if isinstance(item, Secured):
        return _came_to(item.security)
    match item:
        case Listen() | Connect():
            return _with_options(item)
        case Accept():
            return f"at {item.listener}"
        case Close():
            return "abort" if item.abort else ""
        case Run():
            return item.mode
        case Report():
            return type(item.record).__name__
        case Listening():
            return str(item.local)
        case Accepted() | Connected():
            return f"{item.peer} {item.local}"
        case Closed():
            return f"{item.error} {item.detail}" if item.error else ""
        case Finished():
            return type(item.error).__name__ if item.error is not None else ""
        case Drain():
            return f"{item.grace_s!r} s"
        case Send():
            data = item.data if isinstance(item.data, bytes) else b"".join(item.data)
            return shown(data, whole) + (" and the end" if item.eof else "")
        case Received():
            return shown(item.data, whole)
        case _:
            return ""


def _with_options(item: Listen | Connect) -> str:
    usual = item.options in (LISTEN_OPTIONS, CONNECT_OPTIONS)
    return str(item.address) if usual else f"{item.address} {item.options}"


def _wanted(tls: DownstreamTls | UpstreamTls) -> str:
    """What is asked of a handshake; of certificates whose they are, for which of them there is no key in a replay."""
    if isinstance(tls, DownstreamTls):
        return f"with {', '.join(certificate.fingerprint[:16] for certificate in tls.certificates)}"
    whom = f"{tls.verified_name or 'somebody'}" if tls.verify else "anybody"
    return f"for {tls.server_name or 'no name'}, to be {whom}"


def _came_to(security: Security) -> str:
    certificate = security.certificate
    who = f" {certificate.subject} {certificate.fingerprint[:16]}" if certificate is not None else ""
    return f"{security.version} {security.cipher} {security.alpn}{' resumed' if security.resumed else ''}{who}"


def shown(data: bytes, whole: bool) -> str:
    if whole:
        return f"{len(data)} bytes {data!r}"
    return f"{len(data)} bytes {data[:32]!r}{'...' if len(data) > 32 else ''}"


def line(now: float, item: Operation | Completion, machine: int | None = None, *, whole: bool = False) -> str:
    """A line of the trace: `<` for what the world says to the machine, `>` for what the machine asks."""
    way = "<" if isinstance(item, COMPLETIONS) else ">"
    whose = "" if machine is None else f"{machine} "
    return f"{now:.6f} {whose}{way} {type(item).__name__} {number_of(item)} {said(item, whole=whole)}".rstrip()
