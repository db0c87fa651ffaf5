"""Scripted ends that the tests of the simulator share."""

from __future__ import annotations

from coulee.backends.simulator import FarEnd, Simulator, Weather
from coulee.core.seam import Address, ErrorKind

HERE: Address = ("10.0.0.1", 8000)
ORIGIN: Address = ("10.0.0.2", 80)
KIB = 1024


class Recorder(FarEnd):
    """Writes down what happens to it."""

    def __init__(self, says: bytes = b"", *, then_eof: bool = False) -> None:
        super().__init__()
        self.says = says
        self.then_eof = then_eof
        self.got = b""
        self.eofs = 0
        self.ends: list[ErrorKind | None] = []

    def opened(self) -> None:
        if self.says:
            self.write(self.says)
        if self.then_eof:
            self.write_eof()

    def received(self, data: bytes) -> None:
        self.got += data
        self.eofs += not data

    def closed(self, error: ErrorKind | None) -> None:
        self.ends.append(error)


def far_ends(near: FarEnd, far: FarEnd, weather: Weather | None = None) -> Simulator:
    """Two scripted ends, connected."""
    sim = Simulator(0, weather or Weather.calm())
    sim.listen(ORIGIN, lambda _: far)
    sim.connect(ORIGIN, near)
    sim.flush()
    return sim
