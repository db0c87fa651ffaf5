"""coulee inside a Twisted program: one reactor runs the proxy and a console for its operator.

    python twisted_proxy.py http://127.0.0.1:9000 127.0.0.1:8000 8001

`nc 127.0.0.1 8001` is the console. It takes `status`, `hold` (from now on, requests wait), `go`, and `drain`.
"""

import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from coulee.backends.callbacks import CallbackDriver
from coulee.core import Access, Exchange, Filter, Proxy, native
from coulee.lb import Cluster

reactor: Any = _reactor  # a module for Python, an object for who uses it


class TwistedDriver(CallbackDriver):
    """For the reactor, one more descriptor to read (an `IReadDescriptor`), whatever the number of connections."""

    timer: Any = None

    def watch(self) -> None:
        reactor.addReader(self)

    def set_timer(self, delay_s: float) -> None:
        if self.timer is not None and self.timer.active():
            self.timer.reset(delay_s)
        else:
            self.timer = reactor.callLater(delay_s, self.tick)

    def unwatch(self) -> None:
        reactor.removeReader(self)
        if self.timer is not None and self.timer.active():
            self.timer.cancel()

    def spawn(self, job: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], object]:
        return ensureDeferred(job()).cancel

    def doRead(self) -> None:  # noqa: N802 - Twisted's names
        self.tick()

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        self.shut()

    def logPrefix(self) -> str:  # noqa: N802
        return "coulee"


class Gate(Filter):
    """Requests wait here while the operator holds them, each for a Deferred of Twisted's."""

    def __init__(self) -> None:
        self.is_shut = False
        self.waiting: list[Deferred[None]] = []

    async def request_filter(self, exchange: Exchange) -> None:
        if self.is_shut:
            await native(self.wait)

    async def wait(self) -> None:
        turn: Deferred[None] = Deferred()
        self.waiting.append(turn)
        try:
            await turn
        finally:
            self.waiting.remove(turn)  # also where its client has left

    def open(self) -> None:
        self.is_shut = False
        for turn in list(self.waiting):
            turn.callback(None)


class Console(LineOnlyReceiver):
    """What the operator says, a line at a time."""

    delimiter = b"\n"

    def __init__(self, gate: Gate, served: list[int], drain: Callable[[], object]) -> None:
        self.gate = gate
        self.served = served
        self.drain = drain

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        self.sendLine(self.obey(line.strip()))  # type: ignore[no-untyped-call]

    def obey(self, order: bytes) -> bytes:
        match order:
            case b"status":
                return b"%d served, %d waiting" % (len(self.served), len(self.gate.waiting))
            case b"hold":
                self.gate.is_shut = True
            case b"go":
                self.gate.open()
            case b"drain":
                self.drain()
            case _:
                return b"status, hold, go, or drain?"
        return order


def main(origin: str, listen: str, console: str) -> None:
    gate = Gate()
    served: list[int] = []  # statuses
    ended: Deferred[BaseException | None] = Deferred()
    errors: list[BaseException] = []

    def report(record: object) -> None:
        if isinstance(record, Access):
            served.append(record.status)

    def drain() -> Deferred[BaseException | None]:
        gate.open()
        driver.stop()
        return ended

    def end(error: BaseException | None) -> None:
        if error is not None:
            errors.append(error)
        with suppress(ReactorNotRunning):  # it is what asked for the end
            reactor.stop()

    driver = TwistedDriver(
        Proxy(Cluster(origin), [gate]),
        listen,
        reporter=report,
        clock=reactor.seconds,
        on_ready=lambda driver: print("listening on", driver.addresses[0][1], flush=True),
        on_end=ended.callback,
    )
    ended.addCallback(end)
    place = reactor.listenTCP(
        int(console), Factory.forProtocol(lambda: Console(gate, served, drain)), interface="127.0.0.1"
    )
    print("console on", place.getHost().port, flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", drain)  # a signal: the reactor waits for what this returns
    reactor.callWhenRunning(driver.open)
    reactor.run()
    if errors:
        raise SystemExit(f"twisted_proxy: {errors[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
