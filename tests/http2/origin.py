"""An origin of HTTP/1.1 without a socket, which answers by the path that is asked for; h11 reads what it is sent.

`/held` is not answered before it is told to; `/large` has LARGE bytes, and `/echo` what was sent; all else has "hi".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import h11

LARGE = 200_000


@dataclass
class Asked:
    """A request that has come, or what is there of it."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = field(default=b"", repr=False)
    whole: bool = False
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for each, value in self.fields if each.lower() == name]


@dataclass
class Origin:
    """One connection to it."""

    asked: list[Asked]  # of all connections
    h11: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER))
    now: Asked = field(default_factory=lambda: Asked("", "", []))
    held: bool = False

    def feed(self, raw: bytes) -> bytes:
        """Bytes come; what is answered to them."""
        self.h11.receive_data(raw)
        out = b""
        while True:
            event = self.h11.next_event()
            if isinstance(event, h11.Request):
                self.now = Asked(event.method.decode(), event.target.decode(), _text(event.headers))
                self.asked.append(self.now)
            elif isinstance(event, h11.Data):
                self.now.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.now.whole = True
                self.now.trailers = _text(event.headers)
                self.held = self.now.target == "/held"
                out += b"" if self.held else self._answer()
            else:
                return out

    def go(self) -> bytes:
        """Answer what was held."""
        if not self.held:
            return b""
        self.held = False
        return self._answer()

    def _answer(self) -> bytes:
        asked = self.now
        body = {"/large": bytes(range(250)) * (LARGE // 250), "/echo": asked.body}.get(asked.target, b"hi")
        out = self.h11.send(h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))]))
        if asked.method != "HEAD":
            out = (out or b"") + (self.h11.send(h11.Data(data=body)) or b"")
        out = (out or b"") + (self.h11.send(h11.EndOfMessage()) or b"")
        if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
        return out


def _text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
