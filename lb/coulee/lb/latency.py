"""How long answers take."""

from __future__ import annotations


class Latency:
    """Replaced by the real one."""

    def add(self, seconds: float) -> None: ...
    def quantile(self, share: float) -> float: ...
    def rotate(self) -> None: ...
