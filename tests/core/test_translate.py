"""What a gateway does to fields on their way: what stays on its hop, what is told about the client, and what is not."""

from __future__ import annotations

import pytest

from coulee.core.config import Config, Forwarding
from coulee.core.headers import Headers
from coulee.core.parts import Interim, Request, Response
from coulee.core.seam import Address
from coulee.core.translate import (
    add_date,
    drop_on_arrival,
    hops_left,
    host_of,
    interim_for_downstream,
    keep_allowed_trailers,
    request_for_upstream,
    response_for_downstream,
)

CLIENT: Address = ("10.0.0.9", 50000)
SILENT = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False))
Pairs = list[tuple[str, str]]


def request_with(fields: Pairs, method: str = "GET", authority: str = "a.example") -> Request:
    return Request(method, "/x?y", Headers(fields), authority=authority)


def up(fields: Pairs, config: Config = SILENT, *, trusted: bool = False, client: Address = CLIENT) -> Pairs:
    """The fields that the origin sees."""
    request = request_with(fields)
    drop_on_arrival(request.headers, config)
    return list(request_for_upstream(request, client, trusted, config).headers)


def down(fields: Pairs, config: Config = SILENT, version: tuple[int, int] = (1, 1)) -> Pairs:
    """The fields that the client sees. The wall clock stands at the example of RFC 9110 section 5.6.7."""
    response = Response(200, Headers(fields), version=version)
    response_for_downstream(response, 784111777.9, config)
    assert response.version == (1, 1)
    return list(response.headers)


DATE = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")

# ---------------------------------------------------------------------------------------------------- hop by hop


def test_the_request_that_goes_up_is_an_object_of_its_own() -> None:
    request = request_with([("Host", "a.example"), ("TE", "trailers")], "POST")
    request.version = (1, 0)
    request.length = 5
    out = request_for_upstream(request, CLIENT, False, SILENT)
    assert (out.method, out.target, out.version, out.scheme) == ("POST", "/x?y", (1, 1), "http")
    assert (out.authority, out.length) == ("a.example", 5)
    out.headers.set("Host", "b.example")
    assert list(request.headers) == [("Host", "a.example"), ("TE", "trailers")]


HOP_BY_HOP = [
    "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate",
    "Proxy-Authorization",
]  # fmt: skip


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_a_field_of_the_hop_stays_on_it(name: str) -> None:
    others = [("Host", "a.example"), ("X-A", "1")]
    assert up([others[0], (name, "close"), others[1], (name.lower(), "close")]) == others
    assert up([others[0], (name, "close"), others[1]], trusted=True) == others
    assert down([others[1], (name, "close"), DATE]) == [others[1], DATE]


@pytest.mark.parametrize(
    "name", ["Trailer", "Content-Length", "X-Keep-Alive", "Upgrade-Insecure-Requests", "Connection2"]
)
def test_a_field_whose_name_only_resembles_one_goes_on(name: str) -> None:
    assert up([(name, "1")]) == [(name, "1")]
    assert down([(name, "1"), DATE]) == [(name, "1"), DATE]


@pytest.mark.parametrize("option", ["keep-alive", "close", "Keep-Alive", "CLOSE", "", "close, keep-alive"])
def test_an_ordinary_connection_field_takes_nothing_with_it(option: str) -> None:
    assert up([("X-A", "1"), ("Connection", option), ("X-B", "2")]) == [("X-A", "1"), ("X-B", "2")]


def test_what_connection_names_stays_on_its_hop() -> None:
    fields = [
        ("X-A", "1"),
        ("Connection", "close, x-hop ,, HTTP2-Settings"),
        ("X-Hop", "2"),
        ("http2-settings", "3"),
        ("X-Hop-By", "4"),
        ("connection", "X-Late"),
        ("X-LATE", "5"),
    ]
    assert up(fields) == [("X-A", "1"), ("X-Hop-By", "4")]
    assert down([*fields, DATE]) == [("X-A", "1"), ("X-Hop-By", "4"), DATE]


def test_a_second_connection_field_counts_as_much_as_the_first() -> None:
    fields = [("Connection", "keep-alive"), ("X-A", "1"), ("Connection", "X-B"), ("X-B", "2")]
    assert up(fields) == [("X-A", "1")]


