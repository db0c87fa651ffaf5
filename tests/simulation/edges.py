"""What is drawn of the edges of a seed: TLS and the PROXY protocol on both sides, and what goes wrong in them.

Each client has an address and a certificate of its own, so that it is seen where one is taken for another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import Any, Final, Literal

from coulee.backends.far_end import CLIENT_HOST, FarEnd
from coulee.backends.http2_peers import H2Client, H2Origin
from coulee.backends.simulator import WALL_CLOCK_OFFSET_S, Simulator
from coulee.core import Access, Event, Listener, ListenerTls, ProxyProtocol, Transport, UpstreamTls
from coulee.core.proxy_protocol import Header, HeaderError, read_header, to_bytes
from coulee.core.seam import Address, ListenAt
from coulee.core.tls import Certificate, ClientCertificates, DownstreamTls
from coulee.core.transport import DIRECT

AUTHORITY: Final = b"-----BEGIN CERTIFICATE-----\nthe one\n-----END CERTIFICATE-----\n"
ANOTHER: Final = b"-----BEGIN CERTIFICATE-----\nanother\n-----END CERTIFICATE-----\n"
BALANCER: Final = "10.0.0.7"
SPOOFER: Final = "10.0.0.66"
ORIGIN: Final = "origin.test"

WRONG: Final = ("wrong name", "expired", "unknown authority")
"""What may be wrong with an origin's certificate."""


def certificate(*names: str, chain: bytes = AUTHORITY, expired: bool = False) -> Certificate:
    end = WALL_CLOCK_OFFSET_S - 1 if expired else WALL_CLOCK_OFFSET_S + 1e6
    return Certificate(chain, b"key", names, "ecdsa", 0.0, end, f"{names[0]} {expired}", f"{names[0]}.pem")


class Source:
    """Certificates that stay."""

    name = "drawn"
    interval_s = inf
    stamp = None

    def __init__(self, *certificates: Certificate) -> None:
        self.certificates: Sequence[Certificate] = certificates

    def look(self, stamp: object) -> None:
        """There is nothing new."""


@dataclass(slots=True)
class Who:
    """What the proxy has to know of a client."""

    address: Address
    has_tls: bool = False
    asks_for: str = ""
    subject: str = ""
    is_liar: bool = False
    """It does not say for whom it comes, or may not say it."""


