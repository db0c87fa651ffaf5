"""Cases of requests: their fields, their bodies and their trailers (RFC 9113 section 8).

A malformed request is an error of its stream, or is answered with what says so; never of the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.http2.case import Case, Step, go, wait
from tests.http2.frames import Code, Pairs, data, fields, get, headers, post, request
from tests.http2.outcomes import Answered, EndsConnection, EndsStream, Expected, Malformed
from tests.http2.talk import Talk

METHOD, SCHEME, AUTHORITY, PATH = request()
LENGTH = ("content-length", "5")


def malformed(section: str, name: str, pairs: Pairs, expected: Expected | None = None) -> Case:
    """A request that is nothing but a head, a wrong one."""
    return Case(section, name, (headers(1, fields(pairs)), wait(1)), expected or Malformed())


def fine(section: str, name: str, pairs: Pairs, check: Callable[[Talk], None] = lambda talk: None) -> Case:
    """A request that is nothing but a head, and not a wrong one."""
    return Case(section, name, (headers(1, fields(pairs)), wait(1)), Answered(), check=check)


def without(*names: str) -> Pairs:
    """A request that lacks pseudo-fields."""
    return [pair for pair in request() if pair[0] not in names]


def changed(name: str, value: str) -> Pairs:
    """A request with another value of a pseudo-field."""
    return [(each, value if each == name else old) for each, old in request()]


def asked(name: str, *values: str, trailers: bool = False) -> Callable[[Talk], None]:
    """The origin was asked with these values of a field, where it is one of the test's."""

    def check(talk: Talk) -> None:
        for each in getattr(talk.wire, "asked", [])[:1]:
            found = each.trailers if trailers else each.fields
            assert [value for found_name, value in found if found_name.lower() == name] == list(values)

    return check


PSEUDO = [
    malformed("8.3", "an unknown pseudo-field", request("/", (":unknown", "a"))),
    malformed("8.3", "a pseudo-field of an answer", request("/", (":status", "200"))),
    malformed("8.3", "a pseudo-field behind other fields", [METHOD, SCHEME, AUTHORITY, ("a", "b"), PATH]),
    malformed("8.3", "a pseudo-field in upper case", [(":Method", "GET"), SCHEME, AUTHORITY, PATH]),
    malformed("8.3", "a colon and nothing else", request("/", (":", "a"))),
    malformed("8.3.1", "no :method", without(":method")),
    malformed("8.3.1", "no :scheme", without(":scheme")),
    malformed("8.3.1", "no :path", without(":path")),
    malformed("8.3.1", "no fields at all", []),
    malformed("8.3.1", "fields and no pseudo-field", [("a", "b")]),
    *(malformed("8.3.1", f"{pair[0]} twice", [*request(), pair]) for pair in request()),
    malformed("8.3.1", ":path twice, in succession", [METHOD, SCHEME, AUTHORITY, PATH, (":path", "/b")]),
    malformed("8.3.1", "an empty :path", changed(":path", "")),
    malformed("8.3.1", "a :path without a slash", changed(":path", "a")),
    malformed("8.3.1", "a :path that is a URL", changed(":path", "http://a/")),
    malformed("8.3.1", "a :path of * for GET", changed(":path", "*")),
    *(malformed("8.3.1", f"a :path with {name}", changed(":path", f"/a{char}b")) for name, char in [
        ("a blank", " "), ("a tab", "\t"), ("CR", "\r"), ("LF", "\n"), ("NUL", "\0"), ("DEL", "\x7f"),
    ]),
    malformed("8.3.1", "an empty :method", changed(":method", "")),
    *(malformed("8.3.1", f"a :method with {name}", changed(":method", f"GET{char}")) for name, char in [
        ("a blank", " "), ("a line end", "\r\nX: y"), ("a slash", "/"), ("NUL", "\0"),
    ]),
    malformed("8.3.1", "an empty :scheme", changed(":scheme", "")),
    malformed("8.3.1", "a :scheme that is none", changed(":scheme", "ht tp")),
    malformed("8.3.1", "an empty :authority", changed(":authority", "")),
    malformed("8.3.1", "an empty Host and no :authority", [*without(":authority"), ("host", "")]),
    malformed("8.3.1", "a :path with a letter of Latin-1", changed(":path", "/\xe4")),
    malformed("8.3.1", "an :authority with a user", changed(":authority", "me:secret@a")),
    malformed("8.3.1", "an :authority with a path", changed(":authority", "a/b")),
    malformed("8.3.1", "an :authority with a blank", changed(":authority", "a b")),
    malformed("8.3.1", "an :authority of two lines", changed(":authority", "a\r\nx: y")),
    malformed("8.3.1", "an :authority with a port that is none", changed(":authority", "a:b")),
    malformed("8.3.1", "a Host that is another than :authority", request("/", ("host", "b"))),
    malformed("8.3.1", "two Hosts", [METHOD, SCHEME, PATH, ("host", "a"), ("host", "b")]),
    malformed("8.3.1", "no :authority and no Host", without(":authority"), Malformed() | Answered()),
    fine("8.3.1", "a Host as :authority is", request("/", ("host", "a")), asked("host", "a")),
    fine("8.3.1", "a Host and no :authority", [*without(":authority"), ("host", "a")], asked("host", "a")),
    fine("8.3.1", "pseudo-fields in another order", [PATH, AUTHORITY, SCHEME, METHOD]),
    fine("8.3.1", "OPTIONS of *", request("*", method="OPTIONS")),
    fine("8.3.1", "OPTIONS of a path", request("/a", method="OPTIONS")),
    malformed("8.5", "CONNECT", [(":method", "CONNECT"), (":authority", "a:443")],
              Malformed() | EndsStream(1, Code.CONNECT_ERROR, Code.REFUSED_STREAM, Code.CANCEL)),
    malformed("8.5", "CONNECT with :path", [(":method", "CONNECT"), AUTHORITY, PATH]),
    malformed("8.5", "CONNECT with :scheme", [(":method", "CONNECT"), AUTHORITY, SCHEME]),
    malformed("8.5", "CONNECT without :authority", [(":method", "CONNECT")]),
    malformed("9220 3", "an extended CONNECT for a protocol that nobody has spoken of",
              [(":method", "CONNECT"), (":protocol", "gossip"), *without(":method")], Answered(status=501)),
    malformed("8441 4", "an extended CONNECT without :path",
              [(":method", "CONNECT"), (":protocol", "websocket"), *without(":method", ":path")]),
    malformed("8441 4", "a :protocol without CONNECT", request("/", (":protocol", "websocket"))),
]  # fmt: skip