def test_when_connection_names_all_that_there_is_nothing_is_left() -> None:
    assert up([("Connection", "X-A, Connection"), ("X-A", "1")]) == []


KEPT = [
    "Host", "Authorization", "Cookie", "Via", "Date", "Expect", "Max-Forwards", "Set-Cookie", "Content-Length",
    "Content-Type", "Content-Encoding",
]  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_would_change_the_meaning_of_a_message_cannot_be_named_away(name: str) -> None:
    value = DATE[1] if name == "Date" else "1"
    assert up([("Connection", f"close, {name.lower()}"), (name, value)]) == [(name, value)]
    kept = [] if name == "Date" else [DATE]
    assert down([("Connection", f"{name}"), (name, value), *kept]) == [(name, value), *kept]


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"])
def test_a_trusted_peer_cannot_be_made_to_forget_the_client(name: str) -> None:
    # Somebody behind it may have written the Connection field.
    assert up([("Connection", f"{name}, forwarded"), (name, "1")], trusted=True) == [(name, "1")]


def test_names_in_connection_are_no_patterns() -> None:
    assert up([("Connection", ".*, X-."), ("X-A", "1")]) == [("X-A", "1")]


# ----------------------------------------------------------------------------------------- strangers and the trusted


def test_a_stranger_s_request_gets_forwarding_fields_of_our_own() -> None:
    assert up([("Host", "a.example")], Config()) == [
        ("Host", "a.example"),
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a.example"),
        ("Forwarded", 'for=10.0.0.9;proto=http;host="a.example"'),
    ]


FORGED = [
    ("X-Forwarded-For", "1.2.3.4"),
    ("x-forwarded-proto", "https"),
    ("X-FORWARDED-HOST", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("Forwarded", "for=1.2.3.4"),
    ("forwarded", "for=5.6.7.8"),
]


def test_what_a_stranger_claims_is_dropped() -> None:
    assert up([("X-A", "1"), *FORGED]) == [("X-A", "1")]
    assert up(FORGED, Config()) == [
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a.example"),
        ("Forwarded", 'for=10.0.0.9;proto=http;host="a.example"'),
    ]


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-By"]
)
def test_every_other_x_forwarded_field_of_a_stranger_is_dropped_too(name: str) -> None:
    # config.py and translate.py promise it of X-Forwarded-*; Rails takes X-Forwarded-Ssl and -Scheme for the scheme,
    # Werkzeug and Spring X-Forwarded-Prefix for where the application is mounted.
    assert up([(name, "on")]) == []
    assert up([(name, "on")], trusted=True) == [(name, "on")]


def test_only_one_of_the_two_forms_may_be_wanted() -> None:
    assert up([], Config(forwarding=Forwarding(forwarded=False))) == [
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a.example"),
    ]
    assert up([], Config(forwarding=Forwarding(x_forwarded=False))) == [
        ("Forwarded", 'for=10.0.0.9;proto=http;host="a.example"')
    ]


def test_what_a_trusted_peer_says_is_kept_and_added_to() -> None:
    fields = [
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-A", "1"),
        ("X-Forwarded-For", "5.6.7.8"),
        ("X-Forwarded-Host", "front.example"),
        ("X-Forwarded-Port", "443"),
        ("Forwarded", "for=1.2.3.4;proto=https"),
    ]
    assert up(fields, Config(), trusted=True) == [
        ("X-Forwarded-For", "1.2.3.4, 5.6.7.8, 10.0.0.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-A", "1"),
        ("X-Forwarded-Host", "front.example"),
        ("X-Forwarded-Port", "443"),
        ("Forwarded", 'for=1.2.3.4;proto=https, for=10.0.0.9;proto=http;host="a.example"'),
    ]


def test_a_trusted_peer_that_says_nothing_is_the_client() -> None:
    assert up([], Config(), trusted=True) == [
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a.example"),
        ("X-Forwarded-For", "10.0.0.9"),
        ("Forwarded", 'for=10.0.0.9;proto=http;host="a.example"'),
    ]


