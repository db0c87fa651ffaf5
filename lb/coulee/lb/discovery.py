"""Where endpoints come from: a source is asked again and again, and what it gives replaces what there was.

Rules:

- An error, and an answer without an endpoint, keep the last good set. It is said once for each change of the error, and
  so is the recovery.
- The host is told of a set only where it differs from the last one: in an address, a weight, a zone, a priority or a
  label. The order counts for nothing, for many sources answer in any.
- A source is asked again after its interval, or when what it gave is no longer valid, and up to a tenth of that later,
  so that many proxies do not ask in step. After an error it is asked sooner, with a back-off.
- All is bounded: the time for an answer, the endpoints in one, the text of an error.
- What takes long is done in slices, between which exchanges go on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from random import Random
from typing import Any, Final, Protocol, Self, TypeAlias, cast
from urllib.parse import urlsplit

from coulee.core import effects
from coulee.core.errors import ExchangeError
from coulee.core.headers import Headers
from coulee.core.kernel import Alarm, DeadlineExceeded, current_kernel, deadline, sleep
from coulee.core.parts import Request
from coulee.core.peer import Peer, PoolKey
from coulee.lb.documents import DOCUMENT_BYTES_MAX, ENDPOINTS_MAX, DiscoveryError, parse_json, read_document
from coulee.lb.endpoint import Endpoint, endpoint_of, peer_from_url

__all__ = ["DiscoveryError", "Finder", "Found", "Function", "Host", "HttpSd", "Source"]

BACK_OFF_S: Final = 1.0
"""Until the first attempt after an error; doubled with each further error, up to the source's interval, or ..."""

BACK_OFF_MAX_S: Final = 60.0
"""... this, whichever is less. Half of it is by chance."""

SPREAD: Final = 0.1
"""The part of an interval that is by chance."""

PAUSE_MIN_S: Final = 0.1
"""Whatever a source says."""

LATE_S: Final = 10.0
"""When to say that a source which cannot be cut short has not answered yet."""

SLICE: Final = 128
"""Endpoints that are made, or looked at, in one go: two or three milliseconds."""

TEXT_MAX: Final = 400
"""Characters of an error, for what a user's function raises may be of any length."""

Definition: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class Found:
    """What a source gave."""

    endpoints: Sequence[Endpoint]
    """Definitions: whoever takes them makes endpoints of its own from them."""

    valid_s: float | None = None
    """Ask again after so long. None: after the source's interval."""


class Source(Protocol):
    """Where endpoints come from. Write your own with these five; it is asked by a `Finder`, on the core's kernel."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def interval_s(self) -> float:
        """How long after an answer to ask again."""
        ...

    @property
    def timeout_s(self) -> float | None:
        """How long an answer may take. None for what waits for a thread: that cannot be cut short, and asking again
        would cost one more thread."""
        ...

    def fresh(self) -> Source:
        """The same source in its initial state."""
        ...

    async def find(self) -> Found:
        """All endpoints that there are now. It may await what filters may; it may raise anything, `DiscoveryError`
        where it can say what is wrong. The same `Found` as before says that nothing has changed."""
        ...


class Host(Protocol):
    """For whom endpoints are found: a cluster."""

    @property
    def rng(self) -> Random:
        """The machine's random source."""
        ...

    @property
    def now(self) -> float:
        """The core's clock, in seconds."""
        ...

    async def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """These are all endpoints from now on."""
        ...

    def discovery_failed(self, text: str) -> None:
        """There is an error, or another one than before."""
        ...

    def discovery_recovered(self, text: str) -> None:
        """There was an error, and there is none now."""
        ...


