"""A WebSocket on a stream of HTTP/2 (RFC 8441), by python-hyper's h2 and wsproto: a client that blocks, for which
nothing is sent or read but in a call."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

WITHIN_S: Final = 15.0
READ_BYTES: Final = 65536


class Refused(Exception):
    """It was answered otherwise. `status` says how."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Http2:
    """A connection, and the streams of it that are WebSockets."""

    def __init__(self, sock: socket.socket, scheme: str = "http", authority: str = "localhost") -> None:
        self.sock = sock
        self.scheme = scheme
        self.authority = authority
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.streams: dict[int, WebSocket] = {}
        self.settled = False
        self.flush()
        while not self.settled:
            self.read()

    def flush(self) -> None:
        """Send what h2 has to say."""
        self.sock.sendall(self.h2.data_to_send())

    def read(self) -> None:
        """One read, and what comes of it."""
        data = self.sock.recv(READ_BYTES)
        assert data, "the connection was closed"
        for event in self.h2.receive_data(data):
            if isinstance(event, RemoteSettingsChanged):
                self.settled = True
            stream = self.streams.get(getattr(event, "stream_id", None) or 0)
            if stream is not None:
                stream.hear(event)
        self.flush()

    def open(self, path: str) -> WebSocket:
        """A WebSocket, once it is answered. Raises `Refused`."""
        assert self.h2.remote_settings.enable_connect_protocol, "it is not offered"
        number = self.h2.get_next_available_stream_id()
        pairs = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", self.scheme), (":path", path),
            (":authority", self.authority), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"),
        ]  # fmt: skip
        self.h2.send_headers(number, pairs)
        self.streams[number] = stream = WebSocket(self, number)
        self.flush()
        while not (stream.status or stream.reset is not None):
            self.read()
        if stream.status != 200:
            raise Refused(stream.status)
        return stream

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


class WebSocket:
    """One stream."""

    def __init__(self, connection: Http2, number: int) -> None:
        self.connection = connection
        self.number = number
        self.status = 0
        self.fields: dict[str, str] = {}
        self.codec = Connection(ConnectionType.CLIENT)
        self.messages: list[str | bytes] = []
        self.pieces: list[bytes] = []
        self.closing: tuple[int, str | None] | None = None
        self.ended = False
        self.reset: ErrorCodes | None = None

    def hear(self, event: object) -> None:
        """What h2 says of it."""
        if isinstance(event, ResponseReceived):
            self.fields = {str(name): str(value) for name, value in event.headers}
            self.status = int(self.fields[":status"])
        elif isinstance(event, DataReceived):
            self.connection.h2.acknowledge_received_data(event.flow_controlled_length, self.number)
            if self.status == 200 and event.data:
                self.codec.receive_data(event.data)
                self._sort()
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, StreamReset):
            self.reset = ErrorCodes(event.error_code)
        else:
            assert isinstance(event, WindowUpdated), event

    def _sort(self) -> None:
        for event in self.codec.events():
            if isinstance(event, TextMessage | BytesMessage):
                data = event.data
                self.pieces.append(data.encode() if isinstance(data, str) else bytes(data))
                if event.message_finished:
                    whole = b"".join(self.pieces)
                    self.messages.append(whole.decode() if isinstance(event, TextMessage) else whole)
                    self.pieces = []
            elif isinstance(event, CloseConnection):
                self.closing = (int(event.code), event.reason)
                if self.codec.state is ConnectionState.REMOTE_CLOSING:
                    self.connection.h2.send_data(self.number, self.codec.send(event.response()), end_stream=True)

    def send(self, message: str | bytes) -> None:
        """A message."""
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self.say(self.codec.send(event))

    def say(self, data: bytes) -> None:
        """Bytes, as the windows let them out."""
        h2 = self.connection.h2
        while data:
            room = min(h2.local_flow_control_window(self.number), h2.max_outbound_frame_size)
            if room:
                h2.send_data(self.number, data[:room])
                data = data[room:]
                self.connection.flush()
            else:
                self.connection.read()

    def recv(self) -> str | bytes:
        """The next message."""
        while not self.messages:
            assert not (self.closing or self.ended or self.reset is not None), (self.closing, self.ended, self.reset)
            self.connection.read()
        return self.messages.pop(0)

    def close(self, code: int, reason: str) -> tuple[int, str | None]:
        """Both close frames, and both ends of the stream; what the other side has closed with."""
        self.say(self.codec.send(CloseConnection(code, reason)))
        while self.closing is None:
            self.connection.read()
        self.connection.h2.end_stream(self.number)
        self.connection.flush()
        self.wait_for_end()
        return self.closing

    def cancel(self) -> None:
        """A reset."""
        self.connection.h2.reset_stream(self.number, ErrorCodes.CANCEL)
        self.connection.flush()

    def wait_for_end(self) -> None:
        """Until the other side has ended, or reset, it."""
        while not (self.ended or self.reset is not None):
            self.connection.read()
