"""Law 6: time goes forward, and an alarm rings when it is due, with effect."""

from __future__ import annotations

from coulee.conformance.bench import Bench, Chapter
from coulee.core.seam import Receive


class Alarms(Chapter):
    """See the top of the module."""

    def test_alarms_ring_in_order_and_never_before_their_time(self, bench: Bench) -> None:
        puppet = bench.puppet
        due = [puppet.now + delay for delay in (0.03, 0.005, 0.02, 0.01, 0.0101)]
        puppet.alarms.extend(due)
        bench.do()
        bench.harness.until(lambda: not puppet.alarms)
        assert [when for when, _ in puppet.rung] == sorted(due)
        assert all(rung >= when for when, rung in puppet.rung)

    def test_an_alarm_that_is_put_off_does_not_ring_early(self, bench: Bench) -> None:
        puppet = bench.puppet
        delay_s = 0.02
        while True:
            bench.do()
            puppet.alarms.append(puppet.now + delay_s)
            bench.do()
            if puppet.alarms:
                break
            delay_s *= 2.0  # this host was busy for so long that the alarm has rung
        puppet.rung.clear()
        later = puppet.alarms[0] + delay_s
        puppet.alarms[:] = [later]
        bench.do()
        bench.harness.until(lambda: puppet.rung)
        assert puppet.rung[0][1] >= later

    def test_an_alarm_that_is_brought_forward_rings_then(self, bench: Bench) -> None:
        puppet = bench.puppet
        start = puppet.now
        puppet.alarms.append(start + 3600.0)
        bench.do()
        puppet.alarms.append(puppet.now + 0.005)
        bench.do()
        bench.harness.until(lambda: puppet.rung)
        assert puppet.rung[0][1] < start + 3600.0
        puppet.alarms.clear()

    def test_an_alarm_in_the_past_rings_at_once(self, bench: Bench) -> None:
        puppet = bench.puppet
        puppet.react = lambda _: ()
        puppet.alarms.append(puppet.now - 10.0)
        bench.do()
        bench.harness.until(lambda: puppet.rung)
        assert len(puppet.rung) == 1

    def test_an_alarm_that_rings_early_has_its_effect_and_has_it_once(self, bench: Bench) -> None:
        """As if it had rung in time: the machine is told that it is as late as it wanted to be called."""
        puppet = bench.puppet
        bench.do()
        due = puppet.now + 30.0
        puppet.alarms.append(due)
        bench.do()
        bench.harness.call(bench.harness.driver.ring)
        assert puppet.rung == [(due, due)]
        turns = puppet.turns
        bench.harness.call(bench.harness.driver.ring)
        bench.fence()
        assert puppet.rung == [(due, due)]
        assert puppet.now >= due
        assert puppet.turns < turns + 50

    def test_an_alarm_rings_with_effect_where_the_clock_has_stepped_back(self, bench: Bench) -> None:
        """So all alarms ring early, and without end where the backend believes the clock."""
        puppet, driver = bench.puppet, bench.harness.driver
        clock = driver.clock
        bench.do()
        driver.clock = lambda: clock() - 0.05
        bench.do()
        turns = puppet.turns
        due = [puppet.now + delay for delay in (0.005, 0.01, 0.015)]
        puppet.alarms.extend(due)
        bench.do()
        bench.harness.until(lambda: not puppet.alarms)
        assert [when for when, _ in puppet.rung] == due
        assert puppet.turns <= turns + 4
        driver.clock = clock

    def test_time_passes_while_a_connection_is_at_work(self, bench: Bench) -> None:
        puppet = bench.puppet
        conn, peer = bench.accepted()
        bench.do(Receive(conn))
        puppet.alarms.extend(puppet.now + number / 1000.0 for number in range(1, 21))
        due = list(puppet.alarms)
        while puppet.alarms:
            bench.echo(conn, peer)
        assert [when for when, _ in puppet.rung] == due

    def test_a_hundred_alarms_at_one_time_ring_together(self, bench: Bench) -> None:
        puppet = bench.puppet
        bench.do()
        puppet.alarms.extend([puppet.now + 0.01] * 100)
        bench.do()
        turns = puppet.turns
        bench.harness.until(lambda: not puppet.alarms)
        assert len(puppet.rung) == 100
        assert puppet.turns <= turns + 2
