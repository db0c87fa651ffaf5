"""What the driver says when a law of the seam is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coulee.backends.driver import Wire


def complain_of_send(wire: Wire) -> None:
    """Say which law a Send breaks."""
    assert wire.is_open, f"machine, law 1: Send on {wire.conn} before it is open"
    assert not wire.closing, f"machine, law 2: Send on {wire.conn} after Close"
    assert not wire.securing, f"machine, law 1: Send on {wire.conn} before its TLS stands"
    assert not wire.blocked, f"machine, law 4: Send on {wire.conn} while it is blocked"
    assert not wire.half_closed, f"machine, law 4: Send on {wire.conn} behind its end of stream"
    raise AssertionError(f"machine, law 4: a second Send on {wire.conn} in one turn")
