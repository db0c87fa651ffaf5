"""What of a request is hashed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.headers import Headers
from coulee.core.peer import Peer
from coulee.core.seam import Address
from coulee.lb.keys import by_address, by_cookie, by_header, by_path, by_target, bytes_of, cookies, identity
from tests.lb.stub import Asks


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("10.0.0.9", 1), "10.0.0.9"),
        (("2001:db8:1:2:3:4:5:6", 1), "20010db800010002"),
        (("2001:db8:1:2::", 2), "20010db800010002"),
        (("2001:db8:1:3::", 2), "20010db800010003"),
        (("fe80::1%eth0", 1), "fe80000000000000"),
        (("::1", 1), "0000000000000000"),
        (("::ffff:10.0.0.9", 1), "10.0.0.9"),
        (("no:address", 1), None),
        ("/run/client.sock", None),
        ("", None),
    ],
)
def test_by_address(client: Address, key: str | None) -> None:
    assert by_address()(Asks(client=client)) == key


def test_by_header() -> None:
    key = by_header("X-User")
    assert key(Asks(headers={"x-user": "ann"})) == "ann"
    assert key(Asks(headers={"x-users": "ann"})) is None
    assert key(Asks(headers={"x-user": ""})) == ""


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("id=1", "1"),
        ("a=0; id=1", "1"),
        ("a=0;id=1;b=2", "1"),
        ("id=1; id=2", "1"),
        ("ID=1", None),
        ("myid=1", None),
        ("a=id=1", None),
        ("id", None),
        ("id=", ""),
        ("id= ; b=1", ""),
        ('id="1 2"  ; b=1', '"1 2"'),
        ("id=1=2", "1=2"),
        ("", None),
    ],
)
def test_by_cookie(line: str, value: str | None) -> None:
    assert by_cookie("id")(Asks(headers={"Cookie": line})) == value


def test_cookies_may_come_in_several_fields() -> None:
    ask = Asks()
    ask.request.headers = Headers([("Cookie", "a=1"), ("Cookie", "id=2"), ("cookie", "id=3; id=4")])
    assert by_cookie("id")(ask) == "2"
    assert list(cookies(ask.request, "id")) == ["2", "3", "4"]
    assert by_cookie("id")(Asks()) is None


def test_the_name_of_a_cookie_is_taken_as_it_is() -> None:
    assert by_cookie("a.b")(Asks(headers={"Cookie": "aXb=1; a.b=2"})) == "2"


def test_by_path_and_by_target() -> None:
    ask = Asks("/a/b?c=d")
    assert by_path()(ask) == "/a/b"
    assert by_target()(ask) == "/a/b?c=d"


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "ä", "a:"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a field"):
        by_header(name)
    with pytest.raises(ValueError, match="is no name of a cookie"):
        by_cookie(name)


def test_text_stands_for_the_bytes_it_came_in() -> None:
    assert bytes_of(b"\xff\x00") == b"\xff\x00"
    assert bytes_of("\xff\x00") == b"\xff\x00"
    assert bytes_of("\u20ac") == b"\xe2\x82\xac"
    assert bytes_of("\ud800") == b"\xed\xa0\x80"


@given(st.text(st.characters(codec="latin-1"), max_size=40))
def test_any_line_of_cookies_can_be_read(line: str) -> None:
    ask = Asks()
    ask.request.headers = Headers.from_block(b"\r\nCookie: " + line.replace("\r", "").encode("latin-1"))
    for value in cookies(ask.request, "a"):
        assert f"a={value}" in line.replace("\r", "")


def test_a_line_of_blanks_is_read_at_once() -> None:
    """A pattern that tries every way to share them out would take minutes."""
    ask = Asks(headers={"Cookie": "id=" + " " * 100_000 + "x" + "; " * 50_000})
    assert by_cookie("id")(ask) == "x"


def test_an_endpoint_is_known_by_its_address_and_group() -> None:
    assert identity(Peer(("10.0.0.1", 80), name="a")) == b"10.0.0.1:80"
    assert identity(Peer(("::1", 80))) == b"[::1]:80"
    assert identity(Peer("/run/a.sock", group="g")) == b"/run/a.sock g"
    assert identity(Peer("/run/\udcff")) == b"/run/\xed\xb3\xbf"
