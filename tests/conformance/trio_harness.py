"""The harness for trio, whose library need not be installed."""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from coulee.backends.driver import Driver
from coulee.backends.trio import serve
from coulee.conformance import SocketHarness
from coulee.core.seam import Machine

if TYPE_CHECKING:
    import outcome


class TrioHarness(SocketHarness):
    """trio, as the guest of a loop that is a queue."""

    sleep = staticmethod(trio.sleep)

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._outcome: outcome.Outcome[None] | None = None

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._outcome is not None

    def start(self, machine: Machine) -> None:
        drivers: list[Driver] = []

        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            with self._scope:
                await serve(machine, on_ready=drivers.append)

        def end(result: outcome.Outcome[None]) -> None:
            self._outcome = result

        trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=self._calls.put, done_callback=end)
        self.until(lambda: drivers)
        self.driver = drivers[0]

    def breathe(self) -> None:
        with suppress(queue.Empty):
            self._calls.get(timeout=0.001)()
        if self._outcome is not None:
            self._outcome.unwrap()

    def end(self) -> None:
        super().end()
        if self._token is not None and not self.done:
            self._token.run_sync_soon(self._scope.cancel)
            while not self.done:
                self.breathe()
