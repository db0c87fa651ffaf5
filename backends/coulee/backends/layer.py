"""What may lie between a wire and its bytes: TLS, or what stands for it in the simulator.

A layer has no socket. It is given what has come and says what is in it; it is given what is to be sent and makes of it
what goes out; and it has words of its own to say. Two of them, one within the other, are one.
"""

from __future__ import annotations

from typing import Final, Protocol

from coulee.core.seam import Bytes, ErrorKind, Security

OWN_BYTES_MAX: Final = 64 * 1024
"""What TLS may have to say by itself while the peer takes nothing, before the connection is given up: the answer to a
flood of key updates."""


TRUNCATED: Final = "the connection ended without a close_notify of TLS: something may be missing"


class LayerError(OSError):
    """The peer does not keep the rules, or is not who it should be."""

    def __init__(self, kind: ErrorKind, detail: str, plain: bytes = b"") -> None:
        super().__init__(detail)
        self.kind: ErrorKind = kind
        self.detail = detail
        self.plain = plain  # what had come in order, in the same bytes


class Layer(Protocol):
    """From its handshake to its end. Whoever uses it takes `to_send` after each call of `receive`, also where that has
    raised: an alert may be in it."""

    @property
    def security(self) -> Security | None:
        """What the handshake came to; None until it is done."""
        ...

    @property
    def ended(self) -> bool:
        """The peer has said that it sends no more."""
        ...

    to_send: bytes
    """Words of its own, not sent yet."""

    def receive(self, data: bytes) -> bytes:
        """What is in the bytes that have come. With b"" it begins, where it is to speak first. Raises `LayerError`."""
        ...

    def encrypt(self, data: Bytes) -> bytes:
        """What to send for `data`."""
        ...

    def farewell(self) -> bytes:
        """What to send in the end; nothing may be encrypted behind it. b"" where there is nobody to say it to."""
        ...


class Nested:
    """A layer within another, as one."""

    __slots__ = ("_inner", "_outer", "to_send")

    def __init__(self, outer: Layer, inner: Layer) -> None:
        self._outer = outer
        self._inner = inner
        self.to_send = b""

    @property
    def security(self) -> Security | None:
        """Of the inner one."""
        return self._inner.security

    @property
    def ended(self) -> bool:
        """Of the inner one."""
        return self._inner.ended

    def begin(self, early: bytes) -> bytes:
        """`receive` of what the outer one has opened before there was an inner one."""
        try:
            return self._inner.receive(early)
        finally:
            self._gather()

    def receive(self, data: bytes) -> bytes:
        """See `Layer`."""
        try:
            try:
                opened = self._outer.receive(data)
            except LayerError as error:
                error.plain = self._inner.receive(error.plain) if error.plain else b""
                raise
            plain = self._inner.receive(opened) if opened else b""
        finally:
            self._gather()
        if self._outer.ended and not self._inner.ended:
            raise LayerError("truncated", TRUNCATED, plain)
        return plain

    def _gather(self) -> None:
        """What both have to say, the outer one first: it may be that it has no more to say then."""
        outer, inner = self._outer, self._inner
        self.to_send += outer.to_send
        outer.to_send = b""
        if inner.to_send:
            self.to_send += outer.encrypt(inner.to_send)
            inner.to_send = b""

    def encrypt(self, data: Bytes) -> bytes:
        """See `Layer`."""
        return self._outer.encrypt(self._inner.encrypt(data))

    def farewell(self) -> bytes:
        """See `Layer`."""
        last = self._inner.farewell()
        return (self._outer.encrypt(last) if last else b"") + self._outer.farewell()
