"""Strategies: valid HTTP/1 messages of every kind, and damage to them. All of them shrink."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

_TOKEN = "!#$%&'*+-.^_`|~09azAZ"
_VALUE = [chr(byte) for byte in (0x09, *range(0x20, 0x7F), *range(0x80, 0x100))]
_SPECIAL = ("content-length", "transfer-encoding", "host", "expect", "connection", "content-type", "range", "upgrade")

tokens = st.text(_TOKEN, min_size=1, max_size=8).map(str.encode)
values = st.text(_VALUE, max_size=12).map(lambda value: value.encode("latin-1").strip(b" \t"))
blanks = st.sampled_from([b"", b" ", b"\t", b"  "])
bodies = st.binary(max_size=30)
paths = st.text("/ab%20.;:@&=+$,~-_!'()*", max_size=10).map(str.encode)
queries = st.one_of(st.just(b""), st.text("?/ab%=&", max_size=6).map(lambda query: b"?" + query.encode()))
hosts = st.sampled_from([b"a", b"a.example:81", b"[::1]:80", b"127.0.0.1", b"a:", b"A-b.c", b"a%20b"])
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])


@st.composite
def cased(draw: st.DrawFn, name: bytes) -> bytes:
    """A name in one of the cases that it may be written in."""
    return draw(st.sampled_from([name, name.lower(), name.upper()]))


@st.composite
def line(draw: st.DrawFn, name: bytes, value: bytes) -> bytes:
    """A field that means something, with blanks where they may be."""
    return b"%s:%s%s%s\r\n" % (draw(cased(name)), draw(blanks), value, draw(blanks))


@st.composite
def fields(draw: st.DrawFn, most: int = 3) -> bytes:
    """Fields that mean nothing to a gateway."""
    names = tokens.filter(lambda name: name.decode().lower() not in _SPECIAL)
    pairs = draw(st.lists(st.tuples(names, values), max_size=most))
    return b"".join([b"%s:%s%s\r\n" % (name, draw(blanks), value) for name, value in pairs])


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks, with extensions and trailers."""
    out = b""
    extensions = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;\\"c"', b";a;b=c", b"; a = b", b" ;a"])
    while body:
        size = draw(st.integers(1, len(body)))
        digits = draw(st.sampled_from([b"%x", b"%X", b"00%x"])) % size
        out += b"%s%s\r\n%s\r\n" % (digits, draw(extensions), body[:size])
        body = body[size:]
    trailers = draw(st.one_of(st.just(b""), fields(2), st.just(b"Cookie: dropped\r\n")))
    return out + draw(st.sampled_from([b"0", b"000", b"0;a=b"])) + b"\r\n" + trailers + b"\r\n"


@st.composite
def framed(draw: st.DrawFn, old: bool) -> bytes:
    """A framing field, the empty line, and the body."""
    body = draw(bodies)
    if old or draw(st.booleans()):
        digits = draw(st.sampled_from([b"%d", b"00%d"])) % len(body)
        return draw(line(b"Content-Length", digits)) + b"\r\n" + body
    coding = draw(st.sampled_from([b"chunked", b"Chunked"]))
    return draw(line(b"Transfer-Encoding", coding)) + b"\r\n" + draw(chunked(body))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"x!", b"get"]))
    version = draw(versions)
    old = version == b"HTTP/1.0"
    target = b"/" + draw(paths) + draw(queries)
    form = draw(st.integers(0, 5))
    if form == 4:
        target = draw(st.sampled_from([b"http://", b"HTTP://"])) + draw(hosts) + target
    elif form == 5:
        target = b"*" if method == b"OPTIONS" else b"http://b" + draw(queries)
    host = b"" if old and draw(st.booleans()) else draw(line(b"Host", draw(hosts)))
    extra = draw(st.sampled_from([b"", b"", b"Connection: close\r\n", b"Connection: x, Close\r\n", b"Upgrade: x\r\n",
                                  b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"]))  # fmt: skip
    lines = draw(st.permutations([host, extra, draw(fields())]))
    rest = draw(framed(old)) if draw(st.booleans()) else b"\r\n"
    return b"%s %s %s\r\n%s%s" % (method, target, version, b"".join(lines), rest)


@st.composite
def answers(draw: st.DrawFn, asked: str) -> bytes:
    """A valid answer, with what may come before it."""
    out = b""
    for _ in range(draw(st.integers(0, 2))):
        status = draw(st.sampled_from([b"100 Continue", b"103 Early Hints", b"102", b"199 "]))
        out += b"HTTP/1.1 %s\r\n%s\r\n" % (status, draw(fields()))
    version = draw(versions)
    status = draw(st.sampled_from([b"200", b"204", b"304", b"404", b"999"]))
    phrase = draw(st.one_of(st.just(b""), values.map(lambda value: b" " + value)))
    out += b"%s %s%s\r\n%s" % (version, status, phrase, draw(fields()))
    out += draw(st.sampled_from([b"", b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"]))
    if asked == "HEAD" or status in (b"204", b"304"):
        return out + (b"Content-Length: 7\r\n\r\n" if draw(st.booleans()) else b"\r\n")
    if draw(st.integers(0, 3)) == 0:
        return out + b"\r\n" + draw(bodies)  # up to the end of the connection
    return out + draw(framed(version == b"HTTP/1.0"))


# --------------------------------------------------------------------------------------------------------- damage

DEBRIS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"#", b"*", b"0", b"\xff", b"\x07", b"\x0b", b"f" * 16,
    b"HTTP/1.0", b"HTTP/2.0", b"chunked", b"X", b"\r\n ", b'"', b"\\", b"\x85", b"\xa0", b"=", b"http://b", b"@", b"[",
    b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: b", b"\r\nConnection: close",
    b"\r\nContent-Type: a", b"\r\nExpect: 100-continue", b"\r\nExpect: tea", b"\r\nTransfer-Encoding: gzip",
    b"\r\n\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n",
)  # fmt: skip


@dataclass(frozen=True)
class Injury:
    """One change to a stream, at a place that is counted around."""

    kind: str
    place: int
    debris: bytes = b""
    size: int = 1

    def to(self, data: bytes) -> bytes:
        """The stream with it."""
        at = self.place % (len(data) + 1)
        if self.kind == "insert":
            return data[:at] + self.debris + data[at:]
        if self.kind == "replace":
            return data[:at] + self.debris + data[at + len(self.debris) :]
        if self.kind == "remove":
            return data[:at] + data[at + self.size :]
        if self.kind == "repeat":
            return data[:at] + data[max(0, at - self.size) : at] + data[at:]
        lines = data.split(b"\r\n")  # "line": one of them once more
        lines.insert(self.place % len(lines), lines[self.size % len(lines)])
        return b"\r\n".join(lines)


_places = st.integers(0, 400)
_debris = st.one_of(st.sampled_from(DEBRIS), st.binary(min_size=1, max_size=1))
injuries = st.one_of(
    st.builds(Injury, st.sampled_from(["insert", "replace"]), _places, _debris),
    st.builds(Injury, st.sampled_from(["remove", "repeat", "line"]), _places, st.just(b""), st.integers(1, 20)),
)


@st.composite
def streams(draw: st.DrawFn, asked: str | None, most: int) -> bytes:
    """What a client sends, or, where something was `asked`, an origin, with up to `most` injuries."""
    whole = answers(asked) if asked is not None else st.lists(requests(), min_size=1, max_size=3).map(b"".join)
    data = draw(whole)
    for injury in draw(st.lists(injuries, max_size=most)):
        data = injury.to(data)
    return data
