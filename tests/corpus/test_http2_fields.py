"""The corpus in HTTP/2: messages of HTTP/1.1 that are read are the same behind a way in HTTP/2, and those that are not
break a rule as fields too, wherever the fault is one that fields can have.

The rows of others are looked at where they are there; see `test_public.py`.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest

from coulee.core import Limits, Request
from coulee.core.codec import ProtocolError
from coulee.core.http1 import Http1Codec
from coulee.core.http2_fields import FieldList, fields_of_request, read_request
from tests.core.test_http2_fields_properties import check_by_http1, end_to_end
from tests.corpus.rows import Row, rows_of

FOLDER: Final = Path(__file__).parents[2].parent / "shared" / "corpus"
LIMITS: Final = Limits()

NO_FAULT_OF_FIELDS: Final = {
    "cr-twice-behind-the-request-line": "the CR is in the version",
    "length-and-coding-behind-a-good-request": "the first request is good",
    "pipelined-before-a-broken-one": "the first request is good",
    "pipelined-behind-a-broken-body": "the first request is good",
    "pipelined-rubbish": "the first request is good",
    "length-shorter-than-what-comes": "the head is good",
    "length-longer-than-what-comes": "the head is good",
    "no-length-and-a-body": "the head is good",
}
"""What is wrong with these is where fields have no place for it. The same goes for all versions."""


def payloads() -> list[tuple[str, str, bytes]]:
    """Name, verdict and bytes of all that is here."""
    rows: tuple[Row, ...] = (*rows_of("requests"), *rows_of("unusual/requests"))
    out = [(str(row), "accept" if row.verdict == "accept" else "reject", row.raw) for row in rows]
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row: dict[str, Any] = json.loads(line)
            out.append((row["id"], row["expect"], base64.b64decode(row["raw_b64"])))
    return out


PAYLOADS: Final = payloads()


def read(fields: FieldList, *, ended: bool) -> Request | None:
    try:
        return read_request(fields, ended=ended, limits=LIMITS, secure=False, forwards=True, extended=False)
    except ProtocolError:
        return None


def carelessly(raw: bytes, line_end: bytes) -> FieldList:
    """The first message as fields, as a gateway makes them that checks nothing."""
    lines = raw.partition(line_end * 2)[0].split(line_end)
    method, _, rest = lines[0].partition(b" ")
    target = rest.rpartition(b" ")[0]
    fields: FieldList = [(b":method", method), (b":scheme", b"http"), (b":path", target)]
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.removeprefix(b" ")))
    return fields


@pytest.mark.parametrize("raw", [row[2] for row in PAYLOADS], ids=[row[0] for row in PAYLOADS])
def test_what_is_read_of_http1_is_the_same_behind_http2(raw: bytes) -> None:
    codec = Http1Codec("server", LIMITS, forwards=True)
    codec.feed(raw)
    try:
        pulled = codec.next_part()
    except ProtocolError:
        return
    if not isinstance(pulled, tuple) or not isinstance(pulled[1], Request) or not pulled[1].authority:
        return  # not whole, or without a Host
    request = pulled[1]
    request.data, request.ended = b"", request.length == 0
    through = read(fields_of_request(request, secure=False), ended=request.ended)
    assert through is not None
    assert (through.method, through.target, through.authority) == (request.method, request.target, request.authority)
    assert (through.length, through.ended) == (request.length, request.ended)
    assert end_to_end(through.headers, b"host", b"cookie") == end_to_end(request.headers, b"host", b"cookie")
    check_by_http1(through)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
@pytest.mark.parametrize("raw", [row[2] for row in PAYLOADS], ids=[row[0] for row in PAYLOADS])
def test_fields_that_were_made_without_care(raw: bytes, line_end: bytes) -> None:
    fields = carelessly(raw, line_end)
    for ended in (True, False):
        request = read(fields, ended=ended)
        if request is not None:
            check_by_http1(request)


REFUSED: Final = [row for row in rows_of("requests") if row.verdict in ("refuse", "wait") and not row.in_body]


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_a_fault_that_fields_can_have_is_one_in_http2(row: Row) -> None:
    fields = carelessly(row.raw, b"\r\n")
    accepted = [ended for ended in (True, False) if read(fields, ended=ended) is not None]
    if row.cls != "version":
        assert bool(accepted) == (row.id in NO_FAULT_OF_FIELDS)
