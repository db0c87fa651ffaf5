"""coulee inside a Twisted program: one reactor runs the proxy and a console for its operator.

    python twisted_proxy.py http://127.0.0.1:9000 127.0.0.1:8000 8001

`nc 127.0.0.1 8001` is the console. It takes `status`, `hold` (from now on, requests wait), `go`, and `drain`.
"""

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
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

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Callable[[], object]:
        return ensureDeferred(coroutine).cancel

    def doRead(self) -> None:  # noqa: N802 - Twisted's names
        self.tick()

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        self.shut()

    def logPrefix(self) -> str:  # noqa: N802
        return "coulee"


class Gate(Filter):
    """Before it requests wait while the operator holds them, each for a Deferred of Twisted's."""

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

    def __init__(self, driver: CallbackDriver, gate: Gate, served: list[int]) -> None:
        self.driver, self.gate, self.served = driver, gate, served

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        match line.strip():
            case b"status":
                self.sendLine(b"%d served, %d waiting" % (sum(self.served), len(self.gate.waiting)))
            case b"hold":
                self.gate.is_shut = True
                self.sendLine(b"held")
            case b"go":
                self.gate.open()
                self.sendLine(b"open")
            case b"drain":
                self.gate.open()
                self.driver.stop()
                self.sendLine(b"draining")
            case _:
                self.sendLine(b"status, hold, go, or drain?")


def main(origin: str, listen: str, console: str) -> None:
    ends: list[BaseException | None] = []
    served = [0]
    gate = Gate()

    def report(record: object) -> None:
        if isinstance(record, Access):
            served[0] += 1

    def end(error: BaseException | None) -> None:
        ends.append(error)
        reactor.stop()

    driver = TwistedDriver(
        Proxy(Cluster(origin), [gate]),
        listen,
        reporter=report,
        clock=reactor.seconds,
        on_ready=lambda driver: print("listening on", driver.addresses[0][1], flush=True),
        on_end=end,
    )
    factory = Factory.forProtocol(lambda: Console(driver, gate, served))
    reactor.callWhenRunning(driver.open)
    print("console on", reactor.listenTCP(int(console), factory, interface="127.0.0.1").getHost().port, flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", driver.shut)
    reactor.run()
    if ends and ends[0] is not None:
        raise SystemExit(f"twisted_proxy: {ends[0]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
