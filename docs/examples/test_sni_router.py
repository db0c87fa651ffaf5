"""The router's tests: a simulated network, with a TLS client that is OpenSSL's own."""

import ssl
from collections.abc import Callable

import pytest
from sni_router import tunnel

from coulee.backends.simulator import FarEnd, Simulator
from coulee.core import TunnelAccess
from coulee.core.seam import Address

HERE: Address = ("0.0.0.0", 443)
ORIGINS: list[Address] = [("10.0.1.1", 443), ("10.0.1.2", 443), ("10.0.2.1", 993), ("10.0.9.9", 443)]


def client_hello(name: str | None, *protocols: str) -> bytes:
    """What OpenSSL says first."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    if protocols:
        context.set_alpn_protocols(protocols)
    says = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), says, server_hostname=name).do_handshake()
    return says.read()


def origin(heard: list[tuple[Address, bytes]], address: Address) -> Callable[[FarEnd], FarEnd]:
    """Keeps what reaches it."""

    def made(_: FarEnd) -> FarEnd:
        far = FarEnd()
        far.on_received = lambda data: heard.append((address, data)) if data else far.close()
        return far

    return made


def arrives(data: bytes) -> tuple[list[tuple[Address, bytes]], TunnelAccess]:
    """What reaches which origin, and the record."""
    heard: list[tuple[Address, bytes]] = []
    sim = Simulator()
    for address in ORIGINS:
        sim.listen(address, origin(heard, address))
    driver = sim.run(tunnel, [HERE])
    client = FarEnd()
    sim.connect(HERE, client)
    client.write(data)
    client.write_eof()
    sim.settle(10.0)
    [record] = [each for each in driver.records if isinstance(each, TunnelAccess)]
    return heard, record


@pytest.mark.parametrize(
    ("name", "address"),
    [("shop.example", ORIGINS[0]), ("de.shop.example", ORIGINS[0]), ("mail.example", ORIGINS[2]),
     ("a.b.shop.example", ORIGINS[3]), (None, ORIGINS[3])],
)  # fmt: skip
def test_the_name_says_where_it_goes_and_not_a_byte_is_changed(name: str | None, address: Address) -> None:
    hello = client_hello(name, "h2", "http/1.1")
    heard, record = arrives(hello)
    assert {where for where, _ in heard} == {address}
    assert b"".join(data for _, data in heard) == hello
    assert (record.server_name, record.alpn, record.tags) == (
        name or "",
        ("h2", "http/1.1"),
        {"protocols": "h2, http/1.1"},
    )


def test_what_is_not_tls_is_closed() -> None:
    heard, record = arrives(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    assert heard == []
    assert (record.reason, record.detail) == ("misdirected", "this port is for TLS")
