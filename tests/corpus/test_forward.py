"""Every request of the corpus through a codec that takes CONNECT: of all others it thinks what it thinks without."""

from __future__ import annotations

from typing import Final

import pytest

from coulee.core.codec import ProtocolError
from coulee.core.config import Limits
from coulee.core.http1 import Http1Codec
from coulee.core.parts import Request
from tests.corpus.passage import by_bytes, read_with, server_codec, whole
from tests.corpus.rows import Row, rows_of

REQUESTS: Final = (*rows_of("requests"), *rows_of("unusual/requests"))
CONNECTS: Final = [row for row in REQUESTS if row.raw.startswith(b"CONNECT ")]


def forwarding() -> Http1Codec:
    return Http1Codec("server", Limits(), forwards=True)


@pytest.mark.parametrize("row", [row for row in REQUESTS if row not in CONNECTS], ids=str)
def test_another_request(row: Row) -> None:
    reading = read_with(forwarding(), whole(row.raw))
    assert reading == read_with(server_codec(), whole(row.raw))
    assert read_with(forwarding(), by_bytes(row.raw)) == reading


@pytest.mark.parametrize("row", CONNECTS, ids=str)
def test_a_connect(row: Row) -> None:
    codec = forwarding()
    codec.feed(row.raw)
    if row.id == "method-connect":
        pulled = codec.next_part()
        assert isinstance(pulled, tuple)
        assert isinstance(pulled[1], Request)
        assert (pulled[1].method, pulled[1].target) == ("CONNECT", "b.example:443")
    else:
        with pytest.raises(ProtocolError) as caught:
            codec.next_part()
        assert caught.value.status == 400
