"""The end of a proxy: what is idle ends at once, what runs within the grace period, the rest with it."""

from __future__ import annotations

from typing import Final

from coulee.core import Exchange, Filter, sleep
from tests.conformance.scenarios.script import ERROR_END, Set, answer, ask, serve
from tests.conformance.scenarios.upgrades import switched
from tests.conformance.stage import END, Stage

SET: Final = Set()
LONG_S: Final = 60.0
SHORT_S: Final = 0.05


@SET.play("200")
def a_drain_ends_what_is_idle(stage: Stage) -> None:
    client = stage.client(ask())
    origin = serve(stage, client, b"hello")
    stage.drains(LONG_S)
    client.hears_eof()
    origin.hears_eof()


@SET.play("200")
def a_drain_lets_an_exchange_finish(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    stage.drains(LONG_S)
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")
    client.hears_eof()
    origin.hears_eof()


@SET.play("200")
def a_drain_lets_an_answer_finish(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 8"), b"half")
    client.hears(b"half")
    stage.drains(LONG_S)
    origin.says(b"rest")
    client.hears(b"rest")
    client.hears_eof()
    origin.hears_eof()


@SET.play("200")
def a_drain_lets_a_request_arrive(stage: Stage) -> None:
    client = stage.client(ask()[:-2])
    stage.proxy_has_heard_all()
    stage.drains(LONG_S)
    client.says(ask()[-2:])
    origin = serve(stage, client, b"hello")
    client.hears_eof()
    origin.hears_eof()


@SET.play("503 shutting_down")
def a_drain_past_its_grace(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    stage.drains(SHORT_S)
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


@SET.play("200 shutting_down")
def a_drain_past_its_grace_within_an_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 8"), b"half")
    client.hears(b"half")
    stage.drains(SHORT_S)
    client.hears_eof()
    origin.hears_reset()


@SET.play("101 shutting_down")
def a_drain_past_its_grace_within_an_upgrade(stage: Stage) -> None:
    client, origin = switched(stage)
    stage.drains(SHORT_S)
    client.hears_reset()
    origin.hears_reset()


class _Waits(Filter):
    async def request_filter(self, exchange: Exchange) -> None:
        await sleep(3600)


@SET.play("503 shutting_down", filters=[_Waits])
def a_drain_past_its_grace_within_a_filter(stage: Stage) -> None:
    client = stage.client(ask())
    stage.proxy_has_heard_all()
    stage.drains(SHORT_S)
    client.hears(ERROR_END)
    client.hears_eof()


@SET.play("503 shutting_down")
def a_second_drain_has_less_patience(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    stage.drains(LONG_S)
    stage.drains(0.0)
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


@SET.play()
def nobody_is_let_in_after_a_drain(stage: Stage) -> None:
    client = stage.client(ask()[:10])
    stage.proxy_has_heard_all()
    stage.drains(LONG_S)
    late = stage.client()
    late.hears_reset()
    client.resets()
    stage.proxy_has_lost(1)
