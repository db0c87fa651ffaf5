"""What SIGHUP means: that the terminal was closed, or that somebody wants a reload.

A process that was started under nohup ignores it, and goes on doing so.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

NO_SUPERVISOR = b"coulee: reload needs --workers 1 (or more): nothing was done\n"
NO_SUCCESSOR = b"coulee: a new program takes over only with --workers 1 (or more): nothing was done\n"


def has_terminal() -> bool:
    """Whether there is a terminal that controls this process. One that was closed is none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def explain_signals() -> None:
    """In a program without workers, have SIGHUP and SIGUSR2 say what they would need, for they would kill it. Where the
    terminal is closed, it drains."""
    had_terminal = has_terminal()

    def hear(number: int, _: object) -> None:
        if number == signal.SIGHUP and had_terminal and not has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(OSError):  # not by way of `sys.stderr`, which this may have interrupted
            os.write(2, NO_SUPERVISOR if number == signal.SIGHUP else NO_SUCCESSOR)

    for each in (signal.SIGHUP, signal.SIGUSR2):
        if signal.getsignal(each) == signal.SIG_DFL:
            signal.signal(each, hear)