class Edges:
    """Of one seed. `hostile` ones have what goes wrong, and others none of it."""

    def __init__(self, seed: int, simulator: Simulator, *, hostile: bool) -> None:
        self.rng = rng = Random(f"{seed} edges")
        self.simulator = simulator
        self.hostile = hostile
        self.counts: Counter[str] = Counter()
        self.clients: dict[FarEnd, Who] = {}
        self.told: dict[FarEnd, Address | None] = {}  # origins, and who the header said that the client is
        self.has_tls = rng.random() < 0.35
        self.asks_for = rng.choice((None, None, "optional", "required")) if self.has_tls else None
        self.is_proxied = rng.random() < 0.2
        self.origins_have_tls = rng.random() < 0.35
        self.announces: Literal[0, 1, 2] = rng.choice((0, 0, 0, 0, 1, 2))

    # -- the proxy's

    def listener(self, address: Address, alpn: tuple[str, ...]) -> ListenAt:
        """Where the proxy listens, and what it offers there."""
        if not (self.has_tls or self.is_proxied):
            return address
        tls = None
        if self.has_tls:
            asked = None
            if self.asks_for is not None:
                asked = ClientCertificates(AUTHORITY, required=self.asks_for == "required")
            mine = Source(certificate("example.com"), certificate("*.b.test"))
            tls = ListenerTls(mine, client_certificates=asked, alpn=alpn)
        return Listener(address, tls, ProxyProtocol((BALANCER,)) if self.is_proxied else None)

    def transport(self, *, http2: bool) -> Transport:
        """How it reaches its origins, which may speak `http2`."""
        tls = None
        if self.origins_have_tls:
            tls = UpstreamTls(ORIGIN, ORIGIN, ca=AUTHORITY, alpn=("h2", "http/1.1") if http2 else ("http/1.1",))
        if not (tls or self.announces or http2):
            return DIRECT
        return Transport(tls=tls, proxy_protocol=self.announces, prior_knowledge=http2 and tls is None)

    # -- the others'

    def client(self, far: FarEnd) -> Address:
        """Dress a client; where it comes from."""
        rng = self.rng
        who = self.clients[far] = Who((CLIENT_HOST, self.simulator.free_port()))
        if self.has_tls and not self._happens(0.05, "plain http"):
            name = "x.b.test" if self._happens(0.1, "asks for another") else "example.com"
            mine = certificate(f"client{len(self.clients)}.test")
            shown = mine if self.asks_for and not self._happens(0.1, "shows nothing") else None
            alpn = ("h2", "http/1.1") if isinstance(far, H2Client) else ("http/1.1",)
            if self._happens(0.05, "another protocol"):
                alpn = ("spdy/3",)
            who.has_tls, who.asks_for = True, name
            who.subject = f"CN={shown.names[0]}" if shown is not None else ""
            far.layer = self.simulator.layer(UpstreamTls(name, name, verify=False, certificate=shown, alpn=alpn))
            if self._happens(0.3, "a client's fault"):
                far.layer_fault = rng.choice(
                    ("stall_1", "stall_2", "alert_1", "alert_2", "truncate", "update", "flood")
                )
        if not self.is_proxied:
            return who.address
        version: Literal[1, 2] = rng.choice((1, 2))
        who.is_liar = self._happens(0.1, "no header")
        if not who.is_liar:
            far.prelude = to_bytes(Header(who.address, ("10.0.0.1", 80), version))
        spoofed = self._happens(0.1, "spoofed")
        who.is_liar = who.is_liar or spoofed
        return SPOOFER if spoofed else BALANCER, self.simulator.free_port()

    def stranger(self, far: FarEnd) -> tuple[Address, bool]:
        """Dress somebody who has no request; where it comes from, and whether it says anything at all."""
        source = (CLIENT_HOST, self.simulator.free_port())
        if self.is_proxied and self._happens(0.8, "a stranger by the balancer"):
            header = to_bytes(Header(source, ("10.0.0.1", 80), 2))
            half = self._happens(0.5, "half a header")
            far.prelude = header[: len(header) // 2] if half else header
            source = (BALANCER, self.simulator.free_port())
            if half:
                return source, False
        if self.has_tls and self._happens(0.7, "a stranger by TLS"):
            far.layer = self.simulator.layer(UpstreamTls("", "", verify=False))
        return source, True

    def origin(self, far: FarEnd) -> None:
        """Dress an origin."""
        if self.announces:
            far.skip = partial(self._header, far)
        if self.origins_have_tls:
            wrong = self.rng.choice(WRONG) if self._happens(0.15, "a bad certificate") else ""
            shown = certificate(
                "elsewhere.test" if wrong == "wrong name" else ORIGIN,
                chain=ANOTHER if wrong == "unknown authority" else AUTHORITY,
                expired=wrong == "expired",
            )
            alpn = ("h2", "http/1.1") if isinstance(far, H2Origin) else ("http/1.1",)
            far.layer = self.simulator.layer(DownstreamTls((shown,), ListenerTls(Source(shown), alpn=alpn)))
            if self._happens(0.2, "an origin's fault"):
                far.layer_fault = self.rng.choice(("stall_1", "alert_1", "truncate", "truncate", "update"))

    def _header(self, far: FarEnd, data: bytes) -> int | None:
        try:
            found = read_header(data)
        except HeaderError as error:
            raise AssertionError(f"the proxy's own header: {error}") from error
        if found is None:
            return None
        header, length = found
        self.told[far] = header.source
        if header.source is not None:  # else it is a check, which speaks for nobody
            assert header.source[0] == CLIENT_HOST, "an origin is told who the client is, and not the balancer"
        self.counts["edge:told"] += 1
        return length

    def _happens(self, share: float, name: str) -> bool:
        """Whether something goes wrong."""
        happens = self.rng.random() < share and self.hostile
        self.counts[f"edge:{name}"] += happens
        return happens

    # -- judging

    def judge(self, client: FarEnd, record: Access) -> None:
        """A record of this client's is of no other."""
        who, security = self.clients[client], record.security
        assert not who.is_liar, "who is not believed asks nothing"
        assert record.client == who.address, "it is known by its own address"
        assert (security is not None) == who.has_tls
        assert record.server_name == who.asks_for
        shown = security.certificate if security is not None else None
        assert (shown.subject if shown is not None else "") == who.subject, "and by its own certificate"
        self.counts["edge:known by a certificate"] += shown is not None
        self.counts["edge:resumed"] += security is not None and security.resumed

    def judge_origin(self, origin: FarEnd, client: FarEnd, scheme: str | None) -> None:
        """A request of this client's has come to this origin."""
        who = self.clients[client]
        assert scheme == ("https" if who.has_tls else "http")
        if self.announces:
            assert self.told[origin] == who.address, "a connection is for the client that its header tells of"

    def census(self, records: Sequence[Any]) -> Counter[str]:
        """What occurred."""
        counts = Counter(self.counts)
        for record in records:
            if isinstance(record, Event) and record.name == "turned_away":
                counts[f"turned away:{record.fields['reason']}"] += 1
        for kind in ("has_tls", "is_proxied", "origins_have_tls", "announces"):
            counts[f"edge:{kind}"] += bool(getattr(self, kind))
        return counts
