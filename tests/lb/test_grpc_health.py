"""The call of the gRPC health protocol, with h2 on the other side, and by hand where h2 would not say it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb.grpc_health import ANSWER_BYTES_MAX, HealthCall, decode_answer, encode_request, judge
from coulee.lb.health import CheckFailed

Fields = Sequence[tuple[str, str]]

OK: Fields = ((":status", "200"), ("content-type", "application/grpc"))
ENDED: Fields = (("grpc-status", "0"),)
SERVING = b"\0\0\0\0\2\x08\1"


class Server:
    """The other end of a call."""

    def __init__(self, call: HealthCall) -> None:
        self.call = call
        self.conn = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.conn.initiate_connection()
        self.request: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.hear()

    def hear(self) -> None:
        """Take in what the call says."""
        for event in self.conn.receive_data(self.call.to_send()):
            if isinstance(event, RequestReceived):
                self.request = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self.body += event.data
            elif isinstance(event, StreamEnded):
                self.ended = True

    def answer(self, head: Fields = OK, body: bytes = SERVING, trailers: Fields = ENDED) -> bytes:
        """What an answer looks like on the wire."""
        self.conn.send_headers(1, list(head), end_stream=not body and not trailers)
        if body:
            self.conn.send_data(1, body, end_stream=not trailers)
        if trailers:
            self.conn.send_headers(1, list(trailers), end_stream=True)
        return self.conn.data_to_send()


def cause(call: HealthCall, data: bytes) -> str:
    """Why an answer is bad."""
    with pytest.raises(CheckFailed) as error:
        call.feed(data)
    return str(error.value)


def test_the_call_asks_for_the_health_of_a_service() -> None:
    server = Server(HealthCall("a:50051", "acme.Billing"))
    assert server.request == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": "a:50051",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "coulee-check",
    }
    assert server.body == b"\0\0\0\0\x0e\x0a\x0cacme.Billing"
    assert server.ended
    assert server.conn.remote_settings.enable_push == 0
    assert server.conn.remote_settings.max_header_list_size == ANSWER_BYTES_MAX


def test_an_answer_of_serving_is_good_however_it_comes_in_pieces() -> None:
    whole = Server(HealthCall("a")).answer()
    for size in (1, 2, 3, 7, len(whole)):
        call = HealthCall("a")
        answer = Server(call).answer()
        pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert [call.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_settings_and_pings_are_answered() -> None:
    call = HealthCall("a")
    server = Server(call)
    server.conn.ping(b"12345678")
    call.feed(server.conn.data_to_send())
    reply = call.to_send()
    assert b"12345678" in reply
    assert reply.startswith(b"\0\0\0\x04\x01")
    assert call.to_send() == b""


def test_what_follows_a_good_answer_is_no_matter() -> None:
    call = HealthCall("a")
    server = Server(call)
    answer = server.answer()
    server.conn.close_connection(error_code=0)
    assert call.feed(answer + server.conn.data_to_send())


@pytest.mark.parametrize(
    ("head", "body", "trailers", "text"),
    [
        (OK, b"\0\0\0\0\2\x08\2", ENDED, "NOT_SERVING"),
        (OK, b"\0\0\0\0\0", ENDED, "UNKNOWN"),
        (OK, b"\0\0\0\0\2\x08\3", ENDED, "SERVICE_UNKNOWN"),
        (OK, b"\0\0\0\0\2\x08\7", ENDED, "state 7"),
        ((*OK, ("grpc-status", "12")), b"", (), "UNIMPLEMENTED (12)"),
        ((*OK, ("grpc-status", "5"), ("grpc-message", "unknown%20service")), b"", (), "NOT_FOUND (5): unknown service"),
        (OK, SERVING, (("grpc-status", "14"), ("grpc-message", "")), "UNAVAILABLE (14)"),
        (OK, b"", (("grpc-status", "99"),), "status (99)"),
        (OK, b"", (("grpc-status", "x"),), "status (x)"),
        (OK, b"", ENDED, "not one whole message"),
        (((":status", "503"),), b"", (), "HTTP status 503"),
        (((":status", "404"), ("grpc-status", "0")), SERVING, (), "HTTP status 404"),
        (((":status", "200"), ("content-type", "text/html")), b"<p>", (),
         "not gRPC: no grpc-status, content-type text/html"),
        (((":status", "200"),), SERVING, (), "not gRPC: no grpc-status, content-type unknown"),
    ],
)  # fmt: skip
def test_any_other_answer_says_what_is_wrong(head: Fields, body: bytes, trailers: Fields, text: str) -> None:
    call = HealthCall("a")
    assert cause(call, Server(call).answer(head, body, trailers)) == text


def test_an_end_before_the_answer_is_bad() -> None:
    assert cause(HealthCall("a"), b"") == "closed without an answer"
    call = HealthCall("a")
    assert not call.feed(Server(call).conn.data_to_send())
    assert cause(call, b"") == "closed without a whole answer"


def test_a_reset_and_a_goaway_say_why() -> None:
    call = HealthCall("a")
    server = Server(call)
    server.conn.reset_stream(1, error_code=7)
    assert cause(call, server.conn.data_to_send()) == "the call was reset: REFUSED_STREAM"
    call = HealthCall("a")
    server = Server(call)
    server.conn.close_connection(error_code=0)
    assert cause(call, server.conn.data_to_send()) == "the server closes the connection: NO_ERROR"
    call = HealthCall("a")
    server = Server(call)
    server.conn.reset_stream(1, error_code=777)
    assert cause(call, server.conn.data_to_send()) == "the call was reset: error 777"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not HTTP/2: HTTP/1.1 400 Bad Request"),
        (b"SSH-2.0-x\n", "not HTTP/2: SSH-2.0-x"),
        (b"\0\0\x08\x06\0\0\0\0\0", "not HTTP/2: \\x00\\x00\\x08\\x06\\x00\\x00\\x00\\x00\\x00"),
    ],
)
def test_what_is_not_http2_is_shown(data: bytes, text: str) -> None:
    assert cause(HealthCall("a"), data) == text
    call = HealthCall("a")
    for byte in data[:3]:
        assert not call.feed(bytes([byte]))
    assert cause(call, data[3:]) == text


def test_broken_http2_is_bad() -> None:
    call = HealthCall("a")
    call.feed(Server(call).conn.data_to_send())
    assert cause(call, b"\0\0\1\0\0\0\0\0\5x").startswith("broken HTTP/2: ")


def test_no_more_is_read_than_an_honest_answer_has() -> None:
    call = HealthCall("a")
    server = Server(call)
    server.conn.send_headers(1, list(OK))
    server.conn.send_data(1, bytes(ANSWER_BYTES_MAX))
    data = server.conn.data_to_send()
    assert not call.feed(data[:ANSWER_BYTES_MAX])
    assert cause(call, data[ANSWER_BYTES_MAX:]) == f"an answer of more than {ANSWER_BYTES_MAX} bytes"


# ------------------------------------------------------------------------------------------------ messages


def framed(message: bytes) -> bytes:
    """A message in its frame."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def test_the_whole_server_has_no_name() -> None:
    assert encode_request("") == framed(b"")


