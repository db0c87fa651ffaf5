"""Which certificate is for which host: what a layer says, against what OpenSSL itself says of the same two.

OpenSSL compares names where it is asked to (`check_hostname`), and we never ask it: the name to verify may differ from
the one that is asked for. So it is the oracle here. Where the two are to differ, each difference is written down.
"""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.layer import LayerError
from coulee.backends.tls import Tls
from coulee.core.seam import DownstreamTls
from tests.backends.tls_ends import (
    AUTHORITY,
    PLACE,
    LayerEnd,
    PythonEnd,
    certificate,
    downstream,
    talk,
    upstream,
)

NAMES: tuple[tuple[str, ...], ...] = (
    ("a.test",),
    ("a.test", "b.test"),
    ("*.a.test",),
    ("*.a.test", "a.test"),
    ("*.test",),
    ("xn--bcher-kva.test",),
    ("*.xn--bcher-kva.test",),
    ("a-b.c.d.e.test",),
    ("10.0.0.1",),
    ("10.0.0.1", "a.test"),
    ("::1",),
    ("2001:db8::1", "*.a.test"),
    ("localhost",),
)
LABELS = st.sampled_from(["a", "b", "x", "*", "xn--bcher-kva", "c", "d", "e", "a-b", "A", "w-"])
HOSTS = st.one_of(
    st.lists(LABELS, min_size=0, max_size=4).map(lambda labels: ".".join([*labels, "test"])),
    st.sampled_from(
        ["10.0.0.1", "10.0.0.2", "::1", "0:0:0:0:0:0:0:1", "2001:DB8::1", "2001:db8::2", "localhost", "LOCALHOST",
         "test", "A.TEST", "xtest", "a.test.evil", "evil-a.test", "a.testx", "y.x.a.test", "1.0.0.10", "10.0.0.1.test"]
    ),
)  # fmt: skip
TLS = Tls()


def ours(names: tuple[str, ...], host: str) -> bool:
    """What a layer says."""
    asks = LayerEnd(TLS.layer(upstream(host, server_name="", alpn=()), PLACE))
    TLS.forget_session(upstream(host, server_name="", alpn=()), PLACE)
    try:
        talk(asks, LayerEnd(TLS.layer(DOWN[names], PLACE)))
    except LayerError as error:
        if "is not for" not in error.detail:
            raise
        return False
    return asks.layer.security is not None


def theirs(names: tuple[str, ...], host: str) -> bool:
    """What OpenSSL does."""
    try:
        talk(PythonEnd(ASKING, name=host), LayerEnd(TLS.layer(DOWN[names], PLACE)))
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in (62, 64):  # "Hostname mismatch", "IP address mismatch"
            raise
        return False
    return True


ASKING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ASKING.hostname_checks_common_name = False
AUTHORITY.configure_trust(ASKING)  # pyright: ignore[reportUnknownMemberType]
DOWN: dict[tuple[str, ...], DownstreamTls] = {names: downstream(certificate(*names)) for names in NAMES}


@given(names=st.sampled_from(NAMES), host=HOSTS)
def test_we_say_what_openssl_says(names: tuple[str, ...], host: str) -> None:
    assert ours(names, host) is theirs(names, host)


@pytest.mark.parametrize(
    ("names", "host", "we_say"),
    [
        (("a.test",), "a.test", True),
        (("*.a.test",), "x.a.test", True),
        (("*.a.test",), "a.test", False),
        (("*.a.test",), "y.x.a.test", False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("::1",), "0:0:0:0:0:0:0:1", True),
        (("*.test",), "a.test", False),
    ],
)
def test_both_say_this(names: tuple[str, ...], host: str, we_say: bool) -> None:
    """So that the two are not equal by saying one thing to everything."""
    assert ours(names, host) is theirs(names, host) is we_say


@pytest.mark.parametrize(
    ("names", "host", "we_say"),
    [
        (("a.test",), "a.test.", True),  # how a name is written in full, and it means the same
        (("*.a.test",), "with_underscore.a.test", True),  # no name of a host, and yet used as one
        (("::1",), "[::1]", True),
        (("10.0.0.1",), "10.0.0.01", False),  # which some read as octal
    ],
)
def test_we_differ_in_this(names: tuple[str, ...], host: str, we_say: bool) -> None:
    assert ours(names, host) is we_say
    assert theirs(names, host) is not we_say
