"""Filters of every kind, and filters that fail in every phase."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from coulee.core import (
    Exchange,
    ExchangeError,
    Filter,
    Peer,
    Request,
    Response,
    blocking,
    deadline,
    fetch,
    native,
    nursery,
    respond,
    sleep,
)
from coulee.core.headers import Headers
from tests.conformance.scenarios.script import ERROR_END, LAST_CHUNK, Set, answer, ask, chunk, serve
from tests.conformance.stage import END, Scenario, Stage

SET: Final = Set()


class Adds(Filter):
    """Changes both heads."""

    def upstream_request_filter(self, exchange: Exchange, request: Request) -> None:
        request.headers.set("X-Key", "secret")
        request.headers.remove("cookie")

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        response.headers.remove("server")
        response.headers.add("X-By", "us")


@SET.play("200", filters=[Adds])
def a_filter_changes_both_heads(stage: Stage) -> None:
    client = stage.client(ask("GET /", "Cookie: a"))
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Server: x", body=b"hello"))
    client.hears(b"hello")


class Answers(Filter):
    """Answers by itself."""

    def early_request_filter(self, exchange: Exchange) -> Response | None:
        return respond(401, json={"error": "who?"}) if exchange.request.path == "/private" else None


@SET.play("401", "200", filters=[Answers])
def a_filter_answers_by_itself(stage: Stage) -> None:
    client = stage.client(ask("POST /private", body=b"read and forgotten"))
    client.hears(b"}")
    client.says(ask("GET /public"))
    serve(stage, client, b"hello")


class Sleeps(Filter):
    """Waits a moment in each phase that may."""

    async def request_filter(self, exchange: Exchange) -> None:
        await sleep(0.001)

    async def upstream_response_filter(self, exchange: Exchange, response: Response) -> None:
        await sleep(0.001)

    async def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> None:
        await sleep(0.001)

    async def logging(self, exchange: Exchange) -> None:
        await sleep(0.001)
        exchange.tags["logged"] = True


@SET.play("200", "200", filters=[Sleeps])
def a_filter_sleeps(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = serve(stage, client, b"first")
    client.says(ask("GET /2"))
    serve(stage, client, b"second", origin)


class HasJobs(Filter):
    """Runs code outside of the core."""

    async def request_filter(self, exchange: Exchange) -> Response | None:
        tags = exchange.tags
        tags["blocking"] = await blocking(len, exchange.request.target)
        tags["native"] = await native(_native, 20, more=22)
        try:
            await blocking(int, "no number")
        except ValueError as error:
            tags["failed"] = str(error)
        try:
            await native(_native, -1)
        except ValueError as error:
            tags["failed too"] = str(error)
        if exchange.request.path == "/fail":
            await blocking(int, "no number")
        return None


async def _native(number: int, more: int = 0) -> int:
    if number < 0:
        raise ValueError("a negative number")
    return number + more


@SET.play("200", "500 filter_error", filters=[HasJobs])
def a_filter_has_jobs_done(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    serve(stage, client, b"first")
    client.says(ask("GET /fail"))
    client.hears(ERROR_END)


class HasManyJobs(Filter):
    """Has several things done at once."""

    async def request_filter(self, exchange: Exchange) -> None:
        done: list[int] = []

        async def double(number: int) -> None:
            done.append(await blocking(int.__mul__, number, 2))

        with nursery() as children:
            for number in range(20):
                children.start(double, number)
            await children.join()
        exchange.tags["sum"] = sum(done)


@SET.play("200", filters=[HasManyJobs])
def a_filter_has_many_jobs_done_at_once(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello")


class Asks(Filter):
    """Asks the cluster something first."""

    async def request_filter(self, exchange: Exchange) -> Response | None:
        said = await fetch(Request("POST", "/permit", authority="permits.test", data=b"may it?"))
        exchange.tags["permit"] = said.data.decode()
        return None if said.status == 200 else respond(403, said.data)


@SET.play("200", "403", filters=[Asks])
def a_filter_asks_the_origin_first(stage: Stage) -> None:
    client = stage.client(ask("GET /1"))
    origin = stage.origin()
    origin.hears(b"may it?")
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"), chunk(b"yes"), LAST_CHUNK)
    origin.hears(END)
    origin.says(answer(body=b"hello"))
    client.hears(b"hello")
    client.says(ask("GET /2"))
    origin.hears(b"may it?")
    origin.says(answer("404 Not Found", body=b"no"))
    client.hears(b"no")


@SET.play("502 upstream_refused", filters=[Asks], origins=("nobody",))
def a_filter_asks_an_origin_that_is_down(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


class ReadsBody(Filter):
    """Reads the whole body first."""

    async def request_filter(self, exchange: Exchange) -> None:
        exchange.tags["body"] = (await exchange.body(20)).decode()


@SET.play("200", "413 body_too_large", filters=[ReadsBody])
def a_filter_reads_the_body_first(stage: Stage) -> None:
    client = stage.client(ask("POST /1", "Expect: 100-continue", "Transfer-Encoding: chunked"))
    client.hears(END)
    client.says(chunk(b"one"))
    stage.proxy_has_heard_all()
    client.says(chunk(b"two"), LAST_CHUNK)
    origin = stage.origin()
    origin.hears(b"two")
    origin.says(answer(body=b"first"))
    client.hears(b"first")
    client.says(ask("POST /2", body=b"more than twenty bytes"))
    client.hears(ERROR_END)


class Shouts(Filter):
    """Changes every byte of both bodies."""

    def request_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return data.upper()

    async def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> bytes:
        return data.upper() + b"!" * ended

    def response_trailer_filter(self, exchange: Exchange, trailers: Headers) -> None:
        trailers.add("X-Loud", "yes")


@SET.play("200", "200", filters=[Shouts])
def a_filter_changes_both_bodies(stage: Stage) -> None:
    client = stage.client(ask("POST /1", "Transfer-Encoding: chunked"), chunk(b"hear"))
    origin = stage.origin()
    origin.hears(b"HEAR\r\n")
    client.says(chunk(b"me"), LAST_CHUNK)
    origin.hears(LAST_CHUNK)
    origin.says(answer("200 OK", "Content-Length: 8"), b"four")
    client.hears(b"FOUR\r\n")
    origin.says(b"more")
    client.hears(LAST_CHUNK)
    client.says(ask("GET /2"))
    origin.hears(END)
    origin.says(answer("200 OK", "Transfer-Encoding: chunked"))
    client.hears(END)
    origin.says(chunk(b"last"), b"0\r\nX-Sum: 1\r\n\r\n")
    client.hears(b"X-Loud: yes\r\n\r\n")


class Hurries(Filter):
    """Gives itself a time limit."""

    async def request_filter(self, exchange: Exchange) -> Response | None:
        try:
            with deadline(0.01):
                await sleep(3600)
        except TimeoutError:
            exchange.tags["late"] = True
        return respond(503, "later")


@SET.play("503", filters=[Hurries])
def a_filter_gives_itself_a_time_limit(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(b"later")


class Decides(Filter):
    """Decides about failures, and where to go."""

    def upstream_peer(self, exchange: Exchange) -> Peer | None:
        endpoints: list[Peer] = exchange.proxy.balancer.peers  # type: ignore[attr-defined]
        return endpoints[exchange.attempts]

    def fail_to_connect(self, exchange: Exchange, error: ExchangeError) -> bool:
        exchange.tags["no connection"] = error.reason
        return True

    def error_while_proxy(self, exchange: Exchange, error: ExchangeError) -> bool:
        exchange.tags["no answer"] = error.reason
        return exchange.attempts < 3

    def fail_to_proxy(self, exchange: Exchange, error: ExchangeError) -> Response:
        return respond(error.status, f"sorry: {error.reason}")


@SET.play("502 upstream_reset, 3 attempts", filters=[Decides], origins=("nobody", "tcp", "tcp"))
def a_filter_decides_about_failures(stage: Stage) -> None:
    client = stage.client(ask("POST /", body=b"body"))
    for number in (2, 3):
        origin = stage.origin(number)
        origin.hears(b"body")
        origin.resets()
    client.hears(b"sorry: upstream_reset")


class _Notes(Filter):
    """Writes down when it is called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def note(self, exchange: Exchange, phase: str) -> None:
        notes: Any = exchange.tags.setdefault("calls", [])
        notes.append(f"{self.name} {phase}")

    def request_filter(self, exchange: Exchange) -> None:
        self.note(exchange, "request")

    def response_filter(self, exchange: Exchange, response: Response) -> None:
        self.note(exchange, "response")

    def logging(self, exchange: Exchange) -> None:
        self.note(exchange, "log")