def test_what_a_trusted_peer_says_goes_on_untouched_where_we_say_nothing() -> None:
    assert up(FORGED, trusted=True) == FORGED


def test_without_a_host_none_is_told() -> None:
    request = request_with([], authority="")
    for trusted in (False, True):
        names = [name for name, _ in request_for_upstream(request, CLIENT, trusted, Config()).headers]
        assert sorted(names) == ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"]
        out = request_for_upstream(request, CLIENT, trusted, Config())
        assert out.headers["forwarded"] == "for=10.0.0.9;proto=http"


def test_the_host_in_forwarded_is_quoted_whatever_it_holds() -> None:
    out = request_for_upstream(request_with([], authority='a"b\\c:80'), CLIENT, False, Config())
    assert out.headers["forwarded"] == 'for=10.0.0.9;proto=http;host="a\\"b\\\\c:80"'


def test_the_scheme_that_the_client_used_is_told() -> None:
    request = request_with([])
    request.scheme = "https"
    out = request_for_upstream(request, CLIENT, False, Config())
    assert out.headers["x-forwarded-proto"] == "https"
    assert out.headers["forwarded"] == 'for=10.0.0.9;proto=https;host="a.example"'


@pytest.mark.parametrize("trusted", [False, True])
def test_an_ipv6_client_is_bare_in_x_forwarded_for_and_bracketed_in_forwarded(trusted: bool) -> None:
    out = request_for_upstream(request_with([], authority="a"), ("2001:db8::9", 50000), trusted, Config())
    assert out.headers["x-forwarded-for"] == "2001:db8::9"
    assert out.headers["forwarded"] == 'for="[2001:db8::9]";proto=http;host="a"'


@pytest.mark.parametrize("client", ["", "/run/coulee.sock"])
def test_a_client_on_a_unix_socket_is_unknown(client: str) -> None:
    assert host_of(client) == "unknown"
    out = request_for_upstream(request_with([], authority="a"), client, False, Config())
    assert out.headers["x-forwarded-for"] == "unknown"
    assert out.headers["forwarded"] == 'for=unknown;proto=http;host="a"'


def test_two_clients_are_not_taken_for_one_another() -> None:
    assert up([], Config(), client=("10.0.0.1", 1))[0] == ("X-Forwarded-For", "10.0.0.1")
    assert up([], Config(), client=("10.0.0.2", 1))[0] == ("X-Forwarded-For", "10.0.0.2")


# ------------------------------------------------------------------------------------------------------------ Via

VIA = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False, via="edge"))


def test_via_is_added_to_in_both_directions_with_the_version_that_came() -> None:
    assert up([], VIA) == [("Via", "1.1 edge")]
    assert up([("Via", "1.1 a"), ("X-A", "1"), ("via", "1.0 b")], VIA) == [
        ("Via", "1.1 a, 1.0 b, 1.1 edge"),
        ("X-A", "1"),
    ]
    assert down([DATE], VIA, (1, 0)) == [DATE, ("Via", "1.0 edge")]
    assert down([("Via", "1.1 origin"), DATE], VIA) == [("Via", "1.1 origin, 1.1 edge"), DATE]


def test_the_version_in_via_is_the_client_s() -> None:
    request = request_with([])
    request.version = (1, 0)
    assert request_for_upstream(request, CLIENT, False, VIA).headers["via"] == "1.0 edge"


def test_http_2_has_no_minor_version() -> None:
    request = Request("GET", "/", Headers({"Host": "a"}), (2, 0), authority="a")
    assert request_for_upstream(request, CLIENT, False, VIA).headers["via"] == "2 edge"


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ([("Link", "</a>"), ("X-A", "1")], [("Link", "</a>"), ("X-A", "1")]),
        ([("Link", "</a>"), ("Connection", "x-a"), ("X-A", "1"), ("Keep-Alive", "timeout=1")], [("Link", "</a>")]),
        ([("Connection", "close"), ("Link", "</a>")], [("Link", "</a>")]),
    ],
)
def test_interim_answers_lose_what_is_of_their_hop(fields: list[tuple[str, str]], left: list[tuple[str, str]]) -> None:
    interim = Interim(103, Headers(fields))
    interim_for_downstream(interim)
    assert list(interim.headers) == left


