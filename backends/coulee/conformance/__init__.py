"""A suite of tests for backends, which holds yours to the laws of the seam. This is its public face.

    from coulee.conformance import SocketHarness, Suite

    class MyHarness(SocketHarness):           # peers on real sockets are there already
        def start(self, machine): ...         # set `driver`
        def breathe(self): ...                # let the loop turn once, without waiting for long

    class TestMyBackend(Suite):
        @pytest.fixture
        def harness(self):
            harness = MyHarness()
            yield harness
            harness.end()

That is the whole file; pytest finds the tests in `Suite`, each of which gets a harness of its own. docs/conformance.md
says which law each of them holds. The chapters of the suite are classes too, for who wants to begin with one of them.
"""

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError('coulee.conformance needs: pip install "coulee[test]"') from error

# Before they are imported, so that a failed assertion of theirs says what it saw, as one in a test file does.
_PARTS = (
    "addresses", "alarms", "bench", "connecting", "credit", "exhaustion", "failure", "half_close", "harness", "jobs",
    "listeners", "names", "options", "resets", "securing", "sockets", "volume",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"coulee.conformance.{part}" for part in _PARTS))

from coulee.conformance.addresses import Addresses  # noqa: E402
from coulee.conformance.alarms import Alarms  # noqa: E402
from coulee.conformance.bench import Bench, Chapter, Puppet  # noqa: E402
from coulee.conformance.connecting import Connecting  # noqa: E402
from coulee.conformance.credit import Credit  # noqa: E402
from coulee.conformance.exhaustion import Exhaustion  # noqa: E402
from coulee.conformance.failure import Failure  # noqa: E402
from coulee.conformance.half_close import HalfClose  # noqa: E402
from coulee.conformance.harness import LIMIT_S, TCP, Harness, Peer  # noqa: E402
from coulee.conformance.jobs import Jobs  # noqa: E402
from coulee.conformance.listeners import Listeners  # noqa: E402
from coulee.conformance.names import Names  # noqa: E402
from coulee.conformance.options import Options  # noqa: E402
from coulee.conformance.resets import Resets  # noqa: E402
from coulee.conformance.securing import Securing  # noqa: E402
from coulee.conformance.sockets import SocketHarness, SocketPeer  # noqa: E402
from coulee.conformance.volume import Volume  # noqa: E402

__all__ = [
    "LIMIT_S",
    "TCP",
    "Addresses",
    "Alarms",
    "Bench",
    "Chapter",
    "Connecting",
    "Credit",
    "Exhaustion",
    "Failure",
    "HalfClose",
    "Harness",
    "Jobs",
    "Listeners",
    "Names",
    "Options",
    "Peer",
    "Puppet",
    "Resets",
    "Securing",
    "SocketHarness",
    "SocketPeer",
    "Suite",
    "Volume",
]


class Suite(
    Listeners, Connecting, Addresses, Names, Options, Credit, HalfClose, Failure, Resets, Securing, Jobs, Alarms,
    Exhaustion, Volume,
):  # fmt: skip
    """All of it."""
