"""A scenario: how many requests come, how the origins are, and what happens to them; read from TOML.

    duration = "1h"
    requests_per_s = 1000

    [endpoints]
    latency = { median = "20ms", p99 = "200ms" }

    [[event]]
    at = "10m"
    share = 0.3
    what = "die"
    for = "5m"

Rules:

- Everything has a default but the events; whatever is not understood is an error with its line.
- A duration is a text with its units, as "1h30m" or "20ms", or a number of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

from coulee.lb.endpoint import WEIGHT_MAX
from coulee.server.whatif.lines import Table, parse

Arrivals: TypeAlias = Literal["poisson", "even"]
Trouble: TypeAlias = Literal["die", "vanish", "hang", "slow", "errors", "flap"]
What: TypeAlias = Trouble | Literal["recover", "drain", "maintenance", "ready", "weight"]

TROUBLES: Final = ("die", "vanish", "hang", "slow", "errors", "flap")
"""What origins suffer: connections are refused; or not answered, as where a host is gone; requests are not answered, as
by a process that was stopped; it takes a multiple of the time; a share of the answers is an error; it dies and comes
back, again and again."""

ORDERS: Final = ("drain", "maintenance", "ready", "weight")
"""What operators do, at the cluster."""

ENDPOINTS_MAX: Final = 10_000
EVENTS_MAX: Final = 10_000
DURATION_MAX_S: Final = 7 * 86400.0
PIECES_OF_RAMP: Final = 100
"""A ramp is so many steps."""


@dataclass(frozen=True, slots=True)
class Load:
    """From `at_s` on so many requests a second."""

    at_s: float
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class OriginModel:
    """How one origin is while nothing is wrong with it."""

    median_s: float = 0.02
    """Half of its answers take no longer, once it has begun to work on them."""

    p99_s: float = 0.2
    """99 % take no longer. Between and beyond, times are log-normal, as those of real services nearly are."""

    concurrency: int = 0
    """Requests that it works on at once; others wait for their turn in it. 0 is no limit."""

    errors: float = 0.0
    """The share of its answers that are a 500."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something happens to some endpoints: those that are named, all of a zone, or a share drawn at random."""

    at_s: float
    what: What
    line: int
    """In the file, for what only those who know the endpoints can find wrong."""

    names: tuple[str, ...] = ()
    zone: str = ""
    share: float = 0.0
    for_s: float = 0.0
    """After so long it is undone. 0 is never."""

    factor: float = 10.0
    status: int = 503
    rate: float = 1.0
    up_s: float = 5.0
    down_s: float = 5.0
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Outages:
    """Troubles at random times, for each endpoint by itself: both times are exponential."""

    mean_between_s: float
    mean_duration_s: float
    kinds: tuple[Trouble, ...] = ("die", "hang", "slow", "errors")
    factor: float = 10.0
    status: int = 503
    rate: float = 0.5


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it."""

    name: str = "scenario.toml"
    seed: int = 1
    duration_s: float = 600.0
    load: tuple[Load, ...] = (Load(0.0, 100.0),)
    """Steps, the first at 0."""

    arrivals: Arrivals = "poisson"
    clients: int = 1000
    """Addresses that requests come from, all equally often."""

    paths: int = 100
    """Targets that they ask for, all equally often."""

    posts: float = 0.0
    """The share of requests that are POST, and so must not be sent twice."""

    count: int = 0
    """Endpoints in place of the program's own: `a0`, `a1`, ... 0 keeps those."""

    zones: tuple[str, ...] = ()
    """... which get these zones in turn."""

    origin: OriginModel = OriginModel()
    origins: tuple[tuple[str, int, OriginModel], ...] = ()
    """Those that are not as the others: their names, and lines of the file."""

    happenings: tuple[Happening, ...] = ()
    outages: Outages | None = None


def read_scenario(text: str, name: str) -> Scenario:
    """A scenario from the text of the file called `name`. Raises `TomlError`, a `ValueError`, which names the line."""
    top = parse(text, name)
    duration_s = top.seconds("duration", 600.0)
    if duration_s > DURATION_MAX_S:
        raise top.error("duration", f"duration is over {DURATION_MAX_S / 86400:g} days; nobody waits for the end of it")
    keys = top.table("keys")
    endpoints = top.table("endpoints")
    origin = _origin(endpoints, OriginModel())
    scenario = Scenario(
        name=name,
        seed=top.whole("seed", 1),
        duration_s=duration_s,
        load=_load(top),
        arrivals=cast("Arrivals", top.choice("arrivals", "poisson", ("poisson", "even"))),
        clients=keys.whole("clients", 1000, 1, 1_000_000),
        paths=keys.whole("paths", 100, 1, 1_000_000),
        posts=top.number("posts", 0.0, 0.0, 1.0),
        count=endpoints.whole("count", 0, 0, ENDPOINTS_MAX),
        zones=endpoints.texts("zones"),
        origin=origin,
        origins=tuple(_named_origin(each, origin) for each in top.tables("endpoint")),
        happenings=_happenings(top),
        outages=_outages(top),
    )
    if scenario.zones and not scenario.count:
        raise endpoints.error("zones", "zones are for the endpoints of count; those of the program have their own")
    for table in (keys, endpoints, top):
        table.end()
    return scenario


