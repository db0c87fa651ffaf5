"""What is drawn of HTTP/2 in a seed: who speaks it, with which manners, and what goes wrong in it.

It is drawn by sources of its own, so that what a seed was without it, it still is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final

from h2.settings import SettingCodes

from coulee.backends.http2_peers import H2Client, H2Origin, Whim
from coulee.backends.http2_speech import (
    BROKEN,
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PREFACE,
    REFUSED_STREAM,
    Manners,
    frame,
)
from coulee.backends.peers import Ask, Asked, H11Client, H11Origin, Reply
from coulee.backends.simulator import WALL_CLOCK_OFFSET_S, Simulator
from coulee.core import Access, Event
from coulee.core.config import Http2

FLOOD: Final = "/flood"
"""What is asked for by who does not want it."""

GRPC: Final = [("Content-Type", "application/grpc"), ("TE", "trailers")]

_USUAL: Final = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/flood"), (b":authority", b"example.com")]
ODD_HEADS: Final = (
    _USUAL[:3],
    _USUAL[1:],
    [*_USUAL, (b"X-Upper", b"1")],
    [*_USUAL, (b"connection", b"close")],
    [*_USUAL, (b"te", b"gzip")],
    [*_USUAL, (b"transfer-encoding", b"chunked")],
    [*_USUAL, (b"x-a", b"a\r\nb: c")],
    [*_USUAL, (b"x-a", b"y" * 40_000)],
    [*_USUAL, (b":path", b"/")],
    [(b"x-a", b"1"), *_USUAL],
    [*_USUAL, (b"expect", b"miracles")],
    [*_USUAL, (b"host", b"b.test")],
    [*_USUAL, (b"content-length", b"7")],
    [(b":method", b"CONNECT"), (b":authority", b"a:1")],
    [(b":method", b"GET"), (b":scheme", b"ftp"), *_USUAL[2:]],
)
"""Requests that nobody may make (RFC 9113 section 8.2), or that are refused."""

STRANGERS: Final = (
    PREFACE[:10],
    PREFACE,
    PREFACE + frame(4, 0, 0, b""),
    PREFACE + b"GET / HTTP/1.1\r\n\r\n",
    PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, b"\x82"),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, b"\x82\x86\x84\x41\x01a"),
)
"""Of those who begin with HTTP/2."""


class Versions:
    """Of one seed. In fair ones the manners are odd, and nothing is wrong with them."""

    def __init__(self, seed: int, *, hostile: bool) -> None:
        self.rng = rng = Random(f"{seed} http2")
        self.hostile = hostile
        self.clients = rng.random() < 0.34
        self.origins = rng.random() < 0.34
        self.offered = ("http/1.1",) if self.clients and rng.random() < 0.1 else ("h2", "http/1.1")
        self.falls_back = rng.random() < 0.2  # some connections to origins with TLS turn out to be of HTTP/1.1
        self.counts: Counter[str] = Counter()
        more = Random(f"{seed} more of http2")
        self.of_grpc = more
        self.grpc_idle_s = more.choice((1.0, 10.0)) if hostile else 3600.0
        self.drain_at_s = more.random() * 0.6 if hostile and more.random() < 0.15 else 0.0
        """When the proxy is told to end while there is something to do; 0 is never."""

    def settings(self) -> Http2:
        """The proxy's."""
        rng = Random(self.rng.random())
        hostile = self.hostile
        return Http2(
            streams_max=rng.choice((1, 3, 100)) if hostile else 100,
            head_bytes_max=rng.choice((300, 262_144)) if hostile else 262_144,
            upstream_streams_max=rng.choice((1, 2, 100)),
            stream_window_bytes=rng.choice((1000, 16_384, 65_536, 1_000_000)),
            connection_window_bytes=rng.choice((65_535, 1_048_576)),
            frame_bytes_max=rng.choice((16_384, 65_536)),
            table_bytes_max=rng.choice((1, 100, 4096, 4096)),
            glitches_max=rng.choice((30, 200)) if hostile else 200,
            resets_max=rng.choice((4, 20, 200)) if hostile else 200,
            unsent_control_bytes_max=rng.choice((1000, 65_536)),
            ping_after_s=rng.choice((0.1, 20.0)),
            ping_timeout_s=rng.choice((0.1, 10.0)) if hostile else 10.0,
            ping_again_s=rng.choice((0.5, 310.0)),
            drain_notice_s=rng.choice((0.01, 0.5)),
            http1_origins_max=rng.choice((0, 1, 1000)),
            http1_origins_s=rng.choice((0.05, 300.0)),
        )

    def _manners(self, *, client: bool) -> Manners:
        rng = self.rng
        settings: dict[int, int] = {}
        later: list[tuple[float, dict[int, int]]] = []
        if rng.random() < 0.5:
            window = rng.choice((0, 1000, 20_000, 1_000_000, 2**31 - 1))
            settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
            if window == 0 or rng.random() < 0.3:
                later.append((rng.choice((0.01, 0.3)), {SettingCodes.INITIAL_WINDOW_SIZE: rng.choice((3000, 100_000))}))
        if rng.random() < 0.3:
            settings[SettingCodes.MAX_FRAME_SIZE] = rng.choice((16_385, 100_000, 2**24 - 1))
        if rng.random() < 0.5:
            settings[SettingCodes.HEADER_TABLE_SIZE] = rng.choice((0, 50, 65_536))
            if rng.random() < 0.3:
                later.append((0.02, {SettingCodes.HEADER_TABLE_SIZE: rng.choice((0, 4096))}))
        if not client and rng.random() < 0.4:
            settings[SettingCodes.MAX_CONCURRENT_STREAMS] = rng.choice((1, 2, 20))
            if self.hostile and rng.random() < 0.2:
                later.append((0.03, {SettingCodes.MAX_CONCURRENT_STREAMS: rng.choice((0, 1, 100))}))
        if client and rng.random() < 0.5:
            settings[SettingCodes.ENABLE_PUSH] = 0
        opens = rng.choice(("at once", "at once", "at once", "late", "by bytes"))
        if self.hostile and rng.random() < 0.08:
            opens = "never"
        return Manners(
            settings,
            later,
            rng.choice((0, 100_000, 2**24)),
            opens,  # type: ignore[arg-type]
            rng.choice((1, 64)) if self.hostile else 64,
            rng.choice((3, 6)) if not self.hostile else rng.choice((20, 60)),
            rng.choice((0, 0, 0, 1, 100, 255)),
            rng.choice((0, 0, 0, 1, 5)),
            rng.choice((0, 0, 0, 5)),
        )

    # -- who takes part

    def client(self, asks: Sequence[Ask], **of_http1: Any) -> H11Client:
        """A client, of either version."""
        rng = self.rng
        if not self.clients or rng.random() < 0.2:
            return H11Client(asks, **of_http1)
        for ask in asks:
            ask.version = "1.1"
            if rng.random() < 0.2:
                ask.fields = [*ask.fields, ("Priority", rng.choice(("u=0", "u=7", "i", "u=2, i", "nonsense=")))]
        if not self.hostile:
            of_http1["half_close"] = False  # it could not open windows any more
        lies = rng.choice(("less", "more")) if self.hostile and rng.random() < 0.1 else ""
        return H2Client(
            asks,
            manners=self._manners(client=True),
            at_once=rng.choice((1, 2, 100)),
            lies=lies,  # type: ignore[arg-type]
            **of_http1,
        )

    def call(self, ask: Ask, reply: Reply) -> Reply | None:
        """Make a request, now and then, a call of gRPC, in hostile seeds mostly with a deadline that matters; its
        answer."""
        rng = self.of_grpc
        if not self.clients or rng.random() > 0.15:
            return None
        self.counts["http2:calls"] += 1
        ask.method = "POST"
        ask.fields = [*ask.fields, *GRPC]
        if self.hostile:
            ask.fields = [*ask.fields, ("grpc-timeout", rng.choice(("1m", "5m", "100m", "1S", "1H", "soon")))]
        fault = None if reply.fault in ("truncate", "extra") else reply.fault  # nobody knows how long it should be
        return replace(reply, fault=fault, status=200, framing="chunked", trailers=[("grpc-status", "0")],
                       fields=[*reply.fields, GRPC[0]])  # fmt: skip

    def more(self) -> int:
        """How many more requests a client has, for its connection takes many at once."""
        return self.rng.choice((0, 0, 0, 8)) if self.clients else 0

    def let_loose(self, client: H11Client, begins_s: float, simulator: Simulator) -> None:
        """What a client does besides its script."""
        rng = self.rng
        if not isinstance(client, H2Client):
            return
        if rng.random() < 0.2:
            again = frame(0x10, 0, 0, bytes((0, 0, 0, rng.choice((1, 3, 9)))) + rng.choice((b"u=1", b"u=6, i")))
            simulator.call_later(begins_s + rng.random() * 0.1, partial(client.say, again))
        if not self.hostile:
            return
        for name, share, act in (
            ("takes back", 0.3, partial(client.take_back, rng.choice((8, 8, 0, 2, 11)))),
            ("leaves", 0.1, partial(client.leave, rng.choice((0, 0, 1)))),
            ("asks oddly", 0.2, partial(self._ask_oddly, client)),
            ("floods", 0.2, partial(self._flood, client)),
            ("breaks", 0.1, partial(client.say, rng.choice(BROKEN))),
        ):
            if rng.random() < share:
                self.counts[f"http2:{name}"] += 1
                simulator.call_later(begins_s + rng.random() * rng.choice((0.02, 0.3)), act)

    def _ask_oddly(self, client: H2Client) -> None:
        client.ask_oddly(self.rng.choice(ODD_HEADS))

    def _flood(self, client: H2Client) -> None:
        rng = self.rng
        kind = rng.choice(("pings", "settings", "resets", "resets", "empty"))
        client.flood(kind, rng.choice((10, 100, 300)))  # type: ignore[arg-type]

    def words(self, instead: bytes) -> bytes:
        """What somebody says who does not mean it."""
        return self.rng.choice(STRANGERS) if self.clients and self.rng.random() < 0.7 else instead

    def origin(self, place: int, **of_http1: Any) -> H11Origin:
        """An origin, of either version."""
        if not self.origins or (self.falls_back and self.falls_back_now(place)):
            return H11Origin(lambda _: None, **of_http1)
        return H2Origin(lambda _: None, manners=self._manners(client=False), on_head=self._whim, **of_http1)

    def falls_back_now(self, place: int) -> bool:
        """Whether a connection is of HTTP/1.1."""
        return self.has_alpn and (place == 0 or self.rng.random() < 0.5)

    has_alpn = False
    """Whether the version is agreed on with origins."""

    def _whim(self, asked: Asked) -> Whim | None:
        if not self.hostile or self.rng.random() < 0.75:
            return None
        whim: Whim = self.rng.choice(("refuse", "refuse", "http1", "goaway", "goaway_all", "bad_head", "early_end"))
        self.counts[f"http2:{whim}"] += 1
        return whim

    # -- judging

    def judge(self, client: H11Client, records: Mapping[str, Access]) -> None:
        """An answer that is not whole is visibly cut, and one that is whole is not taken back. What the client takes
        back is over soon."""
        if not isinstance(client, H2Client) or client.speech is None or client.layer_fault == "flood":
            return  # who floods reads nothing any more
        assert not client.hanging, "who waits is told"
        for target, at in client.taken_back.items():
            record = records.get(target)
            if record is not None:
                begun = record.started - WALL_CLOCK_OFFSET_S  # or it was withdrawn while the client waited to be let in
                took_s = begun + record.duration_s - max(at, begun)
                assert took_s < 1.0, f"{target} went on for {took_s} s after it was taken back"
        for answer in (*client.answers, *client.oddities):
            self.counts["http2:refused by us"] += answer.reset == REFUSED_STREAM
            self.counts["http2:cut by us"] += answer.reset == INTERNAL_ERROR
            if answer.granted:
                self.counts["http2:websockets"] += 1
                behind_the_end = answer.complete and answer.reset == NO_ERROR  # to who goes on (RFC 9113 section 8.1)
                may_be = answer.reset in (None, CANCEL) or behind_the_end or answer.ask.target in client.taken_back
                assert may_be, "RFC 8441 section 5"
            elif answer.complete:
                assert answer.reset in (None, NO_ERROR), "what was answered whole is not taken back"
            else:
                assert answer.reset is not None or client.is_closed or client.eof, "a cut answer looks like one"
            names = [name for name, _ in answer.fields]
            assert not {b"connection", b"transfer-encoding", b"keep-alive"}.intersection(names)
        self.counts["http2:clients"] += 1

    def judge_fair(self, records: Sequence[Any]) -> None:
        """In fair weather nobody breaks HTTP/2, and what fails is what an origin had no room for."""
        assert not [record for record in records if isinstance(record, Event) and record.name.startswith("http2")]
        if self.origins and not self.falls_back:
            reasons = {
                attempt.reason for record in records if isinstance(record, Access) for attempt in record.attempts
            }
            assert reasons <= {"", "upstream_refused_stream", "websocket_error"}, reasons

    def judge_origin(self, origin: H11Origin) -> None:
        """What an origin heard of HTTP/2."""
        if isinstance(origin, H2Origin) and origin.speech is not None:
            assert not origin.hanging, "nor does an origin work for nobody"
            self.counts["http2:origins"] += 1
            self.counts["http2:shared"] += len(origin.asked) > 1
        elif isinstance(origin, H2Origin):
            self.counts["http2:fallen back"] += bool(origin.asked)
        if origin.asked and origin.asked[0].version == "2":
            for asked in origin.asked:
                names = [name for name, _ in asked.fields]
                assert not {b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"}.intersection(names)

    def census(self, records: Sequence[Any]) -> Counter[str]:
        """What occurred."""
        counts = Counter(self.counts)
        for record in records:
            if isinstance(record, Access):
                counts[f"http2:{'.'.join(map(str, record.version))}"] += 1
            elif isinstance(record, Event) and record.name.startswith("http2"):
                counts[f"event:{record.name}"] += 1
        return counts
