"""The bodies of the sweep: what they consist of, and how they are cut."""

from __future__ import annotations

from itertools import pairwise
from random import Random


def pattern(number: int, length: int, direction: str) -> bytes:
    """A body that tells whose it is, at every byte."""
    unit = f"{direction}{number:05d}."
    return (unit * (length // len(unit) + 1))[:length].encode()


def pieces_of(rng: Random, body: bytes) -> list[bytes]:
    """A body in one to four pieces."""
    if not body:
        return []
    cuts = sorted(rng.randint(0, len(body)) for _ in range(rng.choice((0, 0, 1, 3))))
    edges = [0, *cuts, len(body)]
    return [body[start:end] for start, end in pairwise(edges) if start < end]
