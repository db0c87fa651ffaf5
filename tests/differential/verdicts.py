"""Where our codec and h11 judge differently: the written lists, and the comparison that allows nothing else.

Each row has what the one that refuses says (a pattern for its beginning), the section that decides, why, and an
example, which a test reads, so that no row can outlive its reason. `seen` is for words that could hide more than they
should: a pattern that the stream must have somewhere. Rules of `compare`:

- As long as both accept, each event of the one is the same event of the other.
- Where only one goes on, what stopped the other is in a row of its list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from coulee.core.codec import Role
from tests.differential.reading import Event, Reading

BARE_LF: Final = rb"(?<!\r)\n"
GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Verdict:
    """One reason for which one refuses and the other does not."""

    says: str
    section: str
    why: str
    example: bytes
    role: Role = "server"
    seen: bytes = b""

    def covers(self, fault: str, data: bytes) -> bool:
        """Whether this is why `data` was refused with these words."""
        return re.match(self.says, fault) is not None and re.search(self.seen, data) is not None


WE_REFUSE: Final = [
    # lines
    Verdict("the request line is not `method SP target SP HTTP/x.y`", "RFC 9112 section 2.2",
            "a LF alone may end a line, says the RFC; who takes it so and who does not can be played off against each "
            "other", b"GET / HTTP/1.1\nHost: a\r\n\r\n", seen=BARE_LF),
    Verdict("the status line is not `HTTP/x.y SP status SP phrase`", "RFC 9112 section 4",
            "a phrase has no control characters, and its line ends with CRLF", OK.replace(b"OK", b"O\x01K") + b"\r\n",
            "client", rb"[\x01-\x08\x0e-\x1f\x7f]|" + BARE_LF),
    Verdict("the client closed the connection in the middle of a request", "RFC 9112 section 2.2",
            "a LF alone ended the head or the trailers for h11, and nothing for us", GET + b"X: y\n\n", seen=BARE_LF),
    Verdict("the connection was closed before the answer was whole", "RFC 9112 section 2.2",
            "the same from an origin", OK + b"X: y\n\n", "client", BARE_LF),
    Verdict("a field without a name and a colon right behind it", "RFC 9112 section 2.2",
            "h11 takes an empty line that ends with a LF alone for the end of the head",
            POST + b"Content-Length: 8\r\n\nX: y\r\n\r\n", seen=BARE_LF),
    Verdict("a folded field", "RFC 9112 section 5.2", "a proxy may refuse it or unfold it; we refuse",
            GET + b"X: y\r\n z\r\n\r\n"),
    Verdict("a control character in the value of a field", "RFC 9110 section 5.5",
            "no value has one; CR, LF and NUL are dangerous, and a recipient may refuse the others",
            GET + b"X: \x07\r\n\r\n"),
    # requests
    Verdict("HTTP/[0-9].[0-9] is not spoken here", "RFC 9110 section 15.6.6", "we speak 1.0 and 1.1, h11 any two",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    Verdict("CONNECT is not for a gateway", "RFC 9110 section 9.3.6", "a gateway is no tunnel to wherever one asks",
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("TRACE is not for a gateway", "RFC 9110 section 9.3.8", "it shows what a client cannot see otherwise",
            b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("the request target has none of the forms", "RFC 9112 section 3.2", "h11 takes any visible characters",
            b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("the host of the request target is not a host", "RFC 9110 section 4.2.1 and 4.2.4",
            "no userinfo, no empty host", b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("an https target without TLS", "RFC 9110 section 7.4", "not ours to answer: it was meant for another",
            b"GET https://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("the Host field is not a host", "RFC 9112 section 3.2", "h11 does not look at it",
            b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    Verdict("Expect: ", "RFC 9110 section 10.1.1", "417 to an expectation that we cannot meet",
            GET + b"Expect: tea\r\n\r\n"),
    Verdict("more than one content-type field", "RFC 9110 section 5.3", "two readers may each believe another",
            GET + b"Content-Type: a\r\nContent-Type: b\r\n\r\n"),
    Verdict("more than [0-9]+ ranges", "RFC 9110 section 14.2", "an origin would send a body many times over",
            GET + b"Range: bytes=0-" + b",0-" * 64 + b"\r\n\r\n"),
    # framing
    Verdict("both Content-Length and Transfer-Encoding", "RFC 9112 section 6.1 and 6.3",
            "an attempt to smuggle, or a mistake; a server may refuse it",
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Verdict("Transfer-Encoding in HTTP/1.0", "RFC 9112 section 6.1", "its framing is to be treated as faulty",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Verdict("more than one content-length field", "RFC 9110 section 8.6",
            "equal ones may be refused or merged; we refuse", POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    Verdict("Content-Length is not a number of up to 18 digits", "RFC 9110 section 8.6",
            "a list of equal numbers may be refused or merged, and nothing real has 19 digits",
            POST + b"Content-Length: 0, 0\r\n\r\n"),
    Verdict("(content-length|transfer-encoding|host) among the trailers", "RFC 9110 section 6.5.1",
            "there is no reason to send them there but to be read two ways; h11 passes a Host on",
            CHUNKED + b"0\r\nHost: b\r\n\r\n"),
    Verdict("the line of a chunk is not its size and extensions", "RFC 9112 section 7.1",
            "h11 takes blanks at the end of the line, and any bytes for an extension",
            CHUNKED + b"1;\x01\r\na\r\n0\r\n\r\n"),
    # interim answers
    Verdict("a 1[0-9]{2} with a body", "RFC 9112 section 6.1 and RFC 9110 section 8.6",
            "an interim answer has no body and says no framing", b"HTTP/1.1 103 E\r\nContent-Length: 0\r\n\r\n" + OK +
            b"Content-Length: 0\r\n\r\n", "client"),
    Verdict("more than [0-9]+ interim answers", "RFC 9110 section 15.2", "nothing bounds them, so we do",
            b"HTTP/1.1 103 E\r\n\r\n" * 9 + OK + b"Content-Length: 0\r\n\r\n", "client"),
    # how much
    Verdict("the first line is longer than", "RFC 9112 section 3", "every buffer has a bound",
            b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    Verdict("a field is longer than", "RFC 9110 section 5.4", "every buffer has a bound",
            GET + b"X: " + b"y" * 8192 + b"\r\n\r\n"),
    Verdict("the head is larger than", "RFC 9110 section 5.4", "every buffer has a bound",
            GET + (b"X: " + b"y" * 8000 + b"\r\n") * 5 + b"\r\n"),
    Verdict("more than [0-9]+ fields", "RFC 9110 section 5.4", "every table has a bound",
            GET + b"X: y\r\n" * 100 + b"\r\n"),
    Verdict("the trailers are larger than", "RFC 9110 section 5.4", "every buffer has a bound",
            CHUNKED + b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n"),
    Verdict("more than [0-9]+ trailers", "RFC 9110 section 5.4", "every table has a bound",
            CHUNKED + b"0\r\n" + b"X: y\r\n" * 33 + b"\r\n"),
    Verdict("the line of a chunk is longer than", "RFC 9112 section 7.1.1", "extensions are to be bounded",
            CHUNKED + b"1;a=" + b"b" * 256 + b"\r\na\r\n0\r\n\r\n"),
    Verdict("more than [0-9]+ bytes of chunk extensions", "RFC 9112 section 7.1.1", "extensions are to be bounded",
            CHUNKED + (b"1;a=" + b"b" * 250 + b"\r\na\r\n") * 70 + b"0\r\n\r\n"),
]  # fmt: skip
"""What h11 accepts and we refuse, by our words."""

THEY_REFUSE: Final = [
    Verdict("no request line received", "RFC 9112 section 2.2",
            "one empty line before a request is to be ignored: old clients send it behind a body",
            b"\r\n" + GET + b"\r\n", seen=rb"\r\n"),
    Verdict("illegal chunk header", "RFC 9112 section 7.1.1",
            "a recipient must read the blanks that once were allowed before an extension",
            CHUNKED + b"1 ;a=b\r\na\r\n0\r\n\r\n", seen=rb"[0-9A-Fa-f][ \t]+;"),
]  # fmt: skip
"""What we accept and h11 refuses, by h11's words."""


def whole(reading: Reading) -> list[Event]:
    """The events but for a body that was cut, of which the one may have got further than the other."""
    return [event for event in reading.events if event[0] != "cut"]


def compare(ours: Reading, theirs: Reading, data: bytes) -> str:
    """`""` where the readings agree, or differ as the lists allow; otherwise what is wrong."""
    mine, other = whole(ours), whole(theirs)
    for one, two in zip(mine, other, strict=False):
        if one != two:
            return f"we read {one!r}, and h11 {two!r}"
    if ours.fault and len(mine) <= len(other) and not (theirs.fault and len(mine) == len(other)):
        listed = any(verdict.covers(ours.fault, data) for verdict in WE_REFUSE)
        return "" if listed else f"we refuse, and h11 does not: {ours.fault}"
    if theirs.fault and len(other) <= len(mine) and not (ours.fault and len(mine) == len(other)):
        listed = any(verdict.covers(theirs.fault, data) for verdict in THEY_REFUSE)
        return "" if listed else f"h11 refuses, and we do not: {theirs.fault}"
    return "" if len(mine) == len(other) else f"we read {mine!r}, and h11 {other!r}"
