"""What takes too long. The limit that is to strike is short, and what it limits never comes; others are as usual."""

from __future__ import annotations

from typing import Final

from coulee.core import Limits, Timeouts
from tests.conformance.scenarios.messages import MORE_THAN_FITS
from tests.conformance.scenarios.script import ERROR_END, Set, answer, ask, serve, setting
from tests.conformance.stage import END, Stage

SET: Final = Set()


@SET.play("408 header_timeout", config=setting(timeouts=Timeouts(head_timeout_s=0.05)))
def a_head_that_does_not_end(stage: Stage) -> None:
    client = stage.client(ask()[:-2])
    client.hears(ERROR_END)
    client.hears_eof()


@SET.play("408 body_timeout", config=setting(timeouts=Timeouts(body_idle_timeout_s=0.05)))
def a_body_that_stops(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 10"), b"half")
    origin = stage.origin()
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


@SET.play(
    "408 body_timeout",
    config=setting(timeouts=Timeouts(body_rate_window_s=0.05, body_rate_grace_s=0.01, body_rate_min_bytes_per_s=1e6)),
)
def a_body_that_is_too_slow(stage: Stage) -> None:
    client = stage.client(ask("POST /", "Content-Length: 10"), b"half")
    origin = stage.origin()
    client.hears(ERROR_END)
    client.hears_eof()
    origin.hears_reset()


SHORT_CONNECT: Final = setting(timeouts=Timeouts(connect_timeout_s=0.05))


@SET.play("504 upstream_connect_timeout", origins=("silence",), config=SHORT_CONNECT)
def an_origin_that_answers_no_connect(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


@SET.play("200, 2 attempts", origins=("silence", "unix"), config=SHORT_CONNECT)
def an_origin_that_answers_no_connect_and_another(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello", stage.origin(2))


@SET.play("504 upstream_timeout", config=setting(timeouts=Timeouts(answer_timeout_s=0.05)))
def an_origin_that_does_not_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    client.hears(ERROR_END)
    origin.hears_reset()


@SET.play("200 upstream_timeout", config=setting(timeouts=Timeouts(upstream_idle_timeout_s=0.05)))
def an_origin_that_stops_within_its_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 10"), b"half")
    client.hears(b"half")
    client.hears_eof()
    origin.hears_reset()


@SET.play("200 upstream_timeout", config=setting(timeouts=Timeouts(upstream_idle_timeout_s=0.05)))
def an_origin_that_stops_within_its_answer_to_an_old_client(stage: Stage) -> None:
    client = stage.client(ask(version="1.0"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer(), b"half")
    client.hears(b"half")
    client.hears_reset()
    origin.hears_reset()


ONE_CONNECTION: Final = Limits(connections_per_peer_max=1, pool_waiters_max=1)


@SET.play("503 pool_full", "200", config=setting(ONE_CONNECTION, Timeouts(pool_wait_s=0.05)))
def nobody_gives_up_a_connection_in_time(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    other = stage.client(ask("GET /2"))
    other.hears(ERROR_END)
    origin.says(answer(body=b"first"))
    client.hears(b"first")


@SET.play("503 pool_full", "200", "200", config=setting(ONE_CONNECTION))
def a_queue_for_a_connection_has_an_end(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(END)
    second = stage.client(ask("GET /2"))
    stage.proxy_has_heard_all()
    third = stage.client(ask("GET /3"))
    third.hears(ERROR_END)
    origin.says(answer(body=b"first"))
    client.hears(b"first")
    serve(stage, second, b"second", origin)


@SET.play("200", config=setting(timeouts=Timeouts(keep_alive_idle_s=0.2)))
def a_client_that_asks_no_more(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello")
    client.hears_eof()


@SET.play(config=setting(timeouts=Timeouts(keep_alive_idle_s=0.05)))
def a_client_that_never_asks(stage: Stage) -> None:
    client = stage.client()
    client.hears_eof()


@SET.play("200", "200", config=setting(timeouts=Timeouts(upstream_keep_alive_idle_s=0.05)))
def a_connection_to_the_origin_that_is_not_needed(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    origin.hears_eof()
    client.says(ask("GET /2"))
    serve(stage, client, b"second").hears_eof()


@SET.play("200", config=setting(timeouts=Timeouts(linger_s=0.05)))
def a_client_that_does_not_close(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Connection: close"))
    serve(stage, client, b"hello")
    client.hears_eof()
    stage.proxy_has_lost(1)


@SET.play("200 send_timeout", config=setting(timeouts=Timeouts(send_stall_timeout_s=0.02)))
def a_client_that_takes_nothing(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", f"Content-Length: {len(MORE_THAN_FITS)}"))
    client.hears(END)
    client.stops_reading()
    origin.says(MORE_THAN_FITS)
    origin.hears_reset()
    client.reads_on()
    client.hears_reset()
    client.has_part_of(MORE_THAN_FITS)
    stage.vague.add("bytes_out")


@SET.play("504 upstream_timeout", config=setting(timeouts=Timeouts(send_stall_timeout_s=0.02)))
def an_origin_that_takes_nothing(stage: Stage) -> None:
    client = stage.client(ask("POST /", f"Content-Length: {len(MORE_THAN_FITS)}"))
    origin = stage.origin()
    origin.hears(END)
    origin.stops_reading()
    client.says(MORE_THAN_FITS)
    client.hears(ERROR_END)
    client.hears_eof()
    origin.reads_on()
    origin.hears_reset()
    origin.has_part_of(MORE_THAN_FITS)
    stage.vague.add("bytes_in")
