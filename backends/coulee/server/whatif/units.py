"""Numbers as people read them: times, counts and shares, in the table and in the picture alike."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Final

_STEPS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900,
                   1800, 3600, 7200, 10800, 21600, 43200, 86400)  # fmt: skip


def latency(seconds: float) -> str:
    """`21 ms`, `0.8 ms`, `1.3 s`; a dash for none."""
    if seconds <= 0:
        return "-"
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds:.0f} s"


def span(seconds: float) -> str:
    """`1h30m`, `10m`, `2m5s`, `1.5s`, `0`."""
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + ("s" if seconds else "")
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}h" * bool(hours) + f"{minutes}m" * bool(minutes) + f"{left}s" * bool(left)


def clock(seconds: float) -> str:
    """`0:10:00.0`: hours, minutes, seconds."""
    tenths = floor(seconds * 10)
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def share(part: float, whole: float) -> str:
    """In percent, with two digits of what is missing to 0, or to 100: `45.0 %`, `99.93 %`, `0.0012 %`."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    missing = min(percent, 100 - percent)
    digits = 1 if not missing else min(max(1, 1 - floor(log10(missing))), 6)
    return f"{percent:.{digits}f} %"


def ticks(most: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to `most` or just below, about as many as wanted."""
    if most <= 0:
        return [0.0]
    rough = most / wanted
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    return [step * at for at in range(int(most / step * 1.0001) + 1)]


def time_ticks(duration_s: float, wanted: int = 12) -> list[float]:
    """Round times from 0 to the end."""
    step = next((step for step in _STEPS_S if duration_s / step <= wanted), _STEPS_S[-1])
    return [step * at for at in range(int(duration_s / step * 1.0001) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten around what lies between two numbers, both above 0."""
    low, high = floor(log10(least) + 1e-9), ceil(log10(most) - 1e-9)
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]
