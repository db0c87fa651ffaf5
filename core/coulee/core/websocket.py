"""WebSocket as filters see it (RFC 6455): messages, and the end.

def websocket_message(self, exchange, message): ...
def websocket_close(self, exchange, closing): ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Sender: TypeAlias = Literal["downstream", "upstream", "coulee"]

NO_CODE: Final = 1005
"""What stands for a close frame without a code (section 7.4.1)."""

NO_CLOSE: Final = 1006
"""What stands for an end without a close frame."""


@dataclass(slots=True)
class Message:
    """One whole message: text as `str`, binary as `bytes`. `sender` is the side that it came from."""

    data: str | bytes
    sender: Sender = "coulee"

    @property
    def size(self) -> int:
        """How many bytes it has, of text those of UTF-8."""
        data = self.data
        return len(data.encode()) if isinstance(data, str) else len(data)

    def reply(self, data: str | bytes) -> Reply:
        """What goes back to who sent this one, for a filter to return."""
        return Reply(data)


@dataclass(slots=True)
class Reply:
    """A message for who sent the one that a filter was called with."""

    data: str | bytes


@dataclass(slots=True)
class Closing:
    """The end of a WebSocket: the close frame that came or goes out. `code` may be 1005, where a close frame has none,
    and 1006, where there was no close frame at all; `sender` is who began it."""

    code: int = 1000
    reason: str = ""
    sender: Sender = "coulee"


Outcome: TypeAlias = str | bytes | Reply | Closing | list[str | bytes | Reply | Closing]
"""What a filter may make of a message."""
