"""Endpoints as users write them: what each URL names, and one clear line for each that names nothing."""

from __future__ import annotations

import pytest

from coulee.core.seam import Address
from coulee.lb import peer_from_url


@pytest.mark.parametrize(
    ("url", "address", "name"),
    [
        ("http://127.0.0.1:9000", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", ("127.0.0.1", 9000), "127.0.0.1:9000"),
        ("http://origin.example", ("origin.example", 80), "origin.example:80"),
        ("HTTP://Origin.Example:65535", ("origin.example", 65535), "origin.example:65535"),
        ("http://[::1]:9000", ("::1", 9000), "[::1]:9000"),
        ("http://[2001:db8::1]", ("2001:db8::1", 80), "[2001:db8::1]:80"),
        ("unix:/run/origin.sock", "/run/origin.sock", "unix:/run/origin.sock"),
        ("unix:origin.sock", "origin.sock", "unix:origin.sock"),
    ],
)
def test_a_url_names_a_peer(url: str, address: Address, name: str) -> None:
    peer = peer_from_url(url)
    assert peer.address == address
    assert peer.name == name


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("unix:", "'unix:' names no socket; write unix:/path/to/socket"),
        ("127.0.0.1:9000", "'127.0.0.1:9000' has no scheme; write http://127.0.0.1:9000"),
        ("localhost", "'localhost' has no scheme; write http://localhost"),
        ("https://a:443", "'https://a:443': the scheme 'https' is not supported; write http://..."),
        ("ftp://a", "'ftp://a': the scheme 'ftp' is not supported; write http://..."),
        ("://a", "'://a': the scheme '' is not supported; write http://..."),
        ("http://a:65536", "'http://a:65536': the port is no number from 1 to 65535"),
        ("http://a:-1", "'http://a:-1': the port is no number from 1 to 65535"),
        ("http://a:x", "'http://a:x': the port is no number from 1 to 65535"),
        ("http://a:0", "'http://a:0': port 0 is nobody's"),
        ("http://", "'http://' has no host; write http://127.0.0.1:9000"),
        ("http://:9000", "'http://:9000' has no host; write http://127.0.0.1:9000"),
        ("http:///path", "'http:///path' has no host; write http://127.0.0.1:9000"),
        ("http://a:1/api", "'http://a:1/api': give scheme, host and port alone, as in http://a:1"),
        ("http://a/?b", "'http://a/?b': give scheme, host and port alone, as in http://a:80"),
        ("http://a#b", "'http://a#b': give scheme, host and port alone, as in http://a:80"),
        ("http://me:secret@a:1", "'http://me:secret@a:1': give scheme, host and port alone, as in http://a:1"),
        ("http://@a:1", "'http://@a:1': give scheme, host and port alone, as in http://a:1"),
        ("http://[::1]:1/api", "'http://[::1]:1/api': give scheme, host and port alone, as in http://[::1]:1"),
    ],
)
def test_a_url_that_names_no_peer_is_answered_by_what_is_wrong_with_it(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert str(caught.value) == message


@pytest.mark.parametrize("url", ["http://[::1", "http://::1]:9000", "http://[nonsense]:9000", "http://a\u2100b"])
def test_a_url_that_cannot_even_be_taken_apart_is_named_too(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert str(caught.value).startswith(repr(url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://a b:80", "http://a\nb", "http://a\tb:80", " http://a", "http://a\\b", "http://a,b"]
)
def test_a_host_with_characters_that_no_host_has_is_refused(url: str) -> None:
    # urlsplit drops tabs and line ends without a word, so that another host would be asked than the one written.
    with pytest.raises(ValueError, match=r".") as caught:
        peer_from_url(url)
    assert repr(url) in str(caught.value)
    assert "\n" not in str(caught.value)
