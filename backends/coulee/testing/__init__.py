"""Test a proxy without sockets, event loops or waiting: one client, the origins behind the proxy, and virtual time.

    from coulee.testing import Exchange

    def test_retries_after_reset():
        x = Exchange(proxy).start("GET", "/a", headers={"x-api-key": "s3cret"})
        x.upstream.reset()
        x.advance(seconds=0.1)
        x.upstream.reply(200, body=b"hi")
        assert x.response.status == 200 and x.response.body == b"hi" and x.attempts == 2

Rules:

- Every call returns when all that it causes has happened, short of what waits for a time limit: let time pass with
  `advance`. Nothing else makes time pass.
- Both ends speak through h11, which shares no code with coulee's codecs, or in HTTP/2 through h2. Origins speak what
  they are spoken to in.
- What is not there yet is an `AssertionError` that says what is: a test need not ask for it first.
- The same test gives the same result, always. `seed` is where the proxy's own random choices come from.
"""

from __future__ import annotations

from coulee.testing.ends import Answer, Upstream, UpstreamRequest
from coulee.testing.exchange import Exchange
from coulee.testing.websocket import End, WebSocket

__all__ = ["Answer", "End", "Exchange", "Upstream", "UpstreamRequest", "WebSocket"]