@SET.play("200", filters=[lambda: _Notes("outer"), lambda: _Notes("inner")])
def filters_are_called_in_their_order(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello")


# -- failing, in each phase


def _breaks(*arguments: object) -> None:
    raise LookupError("no such thing")


def _breaking(phase: str) -> Filter:
    broken = Filter()
    setattr(broken, phase, _breaks)
    return broken


async def _foreign(exchange: Exchange) -> None:
    await Foreign()


class Foreign:
    """What another event loop would await."""

    def __await__(self) -> Any:
        yield self


def _awaiting_what_is_foreign() -> Filter:
    broken = Filter()
    broken.request_filter = _foreign  # type: ignore[method-assign]
    return broken


def _before_an_origin_is_asked(stage: Stage) -> None:
    client = stage.client(ask())
    client.hears(ERROR_END)


def _before_the_origin_hears(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    client.hears(ERROR_END)
    origin.hears_reset()


def _before_the_client_hears(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 8"), b"half")
    client.hears(ERROR_END)
    origin.hears_reset()


def _in_the_log(stage: Stage) -> None:
    client = stage.client(ask())
    serve(stage, client, b"hello")


_BREAKS: Final[dict[str, Callable[[Stage], None]]] = {
    "early_request_filter": _before_an_origin_is_asked,
    "request_filter": _before_an_origin_is_asked,
    "upstream_peer": _before_an_origin_is_asked,
    "connected_to_upstream": _before_the_origin_hears,
    "upstream_request_filter": _before_the_origin_hears,
    "request_body_filter": _before_the_origin_hears,
    "upstream_response_filter": _before_the_client_hears,
    "response_filter": _before_the_client_hears,
    "upstream_response_body_filter": _before_the_client_hears,
    "response_body_filter": _before_the_client_hears,
    "logging": _in_the_log,
}
for _phase, _script in _BREAKS.items():
    SET.append(
        Scenario(
            f"a filter breaks in {_phase}",
            _script,
            ("200",) if _phase == "logging" else ("500 filter_error",),
            [partial(_breaking, _phase)],
        )
    )
SET.append(
    Scenario(
        "a filter awaits what is not ours",
        _before_an_origin_is_asked,
        ("500 filter_error",),
        [_awaiting_what_is_foreign],
    )
)


class BreaksLate(Filter):
    """Breaks within the answer."""

    def response_body_filter(self, exchange: Exchange, data: bytes, ended: bool) -> None:
        if b"r" in data:
            raise LookupError("no such thing")


@SET.play("200 filter_error", filters=[BreaksLate])
def a_filter_breaks_within_the_answer(stage: Stage) -> None:
    client = stage.client(ask())
    origin = stage.origin()
    origin.hears(END)
    origin.says(answer("200 OK", "Content-Length: 12"), b"half")
    client.hears(b"half\r\n")
    origin.says(b"rest")
    client.hears_eof()
    origin.hears_reset()
