"""Upgraded connections: how they come about, and how they end."""

from __future__ import annotations

from typing import Final

from coulee.core import Exchange, Filter, Response, Timeouts, respond
from tests.conformance.scenarios.messages import MUCH
from tests.conformance.scenarios.script import ERROR_END, Set, answer, ask, serve, setting
from tests.conformance.stage import END, Player, Stage

SET: Final = Set()
ASK: Final = ask("GET /chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
SWITCH: Final = answer("101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")


def switched(stage: Stage) -> tuple[Player, Player]:
    """A client and an origin behind a 101."""
    client = stage.client(ASK)
    origin = stage.origin()
    origin.hears(END)
    origin.says(SWITCH)
    client.hears(END)
    client.says(b"ping")
    origin.hears(b"ping")
    origin.says(b"pong")
    client.hears(b"pong")
    return client, origin


@SET.play("101")
def an_upgrade_that_the_client_ends(stage: Stage) -> None:
    client, origin = switched(stage)
    client.half_closes()
    origin.hears_eof()
    origin.says(b"last words")
    client.hears(b"last words")
    origin.half_closes()
    client.hears_eof()


@SET.play("101")
def an_upgrade_that_the_origin_ends(stage: Stage) -> None:
    client, origin = switched(stage)
    origin.half_closes()
    client.hears_eof()
    client.says(b"last words")
    origin.hears(b"last words")
    client.half_closes()
    origin.hears_eof()


@SET.play("101")
def an_upgrade_with_bytes_that_come_early(stage: Stage) -> None:
    client = stage.client(ASK, b"early")
    origin = stage.origin()
    origin.hears(END)
    stage.proxy_has_heard_all()
    origin.says(SWITCH, b"at once")
    client.hears(b"at once")
    origin.hears(b"early")
    client.half_closes()
    origin.hears_eof()
    origin.half_closes()
    client.hears_eof()


@SET.play("101")
def an_upgrade_with_much_both_ways(stage: Stage) -> None:
    client, origin = switched(stage)
    client.says(MUCH)
    origin.says(MUCH)
    client.hears(MUCH)
    origin.hears(MUCH)
    client.half_closes()
    origin.hears_eof()
    origin.half_closes()
    client.hears_eof()


@SET.play("200")
def an_upgrade_that_the_origin_does_not_know(stage: Stage) -> None:
    client = stage.client(ASK)
    serve(stage, client, b"hello")
    client.hears_eof()


@SET.play("426")
def an_upgrade_that_the_origin_refuses(stage: Stage) -> None:
    client = stage.client(ASK, b"early, and read by nobody")
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("426 Upgrade Required", "Connection: Upgrade", "Upgrade: websocket", body=b"no"))
    client.hears(b"no")
    client.hears_eof()


@SET.play("200")
def an_upgrade_that_is_not_allowed_is_not_passed_on(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"))
    serve(stage, client, b"hello")


@SET.play("101 idle_timeout", config=setting(timeouts=Timeouts(upgraded_idle_timeout_s=0.3)))
def an_upgrade_that_falls_silent(stage: Stage) -> None:
    client, origin = switched(stage)
    client.hears_reset()
    origin.hears_reset()


@SET.play("101 client_gone")
def an_upgrade_that_the_client_resets(stage: Stage) -> None:
    client, origin = switched(stage)
    client.resets()
    origin.hears_reset()


@SET.play("101 upstream_reset")
def an_upgrade_that_the_origin_resets(stage: Stage) -> None:
    client, origin = switched(stage)
    origin.resets()
    client.hears_reset()


@SET.play("101 upstream_reset")
def an_upgrade_that_the_origin_resets_behind_its_end(stage: Stage) -> None:
    client, origin = switched(stage)
    origin.half_closes()
    client.hears_eof()
    client.says(b"one word more")
    origin.hears(b"one word more")
    origin.resets()
    client.says(b"and one that nobody hears")  # a backend need not hear of a reset behind the end before it sends
    stage.vague.add("bytes_in")
    stage.proxy_has_lost(2)


@SET.play("101, 2 attempts", origins=("tcp", "tcp"))
def an_upgrade_at_the_second_attempt(stage: Stage) -> None:
    client = stage.client(ASK, b"early")
    origin = stage.origin()
    origin.hears(END)
    stage.proxy_has_heard_all()
    origin.resets()
    origin = stage.origin(2)
    origin.hears(END)
    origin.says(SWITCH)
    origin.hears(b"early")
    client.hears(END)
    client.half_closes()
    origin.hears_eof()
    origin.half_closes()
    client.hears_eof()


class _SaysNo(Filter):
    def response_filter(self, exchange: Exchange, response: Response) -> Response | None:
        return respond(403, "not today") if response.status == 101 else None


@SET.play("403", filters=[_SaysNo])
def an_upgrade_that_a_filter_refuses(stage: Stage) -> None:
    client = stage.client(ASK)
    origin = stage.origin()
    origin.hears(END)
    origin.says(SWITCH)
    client.hears(b"not today")
    client.hears_eof()
    origin.hears_reset()


@SET.play("502 upstream_invalid")
def an_upgrade_to_something_else(stage: Stage) -> None:
    client = stage.client(ASK)
    origin = stage.origin()
    origin.hears(END)
    origin.says(SWITCH.replace(b"websocket", b"TLS/1.3"))
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()
