"""Our reading of a ClientHello against OpenSSL's: where OpenSSL goes on, and we do not refuse, both have read the same.

Where we are stricter, on purpose, and OpenSSL goes on:

- a name that is none of a host, or is cut into more labels than names have: OpenSSL takes any bytes without a NUL;
- records without content, of which OpenSSL bears 32, and more than `HELLO_RECORDS_MAX` of them;
- more than `HELLO_BYTES_MAX`: OpenSSL takes 128 KiB;
- a version of the message that is none of TLS: OpenSSL takes a higher one for its own highest.

There is one difference in the other direction, which decides nothing: what is wrong with ciphers, keys and the other
extensions is found by whoever does the handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from coulee.core.client_hello import ClientHello, HelloError, read_client_hello

# Python's callback cannot be told a name that is not ASCII; then there is no ServerHello either.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

STRICTER = ("is not the name of a host", "without content", "more than", "are allowed", "which is none of TLS")


@cache
def server(maximum: ssl.TLSVersion) -> tuple[ssl.SSLContext, list[str | None]]:
    """A server of OpenSSL's, and the names that it has heard."""
    heard: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = maximum
    context.set_alpn_protocols(["h2", "http/1.1"])
    trustme.CA().issue_cert("a.example").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    context.sni_callback = lambda _, name, __: heard.append(name)  # pyright: ignore[reportAttributeAccessIssue]
    return context, heard


def openssl(data: bytes, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[str | None, str | None] | None:
    """The name that OpenSSL heard and the protocol that it chose, where it answers with a ServerHello; else None."""
    context, heard = server(maximum)
    heard.clear()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing, server_side=True)
    incoming.write(data)
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        pass
    except ssl.SSLError:
        return None
    answer = outgoing.read()
    if answer[:1] != b"\x16":
        return None
    assert answer[5] == 2, "a ServerHello"
    return (heard[-1] if heard else None), end.selected_alpn_protocol()


