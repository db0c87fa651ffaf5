"""The phases of a tunnelled connection: what they see, what they may do, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from coulee.core import ExchangeError, Peer, Request, Timeouts
from coulee.core.effects import fetch, sleep
from coulee.core.seam import Send
from coulee.core.tunnel import Tunnel
from coulee.core.tunnel_exchange import TunnelExchange
from coulee.core.tunnel_filters import TUNNEL_PHASES, TunnelChains, TunnelFilter, transform
from tests.core.tunnelled import ONE, TWO, Told, machine, make, reason, record, told

# ----------------------------------------------------------------------------------------------------------- chains


class Marks(TunnelFilter):
    """Writes down that it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self.calls = calls

    def connect(self, exchange: TunnelExchange) -> None:
        self.calls.append(f"connect {self.name}")

    def bytes_up(self, exchange: TunnelExchange, data: bytes) -> bytes:
        return data + self.name.encode()

    def bytes_down(self, exchange: TunnelExchange, data: bytes) -> bytes:
        return data + self.name.encode()

    def logging(self, exchange: TunnelExchange) -> None:
        self.calls.append(f"logging {self.name}")


def test_phases_run_in_order_on_the_way_up_and_in_reverse_on_the_way_down() -> None:
    calls: list[str] = []
    world = make(ONE, Marks("a", calls), TunnelFilter(), Marks("b", calls))
    client, origin = world.client(), world.connects()
    assert world.receives(client, b"-") == [Send(origin, b"-ab")]
    assert world.receives(origin, b"-") == [Send(client, b"-ba")]
    world.resets(client)
    assert calls == ["connect a", "connect b", "logging b", "logging a"]
    assert (record(world).bytes_in, record(world).bytes_out) == (1, 1), "what came, and not what went on"
    world.leaves_nothing()


def test_phases_that_nobody_overrides_are_empty() -> None:
    chains = TunnelChains([TunnelFilter(), TunnelFilter()])
    assert [getattr(chains, phase) for phase in TUNNEL_PHASES] == [()] * 4
    assert TUNNEL_PHASES == ("connect", "bytes_up", "bytes_down", "logging")
    one = TunnelChains([Marks("a", [])])
    assert [len(getattr(one, phase)) for phase in TUNNEL_PHASES] == [1] * 4


def test_a_filter_that_overrides_nothing_changes_nothing() -> None:
    world = make(ONE)
    plain = TunnelFilter()
    client, origin = world.client(), world.connects()
    [exchange] = machine(world).exchanges
    assert plain.connect(exchange) is plain.bytes_up(exchange, b"x") is plain.bytes_down(exchange, b"x") is None
    assert plain.logging(exchange) is None
    assert world.receives(client, b"x") == [Send(origin, b"x")]


def test_a_phase_may_be_a_function() -> None:
    tunnel = Tunnel(ONE)

    @tunnel.on("bytes_up")
    def louder(exchange: TunnelExchange, data: bytes) -> bytes:
        return data.upper()

    world = make(ONE, *tunnel.tunnel_filters)
    client, origin = world.client(), world.connects()
    assert world.receives(client, b"x") == [Send(origin, b"X")]
    assert tunnel.tunnel_chains.bytes_up == (louder,)
    with pytest.raises(ValueError, match="there is no phase 'request_filter'; there are connect, bytes_up"):
        tunnel.on("request_filter")


# ---------------------------------------------------------------------------------------------------------- connect


class Choose(TunnelFilter):
    """Says where to go, or lets the balancer say it."""

    def __init__(self, *peers: Peer | None) -> None:
        self.peers = list(peers)
        self.seen: list[tuple[int, tuple[str, ...]]] = []

    def connect(self, exchange: TunnelExchange) -> Peer | None:
        self.seen.append((exchange.attempts, tuple(exchange.tried)))
        return self.peers.pop(0) if self.peers else None


def test_a_filter_may_choose_for_each_attempt() -> None:
    choose = Choose(Peer(TWO, "chosen"))
    world = make(Told(), choose)
    world.client()
    assert world.connecting[0].address == TWO
    world.refuses()
    assert world.connecting[0].address == ONE, "the balancer's, for the filter has no more"
    assert choose.seen == [(0, ()), (1, ("chosen",))]
    assert told(world).heard[0] == ("begin", "chosen")


