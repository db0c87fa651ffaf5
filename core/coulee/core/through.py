"""Reaching a peer through an HTTP proxy: how one is named, and the CONNECT that opens the way (RFC 9110 section 9.3.6).

Through(Peer(("proxy.internal", 3128)), user="coulee", password=secret)

Rules:

- The proxy is told where to go and, where it is given any, the credentials. They are in no text of ours: no error, no
  record, no representation.
- Only a 2xx opens the way, and framing in it means nothing. What else it says, it says of itself and not of the peer.
- Nobody speaks before we do: what comes right behind the answer belongs to no one, and ends the connection.
- Behind it the connection is as if it had just been opened: held, with nothing read, and with the codec that it had.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from coulee.core.codec import NEED_DATA, ProtocolError
from coulee.core.errors import ExchangeError
from coulee.core.headers import Headers
from coulee.core.http1 import Http1Codec
from coulee.core.parts import Data, Request, Response
from coulee.core.raw import RawCodec
from coulee.core.seam import Address, show_address
from coulee.core.sole_connection import SoleConnection
from coulee.core.stream import SoleStream, Stream

if TYPE_CHECKING:
    from coulee.core.peer import Peer

_OURS: Final = frozenset(
    {"host", "proxy-authorization", "content-length", "transfer-encoding", "connection", "upgrade", "expect"}
)
"""Fields of a CONNECT that nobody else sets."""

_UNREACHED: Final = {502: "upstream_unreachable", 503: "upstream_unreachable", 504: "upstream_connect_timeout"}
"""Statuses by which a proxy says that it could not reach the peer either."""


@dataclass(frozen=True, slots=True, eq=False)
class Through:
    """An HTTP proxy on the way to a peer. Two that would say the same to the same proxy are equal."""

    peer: Peer
    """The proxy: by TCP, by TLS where its transport has it, or at a Unix socket."""

    user: str = field(default="", repr=False)
    """... and who we are to it, where it asks (RFC 7617). Without a colon."""

    password: str = field(default="", repr=False)
    """..."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # which may hold credentials too
    """More fields for it, as `(("X-Team", "search"),)`."""

    _fields: Headers = field(init=False, repr=False)

    def __post_init__(self) -> None:
        transport = self.peer.transport
        if transport.through is not None or transport.proxy_protocol:
            raise ValueError("peer: the way to a proxy is no longer than TLS; leave out `through` and `proxy_protocol`")
        if transport.prior_knowledge or (transport.tls is not None and "h2" in transport.tls.alpn):
            raise ValueError("peer: a proxy is asked in HTTP/1.1; leave out `prior_knowledge`, and h2 in its `alpn`")
        if ":" in self.user:
            raise ValueError("user: there is a colon in it, which would be the end of it (RFC 7617 section 2)")
        if self.password and not self.user:
            raise ValueError("password: there is one without a user; give both, or none")
        if not (self.user + self.password).isprintable():
            raise ValueError("user, password: there is a control character in one of them (RFC 7617 section 2)")
        fields = Headers()
        for name, value in self.headers:
            if name.lower() in _OURS:
                raise ValueError(f"headers: {name} is not for you to say; leave it out")
            try:
                fields.add(name, value)
            except ValueError:
                raise ValueError(f"headers: {name!r}, or its value, is nothing that a field can be") from None
        if self.user:
            credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
            fields.add("Proxy-Authorization", f"Basic {credentials}")
        object.__setattr__(self, "_fields", fields)

    def request(self, target: Address) -> Request:
        """What is said to the proxy. Raises `ValueError` where it cannot go there."""
        authority = authority_for(target)
        headers = Headers([("Host", authority)])
        headers.block += self._fields.block
        return Request("CONNECT", authority, headers, authority=authority)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Through):
            return NotImplemented
        return self.peer.key == other.peer.key and self._fields.block == other._fields.block

    def __hash__(self) -> int:
        same = (self.peer.key, self._fields.block)
        return same.__hash__()


def authority_for(target: Address) -> str:
    """How a proxy is told where to go. Raises `ValueError` for a Unix socket, which is on no other machine."""
    if isinstance(target, str):
        raise ValueError(f"{target} is a Unix socket, and no proxy is on the way to one")  # noqa: TRY004
    return show_address(target)


async def open_tunnel(connection: SoleConnection, target: Address, through: Through, limit_s: float) -> None:
    """Have the proxy that a connection goes to connect it to `target`, within `limit_s`. The connection is new: open,
    held, and lent to nobody; and so it is afterwards. Raises `ExchangeError`."""
    assert connection.held, "a way through a proxy is opened before anything is read"
    assert connection.stream is None, "... and before anybody has the connection"
    codec, connection.codec = connection.codec, RawCodec()
    stream = SoleStream(connection, 0, limit_s)
    name = through.peer.name
    try:
        await _ask(stream, through.request(target), limit_s)
    except ProtocolError as error:
        raise ExchangeError(error.reason, f"the proxy {name}: {error.detail}", error.status) from None
    except ExchangeError as error:
        if error.reason == "upstream_timeout":
            late = f"the proxy {name} opened no way to the endpoint within {limit_s:g} s"
            raise ExchangeError("upstream_connect_timeout", late) from None
        raise ExchangeError(error.reason, f"the proxy {name}: {error.detail}") from None
    finally:
        connection.hold()
        connection.stream = None
        connection.unread = False
        connection.codec = codec


async def _ask(stream: Stream, request: Request, limit_s: float) -> None:
    """Ask, and read the answer."""
    connection = stream.connection
    kernel = connection.machine.kernel
    until = kernel.now + limit_s
    voice = Http1Codec("client", connection.limits)  # its bytes go by hand, for what is wrong with them is wrong here
    connection.push(voice.write(1, request))
    connection.receive()
    while True:
        pulled = voice.next_part()
        if isinstance(pulled, tuple):
            if isinstance(pulled[1], Response):
                _check(pulled[1], voice)
                return
            continue  # an interim answer: the codec counts them
        stream.patience_s = max(until - kernel.now, 0.0)
        part = await stream.receive()
        assert isinstance(part, Data)
        if part.data:
            voice.feed(part.data)
        if part.ended:
            voice.feed_eof()


def _check(response: Response, voice: Http1Codec) -> None:
    """Whether the way is open."""
    status = response.status
    if not 200 <= status <= 299:
        raise ExchangeError(_UNREACHED.get(status, "upstream_proxy_refused"), f"it answered {status} to CONNECT")
    if voice.next_part() is not NEED_DATA:
        raise ExchangeError("upstream_invalid", "bytes behind its answer, before anybody has asked for any")
