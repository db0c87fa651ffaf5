"""The opening handshake of a WebSocket between versions: who makes a key, who proves that it was read, and who checks
that."""

from __future__ import annotations

from typing import Any

import pytest

from coulee.core import Exchange, Request, Response
from coulee.core.transport import DIRECT
from coulee.core.websocket_handshake import accept_of
from tests.core.http2_ends import H2C, ends, peer, played, reasons
from tests.core.ledger import on
from tests.core.upgraded import PROOF, SAMPLE, Client1, Client2, Origin1, Origin2, Spoken, asked, proof_of
from tests.core.world import World

ABOUT = [
    ("Sec-WebSocket-Protocol", "chat, superchat"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
]
AGREED = [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Extensions", "permessage-deflate")]


def between(up: Spoken, *filters: Any, **changes: Any) -> World:
    return played(*filters, peers=(peer(transport=H2C if up == "h2" else DIRECT),), **changes)


def lower(pairs: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in pairs}


def over(world: World, *all_ends: Any) -> None:
    for end in all_ends:
        end.leaves()
    ends(world)


def test_the_proof_is_that_of_the_rfc() -> None:
    assert accept_of(SAMPLE) == PROOF == proof_of(SAMPLE)


def test_nothing_is_touched_between_two_of_http1() -> None:
    for key, proof in ((SAMPLE, PROOF), ("no key", "no proof"), ("", "")):
        world = between("h1")
        client = Client1(world)
        client.asks(fields=ABOUT, key=key)
        origin = Origin1(world)
        origin.listen()
        wanted = lower(ABOUT) | {"sec-websocket-version": "13"} | ({"sec-websocket-key": key} if key else {})
        assert {name: value for name, value in origin.fields.items() if name.startswith("sec-")} == wanted
        origin.accepts(fields=AGREED, accept=proof)
        client.listen()
        wanted = lower(AGREED) | ({"sec-websocket-accept": proof} if proof else {})
        assert client.status == 101
        assert {name: value for name, value in client.fields.items() if name.startswith("sec-")} == wanted
        over(world, client, origin)


# --------------------------------------------------------------------------------------------- HTTP/2 to HTTP/1.1


@pytest.mark.parametrize("sent", ["", SAMPLE, "nonsense"])
def test_an_origin_of_http1_gets_a_key_of_ours(sent: str) -> None:
    world = between("h1")
    client = Client2(world)
    client.asks(fields=ABOUT, key=sent)
    origin = Origin1(world)
    origin.listen()
    assert origin.start == "GET /chat HTTP/1.1"
    key = origin.fields.pop("sec-websocket-key")
    assert key != sent
    assert origin.fields == {
        "host": "a", "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13", **lower(ABOUT)
    }  # fmt: skip
    origin.accepts(fields=AGREED, accept=proof_of(key))
    client.listen()
    assert client.status == 101
    assert client.fields == {"date": "now", **lower(AGREED)}, "the proof was for us"
    over(world, client, origin)


def test_each_has_a_key_of_its_own_and_a_replay_the_same() -> None:
    def keys() -> list[str]:
        world = between("h1")
        client = Client2(world)
        found: list[str] = []
        for stream in (1, 3, 5):
            client.beside(stream).asks()
            origin = Origin1(world)
            origin.listen()
            found.append(origin.fields["sec-websocket-key"])
        over(world, client)
        return found

    first = keys()
    assert len(set(first)) == 3
    assert all(proof_of(key) for key in first), "16 bytes each"
    assert keys() == first


@pytest.mark.parametrize(
    "proof", ["", PROOF, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo", "{right} ", "{right}=", "{right}, {right}"]
)
def test_its_proof_is_checked(proof: str) -> None:
    world = between("h1")
    client, origin = asked(world, "h2", "h1")
    assert isinstance(origin, Origin1)
    origin.accepts(accept=proof.format(right=proof_of(origin.fields["sec-websocket-key"])))
    client.listen()
    if proof == "{right} ":  # a blank behind a value is none of it
        assert client.status == 101
    else:
        assert client.status == 502
        assert reasons(world) == ["upstream_invalid"]
        assert world.access[0].detail == "a wrong Sec-WebSocket-Accept, or none (RFC 6455 section 4.1)"
        assert world.closing[origin.conn], "nobody knows what it would say"
    over(world, client)


def test_a_filter_may_choose_the_key() -> None:
    def choose(exchange: Exchange, request: Request) -> None:
        request.headers.set("Sec-WebSocket-Key", SAMPLE)

    world = between("h1", on("upstream_request_filter", choose))
    client, origin = asked(world, "h2", "h1")
    assert isinstance(origin, Origin1)
    assert origin.fields["sec-websocket-key"] == SAMPLE
    origin.accepts(accept=PROOF)
    client.listen()
    assert client.status == 101
    over(world, client, origin)


def test_filters_see_the_proof_that_came() -> None:
    seen: list[str | None] = []

    def note(exchange: Exchange, response: Response) -> None:
        seen.append(response.headers.get("sec-websocket-accept"))

    world = between("h1", on("upstream_response_filter", note))
    client, origin = asked(world, "h2", "h1")
    assert isinstance(origin, Origin1)
    origin.accepts()
    client.listen()
    assert seen == [proof_of(origin.fields["sec-websocket-key"])]
    assert "sec-websocket-accept" not in client.fields
    over(world, client, origin)


# --------------------------------------------------------------------------------------------- HTTP/1.1 to HTTP/2


def test_a_client_of_http1_gets_its_proof_from_us() -> None:
    world = between("h2")
    client = Client1(world)
    client.asks(fields=ABOUT)
    origin = Origin2(world)
    about = {name: value for name, value in origin.fields.items() if name.startswith("sec-")}
    assert about == lower(ABOUT) | {"sec-websocket-version": "13"}, "but no key"
    origin.accepts(fields=AGREED)
    client.listen()
    assert client.start == "HTTP/1.1 101 Switching Protocols"
    assert client.fields == {
        "date": "now", "connection": "upgrade", "upgrade": "websocket", "sec-websocket-accept": PROOF, **lower(AGREED)
    }  # fmt: skip
    over(world, client, origin)


@pytest.mark.parametrize("stray", [PROOF, "nonsense"])
def test_the_proof_of_an_origin_that_was_not_asked_for_one_is_ours(stray: str) -> None:
    world = between("h2")
    client = Client1(world)
    client.asks()
    origin = Origin2(world)
    origin.accepts(fields=[("Sec-WebSocket-Accept", stray)])
    client.listen()
    assert client.fields["sec-websocket-accept"] == PROOF
    over(world, client, origin)


@pytest.mark.parametrize(
    "key", ["", SAMPLE[:-1], SAMPLE + "=", "A" * 24, "=" * 24, "dGhlIHNhbXBsZSBub2-jZQ==", f"{SAMPLE}, {SAMPLE}"]
)
def test_a_key_is_looked_at_where_no_origin_will(key: str) -> None:
    world = between("h2")
    client = Client1(world)
    client.asks(key=key)
    origin = Origin2(world)
    client.listen()
    assert (client.status, reasons(world)) == (400, ["bad_request"])
    assert world.access[0].detail == "no Sec-WebSocket-Key of 16 bytes (RFC 6455 section 4.2.1)"
    assert not origin.fields, "it was asked nothing"
    over(world, client, origin)


# ----------------------------------------------------------------------------------------------- HTTP/2 to HTTP/2


@pytest.mark.parametrize("key", ["", SAMPLE, "nonsense"])
def test_there_are_no_keys_between_two_of_http2(key: str) -> None:
    world = between("h2")
    client = Client2(world)
    client.asks(fields=ABOUT, key=key)
    origin = Origin2(world)
    about = {name: value for name, value in origin.fields.items() if name.startswith("sec-")}
    assert about == lower(ABOUT) | {"sec-websocket-version": "13"}
    origin.accepts(fields=[*AGREED, *([("Sec-WebSocket-Accept", PROOF)] if key else [])])
    client.listen()
    assert client.status == 101
    assert client.fields == {"date": "now", **lower(AGREED)}
    over(world, client, origin)
