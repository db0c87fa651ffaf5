"""What every backend with a real host does in the same way: makes a machine of a proxy, and runs user code.

Nothing here knows a loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias, cast

from coulee.core.seam import Address, ListenAt, Listener, Machine, parse_address

BLOCKING_JOBS_MAX = 32  # threads; what is beyond waits for one

Where: TypeAlias = Address | str | Listener | Sequence[Address | str | Listener]
"""Where to listen: one address or several, each as `(host, port)`, as text, or as a `Listener` with all it is to do."""

Outcome: TypeAlias = tuple[Any, BaseException | None]
"""What user code has returned, or raised."""


def make_machine(proxy: Machine, listen: Where, seed: int | None, clock: Callable[[], float]) -> Machine:
    """A fresh machine whose times are those of `clock`. Raises ValueError where text is no address."""
    return proxy.fresh(
        rng=Random(int.from_bytes(os.urandom(16), "big") if seed is None else seed),
        wall_clock_offset_s=time.time() - clock(),
        listen=_addresses(listen),
    )


def _addresses(listen: Where) -> list[ListenAt]:
    one = isinstance(listen, str | Listener) or (len(listen) == 2 and isinstance(listen[1], int))
    several = cast("Sequence[ListenAt]", [listen] if one else listen)
    return [parse_address(each) if isinstance(each, str) else each for each in several]


def called(call: Callable[[], Any]) -> Outcome:
    """Run a blocking job."""
    try:
        return call(), None
    except BaseException as error:  # whatever it is, the one who asked is told; a future would choke on StopIteration
        return None, error


async def awaited(call: Callable[[], Any], cancelled: type[BaseException]) -> Outcome:
    """Run a native job. `cancelled`, which is how the loop stops a task, goes through; and so does Ctrl-C."""
    try:
        return await call(), None
    except (cancelled, KeyboardInterrupt):
        raise
    except BaseException as error:  # as in `called`; a loop would end over a SystemExit, and the job be lost
        return None, error