class Refuse(TunnelFilter):
    """Lets nobody in."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later

    def connect(self, exchange: TunnelExchange) -> None:
        if exchange.attempts or not self.later:
            raise ExchangeError("misdirected", "not by this door")


def test_a_filter_may_refuse() -> None:
    world = make(ONE, Refuse())
    client = world.client()
    assert world.closing == {client: True}
    assert (reason(world), record(world).detail) == ("misdirected", "not by this door")
    assert not world.events("filter_error")
    world.leaves_nothing()


def test_a_refusal_after_a_failure_says_less_than_the_failure() -> None:
    world = make(Told(), Refuse(later=True))
    world.client()
    world.refuses()
    assert reason(world) == "upstream_refused"


class Slow(TunnelFilter):
    """Takes its time."""

    async def connect(self, exchange: TunnelExchange) -> Peer:
        await sleep(2.0)
        return Peer(TWO)

    async def bytes_up(self, exchange: TunnelExchange, data: bytes) -> bytes:
        await sleep(1.0)
        return data.upper()


def test_a_filter_may_wait_and_what_comes_meanwhile_is_kept() -> None:
    world = make(ONE, Slow())
    client = world.client()
    world.receives(client, b"a")
    assert not world.connecting
    world.wait(2.0)
    origin = world.connects()
    assert world.sent(origin) == b""
    world.receives(client, b"b")
    world.receives(client, b"c")
    world.wait(1.0)
    assert world.sent(origin) == b"A"
    world.wait(1.0)
    assert world.sent(origin) == b"BC"


def test_a_client_that_leaves_while_a_filter_waits_ends_the_wait() -> None:
    world = make(ONE, Slow())
    world.resets(world.client())
    assert reason(world) == "client_gone"
    world.leaves_nothing()


class Asks(TunnelFilter):
    """Asks a service where to go."""

    async def connect(self, exchange: TunnelExchange) -> Peer:
        answer = await fetch(Request("GET", "/where", authority="ask.test"), peer=Peer(("10.2.2.2", 80)))
        return Peer((answer.data.decode(), 443))


def test_a_filter_may_ask_a_service() -> None:
    world = make(ONE, Asks())
    world.client()
    service = world.connects()
    assert world.sent(service).startswith(b"GET /where HTTP/1.1\r\n")
    world.receives(service, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n10.3.3.3")
    assert world.connecting[0].address == ("10.3.3.3", 443)


# ------------------------------------------------------------------------------------------------------------ bytes


class Words(TunnelFilter):
    """Lets some bytes pass, and others not."""

    def bytes_up(self, exchange: TunnelExchange, data: bytes) -> bytes | None:
        if data == b"cut":
            raise ExchangeError("bad_request", "a forbidden word")
        return b"" if data == b"secret" else None


def test_a_piece_may_be_kept_back() -> None:
    world = make(ONE, Words())
    client, origin = world.client(), world.connects()
    world.receives(client, b"secret")
    assert world.sent(origin) == b""
    assert world.receives(client, b"plain") == [Send(origin, b"plain")]
    world.receives(client, b"cut")
    assert world.closing == {client: True, origin: True}
    assert (reason(world), record(world).detail) == ("bad_request", "a forbidden word")


# ----------------------------------------------------------------------------------------------------------- broken


class Broken(TunnelFilter):
    """Fails in one phase."""

    def __init__(self, phase: str) -> None:
        self.phase = phase

    def connect(self, exchange: TunnelExchange) -> None:
        self.fail("connect")
        if exchange.attempts:
            self.fail("second connect")

    def bytes_up(self, exchange: TunnelExchange, data: bytes) -> None:
        self.fail("bytes_up")

    async def logging(self, exchange: TunnelExchange) -> None:
        self.fail("logging")
        if self.phase == "slow logging":
            await sleep(1000.0)

    def fail(self, phase: str) -> None:
        if phase == self.phase:
            raise RuntimeError(f"in {phase}")


@pytest.mark.parametrize("phase", ["connect", "second connect", "bytes_up"])
def test_a_filter_that_raises_ends_its_tunnel_and_is_told_of(phase: str) -> None:
    world = make(Told(), Broken(phase))
    client = world.client()
    if phase == "second connect":
        world.refuses()
    elif phase == "bytes_up":
        world.connects()
        world.receives(client, b"x")
    assert world.closing[client] is True
    assert reason(world) == "filter_error"
    [event] = world.events("filter_error")
    assert f"RuntimeError: in {phase}" in event.text
    assert "Traceback" in str(event.fields["traceback"])
    assert "in fail" in str(event.fields["traceback"])
    world.leaves_nothing()


class Wrong(TunnelFilter):
    """Returns what nobody can use."""

    def connect(self, exchange: TunnelExchange) -> Awaitable[Peer | None] | Peer | None:
        return "10.1.1.1:443"  # type: ignore[return-value]


def test_a_filter_that_returns_what_a_phase_has_no_use_for_is_told_so() -> None:
    world = make(ONE, Wrong())
    world.client()
    assert "returned str, which this phase has no use for" in record(world).detail


class Text(TunnelFilter):
    """Returns text for bytes."""

    def bytes_up(self, exchange: TunnelExchange, data: bytes) -> bytes:
        return data.decode()  # type: ignore[return-value]


def test_bytes_are_bytes() -> None:
    world = make(ONE, Text())
    client, origin = world.client(), world.connects()
    world.receives(client, b"x")
    assert world.sent(origin) == b""
    assert "returned str" in record(world).detail


class Tags(TunnelFilter):
    """Tags what it sees."""

    def logging(self, exchange: TunnelExchange) -> None:
        assert exchange.error is not None
        exchange.tags["why"] = exchange.error.reason


def test_logging_has_the_last_word_before_the_record() -> None:
    world = make(ONE, Tags())
    world.resets(world.client())
    assert record(world).tags == {"why": "client_gone"}


def test_a_logging_filter_that_raises_is_told_of_and_the_others_run() -> None:
    world = make(ONE, Tags(), Broken("logging"))
    world.resets(world.client())
    assert (reason(world), record(world).tags) == ("client_gone", {"why": "client_gone"})
    assert "in logging" in world.events("filter_error")[0].text


def test_a_logging_filter_that_is_too_slow_is_left() -> None:
    world = make(ONE, Tags(), Broken("slow logging"), timeouts=Timeouts(logging_grace_s=2.0))
    client = world.client()
    world.resets(client)
    world.wait(2.0)
    assert record(world).tags == {"why": "client_gone"}
    assert [event.text for event in world.events("filter_error")] == ["a logging filter took too long"]
    world.leaves_nothing()


def test_transform_is_told_what_the_one_before_gave() -> None:
    # The chain of one that swallows, and one that adds: the second is asked all the same.
    def swallow(exchange: TunnelExchange, data: bytes) -> bytes:
        return b""

    def add(exchange: TunnelExchange, data: bytes) -> bytes:
        return data + b"!"

    world = make(ONE)
    world.client()
    [exchange] = machine(world).exchanges
    given = transform((swallow, add), exchange, b"x")
    with pytest.raises(StopIteration) as ended:
        given.send(None)
    assert ended.value.value == b"!"
