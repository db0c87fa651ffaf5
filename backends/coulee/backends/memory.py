"""Keeps the C library from giving memory back to the system between two large reads.

glibc returns the top of its heap as soon as a few hundred kilobytes of it are free. A proxy frees one read of 256 KiB
and asks for the next a moment later, so each of them cost two `brk` calls and sixty page faults: two thirds of the time
of a large body (strace, and the counts in /proc; 10 MiB answers went through 2.2 times as fast on asyncio, 2.8 times on
uvloop). Rules:

- It is for programs of our own, at their start: `run` calls it. Whoever embeds coulee keeps their allocator as it is.
- What is kept is bounded by `KEPT_BYTES`. Where the environment says something about it, that counts.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT_BYTES = 8 * 1024 * 1024  # of free memory at the top of the heap
_FROM_HEAP_BYTES = 1024 * 1024  # what is smaller comes from the heap; setting the one fixes the other at 128 KiB
_M_TRIM_THRESHOLD = -1  # malloc.h; see mallopt(3)
_M_MMAP_THRESHOLD = -3


def keep_heap() -> bool:
    """Tell glibc so; True where that was done."""
    if not sys.platform.startswith("linux") or any(
        name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library, such as musl
    return bool(mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
