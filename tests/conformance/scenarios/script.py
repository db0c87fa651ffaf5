"""What scripts are written with: requests and answers as bytes, and the list of a file's scenarios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from coulee.core import Config, Filter, Limits, Retry, Timeouts
from tests.conformance.stage import END, PLAIN, Player, Scenario, Stage

Script: TypeAlias = Callable[[Stage], None]

LAST_CHUNK: Final = b"0\r\n\r\n"
ERROR_END: Final = b"}\n"
"""How an answer that coulee gives itself ends."""


class Set(list[Scenario]):
    """The scenarios of one file."""

    def play(
        self,
        *records: str,
        filters: Sequence[Callable[[], Filter]] = (),
        config: Config = PLAIN,
        origins: tuple[str, ...] = ("tcp",),
        listens: str = "tcp",
    ) -> Callable[[Script], Script]:
        """Add the decorated script. It is called as its function is; see `Scenario` for the rest."""

        def add(script: Script) -> Script:
            name = script.__name__.replace("_", " ")
            self.append(Scenario(name, script, records, filters, config, origins, listens))
            return script

        return add


def setting(
    limits: Limits | None = None, timeouts: Timeouts | None = None, retry: Retry | None = None, **others: object
) -> Config:
    """The usual configuration, but for this."""
    known = {"limits": limits or PLAIN.limits, "timeouts": timeouts or PLAIN.timeouts, "retry": retry or PLAIN.retry}
    return replace(PLAIN, **known, **others)  # type: ignore[arg-type]


def ask(line: str = "GET /", *fields: str, body: bytes | None = None, version: str = "1.1") -> bytes:
    """A request to a.test. A body that is given has a Content-Length."""
    framed = [] if body is None else [f"Content-Length: {len(body)}"]
    head = [f"{line} HTTP/{version}", "Host: a.test", *fields, *framed]
    return "\r\n".join(head).encode() + END + (body or b"")


def answer(status: str = "200 OK", *fields: str, body: bytes | None = None, version: str = "1.1") -> bytes:
    """An answer. A body that is given has a Content-Length."""
    framed = [] if body is None else [f"Content-Length: {len(body)}"]
    head = [f"HTTP/{version} {status}", *fields, *framed]
    return "\r\n".join(head).encode() + END + (body or b"")


def chunk(data: bytes) -> bytes:
    """A chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def pattern(name: str, size: int) -> bytes:
    """A body that tells whose it is at every byte."""
    return (f"{name}." * (size // (len(name) + 1) + 1)).encode()[:size]


def serve(stage: Stage, client: Player, body: bytes, origin: Player | None = None) -> Player:
    """An origin hears the client's request, and answers it with this body, which the client hears."""
    if origin is None:
        origin = stage.origin()
    origin.hears(END)
    origin.says(answer(body=body))
    client.hears(body)
    return origin
