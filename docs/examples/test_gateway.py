"""The gateway's tests: no socket is opened, nothing is waited for, and they give the same result every time."""

from gateway import proxy

from coulee.core import respond
from coulee.testing import Exchange

KEY = {"x-api-key": "s3cret"}


def test_a_key_is_needed() -> None:
    assert Exchange(proxy).get("/").status == 401


def test_retries_after_reset() -> None:
    x = Exchange(proxy).start("GET", "/a", headers=KEY)
    x.upstream.reset()
    x.advance(seconds=0.1)
    x.upstream.reply(200, body=b"hi")
    assert x.response.status == 200 and x.response.body == b"hi" and x.attempts == 2


def test_fails_over_when_an_origin_is_down() -> None:
    x = Exchange(proxy, origin=lambda request: respond(200, "hi")).down("http://127.0.0.1:9000")
    assert x.get("/", headers=KEY).body == b"hi"
    assert x.attempts == 2


def test_an_origin_that_is_silent_is_a_timeout() -> None:
    x = Exchange(proxy).start("GET", "/", headers=KEY)
    x.advance(seconds=61)
    assert x.response.status == 504


def test_nobody_learns_what_the_origins_run() -> None:
    x = Exchange(proxy, origin=lambda request: respond(200, headers={"Server": "nginx"}))
    assert "server" not in x.get("/", headers=KEY).headers
