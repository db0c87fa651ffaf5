"""Errors of the system as kinds."""

from __future__ import annotations

import errno
import socket

import pytest

from coulee.backends.addresses import describe


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "refused"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "refused"),
        (OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        (socket.gaierror(socket.EAI_NONAME, "unknown name"), "unreachable"),
        (socket.gaierror(socket.EAI_MEMORY, "no memory"), "resources"),
        (TimeoutError("late"), "timed_out"),
        (OSError(errno.ETIMEDOUT, "late"), "timed_out"),
        (BrokenPipeError(errno.EPIPE, "gone"), "reset"),
        (OSError(errno.EMFILE, "too many"), "resources"),
        (OSError(errno.EADDRINUSE, "taken"), "resources"),
        (OSError("strange"), "other"),
        (OSError(errno.EIO, "strange"), "other"),
    ],
)
def test_errors_have_kinds(error: OSError, kind: str) -> None:
    assert describe(error)[0] == kind


def test_errors_always_have_a_text() -> None:
    assert describe(OSError(errno.EMFILE, "too many open files"))[1] == "too many open files"
    assert describe(OSError("strange"))[1] == "strange"
    assert describe(OSError())[1] == "OSError"
