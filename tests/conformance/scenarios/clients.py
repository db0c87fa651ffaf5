"""Clients that leave, in every phase of an exchange."""

from __future__ import annotations

from typing import Final

from coulee.core import Exchange, Filter, sleep
from tests.conformance.scenarios.script import Set, answer, ask, chunk, serve, setting
from tests.conformance.stage import END, Stage

SET: Final = Set()


@SET.play()
def a_client_that_comes_and_goes(stage: Stage) -> None:
    client = stage.client()
    client.half_closes()
    client.hears_eof()


@SET.play()
def a_client_that_resets_at_once(stage: Stage) -> None:
    client = stage.client(b"G")
    stage.proxy_has_heard_all()
    client.resets()
    stage.proxy_has_lost(1)


@SET.play()
def a_reset_within_the_head(stage: Stage) -> None:
    client = stage.client(ask()[:-2])
    stage.proxy_has_heard_all()
    client.resets()
    stage.proxy_has_lost(1)


@SET.play("0 client_gone")
def an_end_within_the_head(stage: Stage) -> None:
    client = stage.client(ask()[:-2])
    client.half_closes()
    client.hears_reset()


@SET.play("0 client_gone")
def a_reset_within_the_body(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 10"), b"half")
    origin = stage.origin()
    origin.hears(b"half")
    client.resets()
    origin.hears_reset()


@SET.play("0 client_gone")
def a_reset_while_the_origin_is_awaited(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    client.resets()
    origin.hears_reset()


@SET.play("200")
def a_close_while_the_origin_is_awaited(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    client.closes()
    origin.says(answer(body=b"for nobody"))
    stage.proxy_has_lost(1)


@SET.play("200 client_gone")
def a_reset_within_the_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"half"))
    client.hears(b"half\r\n")
    client.resets()
    origin.hears_reset()


@SET.play("200")
def a_reset_between_two_requests(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello")
    client.resets()
    stage.proxy_has_lost(1)


@SET.play("0 client_gone")
def a_reset_with_requests_in_the_pipe(stage: Stage) -> None:
    client = stage.client(ask("GET /1"), ask("GET /unanswered"), ask("GET /unanswered"))
    origin = stage.origin()
    origin.hears(END)
    stage.proxy_has_heard_all()
    client.resets()
    origin.hears_reset()


@SET.play("0 client_gone", config=setting(cancel_on_half_close=True))
def a_half_close_that_is_taken_for_leaving(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    client.half_closes()
    client.hears_reset()
    origin.hears_reset()


class _Waits(Filter):
    async def request_filter(self, exchange: Exchange) -> None:
        await sleep(3600)

    def logging(self, exchange: Exchange) -> None:
        exchange.tags["logged"] = True


@SET.play("0 client_gone", filters=[_Waits])
def a_reset_while_a_filter_waits(stage: Stage) -> None:
    client = stage.client(ask())
    stage.proxy_has_heard_all()
    client.resets()


@SET.play("0 client_gone", "200", filters=[lambda: _ReadsBody()])
def a_reset_while_a_filter_reads_the_body(stage: Stage) -> None:
    client = stage.client(ask("POST /1", "Content-Length: 10"), b"half")
    stage.proxy_has_heard_all()
    client.resets()
    stage.has_records(1)
    other = stage.client(ask("POST /2", "Content-Length: 8"), b"half")
    stage.proxy_has_heard_all()
    other.says(b"rest")
    origin = stage.origin()
    origin.hears(b"halfrest")
    origin.says(answer(body=b"hello"))
    other.hears(b"hello")


class _ReadsBody(Filter):
    async def request_filter(self, exchange: Exchange) -> None:
        exchange.tags["body"] = len(await exchange.body())
