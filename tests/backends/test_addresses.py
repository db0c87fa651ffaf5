"""Addresses as text, and errors of the system as kinds."""

from __future__ import annotations

import errno
import socket

import pytest

from coulee.backends.addresses import describe
from coulee.core.seam import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("example.com:80", ("example.com", 80)),
        (":8000", ("", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("a:0", ("a", 0)),
        ("a:65535", ("a", 65535)),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix:a.sock", "./a.sock"),
        ("/run/a.sock", "/run/a.sock"),
        ("./a.sock", "./a.sock"),
    ],
)
def test_addresses_are_read(text: str, address: object) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("8000", "127.0.0.1:8000"),
        ("example.com", "example.com:8000"),
        ("", "127.0.0.1:8000"),
        ("a:", "a number from 0 to 65535"),
        ("a:x", "a number from 0 to 65535"),
        ("a:65536", "a number from 0 to 65535"),
        ("a:-1", "a number from 0 to 65535"),
        ("a:\u0661", "a number from 0 to 65535"),  # a digit, to Python
        ("::1:8000", "in brackets"),
        ("[a:80", "in brackets"),
        ("[a]:80", "without brackets"),
        ("unix:", "unix:/run/coulee.sock"),
        ("http://a:80", "without 'http://'"),
    ],
)
def test_what_is_no_address_is_told_how_to_be_one(text: str, advice: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        parse_address(text)
    assert advice in str(raised.value)


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