def made(name: str | None, protocols: list[str], maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """What a client of OpenSSL's sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = maximum
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    return outgoing.read()


def ours(data: bytes) -> ClientHello | HelloError | None:
    try:
        return read_client_hello(data)
    except HelloError as error:
        return error


TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("maximum", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("name", [None, "a.example", "A.Example", "_x.b-c.example", "xn--bcher-kva.example", "a" * 63])
@pytest.mark.parametrize("protocols", [[], ["h2"], ["http/1.1", "h2"], ["x" * 255]])
def test_what_openssl_says_is_read(maximum: ssl.TLSVersion, name: str | None, protocols: list[str]) -> None:
    read = read_client_hello(made(name, protocols, maximum))
    assert read is not None
    assert read.server_name == (name or "").lower()
    assert list(read.alpn) == protocols
    assert read.versions == ((0x0304, 0x0303) if maximum is TLS_1_3 else (0x0303,))


def judge(data: bytes, maximum: ssl.TLSVersion) -> str:
    """Compare, and say how it went."""
    read = ours(data)
    heard = openssl(data, maximum)
    if heard is None:
        return "both refuse" if isinstance(read, HelloError) else "found by the handshake"
    if isinstance(read, HelloError):
        assert any(words in str(read) for words in STRICTER), f"OpenSSL goes on where we say: {read}"
        return "stricter"
    assert read is not None, "OpenSSL goes on where we want more"
    name, protocol = heard
    assert read.server_name == (name or "").lower().removesuffix(".")
    assert protocol is None or protocol in read.alpn
    assert protocol is not None or not {"h2", "http/1.1"} & set(read.alpn)
    return "both read"


def test_mutated_hellos_are_read_as_openssl_reads_them() -> None:
    random = Random(6)
    originals = [made(name, protocols, maximum) for name in (None, "a.example", "www.b.example")
                 for protocols in ([], ["h2", "http/1.1"]) for maximum in (TLS_1_2, TLS_1_3)]  # fmt: skip
    counts: dict[str, int] = {}
    for _ in range(3000):
        data = bytearray(random.choice(originals))
        for _ in range(random.choice((1, 1, 2, 3))):
            data[random.randrange(len(data))] = random.choice((0, 1, 255, random.randrange(256)))
        verdict = judge(bytes(data), random.choice((TLS_1_2, TLS_1_3)))
        counts[verdict] = counts.get(verdict, 0) + 1
    assert min(counts.get(each, 0) for each in ("both refuse", "both read", "found by the handshake")) > 100, counts


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_extensions_that_are_moved_about_are_read_as_openssl_reads_them(data: st.DataObject) -> None:
    """Extensions dropped, doubled, in another order, with another body: more likely to be well-formed outside."""
    original = made("a.example", ["h2", "http/1.1"], data.draw(st.sampled_from([TLS_1_2, TLS_1_3])))
    head, extensions = taken_apart(original)
    chosen = data.draw(st.lists(st.sampled_from(extensions), max_size=len(extensions) + 2))
    kept = data.draw(st.permutations(extensions)) if data.draw(st.booleans()) else chosen
    edited = [(kind, edit(data, body)) if kind in (0, 16, 43) and data.draw(st.booleans()) else (kind, body)
              for kind, body in kept]  # fmt: skip
    judge(put_together(head, edited), TLS_1_3)


@pytest.mark.parametrize("size", [1, 7, 100, 300])
def test_records_cut_as_openssl_allows_are_read_alike(size: int) -> None:
    message = made("a.example", ["h2"])[5:]
    edges = [*range(0, len(message), size), len(message)]
    data = b"".join(b"\x16\3\1" + (b - a).to_bytes(2, "big") + message[a:b] for a, b in pairwise(edges))
    assert judge(data, TLS_1_3) == ("stricter" if size < 9 and len(edges) > 65 else "both read")


CHANGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data + b"\x14\3\3\0\1\1", "both read"),  # of a client that tries early data (RFC 8446 D.4)
    (lambda data: b"\x16\3\1\0\0" + data, "stricter"),
    (lambda data: data[:3] + (len(data) - 4).to_bytes(2, "big") + data[5:] + b"\0", "both refuse"),
    (lambda data: data.replace(b"a.example", b"a*example"), "stricter"),
    (lambda data: data.replace(b"a.example", b"a\0example"), "both refuse"),
    (lambda data: data.replace(b"a.example", b"a.exampl."), "both read"),
    (lambda data: b"GET / HTTP/1.1\r\n\r\n", "both refuse"),
]


@pytest.mark.parametrize(("change", "verdict"), CHANGES)
def test_differences(change: Callable[[bytes], bytes], verdict: str) -> None:
    assert judge(change(made("a.example", [])), TLS_1_3) == verdict


# --------------------------------------------------------------------------------------------------------- tools


def taken_apart(data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """What comes before the extensions in the message's body, and they."""
    body = data[9:]
    at = 35 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    head, at = body[:at], at + 2
    extensions: list[tuple[int, bytes]] = []
    while at < len(body):
        size = int.from_bytes(body[at + 2 : at + 4], "big")
        extensions.append((int.from_bytes(body[at : at + 2], "big"), body[at + 4 : at + 4 + size]))
        at += 4 + size
    return head, extensions


def put_together(head: bytes, extensions: list[tuple[int, bytes]]) -> bytes:
    block = b"".join(kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for kind, body in extensions)
    body = head + len(block).to_bytes(2, "big") + block
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


def edit(data: st.DataObject, body: bytes) -> bytes:
    kind = data.draw(st.sampled_from(["byte", "cut", "longer"]))
    if kind == "cut" or not body:
        return body[: data.draw(st.integers(0, len(body)))]
    if kind == "longer":
        return body + data.draw(st.binary(min_size=1, max_size=3))
    at = data.draw(st.integers(0, len(body) - 1))
    return body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :]
