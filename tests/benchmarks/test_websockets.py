"""The benchmark of WebSockets measures what it says. No figure is judged here."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest

from tests.benchmarks.__main__ import PARTS, options
from tests.benchmarks.echo_origin import head, whole_frame
from tests.benchmarks.nginx import Nginx
from tests.benchmarks.processes import BenchError, free_port
from tests.benchmarks.profile_websocket import Bed, Look
from tests.benchmarks.scenarios import WEBSOCKET_SCENARIOS
from tests.benchmarks.websockets import WebSocketLoad, WebSocketPeers, echoing, masked_frame
from tests.core.websocket_frames import BINARY, Frame, read

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs Linux")
SMALL = WEBSOCKET_SCENARIOS["ws"]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Generator[WebSocketPeers, None, None]:
    folder = tmp_path_factory.mktemp("bench")
    try:
        nginx = Nginx(folder)
    except BenchError as error:
        pytest.skip(str(error))
    with echoing(None, folder) as origin:
        yield WebSocketPeers(nginx, origin, None, folder)


@pytest.mark.parametrize("name", ["nginx", "tunnel-asyncio", "coulee-asyncio", "filtered-asyncio"])
def test_each_peer_echoes(name: str, peers: WebSocketPeers) -> None:
    with peers.running(name, WEBSOCKET_SCENARIOS.values()) as peer:
        load = WebSocketLoad().run(SMALL, peer.port, 0.05)
    assert load.requests >= SMALL.connections
    assert load.bytes == load.requests * SMALL.size


def test_who_does_not_echo_is_no_peer() -> None:
    with pytest.raises(BenchError, match="ws: "):
        WebSocketLoad().run(SMALL, free_port(), 0)


@pytest.mark.parametrize("size", [0, 100, 125, 126, 65535, 65536])
def test_frames_are_as_long_as_they_say(size: int) -> None:
    sent = masked_frame(size)
    assert read(sent) == [Frame(BINARY, bytes(size), masked=True)]
    assert whole_frame(sent) == (len(sent), size)
    assert whole_frame(sent[:-1]) == (0, 0)
    assert read(head(size) + bytes(size)) == [Frame(BINARY, bytes(size))]


@pytest.mark.parametrize("filters", [[Look()], []])
def test_the_profile_plays_a_message_up_and_one_down(filters: list[Look]) -> None:
    assert Bed(*filters, size=100).measure(3) > 0


def test_the_parts_can_be_chosen_together() -> None:
    assert options(["--only", "websockets"]).only == list(WEBSOCKET_SCENARIOS)
    assert set(WEBSOCKET_SCENARIOS) < set(PARTS)
