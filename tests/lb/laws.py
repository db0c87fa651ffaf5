"""What every policy has to do whatever happens, as a story that hypothesis writes: requests come and go, endpoints fill
up, close, open, change their weight, leave and join.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import strategies as st

from coulee.core.peer import PeerLimits
from coulee.lb.endpoint import Endpoint
from coulee.lb.policy import Policy
from tests.lb.stub import Asks, FakeView, endpoints

Story = Sequence[tuple[str, int]]

ENDPOINTS_MAX = 8
KINDS = ("ask", "ask", "ask", "end", "end", "retry", "close", "reopen", "weigh", "leave", "join")

stories: st.SearchStrategy[Story] = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 63)), max_size=60)
"""What happens, and to whom."""

weights: st.SearchStrategy[list[int]] = st.lists(st.integers(1, 9), min_size=1, max_size=ENDPOINTS_MAX)


def cluster(policy: Policy, each: Sequence[int], *, seed: int = 0) -> FakeView:
    """Endpoints of these weights; every third takes two requests at a time."""
    members = endpoints(len(each), each)
    for endpoint in members[::3]:
        endpoint.limits = PeerLimits(requests_max=2)
    return FakeView(members, policy, seed=seed)


def play(view: FakeView, story: Story) -> Iterator[tuple[Asks, Endpoint | None]]:
    """Each exchange, with what was chosen for it; the attempt begins when the caller goes on.

    Asserts that there was a choice wherever one was possible; `FakeView` asserts that it was a possible one.
    """
    spare = list(view.members)
    going_on: list[Endpoint] = []
    for kind, number in story:
        some = spare[number % len(spare)]
        if kind in ("ask", "retry"):
            bits = number if kind == "retry" else 0
            exchange = Asks(tried=[endpoint.name for endpoint in spare if bits >> endpoint.index & 1])
            possible = any(each.open and each.name not in exchange.tried for each in view.members)
            chosen = view.choose(exchange)
            assert (chosen is not None) == possible
            yield exchange, chosen
            if chosen:
                view.begin(chosen)
                going_on.append(chosen)
        elif kind == "end" and going_on:
            ending = going_on.pop(number % len(going_on))
            view.end(ending)
            view.now += number / 8
            view.policy.answered(ending, number / 64)
        elif kind == "close" and some in view.members:
            view.close(some)
        elif kind == "reopen" and some in view.members:
            view.reopen(some)
        elif kind == "weigh" and some in view.members:
            some.weight = 1 + number % 9
            view.place(view.members)
        elif kind == "leave" and len(view.members) > 1:
            view.place([member for member in view.members if member is not some])
        elif kind == "join" and some not in view.members:
            some.usable = some.open = True
            view.place([*view.members, some])


def picks(view: FakeView, count: int) -> list[int]:
    """The numbers of the endpoints that get the next requests, each of which is over at once."""
    taken: list[int] = []
    for _ in range(count):
        chosen = view.choose()
        assert chosen is not None
        view.begin(chosen)
        view.end(chosen)
        taken.append(int(chosen.name[1:]))
    return taken


def letters(view: FakeView, count: int) -> str:
    """The same, as a b c ..."""
    return "".join(chr(ord("a") + number) for number in picks(view, count))
