"""Law 6: time goes forward, and an alarm rings when it is due, with effect."""

from __future__ import annotations

from coulee.conformance.bench import Bench, Chapter


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
