"""Subsets: a request, or a proxy, uses some of a cluster's endpoints only.

`ByLabels` selects those that have the labels a request asks for, as a version: canaries, tenants, shards.
`DeterministicSubset` gives each of many proxies a few of many endpoints, so that not each is connected to all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from hashlib import blake2b
from heapq import nsmallest
from itertools import combinations
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from coulee.core.seam import show_address
from coulee.lb.groups import Levels
from coulee.lb.policy import Policy
from coulee.lb.sections import SLICE, Section, Sectioned

if TYPE_CHECKING:
    from coulee.core.peer import Routed
    from coulee.lb.endpoint import Endpoint

Selector: TypeAlias = "Callable[[Routed], Mapping[str, str] | None]"
"""The labels that an endpoint must have to serve this exchange; None, or none, where any will do."""

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names, in their order, with values."""

LABELS_MAX: Final = 4
"""Names of labels that one policy selects by. There are 15 combinations of four."""

SUBSETS_MAX: Final = 256
"""Subsets that one policy keeps, each with a policy of its own."""

_PRIME: Final = (1 << 61) - 1
"""2^61 - 1: (a x + b) mod a prime is as good as random for any two x (Carter and Wegman 1979)."""


class ByLabels(Sectioned):
    """`ByLabels(select, ["version"])`: the endpoints that have all the labels which `select(exchange)` returns.

    `labels` are the names that it may ask for. They are wanted beforehand: each subset that is there is made in
    `arrange`, so no request pays for it, and none can make one up. Where nobody has the labels, or nobody who has them
    is open, `otherwise` says who serves it: "any" endpoint, or "none". Beyond `subsets_max`, in the order of the
    endpoints and those with fewer labels first, a subset is not there.
    """

    def __init__(
        self,
        selector: Selector,
        labels: Collection[str],
        inner: Policy | None = None,
        *,
        otherwise: Literal["any", "none"] = "any",
        subsets_max: int = SUBSETS_MAX,
    ) -> None:
        super().__init__(inner)
        if isinstance(labels, str) or not 0 < len(labels) <= LABELS_MAX:
            raise ValueError(f"labels is {labels!r}; give the names of one to {LABELS_MAX} labels, as ['version']")
        if otherwise not in ("any", "none"):
            raise ValueError(f"otherwise is {otherwise!r}; it must be 'any' or 'none'")
        if subsets_max < 1:
            raise ValueError(f"subsets_max is {subsets_max}; it must be 1 or more")
        self.selector = selector
        self.labels = sorted(dict.fromkeys(labels))
        self.otherwise = otherwise
        self.subsets_max = subsets_max

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[Labels, list[Endpoint]]]:
        """One section for each combination of labels that an endpoint has; and all of them, under no labels."""
        divided: dict[Labels, list[Endpoint]] = {(): list(members)} if members else {}
        looked_at = 0
        for count in range(1, len(self.labels) + 1):
            for names in combinations(self.labels, count):
                for endpoint in members:
                    looked_at += 1
                    if looked_at % SLICE == 0:
                        yield
                    labels = tuple((name, endpoint.labels[name]) for name in names if name in endpoint.labels)
                    if len(labels) == count and (labels in divided or len(divided) <= self.subsets_max):
                        divided.setdefault(labels, []).append(endpoint)
        return divided

    def choose(self, exchange: Routed, tried: Collection[str]) -> Endpoint | None:
        """Of the subset that the exchange asks for; else as `otherwise` says."""
        labels = self._asked(exchange)
        section = self.sections.get(labels)
        chosen = section.policy.choose(exchange, tried) if section is not None else None
        if chosen is not None or self.otherwise == "none":
            return chosen
        whole = self.sections.get(())
        return whole.policy.choose(exchange, tried) if whole is not None else None

    def section_for(self, exchange: Routed, endpoint: Endpoint) -> Section | None:
        """The subset that it asked for, where the endpoint is in it; else the whole."""
        its_sections = self._sections_of.get(endpoint, ())
        for labels in (self._asked(exchange), ()):
            section = self.sections.get(labels)
            if section in its_sections:
                return section
        return None

    def _asked(self, exchange: Routed) -> Labels:
        labels = self.selector(exchange)
        return tuple(sorted(labels.items())) if labels else ()


def by_header_label(
    field: str,
    label: str,
    inner: Policy | None = None,
    *,
    otherwise: Literal["any", "none"] = "any",
    subsets_max: int = SUBSETS_MAX,
) -> ByLabels:
    """`by_header_label("X-Version", "version")`: `X-Version: 2` goes to those with the label `version` "2"."""

    def select(exchange: Routed) -> Mapping[str, str] | None:
        value = exchange.request.headers.get(field)
        return {label: value} if value is not None else None

    return ByLabels(select, [label], inner, otherwise=otherwise, subsets_max=subsets_max)


class DeterministicSubset(Levels):
    """`DeterministicSubset(instance=3, size=20)`: proxy 3 of many alike uses 20 endpoints; others, when none is usable.

    The proxies are counted from 0, and have the same `size` and endpoints. Each in turn takes the endpoints that the
    fewest before it took, and among those the ones that a hash of its own prefers. So, for any number of proxies, how
    many use an endpoint differs by one at most; more or fewer proxies change nobody's subset; and where an endpoint
    comes or goes, most proxies change none of theirs or one. (Chapter 20 of Google's "Site Reliability Engineering"
    shuffles the endpoints and cuts them up: as even, but almost all of every subset is another then, which "Reinventing
    Backend Subsetting at Google", ACM Queue 2022, says is what hurt.) Proxy i works out those before it, too, in
    `arrange`: about 0.2 µs for each and each endpoint.

    Weights count within the subset. `enough` is as in `groups`; 0 keeps to the subset while one of it is usable.
    """

    def __init__(self, instance: int, size: int, inner: Policy | None = None, *, enough: float = 0.0) -> None:
        super().__init__(inner, enough=enough)
        if instance < 0:
            raise ValueError(f"instance is {instance}; proxies are counted from 0")
        if size < 1:
            raise ValueError(f"size is {size}; a subset needs at least one endpoint")
        self.instance = instance
        self.size = size

    def divide(self, members: Sequence[Endpoint]) -> Generator[None, None, dict[int, list[Endpoint]]]:
        """Level 0 is the subset, level 1 are all others."""
        hashes: list[int] = []
        for at in range(0, len(members), SLICE):
            if at:
                yield
            some = members[at : at + SLICE]
            hashes += [_hash(f"{show_address(endpoint.address)}\0{endpoint.group}") for endpoint in some]
        uses = [0] * len(members)
        subset: list[int] = []
        looked_at = 0
        for instance in range(self.instance + 1):
            looked_at += len(members)
            if looked_at > SLICE:
                looked_at = 0
                yield
            a, b = _hash(f"{instance} a"), _hash(f"{instance} b")
            scores = [use << 61 | (a * x + b) % _PRIME for use, x in zip(uses, hashes, strict=True)]
            subset = nsmallest(self.size, range(len(members)), key=scores.__getitem__)
            for at in subset:
                uses[at] += 1
        chosen = dict.fromkeys(subset)
        divided: dict[int, list[Endpoint]] = {}
        for at, endpoint in enumerate(members):
            divided.setdefault(0 if at in chosen else 1, []).append(endpoint)
        return divided


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % _PRIME