class Finder:
    """Keeps the endpoints of a host as a source has them: `await Finder(source, host).run()`, until it is cancelled."""

    def __init__(self, source: Source, host: Host) -> None:
        self.source = source
        self.host = host
        self.error = ""
        """What is wrong now."""
        self._failures = 0
        """In succession."""
        self._failing_since = 0.0
        self._last: Found | None = None
        self._known: dict[PoolKey, Definition] = {}
        """What the host was told last."""

    async def run(self) -> None:
        """Ask at once, and then again and again."""
        while True:
            await sleep(max(PAUSE_MIN_S, await self._ask()))

    async def _ask(self) -> float:
        """Ask once; gives the pause until the next time."""
        try:
            found = await self._find()
            if found is not self._last:
                await self._take(found.endpoints)
                self._last = found
        except Exception as error:
            self._failures += 1
            self._say(self._text_of(error))
            longest_s = min(self.source.interval_s, BACK_OFF_MAX_S)
            pause_s = min(BACK_OFF_S * 2.0 ** min(self._failures - 1, 16), longest_s)
            return pause_s * self.host.rng.uniform(0.5, 1.0)
        self._recover()
        pause_s = self.source.interval_s if found.valid_s is None else found.valid_s
        return pause_s * self.host.rng.uniform(1.0, 1.0 + SPREAD)

    async def _find(self) -> Found:
        limit_s = self.source.timeout_s
        if limit_s is not None:
            limit = deadline(limit_s)
            try:
                with limit:
                    return await self.source.find()
            except DeadlineExceeded:
                if not limit.cancelled:
                    raise  # it is a time limit of the source's own
                raise DiscoveryError(f"{self.source.name}: no answer within {limit_s:g} s") from None
        kernel = current_kernel.get()
        late = _Late(self.say_late)
        kernel.arm(late, kernel.now + LATE_S)
        try:
            return await self.source.find()
        finally:
            kernel.disarm(late)

    def say_late(self) -> None:
        """There is no answer yet, from who cannot be cut short."""
        self._say(f"{self.source.name}: no answer for {LATE_S:g} s, and still waiting for it")

    async def _take(self, endpoints: Sequence[Endpoint]) -> None:
        """Tell the host, if this is another set than the last one."""
        if not endpoints:
            raise DiscoveryError(f"{self.source.name}: there are no endpoints in the answer")
        if len(endpoints) > ENDPOINTS_MAX:
            raise DiscoveryError(f"{self.source.name}: there are more than {ENDPOINTS_MAX} endpoints")
        definitions: dict[PoolKey, Definition] = {}
        names: dict[str, None] = {}
        for number, endpoint in enumerate(endpoints, 1):
            if endpoint.key in definitions or endpoint.name in names:
                raise DiscoveryError(f"{self.source.name}: endpoint {endpoint.name} is given twice")
            definitions[endpoint.key] = _definition_of(endpoint)
            names[endpoint.name] = None
            if number % SLICE == 0:
                await sleep(0)
        if definitions != self._known:
            await self.host.replace(endpoints)
            self._known = definitions

    # -- what is said

    def _text_of(self, error: Exception) -> str:
        if isinstance(error, DiscoveryError):
            return _one_line(str(error))
        return _one_line(f"{self.source.name}: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        """There is an error: say so, if it is another one than before."""
        if not self.error:
            self._failing_since = self.host.now
        if text != self.error:
            self.error = text
            self.host.discovery_failed(text)

    def _recover(self) -> None:
        self._failures = 0
        if self.error:
            self.error = ""
            down_s = self.host.now - self._failing_since
            self.host.discovery_recovered(f"{self.source.name}, after {down_s:.0f} s without an answer that is one")


class _Late(Alarm):
    """It takes long."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()
        self.call = call

    def ring(self, now: float) -> None:
        self.call()


def _definition_of(endpoint: Endpoint) -> Definition:
    """What two endpoints at one address may differ in."""
    return (
        endpoint.name,
        endpoint.weight,
        endpoint.priority,
        endpoint.zone,
        dict(endpoint.labels),
        endpoint.limits,
        endpoint.transport,
    )


def _one_line(text: str) -> str:
    """As it may stand in a log, whoever wrote it."""
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}..."
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


async def gathered(endpoints: Iterator[Endpoint]) -> list[Endpoint]:
    """All of them, made in slices."""
    made: list[Endpoint] = []
    while piece := list(islice(endpoints, SLICE)):
        made += piece
        await sleep(0)
    return made


def check_times(**times: float) -> None:
    """Raises `ValueError`."""
    for name, value in times.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} is {value}; it must be above 0")


# ----------------------------------------------------------------------------------------------------------- sources


