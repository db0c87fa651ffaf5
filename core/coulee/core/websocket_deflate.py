"""permessage-deflate (RFC 7692): what is agreed with each side. Nothing is, yet: what a client offers is declined."""

from __future__ import annotations

from wsproto.extensions import PerMessageDeflate

from coulee.core.codec import ProtocolError
from coulee.core.config import WebSocket


class Deflate(PerMessageDeflate):
    """What was agreed with one side."""


def offered(settings: WebSocket) -> str:
    """What is offered to an origin."""
    return ""


def agree_upstream(settings: WebSocket, value: str | None) -> Deflate | None:
    """What an origin has agreed to. Raises `ProtocolError`."""
    if value is not None:
        raise ProtocolError("the origin agreed to an extension that was not offered (RFC 6455 section 9.1)")
    return None


def agree_downstream(settings: WebSocket, value: str | None) -> tuple[Deflate | None, str]:
    """What we agree to of a client's offers, and how that is said."""
    return None, ""
