"""What is drawn of WebSocket in a seed: who talks to whom, how they cut what they say, how it ends; and, in a share of
the seeds, filters that see the messages. And the oracles of it.

It is drawn by sources of its own, so that what a seed was without it, it still is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, Literal, TypeAlias

from coulee.backends.far_end import FarEnd
from coulee.backends.peers import Answer, Ask, Asked, Fields, Reply
from coulee.backends.websocket_peers import Act, WebSocketEnd, agreed, asking
from coulee.backends.websocket_speech import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Deflate,
    Writer,
    agree,
    close_payload,
    frame,
)
from coulee.core import Access, Closing, Exchange, Filter, Message, Outcome, WebSocket, sleep
from tests.simulation.bodies import pieces_of

ENOUGH: Final = 4321
"""What a filter closes with, if it is asked to."""

REPLY: Final = "to who said "
"""What a filter's replies begin with."""

SILENCE: Final = ("silence", "kill", "reset", "close")
"""Ends that nobody can call orderly."""

BROKEN: Final[tuple[tuple[int, Callable[[bytes], bytes]], ...]] = (
    (1002, lambda mask: frame(TEXT, b"x", mask=mask, rsv=1)),
    (1002, lambda mask: frame(TEXT, b"x", mask=mask, rsv=4)),
    (1002, lambda mask: frame(TEXT, b"x", mask=b"" if mask else b"mask")),
    (1002, lambda mask: frame(0x3, b"x", mask=mask)),
    (1002, lambda mask: frame(0xB, b"x", mask=mask)),
    (1002, lambda mask: frame(CONTINUATION, b"x", mask=mask)),
    (1002, lambda mask: frame(TEXT, b"x", mask=mask, fin=False) + frame(BINARY, b"x", mask=mask)),
    (1002, lambda mask: frame(PING, b"x", mask=mask, fin=False)),
    (1002, lambda mask: frame(PING, bytes(126), mask=mask)),
    (1002, lambda mask: frame(CLOSE, b"\x03", mask=mask)),
    (1002, lambda mask: frame(CLOSE, b"\x03\xed", mask=mask)),
    (1002, lambda mask: frame(CLOSE, (999).to_bytes(2, "big"), mask=mask)),
    (1007, lambda mask: frame(TEXT, b"a\xff", mask=mask)),
    (1007, lambda mask: frame(TEXT, b"\xe2\x82", mask=mask, fin=False) + frame(CONTINUATION, b"x", mask=mask)),
    (1007, lambda mask: frame(CLOSE, b"\x03\xe8\xff", mask=mask)),
)
"""What breaks a rule, and the code that its sender is closed with."""

OFFERS: Final = (
    ("", Deflate(15), Deflate(12)),
    ("; client_max_window_bits", Deflate(12), Deflate(12)),
    ("; server_max_window_bits=9; client_max_window_bits=10", Deflate(10), Deflate(9)),
    ("; server_no_context_takeover; client_no_context_takeover", Deflate(15, True), Deflate(12, True)),
)
"""What a client may offer of permessage-deflate, and what that makes of what it says and hears, if `window_bits` is
12."""

RSV1: Final = BROKEN[1]
_ENDS: Final = ("close frame", "close frame", "close frame", "half-close", "asks to close")

Outcomes: TypeAlias = list[tuple[Literal["on", "back"], str | bytes]]
Kind = Literal["agrees", "refuses", "another protocol", "unasked"]
Speaker = Literal["client", "origin"]


# --------------------------------------------------------------------------------------------------------- the filters


def outcome_of(data: str | bytes, style: str, sender: str) -> Outcomes:
    """What comes of a message. The filters see the client's in their order, and the origin's in reverse."""
    if style != "meddles":
        return [("on", data)]
    if sender != "downstream":
        return _meddled(stamped(data))
    return [(where, stamped(what) if where == "on" else what) for where, what in _meddled(data)]


def stamped(data: str | bytes) -> str | bytes:
    """Seen by the second filter."""
    return data + "+" if isinstance(data, str) else data + b"+"


def _meddled(data: str | bytes) -> Outcomes:
    kind = len(data) % 7
    if kind == 0:
        return []
    if kind == 1:
        half = len(data) // 2
        return [("on", data[:half]), ("on", data[half:])]
    if kind == 2:
        return [("on", data[::-1])]
    if kind == 3:
        return [("back", f"{REPLY}{data!r:.40}"), ("on", data)]
    return [("on", data)]


class Stamp(Filter):
    """The second filter."""

    def websocket_message(self, exchange: Exchange, message: Message) -> Outcome:
        return stamped(message.data)


