"""One seed of the sweep: a proxy, clients and origins drawn from it, the weather they meet, and the oracles that judge.

Every request has a number, and its bodies, up and down, are made of that number: so a byte that belongs to another
request is seen at once. What the origin will do is decided per request, before anything runs, and so is what a client
should get if nothing goes wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, Literal

from coulee.backends.far_end import FarEnd
from coulee.backends.http2_peers import H2Client
from coulee.backends.peers import Answer, Ask, Asked, H11Client, H11Origin, Reply
from coulee.backends.simulator import Simulator
from coulee.backends.weather import Weather
from coulee.core import (
    Access,
    Config,
    Event,
    Exchange,
    Filter,
    Limits,
    Proxy,
    Response,
    Retry,
    Timeouts,
    blocking,
    respond,
    sleep,
)
from coulee.core.seam import Address, Machine
from tests.simulation.balance import BUSY, HEALTH, Balance
from tests.simulation.bodies import pattern, pieces_of
from tests.simulation.bounds import check_bounds
from tests.simulation.edges import Edges
from tests.simulation.versions import FLOOD, Versions
from tests.simulation.websockets import Stamp, Talk, WebSockets

PROXY: Address = ("10.0.0.1", 80)
MALFORMED = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"garbage\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a",
)
FAULTS: tuple[Literal["silence", "close", "reset", "reset_head", "reset_body", "truncate", "garbage", "extra"], ...] = (
    "silence", "close", "reset", "reset_head", "reset_body", "truncate", "garbage", "extra",
)  # fmt: skip


@dataclass(slots=True)
class Plan:
    """One request, and what its origin will do."""

    number: int
    ask: Ask
    reply: Reply
    answered_by_filter: bool = False
    body_up: bytes = b""
    body_down: bytes = b""
    talk: bytes = b""  # behind a 101
    is_call: bool = False  # of gRPC
    websocket: Talk | None = None


class Gate(Filter):
    """Answers some requests itself, delays others, and reads the body of some."""

    async def request_filter(self, exchange: Exchange) -> Response | None:
        kind = exchange.request.headers.get("x-filter")
        if kind == "answer":
            return respond(203, exchange.request.path.encode())
        if kind == "sleep":
            await sleep(exchange.rng.random() * 0.05)
        elif kind == "body":
            await exchange.body(1024 * 1024)
        elif kind == "job":
            exchange.tags["job"] = await blocking(len, exchange.request.target)
        elif kind == "raise":
            raise RuntimeError("a filter that raises")
        return None


class Bodies(Filter):
    """Looks at every piece of every body, slowly, and changes none."""

    async def request_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        if exchange.request.headers.get("x-filter") == "sleep":
            await sleep(0.01)
        return data

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes | None:
        return data

    def logging(self, exchange: Exchange) -> None:
        exchange.tags["logged"] = True


@dataclass(slots=True)
class Outcome:
    """What came of one seed."""

    seed: int
    trace_hash: str
    requests: int
    census: Counter[str] = field(default_factory=Counter[str])


class Scenario:
    """One seed. `hostile`: with weather and with origins that fail; else everything goes well, and must."""

    def __init__(
        self,
        seed: int,
        *,
        hostile: bool,
        keep_trace: bool = False,
        wrapped: Callable[[Proxy], Machine] = lambda proxy: proxy,
    ) -> None:
        self.seed = seed
        self.hostile = hostile
        self.rng = Random(f"{seed} scenario")
        rng = self.rng
        weather = Weather.swarm(Random(f"{seed} weather")) if hostile else Weather(split=rng.choice((0.0, 0.3, 1.0)))
        self.stalling = hostile and rng.random() < 0.15
        if self.stalling:  # readers that stop are the only ones who show what is held back
            weather = replace(weather, stopped_reader=0.7, window_bytes=(1024, 16_384), deaf=1.0)
        self.simulator = Simulator(seed, weather, keep_trace=keep_trace)
        self.cut_short = 0  # answers that only the end of their TLS ends, and which end without one
        self.plans: dict[int, Plan] = {}
        self.clients: list[tuple[H11Client, list[Plan]]] = []
        self.strangers: list[FarEnd] = []
        self.origins: list[H11Origin] = []
        self.endpoints: list[Address] = [("10.1.0.1", 80 + index) for index in range(rng.randint(1, 3))]
        self.balance = Balance(seed, hostile=hostile)
        self.edges = Edges(seed, self.simulator, hostile=hostile)
        self.versions = Versions(seed, hostile=hostile)
        self.versions.has_alpn = self.edges.origins_have_tls
        self.websockets = WebSockets(seed, hostile=hostile)
        for place, address in enumerate(self.endpoints):
            self.simulator.listen(address, partial(self._origin, place))
        filters: list[Filter] = [Gate()]
        if rng.random() < 0.5:
            filters.append(Bodies())
        filters += self.balance.filters()
        if self.websockets.filter is not None:
            filters += [self.websockets.filter, *[Stamp()] * (self.websockets.style == "meddles")]
        transport = self.edges.transport(http2=self.versions.origins)
        self.definition = Proxy(self.balance.cluster(self.endpoints, transport), filters, self._config())
        self.proxies: list[Proxy] = []  # one; or those that followed each other
        self.definition.fresh = self._fresh  # type: ignore[method-assign]
        self.driver = self.simulator.run(wrapped(self.definition), [self.edges.listener(PROXY, self.versions.offered)])

    def _fresh(self, **given: Any) -> Proxy:
        proxy = Proxy.fresh(self.definition, **given)
        self.proxies.append(proxy)
        return proxy

    def _counted(self, name: str) -> int:
        return sum(getattr(proxy.counters, name) for proxy in self.proxies)

    def _config(self) -> Config:
        rng = self.rng
        high = rng.choice((2048, 65_536, 65_536))
        limits = Limits(
            head_bytes_max=high // 2,
            buffer_high_bytes=high,
            buffer_low_bytes=high // 4,
            connections_per_peer_max=rng.choice((1, 2, 3, 1024)) if self.hostile else 1024,
            pool_waiters_max=rng.choice((1, 1024)) if self.hostile else 1024,
            idle_connections_max=rng.choice((0, 1, 512)),
            requests_per_connection_max=rng.choice((2, 1000)) if self.hostile else 1000,
            downstream_connections_max=rng.choice((2, 1024)),
            connections_per_address_max=rng.choice((2, 256)) if self.hostile else 256,
            refused_connections_max=rng.choice((0, 1, 64)) if self.hostile else 0,
            request_body_bytes_max=rng.choice((0, 0, 2000)) if self.hostile else 0,
            replay_bytes_max=rng.choice((0, 500, 65_536)),
            jobs_max=rng.choice((1, 1024)),
        )
        timeouts = Timeouts(
            answer_timeout_s=rng.choice((0.5, 5.0)) if self.hostile else 60.0,
            upstream_idle_timeout_s=rng.choice((0.5, 5.0)) if self.hostile else 60.0,
            body_idle_timeout_s=rng.choice((1.0, 30.0)) if self.hostile else 30.0,
            body_rate_window_s=rng.choice((0.5, 30.0)) if self.hostile else 30.0,
            body_rate_grace_s=rng.choice((0.0, 5.0)) if self.hostile else 5.0,
            connection_life_s=rng.choice((0.1, 3600.0)) if self.hostile else 3600.0,
            head_timeout_s=rng.choice((1.0, 10.0)) if self.hostile else 10.0,
            send_stall_timeout_s=rng.choice((2.0, 30.0)),
            pool_wait_s=rng.choice((0.2, 5.0)) if self.hostile else 60.0,
            connect_timeout_s=rng.choice((1.0, 3.0, 200.0)),
            keep_alive_idle_s=rng.choice((1.0, 60.0)),
            upgraded_idle_timeout_s=rng.choice((1.0, 60.0)) if self.hostile else 3600.0,
            upstream_keep_alive_idle_s=rng.choice((0.05, 55.0)),
            grpc_idle_timeout_s=self.versions.grpc_idle_s,
        )
        return Config(
            limits=limits,
            timeouts=timeouts,
            http2=self.versions.settings(),
            websocket=self.websockets.settings(),
            retry=self.balance.retry(Retry(retries_max=rng.choice((0, 2))) if self.hostile else Retry()),
            cancel_on_half_close=self.hostile and rng.random() < 0.2,
            http1_codec="h11" if rng.random() < 0.3 else "own",
        )

    # -- what is drawn

    def _plan(self) -> Plan:
        rng = self.rng
        number = len(self.plans) + 1
        method = rng.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
        up = rng.choice((0, 0, 1, 100, 3000, 90_000)) if method in ("POST", "PUT", "PATCH") else 0
        down = rng.choice((0, 1, 50, 2000, 100_000, 300_000 if self.stalling else 0))
        body_up, body_down = pattern(number, up, "u"), pattern(number, down, "d")
        fields: list[tuple[str, str]] = [("Host", "example.com")]
        kind = rng.choice(("", "", "", "answer", "sleep", "body", "job", "raise"))
        if self.stalling and down:
            kind = ""
        if kind in ("answer", "raise") and up > 3000 and not self.hostile:
            kind = ""  # an early answer to a large body ends the connection, which a client may learn too late
        if kind:
            fields.append(("X-Filter", kind))
        version: Literal["1.1", "1.0"] = "1.0" if rng.random() < 0.1 else "1.1"
        if up and (rng.random() < 0.5 or version == "1.0"):
            fields.append(("Content-Length", str(up)))
        if up and rng.random() < 0.2 and version == "1.1":
            fields.append(("Expect", "100-continue"))
        gap_s = rng.choice((0.0, 0.0, 0.003, 40.0 if self.stalling else 0.0))
        ask = Ask(method, f"/{number}", fields, pieces_of(rng, body_up), gap_s, version)
        plan = Plan(
            number, ask, self._reply(method, number, body_down), kind in ("answer", "raise"), body_up, body_down
        )
        self.plans[number] = plan
        return plan

    def _upgrade(self) -> Plan:
        """A request to switch protocols; mostly it is granted, and then what is said is echoed."""
        rng = self.rng
        number = len(self.plans) + 1
        talk = pattern(number, rng.choice((1, 50, 3000, 100_000)), "t")
        body = pattern(number, rng.choice((0, 20, 3000, 100_000)), "d")
        fields = [("Host", "example.com"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
        kind = rng.choice(("", "", "", "answer", "sleep"))
        if kind:
            fields.append(("X-Filter", kind))
        ask = Ask("GET", f"/{number}", fields, gap_s=rng.choice((0.0, 0.002)), talk=pieces_of(rng, talk),
                  hasty=rng.random() < 0.3)  # fmt: skip
        reply = self._reply("GET", number, body)
        if rng.random() < 0.8:
            reply = Reply(101, [*fields[1:3], ("X-Number", str(number))], pieces_of(rng, body), echo=True,
                          delay_s=reply.delay_s, interims=reply.interims, fault=reply.fault)  # fmt: skip
        plan = Plan(number, ask, reply, kind == "answer", b"", body, talk)
        self.plans[number] = plan
        return plan

    def _reply(self, method: str, number: int, body: bytes) -> Reply:
        rng = self.rng
        status = rng.choice((200, 200, 200, 201, 204, 304, 404, 500))
        framing = rng.choice(("length", "length", "chunked", "close"))
        chunked = framing == "chunked" and method != "HEAD" and status not in (204, 304)
        reply = Reply(
            status,
            [("X-Number", str(number))],
            pieces_of(rng, body),
            framing,  # type: ignore[arg-type]
            trailers=[("X-Sum", str(number))] if chunked and rng.random() < 0.3 else (),
            interims=[(103, [("Link", "</a>")])] if rng.random() < 0.2 else (),
            delay_s=rng.choice((0.0, 0.0, 0.01, 0.2)),
            gap_s=rng.choice((0.0, 0.0, 0.002)),
            then_close=rng.random() < 0.2,
            rude=self.hostile and rng.random() < 0.5,
        )
        if self.hostile and rng.random() < 0.35:
            reply.fault = rng.choice(FAULTS)
            if reply.fault in ("truncate", "extra"):
                reply.framing = "length"  # a body that only the end ends may end anywhere, and nobody can tell
                reply.trailers = ()
        return reply

    def _origin(self, place: int, far: FarEnd) -> FarEnd:
        rng = self.rng
        origin = self.versions.origin(
            place,
            early=self.hostile and rng.random() < 0.2,
            idle_s=rng.choice((None, None, 0.02, 1.0)) if self.hostile else None,
            continues=rng.random() < 0.8,
        )
        self.edges.origin(origin)
        origin.on_request = partial(self._decide, place, origin)
        self.origins.append(origin)
        return origin

    def _decide(self, place: int, origin: H11Origin, asked: Asked) -> Reply:
        if asked.target in ("/", FLOOD):  # a stranger's request, broken behind its head, or one that nobody awaits
            return Reply(404)
        plan = None if asked.target == HEALTH else self.plans[int(asked.target[1:])]
        reply = self.balance.reply(place, asked, plan.reply if plan is not None else None)
        if plan is not None and plan.websocket is not None:
            return self.websockets.agree(asked, plan.websocket, reply)
        if origin.layer_fault == "truncate" and reply.status != 101 and not reply.fault:
            self.cut_short += 1  # in TLS it shows where a body is cut that has no other end
            return replace(reply, framing="close", trailers=(), fault="truncate")
        return reply

    # -- running

    def run(self) -> Outcome:
        """Run it to its end, and judge."""
        simulator, rng = self.simulator, self.rng
        if self.versions.clients or self.versions.origins:
            simulator.call_later(0.0, self._watch)
            if self.versions.drain_at_s:
                simulator.call_later(self.versions.drain_at_s, partial(self.driver.drain, 1.0))
        for _ in range(rng.randint(1, 5)):
            plans = [self._plan() for _ in range(rng.choice((1, 1, 2, 4)) + self.versions.more())]
            leaves = self.hostile and rng.random() < 0.3
            self._make_calls(plans)
            client = self.versions.client(
                [plan.ask for plan in plans],
                pipelined=len(plans) > 1 and rng.random() < 0.4 and all(plan.ask.version == "1.1" for plan in plans),
                half_close=rng.random() < 0.2,
                leave_after_bytes=rng.choice((1, 50, 400, 3000)) if leaves else None,
                leave_by=rng.choice(("reset", "close")),
            )
            self._arrives(client, plans)
        only_http2 = self.versions.origins and not self.edges.origins_have_tls
        if rng.random() < 0.3 and not (self.websockets.style or only_http2):  # what is said there is no WebSocket
            leaves = self.hostile and rng.random() < 0.3
            plan = self._upgrade()
            self._arrives(H11Client([plan.ask], leave_after_bytes=rng.choice((150, 400)) if leaves else None), [plan])
        self._talk()
        if self.hostile and rng.random() < 0.4:
            simulator.call_later(rng.random() * 0.3, self._stranger)
        simulator.advance((60.0 if self.stalling else rng.choice((0.1, 2.0, 20.0))) if self.hostile else 400.0)
        simulator.faults = False
        simulator.advance(400.0)
        self._judge()
        self.driver.drain(5.0)
        simulator.settle()
        self._judge_the_end()
        return self._outcome()

    def _talk(self) -> None:
        """Those who want a WebSocket."""
        simulator, websockets = self.simulator, self.websockets
        rng = websockets.rng
        shared: list[Plan] = []  # of one client, in HTTP/2
        shares = self.versions.clients and rng.random() < 0.5
        for _ in range(websockets.count):
            number = len(self.plans) + 1
            body = pattern(number, rng.choice((0, 20, 3000)), "d")
            refusal = Reply(fields=[("X-Number", str(number))], pieces=pieces_of(rng, body),
                            delay_s=rng.choice((0.0, 0.0, 0.01, 0.2)))  # fmt: skip
            talk = websockets.talk(number, refusal)
            plan = self.plans[number] = Plan(number, talk.ask, talk.reply, body_down=body, websocket=talk)
            if shares:
                shared.append(plan)
            else:
                self._asks_to_talk([plan])
        if shared:
            self._asks_to_talk([self._plan(), *shared, self._plan()])
        if websockets.drain_at_s:
            simulator.call_later(websockets.drain_at_s, partial(self.driver.drain, 3.0))

    def _asks_to_talk(self, plans: list[Plan]) -> None:
        simulator = self.simulator
        client = self.versions.client([plan.ask for plan in plans])
        begins = self.websockets.rng.random() * 0.3
        self.clients.append((client, plans))
        simulator.call_later(begins, partial(simulator.connect, PROXY, client, self.edges.client(client)))
        if len(plans) > 1:
            self.versions.let_loose(client, begins, simulator)
        for talk in [plan.websocket for plan in plans if plan.websocket is not None]:
            if talk.kill_client_at_s:
                simulator.call_later(begins + talk.kill_client_at_s, partial(talk.kill_client, client))

    def _make_calls(self, plans: Sequence[Plan]) -> None:
        for plan in plans:
            reply = None if plan.answered_by_filter else self.versions.call(plan.ask, plan.reply)
            if reply is not None:
                plan.reply = reply
                plan.is_call = True

    def _watch(self) -> None:
        """Look now and then at what is held."""
        for proxy in self.proxies:
            check_bounds(proxy)
        if self.simulator.now < 60.0:
            self.simulator.call_later(0.02 if self.simulator.now < 2.0 else 1.0, self._watch)

    def _arrives(self, client: H11Client, plans: list[Plan]) -> None:
        simulator, rng = self.simulator, self.rng
        self.clients.append((client, plans))
        begins = rng.random() * 0.3
        source = self.edges.client(client)
        simulator.call_later(begins, partial(simulator.connect, PROXY, client, source))
        self.versions.let_loose(client, begins, simulator)
        if self.hostile and rng.random() < 0.2:
            simulator.call_later(begins + rng.random() * rng.choice((0.1, 5.0)), client.reset)

    def _stranger(self) -> None:
        """Somebody who speaks no HTTP, or half of it, or nothing."""
        far = FarEnd()
        source, speaks = self.edges.stranger(far)
        self.simulator.connect(PROXY, far, source)
        words = self.versions.words(self.rng.choice((*MALFORMED, b"")))
        if speaks:
            far.write(words)
        self.strangers.append(far)

    # -- judging

    @property
    def records(self) -> list[Access]:
        return [record for record in self.driver.records if isinstance(record, Access)]

    def _judge(self) -> None:
        """What holds when nothing runs any more, whatever the weather was."""
        records = self.records
        assert len(records) == self._counted("requests"), "one access record a request"
        assert not [record for record in records if record.reason == "internal_error"]
        assert not [
            event for event in self.driver.records if isinstance(event, Event) and event.name == "internal_error"
        ]
        of = Counter(record.target for record in records if record.target not in ("-", FLOOD))
        assert not [target for target, count in of.items() if count > 1], "no request is served twice"
        assert sum(len(record.attempts) for record in records) == self._counted("attempts")
        by_target = {record.target: record for record in records}
        self.websockets.is_fair = not self.hostile and len(self.proxies) == 1  # those that followed have drained it
        for client, plans in self.clients:
            assert not client.malformed, client.malformed
            assert not client.unasked, "nothing comes that was not asked for"
            for plan, answer in zip(plans, client.answers, strict=False):
                record = by_target.get(plan.ask.target)
                if record is not None:
                    self.edges.judge(client, record)
                if plan.websocket is not None and answer.granted:
                    assert record is not None or not answer.complete
                    if record is not None:
                        self.websockets.judge(plan.websocket, answer, record)
                elif answer.status == 101:
                    self._judge_upgrade(plan, client, record)
                else:
                    self._judge_answer(plan, answer, record)
            if not self.hostile:
                self._judge_fair(client, len(plans))
            self.versions.judge(client, by_target)
        if not self.hostile:
            self.versions.judge_fair(self.driver.records)
        self._judge_origins()

    def _judge_fair(self, client: H11Client, asked: int) -> None:
        """In fair weather every request is answered whole, up to an answer that says it was the last; or, in HTTP/2, to
        a GOAWAY, behind which a client asks no more."""
        for answer in client.answers:
            assert answer.complete, f"{answer.ask.target} was not answered whole"
            if answer.get("connection") == "close" or answer.status == 101:
                return
        assert len(client.answers) == asked or (isinstance(client, H2Client) and client.told_to_go)

    def _judge_answer(self, plan: Plan, answer: Answer, record: Access | None) -> None:
        if not answer.status:
            assert self.hostile or answer.ask.version == "1.0" or not answer.complete
            return
        assert record is not None, "who is answered is recorded"
        assert record.status == answer.status
        ours = answer.get("proxy-status") is not None
        if ours:
            assert record.reason
            assert self.hostile or ("X-Filter", "raise") in plan.ask.fields
            return
        if plan.answered_by_filter:
            assert (answer.status, answer.complete and answer.body) in (
                (203, plan.ask.target.encode()), (203, b""), (203, False), (500, b""), (500, False),
            )  # fmt: skip
            return
        if answer.get("x-number") is None and b"unasked".startswith(answer.body) and self._an_origin_talks_too_much():
            # What an origin says unasked, and what arrives only behind the next request, is its answer for all that
            # HTTP/1.1 can tell. What arrives before that ends the connection, and never comes here.
            return
        assert answer.status == plan.reply.status or (answer.status == BUSY and self.balance.wild)
        assert answer.get("x-number") == str(plan.number), "the answer to this request, and to no other"
        bodiless = plan.ask.method == "HEAD" or answer.status in (204, 304, BUSY)
        expected = b"" if bodiless else plan.body_down
        assert expected.startswith(answer.body), "no byte of another answer, none lost, none invented"
        told = dict(answer.trailers).get(b"grpc-status", b"0")
        if answer.complete and plan.is_call and told != b"0":
            assert record.reason, "it is told in the call's status that the answer is not whole"
        elif answer.complete:
            assert answer.body == expected, "a truncated body is never passed on as whole"
            if plan.reply.trailers and not (bodiless or plan.is_call) and plan.ask.version == "1.1":
                assert [(name.lower(), value) for name, value in answer.trailers] == [
                    (b"x-sum", str(plan.number).encode())
                ]

    def _judge_upgrade(self, plan: Plan, client: H11Client, record: Access | None) -> None:
        """Behind a 101 all bytes come, in order; in fair weather to the last."""
        assert record is not None
        assert record.status == plan.reply.status == 101
        assert client.answers[0].get("x-number") == str(plan.number)
        expected = plan.body_down + plan.talk
        assert expected.startswith(client.switched), "no byte lost, none invented, none out of order"
        if not self.hostile or not record.reason:
            assert record.bytes_in == len(plan.talk)
            assert record.bytes_out == len(expected)
        if not self.hostile:
            assert client.switched == expected
            assert record.reason == ""

    def _an_origin_talks_too_much(self) -> bool:
        return any(plan.reply.fault == "extra" for plan in self.plans.values())

    def _judge_origins(self) -> None:
        times = Counter(asked.target for origin in self.origins for asked in origin.asked)
        for origin in self.origins:
            assert not origin.malformed, f"the proxy never says what h11 and h2 cannot read: {origin.malformed}"
            self.versions.judge_origin(origin)
            for asked in origin.asked:
                if asked.target == "/":
                    assert not asked.complete, "a request that breaks is never passed on as whole"
                if asked.target in ("/", HEALTH, FLOOD):
                    continue
                plan = self.plans[int(asked.target[1:])]
                assert plan.body_up.startswith(asked.body), "no byte of another request"
                assert not asked.complete or asked.body == plan.body_up, "a truncated body is never sent as whole"
                assert asked.get("x-forwarded-for") == "10.0.0.9"
                self.edges.judge_origin(origin, self._client_of(plan), asked.get("x-forwarded-proto"))
                if asked is origin.asked[-1]:
                    assert plan.talk.startswith(origin.switched), "nothing is HTTP behind a 101, nothing goes before it"
                if plan.ask.method in ("POST", "PATCH"):
                    assert times[asked.target] == 1, "never sent twice"

    def _client_of(self, plan: Plan) -> H11Client:
        return next(client for client, plans in self.clients if plan in plans)

    def _judge_the_end(self) -> None:
        assert self.driver.done, f"a drain ends: {[proxy.leftovers for proxy in self.proxies]}"
        world = self.simulator.left
        del world["connections"]  # a stranger may have kept its end open
        for what_is_left in (world, *(proxy.leftovers for proxy in self.proxies)):
            left = {kind: count for kind, count in what_is_left.items() if count}
            assert not left, f"left at the end: {left}"
        assert len(self.records) == self._counted("requests")
        self.balance.judge(self.proxies, self.records)
        self.websockets.judge_the_end()
        for proxy in self.proxies:
            assert not proxy.pool.desks
            assert not proxy.pool.idle
            admission = proxy.admission
            assert (admission.admitted, admission.refused, admission.from_address) == (0, 0, {})

    def _outcome(self) -> Outcome:
        census = Counter(self.simulator.census)
        for record in self.records:
            census[f"reason:{record.reason or 'none'}"] += 1
            census[f"attempts:{len(record.attempts)}"] += 1
            census["reused"] += record.reused
            census["upgraded"] += record.status == 101
        census += self.balance.census(self.driver.records)
        census += self.edges.census(self.driver.records)
        census += self.versions.census(self.driver.records)
        census += self.websockets.census(self.records)
        for name in ("retries", "reuses", "hedges"):
            census[name] += self._counted(name)
        census["machines"] = len(self.proxies)
        census["cut short"] = self.cut_short
        return Outcome(self.seed, self.simulator.trace_hash, len(self.records), census)


def run(seed: int, *, hostile: bool, keep_trace: bool = False) -> Outcome:
    """One seed from its beginning to its end; an assertion that fails says which seed it was."""
    scenario = Scenario(seed, hostile=hostile, keep_trace=keep_trace)
    try:
        return scenario.run()
    except BaseException as error:
        scenario.simulator.explain(error)
        error.add_note(f"again with: python tests/simulation/replay.py {seed}{'' if hostile else ' --fair'}")
        raise
