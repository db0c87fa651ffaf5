"""Tickets of TLS 1.3 go out with the first bytes that somebody waits for; those of TLS 1.2 belong to the handshake."""

from __future__ import annotations

import pytest

from coulee.backends.layer import LayerError
from coulee.backends.tls import Tls
from coulee.core.tls import Version
from tests.backends.tls_ends import PLACE, LayerEnd, PythonEnd, asking, downstream, talk


def records(data: bytes) -> int:
    """How many there are, all whole."""
    count = 0
    while data:
        length = int.from_bytes(data[3:5])
        assert len(data) >= 5 + length
        data = data[5 + length :]
        count += 1
    return count


class Joined:
    """A client behind its handshake with a layer of ours, and how many bytes have come to it."""

    def __init__(self, version: Version) -> None:
        self.client = PythonEnd(asking(version))
        self.layer = Tls().layer(downstream(), PLACE)
        _, self.back = talk(self.client, LayerEnd(self.layer))

    @property
    def has_ticket(self) -> bool:
        session = self.client.tls.session
        return session is not None and session.has_ticket


def test_a_ticket_comes_with_the_first_answer_and_only_one() -> None:
    joined = Joined("1.3")
    assert not joined.has_ticket
    assert joined.layer.to_send == b""
    first = joined.layer.encrypt(b"hello")
    assert records(first) == 2
    joined.client.feed(first)
    assert joined.client.plain == b"hello"
    assert joined.has_ticket
    assert records(joined.layer.encrypt(b"hello")) == 1


def test_who_asks_for_nothing_has_it_with_the_farewell() -> None:
    joined = Joined("1.3")
    last = joined.layer.farewell()
    assert records(last) == 2
    joined.client.feed(last)
    assert joined.has_ticket
    assert joined.client.ended


def test_it_goes_before_an_alert_for_the_order_of_records_is_counted() -> None:
    joined = Joined("1.3")
    with pytest.raises(LayerError):
        joined.layer.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert records(joined.layer.to_send) == 2
    joined.client.incoming.write(joined.layer.to_send)
    with pytest.raises(Exception, match="(?i)bad.record.mac"):
        joined.client.tls.read(1)
    assert joined.has_ticket


def test_in_tls_1_2_it_is_part_of_the_handshake() -> None:
    joined = Joined("1.2")
    assert joined.has_ticket
    assert records(joined.layer.encrypt(b"hello")) == 1
