"""WebSockets whose messages a filter sees: what it makes of them, and how they end."""

from __future__ import annotations

from typing import Final

from coulee.core import Closing, Exchange, Filter, Message, Outcome, Timeouts, WebSocket, blocking, native, sleep
from tests.conformance.scenarios.messages import MUCH
from tests.conformance.scenarios.script import Set, setting
from tests.conformance.scenarios.upgrades import ASK, SWITCH
from tests.conformance.stage import END, Player, Stage
from tests.core.websocket_frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, close, frame, text

SET: Final = Set()
SHORT: Final = setting(
    websocket=WebSocket(close_timeout_s=0.3, drain_after_s=0.1), timeouts=Timeouts(upgraded_idle_timeout_s=0.3)
)


async def _doubled(word: str) -> str:
    return word * 2


class Plays(Filter):
    """Does with a message what it says; and has the masks of all runs alike."""

    def request_filter(self, exchange: Exchange) -> None:
        exchange.rng.seed(6455)

    async def websocket_message(self, exchange: Exchange, message: Message) -> Outcome | None:
        match message.data:
            case "drop":
                return []
            case "split":
                return ["one", b"two", message.reply("done")]
            case "wait":
                await sleep(0.01)
                return await blocking(str.upper, await native(_doubled, "waited"))
            case "close":
                return Closing(4001, "as you wish")
            case "fail":
                raise RuntimeError("as you wish")
        return None

    def websocket_close(self, exchange: Exchange, closing: Closing) -> None:
        exchange.tags["end"] = f"{closing.code} by {closing.sender}"


def switched(stage: Stage) -> tuple[Player, Player]:
    """A client and an origin behind a 101."""
    client = stage.client(ASK)
    origin = stage.origin()
    origin.hears(END)
    origin.says(SWITCH)
    client.hears(END)
    return client, origin


def both_say_goodbye(client: Player, origin: Player, code: int) -> None:
    """Each has been told of the end, and answers, and is closed."""
    client.says(close(code))
    origin.says(close(code, mask=None))
    client.hears_eof()
    origin.half_closes()
    client.half_closes()
    origin.hears_eof()


@SET.play("101", filters=[Plays])
def messages_through_a_filter(stage: Stage) -> None:
    client, origin = switched(stage)
    client.says(text("first"), text("drop"), text("split"), text("wait"), frame(PING, b"?"), text("last"))
    client.hears(text("done", mask=None))
    origin.hears_bytes(len(origin.peer.received.partition(END)[0] + END) + 6 * 6 + len("firstonetwoWAITEDWAITED?last"))
    origin.says(text("wait", mask=None), text("drop", mask=None), frame(BINARY, b"\x00\xff", mask=None))
    client.hears(text("WAITEDWAITED", mask=None) + frame(BINARY, b"\x00\xff", mask=None))
    client.says(close(4000, "done"))
    origin.says(close(4000, "done", mask=None))
    client.hears(close(4000, "done", mask=None))
    both_say_goodbye(client, origin, 4000)


@SET.play("101", filters=[Plays])
def much_in_one_message_each_way(stage: Stage) -> None:
    client, origin = switched(stage)
    head = len(origin.peer.received)
    client.says(frame(BINARY, MUCH[:1000], fin=False), frame(CONTINUATION, MUCH[1000:]))
    origin.says(frame(BINARY, MUCH, mask=None))
    client.hears(MUCH)
    origin.hears_bytes(head + 14 + len(MUCH))
    client.says(close(1000))
    origin.hears_bytes(head + 14 + len(MUCH) + 8)
    origin.says(close(1000, mask=None))
    client.hears(close(1000, mask=None))
    client.hears_eof()
    client.half_closes()
    origin.half_closes()
    origin.hears_eof()


@SET.play("101 websocket_error", filters=[Plays])
def a_message_that_is_no_text(stage: Stage) -> None:
    client, origin = switched(stage)
    client.says(frame(TEXT, b"\xff"))
    client.hears_eof()
    origin.says(close(1001, mask=None))
    origin.half_closes()
    client.half_closes()
    origin.hears_eof()


@SET.play("101", "101 filter_error", filters=[Plays])
def a_filter_that_ends_a_websocket_and_one_that_fails(stage: Stage) -> None:
    for word, code in (("close", 4001), ("fail", 1011)):
        client, origin = switched(stage)
        client.says(text(word))
        client.hears(code.to_bytes(2, "big"))
        both_say_goodbye(client, origin, code)
        stage.has_records(len(stage.clients))


@SET.play("101", filters=[Plays], config=SHORT)
def a_close_frame_that_is_not_answered(stage: Stage) -> None:
    client, origin = switched(stage)
    client.says(close(4000))
    client.hears(close(4000, mask=None))
    client.hears_eof()
    origin.hears_eof()


@SET.play("101 idle_timeout", filters=[Plays], config=SHORT)
def a_websocket_that_falls_silent(stage: Stage) -> None:
    client, origin = switched(stage)
    client.hears(close(1001, mask=None))
    both_say_goodbye(client, origin, 1001)


@SET.play("101", filters=[Plays], config=SHORT)
def a_drain_with_a_websocket(stage: Stage) -> None:
    client, origin = switched(stage)
    stage.drains(20)
    client.hears(close(1001, mask=None))
    both_say_goodbye(client, origin, 1001)


@SET.play("101 client_gone", filters=[Plays])
def a_websocket_that_the_client_resets(stage: Stage) -> None:
    client, origin = switched(stage)
    client.resets()
    origin.hears_reset()


@SET.play("101", filters=[Plays])
def a_websocket_that_the_origin_leaves_without_a_word(stage: Stage) -> None:
    client, origin = switched(stage)
    origin.half_closes()
    client.hears_eof()
    client.says(frame(CLOSE))
    client.half_closes()
    origin.hears_eof()
