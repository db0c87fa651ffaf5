"""Law 1 for user code: each job is finished once, whatever becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, Literal

import pytest

from coulee.conformance.bench import Bench, Chapter
from coulee.core.seam import Cancel, Finished, Run


class Mine(BaseException):
    """Not an Exception."""


FAILURES = (LookupError("not there"), OSError(2, "nothing"), StopIteration(1), SystemExit(3), GeneratorExit(), Mine())


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

    def test_a_native_job_waits_on_the_loop_of_the_host(self, bench: Bench) -> None:
        sleep = sleep_of(bench)
        job = bench.number()

        async def wait() -> str:
            for _ in range(5):
                await sleep(0.001)
            return "awake"

        bench.do(Run(job, "native", wait))
        assert bench.wait(Finished, job) == Finished(job, "awake", None)

    def test_a_native_job_that_is_cancelled_tidies_up(self, bench: Bench) -> None:
        sleep = sleep_of(bench)
        job, seen = bench.number(), list[str]()

        async def wait() -> None:
            seen.append("begun")
            try:
                await sleep(3600.0)
            finally:
                seen.append("ended")

        bench.do(Run(job, "native", wait))
        bench.harness.until(lambda: seen)
        bench.do(Cancel(job))
        finished = bench.wait(Finished, job)
        assert isinstance(finished.error, CancelledError)
        bench.harness.until(lambda: seen == ["begun", "ended"])

    def test_a_native_job_that_will_not_be_cancelled(self, bench: Bench) -> None:
        sleep = sleep_of(bench)
        job, seen = bench.number(), list[str]()

        async def wait() -> int:
            seen.append("begun")
            try:
                await sleep(3600.0)
            except BaseException:
                seen.append("unmoved")
            return 42

        bench.do(Run(job, "native", wait))
        bench.harness.until(lambda: seen)
        bench.do(Cancel(job), Cancel(job))
        finished = bench.wait(Finished, job)
        assert finished.value == 42 or isinstance(finished.error, CancelledError)
        bench.harness.until(lambda: seen == ["begun", "unmoved"])
        bench.fence()
        assert len(bench.heard(Finished, job)) == 1

    def test_a_blocking_job_that_will_not_be_cancelled_holds_up_nobody(self, bench: Bench) -> None:
        if bench.harness.sleep is None:
            pytest.skip("a blocking job of this backend blocks it")
        job, begun, go_on = bench.number(), threading.Event(), threading.Event()

        def wait() -> int:
            begun.set()
            go_on.wait(10.0)
            return 42

        bench.do(Run(job, "blocking", wait))
        try:
            bench.harness.until(begun.is_set)
            bench.fence()
            bench.do(Cancel(job), Cancel(job))
            bench.fence()
        finally:
            go_on.set()
        finished = bench.wait(Finished, job)
        assert finished.value == 42 or isinstance(finished.error, CancelledError)
        bench.fence()
        assert len(bench.heard(Finished, job)) == 1

    @pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
    @pytest.mark.parametrize("mode", ["blocking", "native"])
    def test_whatever_a_job_raises_is_its_result(
        self, bench: Bench, mode: Literal["blocking", "native"], error: BaseException
    ) -> None:
        job = bench.number()

        def fail() -> None:
            raise error

        async def fail_too() -> None:
            raise error

        bench.do(Run(job, mode, fail if mode == "blocking" else fail_too))
        finished = bench.wait(Finished, job)
        assert finished.value is None
        if mode == "native" and isinstance(error, StopIteration):
            assert isinstance(finished.error, RuntimeError)  # what Python makes of it (PEP 479)
        else:
            assert finished.error is error
        bench.fence()
        assert len(bench.heard(Finished, job)) == 1

    @pytest.mark.parametrize("mode", ["blocking", "native"])
    def test_what_cannot_even_be_called(self, bench: Bench, mode: Literal["blocking", "native"]) -> None:
        job = bench.number()
        call: Any = None
        bench.do(Run(job, mode, call))
        assert isinstance(bench.wait(Finished, job).error, TypeError)

    def test_a_native_job_that_is_no_coroutine(self, bench: Bench) -> None:
        job = bench.number()
        call: Any = lambda: 42  # noqa: E731
        bench.do(Run(job, "native", call))
        error = bench.wait(Finished, job).error
        assert isinstance(error, TypeError | AttributeError)

    def test_a_thousand_jobs_at_once(self, bench: Bench) -> None:
        async def answer(number: int) -> int:
            return number

        jobs = [bench.number() for _ in range(1000)]
        bench.do(
            *(
                Run(job, "native", partial(answer, job)) if job % 2 else Run(job, "blocking", partial(abs, job))
                for job in jobs
            )
        )
        bench.harness.until(lambda: all(bench.heard(Finished, job) for job in jobs))
        assert all(bench.heard(Finished, job) == [Finished(job, job, None)] for job in jobs)

    def test_a_thousand_jobs_are_cancelled_at_once(self, bench: Bench) -> None:
        sleep = bench.harness.sleep

        async def answer() -> int:
            if sleep is not None:
                await sleep(3600.0)
            return 42

        jobs = [bench.number() for _ in range(1000)]
        bench.do(*(Run(job, "native", answer) if job % 2 else Run(job, "blocking", lambda: 42) for job in jobs))
        bench.fence()
        bench.do(*(Cancel(job) for job in jobs if not bench.heard(Finished, job)))
        for job in jobs:
            finished = bench.wait(Finished, job)
            assert finished.value == 42 or isinstance(finished.error, CancelledError)


def sleep_of(bench: Bench) -> Callable[[float], Awaitable[Any]]:
    sleep = bench.harness.sleep
    if sleep is None:
        pytest.skip("there is no loop of a host's here to wait on")
    return sleep