class Function:
    """A function that says which endpoints there are.

    It returns URLs, `(url, weight)` pairs or `Endpoint`s, or a document as `documents` has it, or a `Found`. It may be
    a plain function, or `async` and await what filters may; one that waits for a socket or a disk of its own is for a
    thread, with `blocking`. `timeout_s` is for those that are not.
    """

    def __init__(
        self, function: Callable[[], Any], *, interval_s: float = 30.0, timeout_s: float = 10.0, blocking: bool = False
    ) -> None:
        check_times(interval_s=interval_s, timeout_s=timeout_s)
        if blocking and inspect.iscoroutinefunction(function):
            raise ValueError(f"{function.__name__} is async, and a thread does not await it; leave out blocking=True")
        self.function = function
        self.blocking = blocking
        self.name = f"{getattr(function, '__name__', type(function).__name__)}()"
        self.interval_s = interval_s
        self.limit_s = timeout_s

    @property
    def timeout_s(self) -> float | None:
        """See `Source`."""
        return None if self.blocking else self.limit_s

    def fresh(self) -> Self:
        """The same, and the same function."""
        return type(self)(self.function, interval_s=self.interval_s, timeout_s=self.limit_s, blocking=self.blocking)

    async def find(self) -> Found:
        """Ask the function."""
        if self.blocking:
            answer = await effects.blocking(self.function)
        else:
            answer = self.function()
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, Found):
            return answer
        return Found(await gathered(self._read(answer)))

    def _read(self, answer: object) -> Iterator[Endpoint]:
        kind = type(answer).__name__
        if isinstance(answer, str | bytes | set | frozenset) or not isinstance(answer, Iterable):
            raise DiscoveryError(f"{self.name}: it gave a {kind}; a list of URLs is wanted")
        items = cast("Iterable[object]", answer)
        if isinstance(items, dict) or (isinstance(items, list) and items and isinstance(items[0], dict)):
            return read_document(cast("object", items), self.name)
        return self._each(items)

    def _each(self, answer: Iterable[object]) -> Iterator[Endpoint]:
        for index, item in enumerate(islice(answer, ENDPOINTS_MAX + 1)):
            try:
                yield _endpoint_from(item)
            except ValueError as error:
                raise DiscoveryError(f"{self.name}: [{index}]: {error}") from None


def _endpoint_from(item: Any) -> Endpoint:
    match item:
        case str() | Peer():
            return endpoint_of(item)
        case (str(url), int(weight)):
            return Endpoint(url, weight=weight)
        case _:
            raise ValueError(f"a {type(item).__name__} is no URL, no (url, weight) and no Endpoint")


class HttpSd:
    """An HTTP address that answers with a document, as Prometheus asks for targets (`http_sd`).

    The answer to a GET must have the status 200 and be JSON. `headers` go with it, for a token.
    """

    def __init__(
        self,
        url: str,
        *,
        interval_s: float = 30.0,
        timeout_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        document_bytes_max: int = DOCUMENT_BYTES_MAX,
    ) -> None:
        check_times(interval_s=interval_s, timeout_s=timeout_s, document_bytes_max=document_bytes_max)
        self.name = url
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.headers = dict(headers or {})
        self.document_bytes_max = document_bytes_max
        self._peer, self._target = _split(url)
        fields = Headers({"Accept": "application/json", "X-Prometheus-Refresh-Interval-Seconds": f"{interval_s:g}"})
        for name, value in self.headers.items():
            fields.set(name, value)
        self._fields = fields
        self._body = b""
        self._found: Found | None = None

    def fresh(self) -> Self:
        """The same, asked for the first time."""
        return type(self)(
            self.name,
            interval_s=self.interval_s,
            timeout_s=self.timeout_s,
            headers=self.headers,
            document_bytes_max=self.document_bytes_max,
        )

    async def find(self) -> Found:
        """Ask it. The document is read only where it is another one than the last."""
        request = Request("GET", self._target, Headers(self._fields))
        try:
            limit = self.document_bytes_max
            answer = await effects.fetch(request, peer=self._peer, body_bytes_max=limit, fresh=True)
        except ExchangeError as error:
            raise DiscoveryError(f"{self.name}: {error}") from None
        if answer.status != 200:
            raise DiscoveryError(f"{self.name}: it answered {answer.status}, and not 200")
        if self._found is None or answer.data != self._body:
            document = parse_json(answer.data, self.name)
            self._found = Found(await gathered(read_document(document, self.name, sockets=False)))
            self._body = answer.data
        return self._found


def _split(url: str) -> tuple[Peer, str]:
    """Whom to ask, and for what. Raises `ValueError`."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} has characters that no URL has")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if "@" in parts.netloc:
        raise ValueError(f"{parts.hostname}: give a name and password as headers={{'Authorization': ...}}")
    peer = peer_from_url(f"{parts.scheme}://{parts.netloc}" if parts.scheme else url)
    query = f"?{parts.query}" if parts.query else ""
    return peer, f"{parts.path or '/'}{query}"