def test_a_long_name_has_a_long_length() -> None:
    assert encode_request("ä" * 100) == framed(b"\x0a\xc8\x01" + b"\xc3\xa4" * 100)


@pytest.mark.parametrize(
    ("message", "state"),
    [
        ("", 0),
        ("0801", 1),
        ("08021001", 2),  # a field that we do not know, behind
        ("1a036162630801", 1),  # ... of bytes, before
        ("0d000000000801", 1),
        ("0900000000000000000801", 1),
        ("08020801", 1),  # the last counts
        ("088101", 129),
    ],
)
def test_a_state_is_found_among_fields_that_are_not_known(message: str, state: int) -> None:
    assert decode_answer(framed(bytes.fromhex(message))) == state


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"", "not one whole message"),
        (b"\0\0\0\0\3\x08\1", "not one whole message"),
        (b"\0\0\0\0\2\x08\1\0\0\0\0\2\x08\1", "not one whole message"),
        (b"\1\0\0\0\2\x08\1", "not one whole message"),
        (framed(b"\x08"), "a message that is cut short"),
        (framed(b"\x08\x81"), "a message that is cut short"),
        (framed(b"\x1a\5ab"), "a message that is cut short"),
        (framed(b"\x0d\0\0"), "a message that is cut short"),
        (framed(b"\x09\0\0\0\0\0\0\0"), "a message that is cut short"),
        (framed(b"\x0b"), "not a message of protobuf"),
        (framed(b"\x08" + b"\xff" * 10 + b"\1"), "not a message of protobuf"),
    ],
)
def test_what_is_no_message_is_bad(frame: bytes, text: str) -> None:
    with pytest.raises(CheckFailed) as error:
        decode_answer(frame)
    assert str(error.value) == text


def test_a_state_of_ten_bytes_is_a_number() -> None:
    assert decode_answer(framed(b"\x08" + b"\xff" * 9 + b"\1")) == (1 << 64) - 1


@given(st.binary(max_size=30))
def test_no_message_does_more_than_fail(message: bytes) -> None:
    for frame in (message, framed(message)):
        try:
            judge({":status": "200", "grpc-status": "0"}, frame)
        except CheckFailed:
            pass
        else:
            assert decode_answer(frame) == 1


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.binary(max_size=20))
def test_no_bytes_do_more_than_fail(changes: list[tuple[int, int]], tail: bytes) -> None:
    call = HealthCall("a")
    answer = bytearray(Server(call).answer())
    for at, byte in changes:
        answer[at % len(answer)] = byte
    with suppress(CheckFailed):
        call.feed(bytes(answer) + tail)
        call.feed(b"")
