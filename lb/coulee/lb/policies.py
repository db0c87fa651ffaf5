"""The policies that can be named, as on a command line: those that need no more than a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from coulee.lb.ketama import Ketama
from coulee.lb.keys import by_address, by_target
from coulee.lb.loads import LeastRequests, PeakEwma, TwoChoices
from coulee.lb.policy import Policy
from coulee.lb.turns import RandomChoice, RoundRobin

POLICIES: Final[Mapping[str, Callable[[], Policy]]] = {
    "round-robin": RoundRobin,
    "random": RandomChoice,
    "least-requests": LeastRequests,
    "two-choices": TwoChoices,
    "peak-ewma": PeakEwma,
    "address": lambda: Ketama(by_address()),
    "target": lambda: Ketama(by_target()),
}
"""`address` and `target` send each client address, or each request target, to an endpoint of its own."""


def policy_named(name: str) -> Policy:
    """A policy by its name. Raises `ValueError`, which says what names there are."""
    try:
        return POLICIES[name]()
    except KeyError:
        raise ValueError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}") from None
