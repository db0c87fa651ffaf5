"""What may be asked of a socket, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest

from coulee.core import options
from coulee.core.options import ConnectOptions, KeepAlive, ListenOptions


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: KeepAlive(idle_s=0), "idle_s is 0; it must be from 1 to 32767"),
        (lambda: KeepAlive(idle_s=32768), "idle_s is 32768; it must be from 1 to 32767"),
        (lambda: KeepAlive(interval_s=0), "interval_s is 0; it must be from 1 to 32767"),
        (lambda: KeepAlive(interval_s=32768), "interval_s is 32768; it must be from 1 to 32767"),
        (lambda: KeepAlive(probes_max=0), "probes_max is 0; it must be from 1 to 127"),
        (lambda: KeepAlive(probes_max=128), "probes_max is 128; it must be from 1 to 127"),
        (lambda: ListenOptions(backlog=0), "backlog is 0; it must be from 1 to 2147483647"),
        (lambda: ListenOptions(backlog=2**31), "backlog is 2147483648; it must be from 1 to 2147483647"),
        (
            lambda: ListenOptions(mode=660),
            "mode is 660; permissions are from 0 to 0o777, so write them in octal, as 0o",
        ),
        (lambda: ListenOptions(mode=-1), "mode is -1; permissions are from 0 to 0o777"),
        (lambda: ListenOptions(owner=":"), "':' is no owner: write 'user', 'user:group' or ':group'"),
        (lambda: ListenOptions(owner="www:"), "'www:' is no owner"),
        (lambda: ListenOptions(owner="a:b:c"), "'a:b:c' is no owner"),
        (lambda: ListenOptions(fast_open=-1), "fast_open is -1; it must be from 0 to 2147483647"),
        (lambda: ListenOptions(defer_accept_s=-1), "defer_accept_s is -1; it must be from 0 to 32767"),
        (lambda: ListenOptions(defer_accept_s=32768), "defer_accept_s is 32768; it must be from 0 to 32767"),
        (lambda: ListenOptions(dscp=64), "dscp is 64; it must be from 0 to 63"),
        (lambda: ListenOptions(dscp=-1), "dscp is -1; it must be from 0 to 63"),
        (lambda: ConnectOptions(dscp=64), "dscp is 64; it must be from 0 to 63"),
        (lambda: ConnectOptions(source="eth0"), "'eth0' is no IP address: write one of this host, without a port"),
        (lambda: ConnectOptions(source="127.0.0.1:80"), "'127.0.0.1:80' is no IP address"),
        (lambda: ConnectOptions(user_timeout_s=-1), "user_timeout_s is -1; it must be from 0.001 to 2147483"),
        (lambda: ConnectOptions(user_timeout_s=0.0009), "user_timeout_s is 0.0009; it must be from 0.001 to 2147483"),
        (lambda: ConnectOptions(user_timeout_s=2147484), "user_timeout_s is 2147484; it must be from 0.001 to 2147483"),
        (lambda: ConnectOptions(user_timeout_s=nan), "user_timeout_s is nan; it must be from 0.001 to 2147483"),
        (lambda: ConnectOptions(user_timeout_s=inf), "user_timeout_s is inf; it must be from 0.001 to 2147483"),
    ],
)
def test_what_cannot_be_asked_for(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        make()
    assert complaint in str(raised.value)


def test_what_can_be_asked_for_goes_to_its_limits() -> None:
    KeepAlive(1, 1, 1)
    KeepAlive(32767, 32767, 127)
    ListenOptions(1, 0, "www", fast_open=0, defer_accept_s=0, dscp=0)
    ListenOptions(2**31 - 1, 0o777, "33:33", fast_open=2**31 - 1, defer_accept_s=32767, dscp=63)
    ListenOptions(owner=":www")
    ConnectOptions("127.0.0.1", KeepAlive(), 0.001, 0)
    ConnectOptions("fe80::1%eth0", KeepAlive(), 2147483, 63)


def test_by_default_nothing_is_asked_for() -> None:
    nothing_of_a_listener = ListenOptions(1024, None, "", False, False, None, 0, 0, None)
    nothing_of_a_connection = ConnectOptions("", None, 0.0, None)
    assert nothing_of_a_listener == options.LISTEN_OPTIONS
    assert nothing_of_a_connection == options.CONNECT_OPTIONS
