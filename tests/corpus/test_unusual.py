"""Valid but unusual messages pass through unchanged in meaning, and h11 reads them as the strict reader does.

What the other side must see is what the strict reader reads in the message itself: method, target, status, body,
trailers, and all fields in their order, but for those of the hop and what a gateway must change.
"""

from __future__ import annotations

from collections.abc import Callable

import h11
import pytest

from tests.corpus.passage import by_bytes, pass_answer, pass_request, whole
from tests.corpus.reader import Field, Message, read_answers, read_requests
from tests.corpus.rows import Row, rows_of
from tests.corpus.test_proxy import at_the_origins

REQUESTS = rows_of("unusual/requests")
ANSWERS = rows_of("unusual/answers")
WAYS = pytest.mark.parametrize("split", [whole, by_bytes], ids=["whole", "by-bytes"])

OF_THE_HOP = {b"connection", b"keep-alive", b"te", b"upgrade", b"transfer-encoding", b"content-length"}
"""RFC 9110 section 7.6.1, and the framing, which is each hop's own."""

OURS = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"}
"""What the proxy adds to a request. To an answer it adds Date, where there is none."""


def in_substance(message: Message) -> list[Field]:
    """The fields that must come through, in order."""
    named = {name.strip().lower() for value in message.values(b"connection") for name in value.split(b",")}
    return [(name, value) for name, value in message.fields if name not in OF_THE_HOP | OURS | named]


def read_by_h11(conn: h11.Connection, raw: bytes, *, eof: bool) -> list[Message] | str:
    """What h11 reads in a stream, in the form of our reader; a text where it refuses."""
    read: list[Message] = []
    conn.receive_data(raw)
    if eof:
        conn.receive_data(b"")
    try:
        while True:
            event = conn.next_event()
            if isinstance(event, h11.Request):
                start: tuple[str, ...] = (event.method.decode(), event.target.decode())
                read.append(Message(start, int(event.http_version[-1:]), list(event.headers)))
            elif isinstance(event, h11.Response | h11.InformationalResponse):
                read.append(Message((str(event.status_code),), int(event.http_version[-1:]), list(event.headers)))
                read[-1].whole = isinstance(event, h11.InformationalResponse)
            elif isinstance(event, h11.Data):
                read[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                read[-1].trailers = list(event.headers)
                read[-1].whole = True
                if conn.our_role is h11.CLIENT:
                    return read
                conn.send(h11.Response(status_code=204, headers=[]))
                conn.send(h11.EndOfMessage())
                if conn.our_state is not h11.DONE:
                    return read
                conn.start_next_cycle()
            else:
                return read
    except h11.RemoteProtocolError as error:
        return str(error)


def compare_with_h11(row: Row, ours: list[Message], theirs: list[Message] | str) -> None:
    """Both read the same, or the table tells why not."""
    for message in ours if isinstance(theirs, list) else []:
        # h11 gives this value in lower case
        message.fields = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in message.fields]
    if row.h11:
        assert theirs != ours, f"h11 has come to agree: {row}"
    else:
        assert theirs == ours


@WAYS
@pytest.mark.parametrize("row", REQUESTS, ids=str)
def test_a_request_passes_unchanged_in_meaning(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    sent = read_requests(row.raw, empty_line=True)
    for message, expected in zip(sent, row.expected, strict=False):  # the absolute form, which a gateway must change
        message.start = tuple(expected.start.split(" "))
        message.fields = [(n, expected.host if n == b"host" else v) for n, v in message.fields]
    assert sent
    assert all(message.whole for message in sent)
    passage = pass_request(split(row.raw), wait_s=0)
    seen = at_the_origins(passage)
    assert [message.start for message in seen] == [message.start for message in sent]
    for was, now in zip(sent, seen, strict=True):
        assert in_substance(now) == in_substance(was)
        assert (now.body, now.trailers) == (was.body, was.trailers)
    answers = read_answers(passage.client, [message.start[0] for message in sent], ended=True)
    assert [answer.start for answer in answers] == [("200",)] * len(sent)


@WAYS
@pytest.mark.parametrize("row", ANSWERS, ids=str)
def test_an_answer_passes_unchanged_in_meaning(row: Row, split: Callable[[bytes], list[bytes]]) -> None:
    sent = read_answers(row.raw, [row.to], ended=row.eof)
    passage = pass_answer(split(row.raw), row.to, eof=row.eof)
    seen = read_answers(passage.client, [row.to], ended=passage.client_closed)
    assert len(seen) == len(sent) == len(row.interims) + 1
    for was, now in zip(sent, seen, strict=True):
        fields = in_substance(now)
        if was.start[0] >= "200" and not was.values(b"date"):
            assert fields.pop()[0] == b"date"
        assert fields == in_substance(was)
        assert (now.start, now.body, now.trailers) == (was.start, was.body, was.trailers)
        assert now.whole
        assert was.whole
    assert passage.origin_closed == (row.eof or not row.reused)


@pytest.mark.parametrize("row", REQUESTS, ids=str)
def test_h11_reads_a_request_alike(row: Row) -> None:
    compare_with_h11(
        row,
        read_requests(row.raw, empty_line=True),
        read_by_h11(h11.Connection(h11.SERVER, max_incomplete_event_size=65536), row.raw, eof=False),
    )


@pytest.mark.parametrize("row", ANSWERS, ids=str)
def test_h11_reads_an_answer_alike(row: Row) -> None:
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
    conn.send(h11.Request(method=row.to, target="/", headers=[("Host", "a")]))
    conn.send(h11.EndOfMessage())
    compare_with_h11(row, read_answers(row.raw, [row.to], ended=row.eof), read_by_h11(conn, row.raw, eof=row.eof))
