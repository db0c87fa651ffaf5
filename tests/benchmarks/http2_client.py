"""One request of HTTP/2 over TLS, to see that a peer answers as it should before it is measured."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError

from tests.benchmarks.certificate import http2_context
from tests.benchmarks.processes import HOST, BenchError
from tests.benchmarks.scenarios import Scenario

_ANSWER_WITHIN = 10.0
_READ_BYTES = 64 * 1024


@dataclass(slots=True)
class Answer:
    """What came back."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict[str, str])
    ended: bool = False


def check(name: str, port: int, scenario: Scenario) -> None:
    """Raise unless whoever listens on `port` answers `scenario` as it should."""
    try:
        answer = ask(port, scenario)
    except (OSError, ProtocolError) as error:
        raise BenchError(f"{name} does not answer {scenario.path} by HTTP/2: {error!r}") from error
    status = answer.fields.get(":status")
    if status != "200" or len(answer.body) != scenario.size:
        raise BenchError(f"{name} answers {scenario.path} with {status} and {len(answer.body)} bytes")
    if scenario.grpc and answer.trailers.get("grpc-status") != "0":
        raise BenchError(f"{name} answers {scenario.path} with the trailers {answer.trailers}")


def ask(port: int, scenario: Scenario) -> Answer:
    """The answer to one request on a connection of its own."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((HOST, port), timeout=_ANSWER_WITHIN))
        secure = stack.enter_context(http2_context().wrap_socket(plain))
        if secure.selected_alpn_protocol() != "h2":
            raise ConnectionError(f"it chose {secure.selected_alpn_protocol()} by ALPN")
        conn = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        conn.initiate_connection()
        head = [(":method", scenario.method), (":scheme", "https"), (":authority", f"{HOST}:{port}")]
        fields = [each.partition(": ") for each in scenario.fields]
        head += [(":path", scenario.path), *((name.lower(), value) for name, _, value in fields)]
        conn.send_headers(1, head, end_stream=not scenario.upload)
        if scenario.upload:
            conn.send_data(1, scenario.body, end_stream=True)
        answer = Answer()
        while not answer.ended:
            secure.sendall(conn.data_to_send())
            data = secure.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("it closed the connection")
            for event in conn.receive_data(data):
                _take(conn, answer, event)
        return answer


def _take(conn: H2Connection, answer: Answer, event: object) -> None:
    if isinstance(event, ResponseReceived):
        answer.fields = _as_text(event.headers)
    elif isinstance(event, DataReceived):
        answer.body += event.data
        conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, TrailersReceived):
        answer.trailers = _as_text(event.headers)
    elif isinstance(event, StreamEnded):
        answer.ended = True
    elif isinstance(event, (StreamReset, ConnectionTerminated)):
        raise ConnectionError(f"it sent {event}")


def _as_text(fields: Iterable[tuple[Any, Any]] | None) -> dict[str, str]:
    return {str(field[0]): str(field[1]) for field in fields or ()}
