"""What happens, in words: `a3 dies`, `30 % are 5 times as slow`."""

from __future__ import annotations

from typing import Final

from coulee.server.whatif.scenario import Happening, Outages
from coulee.server.whatif.units import span

_ONE: Final = {"die": "dies", "vanish": "vanishes", "hang": "hangs", "flap": "flaps", "recover": "recovers",
               "drain": "drained", "maintenance": "in maintenance", "ready": "ready"}  # fmt: skip
_MANY: Final = {"die": "die", "vanish": "vanish", "hang": "hang", "flap": "flap", "recover": "recover",
                "drain": "drained", "maintenance": "in maintenance", "ready": "ready"}  # fmt: skip


def told(happening: Happening) -> str:
    """In a few words."""
    names = happening.names
    if happening.share:
        who = f"{happening.share * 100:g} %"
    elif happening.zone:
        who = f"zone {happening.zone}"
    else:
        who = ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
    what = happening.what
    if what == "slow":
        return (
            f"{who}: \u00d7{happening.factor:g} slower"
            if happening.factor >= 1
            else f"{who}: \u00d7{happening.factor:g}"
        )
    if what == "errors":
        return f"{who}: {happening.rate * 100:g} % {happening.status}"
    if what == "weight":
        return f"{who}: weight {happening.weight}"
    return f"{who} {_ONE[what] if len(names) == 1 else _MANY[what]}"


def told_outages(outages: Outages) -> str:
    """In a line."""
    every, long = span(outages.mean_between_s), span(outages.mean_duration_s)
    return f"random outages ({', '.join(outages.kinds)}) of each endpoint: {every} apart, {long} long on average"
