"""What an outage would do to the cluster of balanced.py: played in virtual time, so it takes seconds and no origins."""

from pathlib import Path

from balanced import proxy

from coulee.server.whatif.play import Play
from coulee.server.whatif.scenario import read_scenario

SCENARIO = Path(__file__).with_name("outage.toml")


def test_hardly_a_client_notices_the_outage() -> None:
    tally = Play(read_scenario(SCENARIO.read_text(), SCENARIO.name), proxy).run()
    assert tally.failed < 0.001 * tally.requests
    assert tally.all_latencies.quantile(0.99) < 1.0
    assert {change.name for change in tally.changes} >= {"a1", "a2", "a3", "a5"}
