"""What can be fuzzed: for each its cases, what must hold for them, its corpus and its dictionary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fuzz import http2_case, http2_properties, properties, websocket_case, websocket_properties
from fuzz.case import Case

FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True)
class Target:
    """One of them. `case` makes cases of bytes and of lines, and `check` raises `AssertionError`."""

    name: str
    case: type[Any]
    check: Callable[[Any], Any]
    bytes_max: int

    @property
    def corpus(self) -> Path:
        """Its cases."""
        return FOLDER / "corpus" / f"{self.name}.txt"

    @property
    def dictionary(self) -> Path:
        """What its inputs are likely to want."""
        return FOLDER / f"{self.name}.dict"


TARGETS: Final = {
    "http1": Target("http1", Case, properties.check, 512),
    "http2": Target("http2", http2_case.Case, http2_properties.check, 1024),
    "websocket": Target("websocket", websocket_case.Case, websocket_properties.check, 512),
}
"""`bytes_max` is of an input: all there is to reach is reached with less, where the limits are the small ones."""
