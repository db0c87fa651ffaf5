"""What a client of the model gets, event by event, and what is noted of it."""

from chat_events import proxy

from coulee.testing import Exchange

EVENTS = {"Content-Type": "text/event-stream"}


def chat() -> Exchange:
    """A client has asked, and the model begins to answer."""
    x = Exchange(proxy).start("POST", "/v1/chat", body=b"{}", headers={"Accept-Encoding": "gzip"})
    assert x.upstream.request.headers["accept-encoding"] == "identity"
    return x.upstream.begin(200, headers=EVENTS)


def test_each_event_comes_at_once_and_without_the_secret() -> None:
    x = chat()
    x.upstream.send(b"data: well, s3cret is\n\n")
    assert x.response.body == b"data: well, [removed] is\n\n"
    x.upstream.send(b": thinking\n")
    assert x.response.body.endswith(b"is\n\n: thinking\n")
    x.upstream.send(b"data: it\r\n\r\n")
    assert x.response.body.endswith(b"data: it\r\n\r\n")
    x.upstream.end()
    assert x.response.complete
    assert x.record is not None and x.record.tags == {"words": 4}


def test_a_secret_that_comes_in_pieces() -> None:
    x = chat()
    x.upstream.send(b"data: s3c")
    assert x.response.body == b""
    x.upstream.send(b"ret\n\n")
    assert x.response.body == b"data: [removed]\n\n"


def test_it_may_think_for_long_and_the_client_may_leave() -> None:
    x = chat().advance(seconds=3000)
    x.upstream.send(b"data: 42\n\n")
    assert x.response.body == b"data: 42\n\n"
    x.leave()
    assert x.upstreams[0].is_closed
    assert x.record is not None and x.record.reason == "client_gone"
