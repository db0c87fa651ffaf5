"""The heap is kept where that can be said, and nobody's own choice is overruled."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

CHURN = """
import resource
from coulee.backends.memory import keep_heap
kept = keep_heap()
held = [bytearray(300) for _ in range(20000)]  # so that the heap has a top to give back
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def churn():
    for _ in range(200):
        reads = [bytes(262144) for _ in range(4)]
        del reads
churn()
before = faults()
churn()
print(kept, faults() - before)
"""


def run(**environment: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", CHURN], env=environment, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_reads_cost_no_page_faults() -> None:
    kept, faults = run()
    assert kept
    assert faults < 1000, "else it would be some fifty thousand"


def test_what_the_environment_says_counts() -> None:
    assert run(MALLOC_ARENA_MAX="2")[0] is False


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from coulee.backends import memory

    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_heap() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(os, "environ", {})
    assert memory.keep_heap() is False
