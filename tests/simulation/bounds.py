"""What a proxy may hold of HTTP/2 at any moment, and that no window shrinks for good: looked at while a seed runs."""

from __future__ import annotations

from typing import Final

from coulee.core import Proxy
from coulee.core.http2_connection import TURN_BYTES_MAX, Http2Connection
from coulee.core.http2_downstream import Http2Downstream

PART_BYTES_MAX: Final = 256 * 1024
"""What comes to be written at once, at most: a mark is looked at before that, and not within it."""

FIRST_WINDOW_BYTES: Final = 65_535
"""Of a stream, until the peer has heard of ours (RFC 9113 section 6.9.2)."""


def check_bounds(proxy: Proxy) -> None:
    """No stream holds more than its window and the marks allow, nor does a connection."""
    limits, http2 = proxy.config.limits, proxy.config.http2
    window = max(http2.stream_window_bytes, FIRST_WINDOW_BYTES)
    unsent = limits.buffer_high_bytes + PART_BYTES_MAX
    for connection in proxy.connections.values():
        if not isinstance(connection, Http2Connection):
            continue
        if isinstance(connection, Http2Downstream):
            assert len(connection.streams) <= http2.streams_max, "no more at once than it was told"
        for stream in connection.streams.values():
            assert stream.inbox_bytes <= window, "no more than the window"
            assert connection.codec.unsent(stream.number) <= unsent, "no more than the high mark"
        assert connection.out_bytes <= unsent + TURN_BYTES_MAX + http2.unsent_control_bytes_max, "no more than a turn's"
        if not (connection.streams or connection.broken or connection.closing):
            manager = connection.codec._h2._inbound_flow_control_window_manager
            back = manager.current_window_size + manager._bytes_processed
            assert back >= manager.max_window_size, "of what is over nothing is missing in the connection's window"