NAMES = [
    *(malformed("8.2.1", f"a name with {name}", request("/", (raw, "a"))) for name, raw in [
        ("an upper case letter", "xY"), ("a blank", "x y"), ("a blank at its end", "x "), ("a colon", "x:y"),
        ("a colon at its end", "x:"), ("CR", "x\ry"), ("LF", "x\ny"), ("NUL", "x\0"),
        ("a line of its own", "x: y\r\nz"),
        ("DEL", "x\x7f"), ("a letter of Latin-1", "x\xe4"), ("a bracket", "x(y)"), ("nothing in it", ""),
    ]),
    *(malformed("8.2.1", f"a value with {name}", request("/", ("x", raw))) for name, raw in [
        ("NUL", "a\0b"), ("CR", "a\rb"), ("LF", "a\nb"), ("a line end", "a\r\nx: y"), ("a blank before it", " a"),
        ("a tab before it", "\ta"), ("a blank behind it", "a "), ("a tab behind it", "a\t"),
    ]),
    fine("8.2.1", "a value with what may be in it", request("/", ("x", "a\tb c\xe4\xff"), ("y", ""))),
    fine("8.2.1", "a name with what may be in it", request("/", ("!#$%&'*+-.^`|~09az", "a"))),
    *(malformed("8.2.2", f"{name}: {value}", request("/", (name, value))) for name, value in [
        ("connection", "keep-alive"), ("connection", "close"), ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"),
        ("upgrade", "websocket"), ("te", "gzip"), ("te", "trailers, deflate;q=0.5"),
    ]),
    fine("8.2.2", "te: trailers", request("/", ("te", "trailers"))),
    fine("8.2.3", "crumbs of a cookie", request("/", ("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c")),
         asked("cookie", "a=1; b=2; c")),
    fine("8.2.3", "a cookie in one", request("/", ("cookie", "a=1; b=2")), asked("cookie", "a=1; b=2")),
]  # fmt: skip


def body(name: str, *steps: Step, extra: Pairs | None = None, expected: Expected | None = None, section: str = "8.1.1",
         check: Callable[[Talk], None] = lambda talk: None) -> Case:  # fmt: skip
    """A POST with a body."""
    return Case(section, name, (headers(1, post("/echo", *(extra or [])), end=False), *steps, wait(1)),
                expected or Malformed(), check=check)  # fmt: skip


