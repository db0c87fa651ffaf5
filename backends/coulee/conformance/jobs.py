"""Law 1 for user code: each job is finished once, whatever becomes of it."""

from __future__ import annotations

from concurrent.futures import CancelledError

from coulee.conformance.bench import Bench, Chapter
from coulee.core.seam import Cancel, Finished, Run


class Jobs(Chapter):
    """See the top of the module."""

    def test_blocking_jobs(self, bench: Bench) -> None:
        good, bad = bench.number(), bench.number()

        def fail() -> None:
            raise LookupError("not there")

        bench.do(Run(good, "blocking", lambda: 42), Run(bad, "blocking", fail))
        assert not bench.heard(Finished, good), "never from within the turn that asks"
        assert bench.wait(Finished, good) == Finished(good, 42, None)
        assert isinstance(bench.wait(Finished, bad).error, LookupError)

    def test_native_jobs(self, bench: Bench) -> None:
        good, bad = bench.number(), bench.number()

        async def answer() -> int:
            return 42

        async def fail() -> None:
            raise LookupError("not there")

        bench.do(Run(good, "native", answer), Run(bad, "native", fail))
        assert not bench.heard(Finished, good)
        assert bench.wait(Finished, good) == Finished(good, 42, None)
        assert isinstance(bench.wait(Finished, bad).error, LookupError)

    def test_a_cancelled_job_is_finished_once(self, bench: Bench) -> None:
        async def answer() -> int:
            return 42

        one, two = bench.number(), bench.number()
        bench.do(Run(one, "blocking", lambda: 42), Run(two, "native", answer), Cancel(one), Cancel(two))
        for job in (one, two):
            finished = bench.wait(Finished, job)
            assert finished.value == 42 or isinstance(finished.error, CancelledError)
        bench.fence()
        assert len(bench.heard(Finished, one)) == len(bench.heard(Finished, two)) == 1
