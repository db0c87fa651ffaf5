"""Certificates, read; the oracle is `cryptography`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from coulee.core import x509 as module
from coulee.core.x509 import Facts, read_certificate

WHEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
WHOSE = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "common.test")])


@cache
def key_of(kind: str) -> Any:
    makers: dict[str, Callable[[], object]] = {
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ecdsa-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    return makers[kind]()


def make(
    names: list[x509.GeneralName] | None = None,
    *,
    kind: str = "ecdsa",
    begin: dt.datetime = WHEN,
    end: dt.datetime = WHEN + dt.timedelta(90),
    others: int = 0,
) -> bytes:
    """A certificate, signed by its own key, with so many other extensions."""
    key = key_of(kind)
    builder = x509.CertificateBuilder(WHOSE, WHOSE, key.public_key(), 2**64 + 5, begin, end)
    for number in range(others):
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{number}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x30\x00" * 200), critical=number % 2 == 1)
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    signed = builder.sign(key, None if kind.startswith("ed") else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


LABELS = st.text("abcXYZ019-_", min_size=1, max_size=20)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join) | LABELS.map(lambda label: f"*.{label}.Test")
GENERAL_NAMES = st.one_of(
    HOSTS.map(x509.DNSName),
    st.ip_addresses().map(x509.IPAddress),
    LABELS.map(lambda label: x509.RFC822Name(f"{label}@a.test")),
    LABELS.map(lambda label: x509.UniformResourceIdentifier(f"spiffe://a.test/{label}")),
    st.just(x509.DirectoryName(WHOSE)),
)
TIMES = st.datetimes(dt.datetime(1951, 1, 1), dt.datetime(9998, 1, 1)).map(
    lambda at: at.replace(microsecond=0, tzinfo=dt.UTC)
)


@given(
    st.none() | st.lists(GENERAL_NAMES, min_size=1, max_size=30),
    st.sampled_from(["ecdsa", "ecdsa-384", "ed25519", "rsa"]),
    st.tuples(TIMES, TIMES).map(sorted),
    st.integers(0, 3),
)
@example(None, "ecdsa", [WHEN.replace(year=2049), WHEN.replace(year=2050)], 0)
@example([x509.DNSName("a" * 63 + ".test")] * 300, "rsa", [WHEN, WHEN.replace(year=9998)], 3)
def test_a_certificate_has_what_cryptography_reads_from_it(
    names: list[x509.GeneralName] | None, kind: str, times: list[dt.datetime], others: int
) -> None:
    der = make(names, kind=kind, begin=times[0], end=times[1], others=others)
    expected = x509.load_der_x509_certificate(der)
    wanted: list[str] = []
    for each in names or ():
        if isinstance(each, x509.DNSName):
            wanted.append(each.value.lower())
        elif isinstance(each, x509.IPAddress):
            assert isinstance(each.value, IPv4Address | IPv6Address)
            wanted.append(str(each.value))
    assert read_certificate(der) == Facts(
        tuple(wanted),
        kind.partition("-")[0],
        expected.not_valid_before_utc.timestamp(),
        expected.not_valid_after_utc.timestamp(),
        expected.fingerprint(hashes.SHA256()).hex(),
    )


# --------------------------------------------------------------------------------------------------- made by hand


def field(tag: int, *content: bytes) -> bytes:
    """One field in DER."""
    data = b"".join(content)
    if len(data) < 0x80:
        return bytes((tag, len(data))) + data
    size = (len(data).bit_length() + 7) // 8
    return bytes((tag, 0x80 + size)) + len(data).to_bytes(size, "big") + data


OID_EC = field(0x06, bytes.fromhex("2a8648ce3d0201"))
OID_SAN = field(0x06, b"\x55\x1d\x11")
BIT_STRING = field(0x03, b"\x00abc")
EMPTY = field(0x30)
KEY = field(0x30, field(0x30, OID_EC), BIT_STRING)
BEGIN, END = field(0x17, b"260101000000Z"), field(0x17, b"260401000000Z")


def san(*names: bytes) -> bytes:
    return field(0x30, OID_SAN, field(0x04, field(0x30, *names)))


def by_hand(
    *extensions: bytes,
    outside: bytes = b"",
    after: bytes = b"",
    end: bytes = b"",
    times: bytes = BEGIN + END,
    key: bytes = KEY,
    unique: bytes = b"",
    version: bytes = field(0xA0, b"\x02\x01\x02"),
) -> bytes:
    """A certificate, as small as can be."""
    wrapped = field(0xA3, field(0x30, *extensions)) if extensions else b""
    signed = field(0x30, version, b"\x02\x01\x05", EMPTY, EMPTY, field(0x30, times), EMPTY, key, unique, wrapped, after)
    return field(0x30, signed, EMPTY, BIT_STRING, end) + outside


DNS = field(0x82, b"a.test")


def test_one_made_by_hand_is_read() -> None:
    unique = field(0x81, b"\x00a") + field(0x82, b"\x00b")
    der = by_hand(san(DNS), unique=unique)
    facts = read_certificate(der)
    assert facts == Facts(("a.test",), "ecdsa", WHEN.timestamp(), WHEN.replace(month=4).timestamp(),
                          sha256(der).hexdigest())  # fmt: skip
    assert read_certificate(by_hand(version=b"")).names == ()


@pytest.mark.parametrize(
    ("der", "text"),
    [
        (b"", "ends too soon"),
        (b"\x30", "ends too soon"),
        (b"\x30\x05\x00", "ends too soon"),
        (b"\x31\x00", "other fields"),
        (b"\x1f\x00", "ends too soon"),
        (b"\x30\x80\x00\x00", "a length that DER has not"),
        (b"\x30\x81\x7f" + bytes(0x7F), "a length that DER has not"),
        (b"\x30\x82\x00\x80" + bytes(0x80), "a length that DER has not"),
        (b"\x30\x85\x01\x00\x00\x00\x00", "a length that DER has not"),
        (b"\x30\xff" + b"\x01" * 200, "a length that DER has not"),
        (by_hand(outside=b"\x05\x00"), "more in it"),
        (by_hand(end=b"\x05\x00"), "more in it"),
        (by_hand(after=b"\x05\x00"), "more in it"),
        (by_hand(times=BEGIN + END + END), "more in it"),
        (by_hand(times=BEGIN), "ends too soon"),
        (by_hand(key=field(0x30, field(0x30, OID_EC), BIT_STRING, b"\x05\x00")), "more in it"),
        (by_hand(key=field(0x30, field(0x30, field(0x06, b"\x2a")), BIT_STRING)), "key is of an unknown kind"),
        (by_hand(san(DNS), san(DNS)), "two lists of names"),
        (by_hand(field(0x30, OID_SAN, field(0x04, field(0x30, DNS), b"\x05\x00"))), "more in it"),
        (by_hand(field(0x30, OID_SAN, field(0x04, field(0x30, DNS)), b"\x05\x00")), "more in it"),
        (by_hand(san(field(0x82, b""))), "the name '', which no host can have"),
        (by_hand(san(field(0x82, b"a\x00.test"))), "which no host can have"),
        (by_hand(san(field(0x82, b"a b"))), "which no host can have"),
        (by_hand(san(field(0x82, b"\xe9.test"))), r"the name '\\xe9.test', which no host can have"),
        (by_hand(san(field(0x87, b"12345"))), "does not appear to be an IPv4 or IPv6 address"),
    ],
)  # fmt: skip
def test_what_is_no_certificate_is_an_error(der: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_certificate(der)


@pytest.mark.parametrize(
    "time",
    [
        field(0x17, b"2601010000Z"), field(0x17, b"260101000000"), field(0x17, b"260101000000+0100"),
        field(0x17, b"26010100000aZ"), field(0x17, b"261301000000Z"), field(0x17, b"260230000000Z"),
        field(0x17, b"260101000060Z"), field(0x18, b"20260101000000.5Z"), field(0x18, b"260101000000Z"),
        field(0x18, b"00000101000000Z"), field(0x18, b"20260101000000z"), field(0x17, b""), field(0x18, b""),
        field(0x17, b"20260101000000Z"), field(0x17, b"-1-1-1-1-1-1Z"), field(0x04, b"260101000000Z"),
    ],
)  # fmt: skip
def test_a_time_that_is_not_one_is_an_error(time: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_certificate(by_hand(times=time + END))


def test_two_digits_of_a_year_stand_for_a_hundred_years_from_1950() -> None:
    facts = read_certificate(by_hand(times=field(0x17, b"500101000000Z") + field(0x17, b"491231235959Z")))
    assert facts.not_before == dt.datetime(1950, 1, 1, tzinfo=dt.UTC).timestamp()
    assert facts.not_after == dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp()


def test_a_key_that_cannot_be_used_is_an_error() -> None:
    with pytest.raises(ValueError, match="of an unknown kind; make one with ECDSA, RSA or Ed25519"):
        read_certificate(make(kind="ed448"))


def test_there_is_a_limit_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    der = make()
    monkeypatch.setattr(module, "CERTIFICATE_BYTES_MAX", len(der))
    read_certificate(der)
    with pytest.raises(ValueError, match=f"longer than {len(der)} bytes"):
        read_certificate(der + b"a")


def test_there_is_a_limit_to_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 3)
    assert len(read_certificate(by_hand(san(*[DNS] * 3))).names) == 3
    with pytest.raises(ValueError, match="more than 3 names"):
        read_certificate(by_hand(san(*[DNS] * 4)))


@cache
def whole() -> bytes:
    return make([x509.DNSName("a.test"), x509.IPAddress(IPv4Address("10.0.0.1"))], others=1)


SMALL = by_hand(
    field(0x30, field(0x06, b"\x2a\x03"), b"\x01\x01\xff", field(0x04, b"abc")),
    san(DNS, field(0x87, b"abcd"), field(0x86, b"spiffe://a.test/b")),
    unique=field(0x81, b"\x00a"),
)


@given(st.data())
def test_whatever_was_changed_there_is_an_answer_or_a_value_error(data: st.DataObject) -> None:
    der = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        match data.draw(st.sampled_from(["change", "take away", "put in", "cut off"])):
            case "change":
                der[at] = data.draw(st.integers(0, 255))
            case "take away":
                del der[at]
            case "put in":
                der.insert(at, data.draw(st.integers(0, 255)))
            case _:
                del der[at + 5 :]
    try:
        facts = read_certificate(bytes(der))
    except ValueError:
        return
    assert facts.kind in ("ecdsa", "rsa", "ed25519")
    assert all(name == name.lower() and name.isascii() and name.isprintable() for name in facts.names)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_there_is_an_answer_or_a_value_error(data: bytes) -> None:
    for der in (data, field(0x30, data), by_hand(data), by_hand(san(data)), by_hand(key=data), by_hand(times=data)):
        try:
            read_certificate(der)
        except ValueError:
            continue


def test_each_cut_is_an_error() -> None:
    for length in range(len(whole())):
        with pytest.raises(ValueError):  # noqa: PT011
            read_certificate(whole()[:length])