TRAILERS = headers(1, fields([("x-sum", "7")]))
BODIES = [
    body("less than Content-Length", data(1, b"abcd", end=True), extra=[LENGTH]),
    body("less than Content-Length, in pieces", data(1, b"ab") + data(1, b"cd") + data(1, b"", end=True),
         extra=[LENGTH]),
    body("more than Content-Length", data(1, b"abcdef", end=True), extra=[LENGTH]),
    body("more than Content-Length, in pieces", data(1, b"abc") + data(1, b"def"), extra=[LENGTH]),
    body("less than Content-Length, and trailers", data(1, b"abcd") + TRAILERS, extra=[LENGTH]),
    body("more than Content-Length, and trailers", data(1, b"abcdef") + TRAILERS, extra=[LENGTH]),
    body("an empty body in place of Content-Length", data(1, b"", end=True), extra=[LENGTH]),
    Case("8.1.1", "a body in place of a Content-Length of 0",
         (headers(1, post("/", ("content-length", "0")), end=False) + data(1, b"a", end=True), wait(1)), Malformed()),
    Case("8.1.1", "a Content-Length and no body", (headers(1, post("/", LENGTH)), wait(1)), Malformed()),
    body("two Content-Length", data(1, b"abcde", end=True), extra=[LENGTH, ("content-length", "6")]),
    *(body(f"a Content-Length of {value}", data(1, b"abcde", end=True), extra=[("content-length", value)])
      for value in ("+5", "-5", "5.0", "0x5", "5,6", "5 5", "", "99999999999999999999")),
    body("just Content-Length", data(1, b"ab") + data(1, b"cde", end=True), extra=[LENGTH],
         expected=Answered(1, 200, b"abcde"), check=asked("content-length", "5")),
    body("just Content-Length, and padding", data(1, b"ab", padding=9) + data(1, b"cde", end=True, padding=1),
         extra=[LENGTH], expected=Answered(1, 200, b"abcde")),
    body("just Content-Length, and an end of its own", data(1, b"abcde") + data(1, b"", end=True), extra=[LENGTH],
         expected=Answered(1, 200, b"abcde")),
    body("just Content-Length, and trailers", data(1, b"abcde") + TRAILERS, extra=[LENGTH],
         expected=Answered(1, 200, b"abcde")),
    body("a body of unknown length", data(1, b"ab") + data(1, b"") + data(1, b"cde", end=True), section="8.1",
         expected=Answered(1, 200, b"abcde")),
    body("trailers", data(1, b"abc") + TRAILERS, section="8.1", expected=Answered(1, 200, b"abc"),
         check=asked("x-sum", "7", trailers=True)),
    body("trailers without a body", TRAILERS, section="8.1", expected=Answered(1, 200, b"")),
    body("trailers that are empty", data(1, b"abc") + headers(1, b""), section="8.1",
         expected=Answered(1, 200, b"abc")),
    body("HEADERS within a body that are not the end", data(1, b"a") + headers(1, fields([("a", "b")]), end=False),
         section="8.1"),
    body("HEADERS behind HEADERS that are not the end", headers(1, get(), end=False), section="8.1"),
    *(body(f"trailers with {name}", data(1, b"abc") + headers(1, fields([pair])), section="8.1")
      for name, pair in [("a pseudo-field", (":path", "/")), ("a pseudo-field of an answer", (":status", "200")),
                         ("an upper case letter", ("X", "a")), ("Connection", ("connection", "close")),
                         ("Transfer-Encoding", ("transfer-encoding", "chunked")), ("a line end", ("a", "b\r\nc: d"))]),
    Case("8.1", "DATA behind trailers", (headers(1, post("/held"), end=False), data(1, b"a"), TRAILERS, data(1, b"b")),
         EndsStream(1, Code.STREAM_CLOSED) | EndsConnection(Code.STREAM_CLOSED)),
    Case("8.1", "a GET with a body", (headers(1, get("/echo"), end=False) + data(1, b"abc", end=True), wait(1)),
         Answered(1, 200, b"abc")),
    fine("8.1", "a Content-Length of 0", request("/", ("content-length", "0"), method="POST")),
    Case("8.1", "a body that is asked for first",
         (headers(1, post("/echo", ("expect", "100-continue"), LENGTH), end=False), data(1, b"abcde", end=True),
          wait(1)),
         Answered(1, 200, b"abcde")),
    fine("8.1", "HEAD", request("/large", method="HEAD")),
    Case("8.1", "requests that are answered in another order",
         (headers(1, get("/held")), headers(3, get()), wait(3), go, wait(1)), Answered(), live=False),
    Case("8.1", "three requests at once", (headers(1, get()) + headers(3, get()) + headers(5, get()), wait(1, 3, 5)),
         Answered(5)),
]  # fmt: skip

MESSAGES: list[Case] = [*PSEUDO, *NAMES, *BODIES]