def _load(top: Table) -> tuple[Load, ...]:
    """Steps; a ramp becomes many of them."""
    rate = top.number("requests_per_s", 100.0, 0.0, 1_000_000.0)
    steps = [Load(0.0, rate)]
    for table in top.tables("load"):
        if not table.has("at") or not table.has("requests_per_s"):
            raise table.error(
                "", 'a [[load]] needs at and requests_per_s, such as at = "10m" and requests_per_s = 2000'
            )
        at_s = table.seconds("at", 0.0, zero=True)
        to = table.number("requests_per_s", rate, 0.0, 1_000_000.0)
        over_s = table.seconds("over", 0.0, zero=True)
        table.end()
        if at_s < steps[-1].at_s:
            raise table.error("at", "at is before the end of the [[load]] above it; write them in the order of time")
        pieces = PIECES_OF_RAMP if over_s else 1
        for piece in range(pieces):
            share = (piece + 0.5) / pieces if over_s else 1.0
            steps.append(Load(at_s + over_s * piece / pieces, rate + (to - rate) * share))
        if over_s:
            steps.append(Load(at_s + over_s, to))
        rate = to
    return tuple(steps)


def _origin(table: Table, default: OriginModel) -> OriginModel:
    """What [endpoints] and [[endpoint]] have in common."""
    latency = table.table("latency")
    median_s = latency.seconds("median", default.median_s)
    p99_s = latency.seconds("p99", max(default.p99_s, median_s) if not latency.has("median") else median_s * 10)
    latency.end()
    if p99_s < median_s:
        raise latency.error("p99", "p99 is below the median")
    concurrency = table.whole("concurrency", default.concurrency)
    return OriginModel(median_s, p99_s, concurrency, table.number("errors", default.errors, 0.0, 1.0))


def _named_origin(table: Table, default: OriginModel) -> tuple[str, int, OriginModel]:
    if not table.has("name"):
        raise table.error("", 'an [[endpoint]] needs the name of one, such as name = "127.0.0.1:9000"')
    row = (table.text("name"), table.line("name"), _origin(table, default))
    table.end()
    return row


_NEEDS: Final = {"slow": ("factor",), "errors": ("status", "rate"), "flap": ("up", "down"), "weight": ("value",)}
"""Keys that only one kind of event has."""


def _happenings(top: Table) -> tuple[Happening, ...]:
    tables = top.tables("event")
    if len(tables) > EVENTS_MAX:
        raise top.error("event", f"there are {len(tables)} events; {EVENTS_MAX} are the most")
    return tuple(sorted((_happening(table) for table in tables), key=lambda each: each.at_s))


def _happening(table: Table) -> Happening:
    for key in ("at", "what"):
        if not table.has(key):
            raise table.error("", f'an [[event]] needs {key}, such as at = "10m" and what = "die"')
    what = table.choice("what", "die", (*TROUBLES, "recover", *ORDERS))
    chosen = [key for key in ("endpoint", "endpoints", "zone", "share") if table.has(key)]
    if len(chosen) != 1:
        which = "there is none" if not chosen else f"there are {' and '.join(chosen)}"
        raise table.error("", f"an [[event]] needs one of endpoint, endpoints, zone and share; {which}")
    for other, keys in _NEEDS.items():
        for key in keys:
            if other != what and table.has(key):
                raise table.error(key, f'{key} is for what = "{other}", not for "{what}"')
    if what == "weight" and not table.has("value"):
        raise table.error("what", 'what = "weight" needs a value, such as value = 3')
    if what in ("recover", "ready") and table.has("for"):
        raise table.error("for", f'what = "{what}" has no end; leave for away')
    happening = Happening(
        at_s=table.seconds("at", 0.0, zero=True),
        what=cast("What", what),
        line=table.line(chosen[0]),
        names=(table.text("endpoint"),) if table.has("endpoint") else table.texts("endpoints"),
        zone=table.text("zone"),
        share=table.number("share", 1e-6, 1e-6, 1.0) if table.has("share") else 0.0,
        for_s=table.seconds("for", 0.0, zero=True),
        factor=table.number("factor", 10.0, 0.001, 1_000_000.0),
        status=table.whole("status", 503, 200, 599),
        rate=table.number("rate", 1.0, 0.0, 1.0),
        up_s=table.seconds("up", 5.0),
        down_s=table.seconds("down", 5.0),
        weight=table.whole("value", 1, 0, WEIGHT_MAX),
    )
    table.known += ["endpoint", "endpoints", "share"]
    table.end()
    return happening


def _outages(top: Table) -> Outages | None:
    table = top.table("outages")
    if not top.has("outages"):
        return None
    for key in ("mean_between", "mean_duration"):
        if not table.has(key):
            raise table.error("", f'[outages] needs {key}, such as mean_between = "1h" and mean_duration = "1m"')
    outages = Outages(
        mean_between_s=table.seconds("mean_between", 3600.0),
        mean_duration_s=table.seconds("mean_duration", 60.0),
        kinds=cast("tuple[Trouble, ...]", table.choices("kinds", ("die", "hang", "slow", "errors"), TROUBLES)),
        factor=table.number("factor", 10.0, 0.001, 1_000_000.0),
        status=table.whole("status", 503, 200, 599),
        rate=table.number("rate", 0.5, 0.0, 1.0),
    )
    table.end()
    return outages
