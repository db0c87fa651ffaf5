"""Connections to origins that speak HTTP/2: what is lent, what becomes of it, and when an origin is given up."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.core import Config, Exchange, Filter, Request, Retry, Timeouts, sleep
from tests.core.http2_ends import (
    PLAIN,
    Client,
    Origin,
    answer,
    ends,
    peer,
    played,
    reasons,
)
from tests.core.ledger import on
from tests.core.world import World
from tests.http2 import frames as h2
from tests.http2.frames import Code, data, goaway, headers, ping, rst, settings, window_update

NO_RETRY = Retry(retries_max=0)


def single(config: Config = PLAIN, *filters: Filter, values: dict[int, int] | None = None, **changes: Any) -> World:
    return played(*filters, peers=(peer(),), config=config, **changes)


async def _a_while(exchange: Exchange, request: Request) -> None:
    await sleep(5)


SLOW = on("upstream_request_filter", _a_while)


def lent_before_written(retry: Retry | None = None) -> tuple[World, Client, Origin]:
    """A stream is lent, and its request is not written yet: a filter takes its time."""
    world = single(PLAIN, SLOW, retry=retry or Retry())
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    assert origin.told() == []
    return world, client, origin


# ------------------------------------------------------------------------------- what is lent, and not yet written


@pytest.mark.parametrize("how", ["reset", "closed", "faulty", "flooded"])
def test_a_connection_that_dies_before_its_stream_is_written_on(how: str) -> None:
    """Nobody reads from such a stream, so that nobody would ever hear of it."""
    world, client, origin = lent_before_written(NO_RETRY)
    if how == "reset":
        world.resets(origin.conn)
    elif how == "closed":
        origin.leaves()
    elif how == "faulty":
        origin.says(data(0, b"x"))
    else:
        origin.says(ping() * 300)
    world.wait(6)
    assert client.told()[0] == "1 503"
    assert reasons(world) == ["upstream_refused_stream"]
    client.leaves()
    ends(world)


def test_a_stream_that_is_not_written_yet_is_not_begun_behind_a_goaway() -> None:
    world, client, origin = lent_before_written()
    origin.says(goaway(2**31 - 1))
    world.wait(6)
    assert origin.told() == []
    again = Origin(world)
    world.wait(6)
    assert again.told() == ["1 GET /a end"]
    again.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


def test_an_origin_that_allows_fewer_streams_while_one_is_about_to_begin() -> None:
    world, client, origin = lent_before_written()
    origin.says(settings({h2.MAX_CONCURRENT_STREAMS: 0}))
    world.wait(6)
    again = Origin(world)
    world.wait(6)
    assert again.told() == ["1 GET /a end"]
    again.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    client.leaves()
    ends(world)


# ------------------------------------------------------------------------------------------------ what comes back


def test_an_answer_that_is_whole_is_kept_though_its_stream_is_reset_behind_it() -> None:
    """RFC 9113 section 8.1: a server need not wait for the rest of a request that it does not want."""
    for code in (Code.NO_ERROR, Code.CANCEL):
        world = single(retry=NO_RETRY)
        client = Client(world)
        client.says(headers(1, h2.post(), end=False), data(1, b"abc"))
        origin = Origin(world)
        assert origin.told() == ["1 POST /", "1 DATA 'abc'"]
        origin.says(answer(1, 413), data(1, b"too", end=False), data(1, b" large", end=True), rst(1, code))
        assert client.told() == ["1 413", "1 DATA 'too large' end", "1 RST NO_ERROR"]
        assert reasons(world) == [""]
        client.leaves()
        ends(world)


# ------------------------------------------------------------------------------------------------ whether it is there


def test_an_origin_that_is_silent_is_asked_though_requests_go_on_coming() -> None:
    world = single(timeouts=Timeouts(answer_timeout_s=1000), retry=NO_RETRY)
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    for turn in range(1, 5):
        world.wait(6)
        client.asks(1 + 2 * turn)
    assert [word for word in origin.told() if word == "PING"] == ["PING"]
    world.wait(9)
    assert origin.closed
    assert reasons(world) == ["upstream_timeout"] * 5
    client.leaves()
    ends(world)


def test_any_byte_is_a_sign() -> None:
    world = single(timeouts=Timeouts(answer_timeout_s=1000))
    client = Client(world)
    client.asks(1)
    origin = Origin(world)
    world.wait(21)
    assert origin.told() == ["1 GET /a end", "PING"]
    origin.says(window_update(0, 1000))
    world.wait(11)
    assert not origin.closed
    world.wait(10)
    assert origin.told() == ["PING"]
    origin.says(ping(b"are you?", ack=True))
    world.wait(19)
    assert origin.told() == []
    origin.says(answer(1, 204, end=True))
    assert client.told() == ["1 204 end"]
    world.wait(40)
    assert origin.told() == [], "it owes nothing"
    client.leaves()
    ends(world)
