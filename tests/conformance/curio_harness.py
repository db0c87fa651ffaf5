"""The harness for curio, whose library need not be installed."""

from __future__ import annotations

from typing import Any

from coulee.backends.curio import curio, serve
from coulee.backends.driver import Driver
from coulee.conformance import SocketHarness
from coulee.core.seam import Machine


class CurioHarness(SocketHarness):
    """curio."""

    sleep = staticmethod(curio.sleep)

    def __init__(self) -> None:
        super().__init__()
        self._kernel = curio.Kernel()
        self._task: Any = None

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self._task is not None and self._task.terminated

    def start(self, machine: Machine) -> None:
        drivers: list[Driver] = []

        async def main() -> None:
            self._task = await curio.spawn(serve(machine, on_ready=drivers.append))

        self._kernel.run(main)
        self.until(lambda: drivers)
        self.driver = drivers[0]

    def breathe(self) -> None:
        self._kernel.run(curio.sleep, 0.0005)
        if self.done:
            _ = self._task.result

    def end(self) -> None:
        super().end()
        try:
            if self._task is not None and not self.done:
                self._kernel.run(self._task.cancel)
        finally:
            self._kernel.run(shutdown=True)