class Watcher(Filter):
    """Sees every message. Its style: it `keeps` them as they are, `meddles`, or `sleeps` over each."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.closings: Counter[str] = Counter()  # by target

    async def websocket_message(self, exchange: Exchange, message: Message) -> Outcome | None:
        data = message.data
        if data in ("enough", "enough+"):
            return Closing(ENOUGH, "as you like")
        if self.style == "sleeps":
            await sleep(len(data) % 5 * 0.003)
        if self.style != "meddles":
            return None
        return [message.reply(what) if where == "back" else what for where, what in _meddled(data)]

    def websocket_close(self, exchange: Exchange, closing: Closing) -> None:
        self.closings[exchange.request.target] += 1


# ------------------------------------------------------------------------------------------------------ who takes part


@dataclass(slots=True)
class Talk:
    """One WebSocket, or what was to become one."""

    number: int
    kind: Kind
    client: WebSocketEnd
    origin_script: tuple[bytes, list[Act]]
    ask: Ask
    reply: Reply
    begins_with: Speaker  # who ends it
    end: str  # how
    code: int = 0  # of the close frame that ends it, if one does
    origins: list[WebSocketEnd] = field(default_factory=list[WebSocketEnd])
    origin_deflate: Deflate | None = None  # what it deflates by, if it agrees to that
    kill_client_at_s: float = 0.0
    kill_origin_at_s: float = 0.0
    client_answers: bool = True
    origin_answers: bool = True

    def kill_client(self, far: FarEnd) -> None:
        """Wherever it is."""
        if self.client.line is not None:
            self.client.kill()
        else:
            far.reset()

    @property
    def orderly(self) -> bool:
        """Whether it ends so that everything arrives before."""
        killed = self.kill_client_at_s or self.kill_origin_at_s
        return self.end not in SILENCE and not killed and self.client_answers and self.origin_answers


class WebSockets:
    """Of one seed. In fair ones nobody is killed or silent."""

    def __init__(self, seed: int, *, hostile: bool) -> None:
        self.rng = rng = Random(f"{seed} websocket")
        self.hostile = hostile
        self.count = rng.choice((0, 0, 1, 2, 4))
        self.style = rng.choice(("", "", "keeps", "meddles", "sleeps")) if self.count else ""
        self.filter = Watcher(self.style) if self.style else None
        self.passes_pings = rng.random() < 0.5
        self.drain_at_s = rng.random() * 0.6 if self.count and hostile and rng.random() < 0.1 else 0.0
        self.deflate_rng = Random(f"{seed} deflate")
        self.deflates = bool(self.style) and self.deflate_rng.random() < 0.4
        self.is_fair = not hostile  # and nobody drained it
        self.talks: dict[int, Talk] = {}
        self.counts: Counter[str] = Counter()

    def settings(self) -> WebSocket:
        """The proxy's."""
        rng, hostile = Random(self.rng.random()), self.hostile
        return WebSocket(
            message_bytes_max=rng.choice((1000, 16_777_216, 16_777_216)) if hostile else 16_777_216,
            fragments_max=rng.choice((2, 1024)) if hostile else 1024,
            pings="pass" if self.passes_pings else "answer",
            messages_per_s=rng.choice((0.0, 0.0, 1.0)) if hostile else 0.0,
            messages_at_once_max=2,
            bytes_per_s=rng.choice((0.0, 0.0, 10_000.0)) if hostile else 0.0,
            bytes_at_once_max=20_000,
            compress_upstream=self.deflates,
            controls_per_s=rng.choice((1.0, 20.0)) if hostile else 20.0,
            controls_at_once_max=rng.choice((2, 200)) if hostile else 200,
            close_timeout_s=rng.choice((0.5, 5.0)) if hostile else 60.0,
            drain_after_s=rng.choice((0.0, 0.2)),
        )

    def talk(self, number: int, refusal: Reply) -> Talk:
        """One more. `refusal` is the answer of an origin that does not agree, if it is one."""
        rng = self.rng
        kind: Kind = "agrees"
        if rng.random() < 0.2:
            kind = rng.choice(("refuses", "another protocol", "unasked")) if self.hostile else "refuses"
        begins_with: Speaker = rng.choice(("client", "origin"))
        end = rng.choice(_ENDS)
        if self.style and rng.random() < 0.2 and (self.hostile or begins_with == "client"):
            end = "breaks a rule"
        elif self.hostile and rng.random() < 0.3:
            end = rng.choice(SILENCE)
        elif end == "asks to close" and not self.style:
            end = "close frame"
        code = rng.choice((1000, 1001, 1005, 3000, 4999))
        if end == "asks to close":
            code = ENOUGH
        mask = rng.randbytes(4)
        bad = rng.choice(BROKEN)
        offer, client_deflate, our_deflate, origin_deflate = self._compression()
        if offer and bad is RSV1:
            bad = BROKEN[0]  # it breaks no rule where messages may be compressed
        if end == "breaks a rule":
            code = bad[0]
        writers = {"client": Writer(mask=mask, deflate=client_deflate), "origin": Writer(deflate=origin_deflate)}
        scripts = [
            self._script(number, who, writers[who], end if who == begins_with else "", code, bad[1])
            for who in ("client", "origin")
        ]
        hasty = rng.random() < 0.3
        client_answers, origin_answers = (
            not self.hostile or end not in SILENCE or rng.random() < 0.5 for _ in range(2)
        )
        client = WebSocketEnd(scripts[0][1], masks=True, early=scripts[0][0], answers=client_answers,
                              my_deflate=client_deflate, their_deflate=our_deflate)  # fmt: skip
        fields = [("Sec-WebSocket-Extensions", offer)] if offer else []
        ask = asking(f"/{number}", fields=fields, hasty=hasty, behind=client)
        if kind == "unasked":
            ask = Ask("GET", f"/{number}")
        if rng.random() < 0.15:
            ask.fields = [*ask.fields, ("X-Filter", "sleep")]
        talk = Talk(number, kind, client, scripts[1], ask, self._reply(number, kind, refusal), begins_with, end, code,
                    client_answers=client_answers, origin_answers=origin_answers,
                    origin_deflate=origin_deflate)  # fmt: skip
        if end == "kill" or (self.hostile and rng.random() < 0.15):
            at_s = rng.random() * rng.choice((0.01, 0.1, 2.0))
            if rng.random() < 0.5:
                talk.kill_client_at_s = at_s
            else:
                talk.kill_origin_at_s = at_s
        self.talks[number] = talk
        return talk

    def _compression(self) -> tuple[str, Deflate | None, Deflate | None, Deflate | None]:
        """What a client offers, how it deflates, and how we do for it; and how its origin does, where that agrees."""
        if not self.deflates:
            return "", None, None, None
        rng = self.deflate_rng
        offer, client_deflate, our_deflate = rng.choice(OFFERS)
        origin_deflate = rng.choice((None, Deflate(15), Deflate(9, True)))
        return "permessage-deflate" + offer, client_deflate, our_deflate, origin_deflate

    def _reply(self, number: int, kind: Kind, refusal: Reply) -> Reply:
        rng = self.rng
        if kind == "refuses":
            return replace(refusal, status=rng.choice((400, 403, 426)))
        if kind == "unasked":
            return Reply(fault="unasked")
        fields: Fields = [("Connection", "upgrade"), ("Upgrade", "h2c"), ("X-Number", str(number))]
        fault = rng.choice(("silence", "close", "reset", "garbage")) if self.hostile and rng.random() < 0.1 else None
        return Reply(101, fields, fault=fault, interims=refusal.interims, delay_s=refusal.delay_s)  # type: ignore[arg-type]

    def agree(self, asked: Asked, talk: Talk, reply: Reply) -> Reply:
        """What an origin answers to who asks."""
        if reply.status != 101:
            return reply
        early, acts = talk.origin_script
        fields: Fields = [("X-Number", str(talk.number)), ("X-End", str(len(talk.origins) + 1))]
        if talk.origin_deflate is not None:
            fields = [*fields, ("Sec-WebSocket-Extensions", agree(asked.get("sec-websocket-extensions") or ""))]
        end = WebSocketEnd(acts, masks=False, early=early, answers=talk.origin_answers,
                           dies_after_s=talk.kill_origin_at_s, my_deflate=talk.origin_deflate,
                           their_deflate=Deflate(12) if talk.origin_deflate is not None else None)  # fmt: skip
        talk.origins.append(end)
        fields = agreed(asked, fields)
        if talk.kind == "another protocol" and asked.version == "2":
            talk.kind = "agrees"  # an answer by HTTP/2 names no protocol, so there is none to be wrong
        elif talk.kind == "another protocol":
            fields = [(name, "h2c" if name == "Upgrade" else value) for name, value in fields]
        return replace(reply, fields=fields, behind=lambda: end)

    # -- what is said

    def _script(
        self, number: int, who: Speaker, writer: Writer, end: str, code: int, bad: Callable[[bytes], bytes]
    ) -> tuple[bytes, list[Act]]:
        """What goes out early, and the rest, as it is cut."""
        rng = self.rng
        frames: list[bytes] = []
        for at in range(rng.choice((0, 1, 2, 4, 8))):
            frames += self._message(writer, f"{who[0]}{number:05d}.{at}.")
        if end == "close frame":
            frames.append(writer.control(CLOSE, close_payload(code, "" if code == 1005 else f"{who} {number}")))
        elif end == "asks to close":
            frames += writer.message("enough")
        elif end == "breaks a rule":
            frames.append(bad(writer.mask))
        said = b"".join(frames)
        early = b"".join(frames[: rng.choice((0, 0, 1, 2))])
        if rng.random() < 0.2:
            early = said[: rng.randint(0, min(len(said), 200))]
        acts = self._cut(said[len(early) :])
        if rng.random() < 0.2:
            acts.insert(0, Act(then="stop"))
            acts.insert(rng.randint(1, len(acts)), Act(after_s=rng.choice((0.05, 0.5)), then="take"))
            self.counts["websocket:slow"] += 1
        if end == "half-close":
            acts.append(Act(after_s=rng.choice((0.0, 0.01)), then="end"))
        elif end in ("reset", "close"):
            acts.append(Act(after_s=rng.choice((0.0, 0.0, 0.01, 0.3)), then="reset" if end == "reset" else "close"))
        return early, acts

    def _message(self, writer: Writer, unit: str) -> list[bytes]:
        """A message, or something between messages."""
        rng = self.rng
        kind = rng.choice(("text", "text", "binary", "ping", "pong"))
        if kind == "ping":
            return [writer.control(PING, unit.encode())]
        if kind == "pong":
            return [writer.control(PONG, unit.encode())]
        size = rng.choice((0, 1, 3, 7, 30, 31, 125, 126, 1000, rng.choice((5000, 65_535, 65_536))))
        text = (unit * (size // len(unit) + 1))[:size]
        fragments = rng.choice((1, 1, 2, 3))
        self.counts["websocket:fragments"] += fragments > 1
        frames = writer.message(text if kind == "text" else text.encode(), fragments)
        if fragments > 1 and rng.random() < 0.3:
            frames.insert(rng.randint(1, fragments - 1), writer.control(PING, b"between"))
            self.counts["websocket:ping between fragments"] += 1
        return frames

    def _cut(self, said: bytes) -> list[Act]:
        """Anywhere."""
        rng = self.rng
        how = rng.choice(("whole", "some", "some", "bytes"))
        if how == "bytes" and 0 < len(said) < 300:
            self.counts["websocket:by bytes"] += 1
            pieces = [said[at : at + 1] for at in range(len(said))]
        elif how == "whole":
            pieces = [said] if said else []
        else:
            pieces = pieces_of(rng, said)
        pause_s = rng.choice((0.0, 0.001, 0.003))
        return [Act(piece, pause_s) for piece in pieces]

    # -- judging

    def judge(self, talk: Talk, answer: Answer, record: Access) -> None:
        """What holds of one that was granted, at any end."""
        assert talk.kind == "agrees", "what nobody agreed to"
        assert answer.get("x-number") == str(talk.number)
        client, origin = talk.client, talk.origins[int(answer.get("x-end") or "") - 1]
        others = [end for end in talk.origins if end is not origin]
        assert not any(end.heard for end in others), "nothing goes to an origin but behind its 101"
        if self.style:
            self._judge_messages(talk, client, origin, record)
        else:
            self._judge_bytes(talk, client, origin, record)
        if self.is_fair:
            if talk.end == "breaks a rule":
                assert record.reason == "websocket_error"
            else:
                assert (client.error, origin.error, record.reason) == (None, None, "")
        self._count(talk, client, origin)

    def _judge_bytes(self, talk: Talk, client: WebSocketEnd, origin: WebSocketEnd, record: Access) -> None:
        for end, other in ((client, origin), (origin, client)):
            assert other.said.startswith(end.heard), "no byte lost, none invented, none out of order"
            if end.was_told:
                assert end.heard == other.said, "an end in order is told behind the last byte"
                assert other.in_order, "and is no reset"
        if not record.reason:
            assert (record.bytes_in, record.bytes_out) == (len(client.said), len(origin.said))
        if self.is_fair:
            assert (client.heard, origin.heard) == (origin.said, client.said)

    def _judge_messages(self, talk: Talk, client: WebSocketEnd, origin: WebSocketEnd, record: Access) -> None:
        for end, other in ((client, origin), (origin, client)):
            assert not end.theirs.broken, f"we say nothing that is no WebSocket: {end.theirs.broken}"
            sides = ("downstream", "upstream") if other is client else ("upstream", "downstream")
            expected = [what for message in other.mine.messages
                        for where, what in outcome_of(message, self.style, sides[0])
                        if where == "on" and message != "enough"]  # fmt: skip
            replies = [what for message in end.mine.messages
                       for where, what in outcome_of(message, self.style, sides[1])
                       if where == "back" and message != "enough"]  # fmt: skip
            of_filter = [message for message in end.theirs.messages if str(message).startswith(REPLY)]
            passed = [message for message in end.theirs.messages if not str(message).startswith(REPLY)]
            assert expected[: len(passed)] == passed, "what the filter makes of the messages, in their order"
            assert replies[: len(of_filter)] == of_filter, "and so for its replies"
            whole = self.is_fair or (
                talk.orderly and not (record.reason or client.error or origin.error)
                and record.tags["websocket_close"] != 1001
            )  # fmt: skip
            if whole and talk.end in ("close frame", "half-close", "asks to close"):
                speaker = client if talk.begins_with == "client" else origin
                if other is speaker:
                    assert passed == expected, "up to the last"
            if end.was_told and end.theirs.closing is None:
                assert end.in_order or other.in_order, "no reset is told as an end in order"
            pings = other.mine.pings if self.passes_pings else []
            pongs = other.mine.pongs if self.passes_pings else end.mine.pings
            assert pings[: len(end.theirs.pings)] == end.theirs.pings
            assert pongs[: len(end.theirs.pongs)] == end.theirs.pongs
        self._judge_close(talk, client, origin, record)

    def _judge_close(self, talk: Talk, client: WebSocketEnd, origin: WebSocketEnd, record: Access) -> None:
        assert self.filter is not None
        assert self.filter.closings[f"/{talk.number}"] == 1, "it ends once"
        if not self.is_fair:
            if talk.end == "breaks a rule" and talk.begins_with == "client" and record.reason == "websocket_error":
                told = client.theirs.closing
                assert told is None or told[0] in (talk.code, 1001), "or a drain was the first to say something"
            return
        first, second = (client, origin) if talk.begins_with == "client" else (origin, client)
        heard = [end.theirs.closing and end.theirs.closing[0] for end in (first, second)]
        if talk.end == "breaks a rule":
            assert heard == [talk.code, 1001 if first is client else 1011]
            return
        if talk.end == "half-close":
            assert heard == [None, None], "an end without a close frame is one on the other side, too"
            assert record.tags["websocket_close"] == 1006
            return
        assert heard == [talk.code, talk.code]
        assert record.tags["websocket_close"] == talk.code

    def judge_the_end(self) -> None:
        """Nobody is left with what nobody else has."""
        for talk in self.talks.values():
            for end in (talk.client, *talk.origins):
                assert end.line is None or end.is_closed, f"an end of /{talk.number} is left open"

    # -- what occurred

    def _count(self, talk: Talk, client: WebSocketEnd, origin: WebSocketEnd) -> None:
        counts = self.counts
        counts[f"websocket:{'filtered, ' if self.style else ''}{talk.end}, by {talk.begins_with}"] += 1
        if talk.end == "silence":
            counts[f"websocket:{'filtered, ' if self.style else ''}silence"] += 1
        counts["websocket:early by client"] += bool(talk.ask.hasty and client.early)
        counts["websocket:early by origin"] += bool(origin.early)
        for name, end in (("client", client), ("origin", origin)):
            counts[f"websocket:reset heard by {name}"] += end.error == "reset"
            counts[f"websocket:{name} killed"] += end.gone == "reset"
            counts[f"websocket:deflated for {name}"] += end.theirs.inflated
            counts[f"websocket:deflated by {name}"] += end.mine.inflated
            counts[f"websocket:pong heard by {name}"] += bool(end.theirs.pongs)
            if end.theirs.closing is not None:
                counts[f"websocket:{end.theirs.closing[0]} heard by {name}"] += 1

    def census(self, records: Sequence[Access]) -> Counter[str]:
        """What occurred."""
        counts = Counter(self.counts)
        of = {record.target: record for record in records}
        for talk in self.talks.values():
            record = of.get(f"/{talk.number}")
            if record is not None:
                counts[f"websocket:{talk.kind}"] += 1
                counts[f"websocket:{'filtered, ' if self.style else ''}{record.reason or 'none'}"] += 1
        return counts
