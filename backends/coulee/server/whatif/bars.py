"""What a run has to keep to, for CI: `errors<0.1%`, `p99<300ms`, `retries<=5%`, `errors=0`.

A share is of the requests that have ended; a plain number is a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import eq, ge, gt, le, lt
from typing import Final

from coulee.server.whatif.lines import duration_s
from coulee.server.whatif.tally import Tally
from coulee.server.whatif.units import latency, share

_FORM: Final = re.compile(r"\s*([a-z0-9.]+)\s*(<=|>=|<|>|=)\s*(\S+)\s*")
_SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq}
_COUNTS: Final[dict[str, Callable[[Tally], int]]] = {
    "requests": lambda tally: tally.ok + tally.failed,
    "ok": lambda tally: tally.ok,
    "errors": lambda tally: tally.failed,
    "rescued": lambda tally: sum(tally.rescued),
    "retries": lambda tally: sum(tally.retries),
    "hedges": lambda tally: tally.hedges,
}
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


class Bar:
    """One of them. Raises `ValueError` for what is none."""

    def __init__(self, text: str) -> None:
        found = _FORM.fullmatch(text)
        known = ", ".join((*_COUNTS, *_QUANTILES))
        if found is None:
            raise ValueError(f"{text!r} is no check; write one such as errors<0.1% or p99<300ms")
        self.text = text.strip()
        self.what, self.sign, limit = found[1], found[2], found[3]
        if self.what not in _COUNTS and self.what not in _QUANTILES:
            raise ValueError(f"{text!r}: there is no {self.what}; there are {known}")
        self.in_percent = limit.endswith("%")
        value = duration_s(limit) if self.what in _QUANTILES else _number(limit.removesuffix("%"))
        if value is None:
            wanted = "a duration, such as 300ms" if self.what in _QUANTILES else "a number or a share, such as 0.1%"
            raise ValueError(f"{text!r}: {limit} is not {wanted}")
        self.limit = value

    def broken_by(self, tally: Tally) -> str:
        """What was the case instead; "" where it holds."""
        if self.what in _QUANTILES:
            seconds = tally.all_latencies.quantile(_QUANTILES[self.what])
            return "" if _SIGNS[self.sign](seconds, self.limit) else f"{self.what} is {latency(seconds)}"
        count, whole = _COUNTS[self.what](tally), tally.ok + tally.failed
        value = 100 * count / whole if self.in_percent and whole else count
        if _SIGNS[self.sign](value, self.limit):
            return ""
        return f"{self.what} are {share(count, whole) if self.in_percent else format(count, ',')}"


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None