def test_an_empty_via_is_no_element() -> None:
    assert up([("Via", "")], VIA) == [("Via", "1.1 edge")]


def test_without_a_name_via_goes_on_untouched() -> None:
    assert up([("Via", "1.1 a")]) == [("Via", "1.1 a")]
    assert down([("Via", "1.1 a"), DATE]) == [("Via", "1.1 a"), DATE]


# ------------------------------------------------------------------------------------------------------ trailers


def test_trailers_go_on_where_they_are_allowed() -> None:
    fields = [("X-Sum", "1"), ("grpc-status", "0"), ("X-Sum", "2")]
    for names, kept in [
        (("*",), fields),
        (("x-sum",), [fields[0], fields[2]]),
        (("Grpc-Status", "Other"), [fields[1]]),
        ((), []),
    ]:
        trailers = Headers(fields)
        keep_allowed_trailers(trailers, Config(trailers=names))
        assert list(trailers) == kept


# --------------------------------------------------------------------------------------------------- underscores


def test_fields_with_an_underscore_in_their_name_are_dropped_by_default() -> None:
    fields = [("X_A", "1"), ("X-B", "a_b"), ("_", "2"), ("X-C_", "3"), ("X-D", "4: _")]
    assert up(fields) == [("X-B", "a_b"), ("X-D", "4: _")]
    assert up(fields, trusted=True) == [("X-B", "a_b"), ("X-D", "4: _")]


def test_fields_with_an_underscore_go_on_where_that_is_wanted() -> None:
    config = Config(forwarding=Forwarding(x_forwarded=False, forwarded=False), underscore_in_names="pass")
    assert up([("X_A", "1"), ("X-B", "2")], config) == [("X_A", "1"), ("X-B", "2")]


def test_an_origin_s_fields_may_have_underscores() -> None:
    assert down([("X_A", "1"), DATE]) == [("X_A", "1"), DATE]


# ----------------------------------------------------------------------------------------------------------- Date


def test_an_answer_without_a_date_gets_ours() -> None:
    assert down([("X-A", "1")]) == [("X-A", "1"), DATE]


def test_the_date_of_an_origin_is_kept() -> None:
    assert down([("date", "Thu, 01 Jan 1970 00:00:00 GMT")]) == [("date", "Thu, 01 Jan 1970 00:00:00 GMT")]


@pytest.mark.parametrize(
    ("at", "date"),
    [
        (0.0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (951782400.0, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (1767225599.999, "Wed, 31 Dec 2025 23:59:59 GMT"),
        (1767225600.0, "Thu, 01 Jan 2026 00:00:00 GMT"),
    ],
)
def test_a_date_is_an_imf_fixdate(at: float, date: str) -> None:
    headers = Headers()
    add_date(headers, at)
    add_date(headers, at + 1000)
    assert list(headers) == [("Date", date)]


# --------------------------------------------------------------------------------------------------- Max-Forwards


@pytest.mark.parametrize(
    ("value", "hops"),
    [
        ("0", 0),
        ("7", 7),
        ("999999999", 999999999),
        ("9999999999", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("\xb2", None),
        ("1, 2", None),
    ],
)
def test_max_forwards_counts_where_it_is_a_sane_number(value: str, hops: int | None) -> None:
    assert hops_left(request_with([("Max-Forwards", value)])) == hops


def test_a_request_without_max_forwards_may_go_as_far_as_it_likes() -> None:
    assert hops_left(request_with([])) is None


@pytest.mark.parametrize(
    ("method", "before", "after"),
    [("OPTIONS", "5", "4"), ("OPTIONS", "1", "0"), ("OPTIONS", "0", "0"), ("OPTIONS", "x", "x"), ("GET", "5", "5")],
)
def test_max_forwards_is_counted_down_for_options_only(method: str, before: str, after: str) -> None:
    out = request_for_upstream(request_with([("Max-Forwards", before)], method), CLIENT, False, SILENT)
    assert list(out.headers) == [("Max-Forwards", after)]


def test_options_without_max_forwards_gets_none() -> None:
    assert list(request_for_upstream(request_with([], "OPTIONS"), CLIENT, False, SILENT).headers) == []
