"""Fail-over: real origins that are killed, stopped, made slow and started again, under wrk and a client that looks at
each answer. Nobody sees an error while one of them is well.

Nothing waits for a fixed time. The short form runs with every test run; FAILOVERS=20 makes it the long one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.fleet import HOST, WITHIN_S, until
from tests.interop.load import Client, wrk
from tests.interop.origins import NginxOrigin, Obedient, Origin

if TYPE_CHECKING:
    from tests.interop.conftest import Coulee, Curl

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a port is held for a dead origin as Linux lets one"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed (Debian: wrk)"),
]

FAILOVERS = int(os.environ.get("FAILOVERS", "1"))
CONNECTIONS = 32
INTERVAL_S = 0.5  # of checks
EJECTION_S = 0.5
LATE_S = 1.5  # what a machine that is busy may add to what should take an interval
AT_ONCE_S = 0.1

APP = """
from coulee.core import Config, Proxy, Retry
from coulee.discovery import File
from coulee.lb import Breaker, Cluster, Endpoint, HealthCheck, Http, Outliers, Sticky

CHECKS = HealthCheck(Http(path="/health"), interval_s={interval_s}, unhealthy_interval_s=0.15, timeout_s=0.5, fall=2)
EJECTIONS = Outliers(ejection_s={ejection_s}, ejection_max_s={ejection_s})

proxy = Proxy(Cluster({cluster}), config=Config(retry=Retry({retry})))
"""


def app(cluster: str, retry: str = "", origins: Sequence[Origin] = ()) -> str:
    """A program whose cluster has these origins, and is so."""
    cluster = ", ".join([*(repr(each.url) for each in origins), cluster])
    return APP.format(cluster=cluster, retry=retry, interval_s=INTERVAL_S, ejection_s=EJECTION_S)


@pytest.fixture
def start(tmp_path: Path) -> Generator[Callable[[type[Origin], str], Origin], None, None]:
    """Starts an origin of a kind, with a name; ends it behind the test, whatever became of it."""
    with contextlib.ExitStack() as stack:

        def started(kind: type[Origin], name: str) -> Origin:
            origin = kind(name, tmp_path)
            stack.callback(origin.close)
            origin.start()
            return origin

        yield started


@pytest.fixture
def obedient(start: Callable[[type[Origin], str], Origin]) -> tuple[Obedient, Obedient, Obedient]:
    """Three of our own."""
    a, b, c = (start(Obedient, name) for name in "abc")
    assert isinstance(a, Obedient)
    assert isinstance(b, Obedient)
    assert isinstance(c, Obedient)
    return a, b, c


SOME_BACKENDS = pytest.mark.parametrize("some_backend", ["asyncio", "threads"])

# ---------------------------------------------------------------------------------------- what is seen of it


def states(proxy: Coulee, origin: Origin) -> list[str]:
    """What the proxy has said of an endpoint, from first to last."""
    return re.findall(rf"^\S+ ! {re.escape(origin.at)} is ([a-z ]+?)(?: \(it was|: )", proxy.said, re.MULTILINE)


def becomes(proxy: Coulee, origin: Origin, state: str) -> None:
    """Wait until what the proxy has said last of an endpoint is this."""
    until(lambda: states(proxy, origin)[-1:] == [state], f"{origin.name} is {state}")


def passes(proxy: Coulee, origin: Origin, state: str, times: int) -> None:
    """Wait until it has been so, or so often, however short that was."""
    until(lambda: states(proxy, origin).count(state) >= times, f"{origin.name} was {state} {times} times")


def recovers(proxy: Coulee, origin: Origin) -> None:
    """It works again, which is seen within one interval of the checks."""
    began = time.monotonic()
    becomes(proxy, origin, "healthy")
    seconds = time.monotonic() - began
    print(f"the recovery of {origin.name} is seen after {seconds:.2f} s")
    assert seconds < INTERVAL_S + LATE_S


def is_asked(client: Client, origin: Origin, more: int = 5) -> None:
    """Wait for some more of its answers."""
    before = client.answers[origin.name]
    until(lambda: client.answers[origin.name] >= before + more, f"{origin.name} answers")


def failures(proxy: Coulee) -> defaultdict[str, set[str]]:
    """What attempts at each endpoint failed for."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for record in proxy.records:
        for attempt in record["attempts"]:
            if attempt["reason"]:
                found[attempt["peer"]].add(attempt["reason"])
    return found


@contextlib.contextmanager
def load(proxy: Coulee) -> Generator[Client, None, None]:
    """wrk and the client, neither of whom sees an error. The access lines have each request, and no more retries than
    the cluster's budget allows."""
    began = time.monotonic()
    client = Client(proxy.port)
    with wrk(f"{proxy.url}/", CONNECTIONS) as report, client:
        until(lambda: client.answered > 50, "answers come")
        yield client
    seconds = time.monotonic() - began
    [told] = report
    records = proxy.records
    retries = sum(len(record["attempts"]) - 1 for record in records)
    print(f"{told.requests} requests of wrk, {dict(client.answers)} of the client, {retries} retries, {seconds:.1f} s")
    assert told.errors == (0, 0, 0, 0, 0)
    assert (client.lost, client.wrong) == ([], [])
    assert told.requests > 50
    answered = sum(record["status"] == 200 and not record["reason"] for record in records)
    assert (
        0 <= answered - told.requests - client.answered <= 2 * CONNECTIONS
    )  # what wrk cut off at its end, or a moment later
    assert retries <= most_retries(len(records), seconds)


def most_retries(requests: int, seconds: float) -> float:
    """What the usual budget of a cluster allows: a fifth of the requests, and ten for each second of its window too."""
    return 0.2 * requests + 10 * (seconds + 10)


# ------------------------------------------------------------------------------------------ on every backend


def test_no_client_sees_an_error_while_one_endpoint_is_left(
    backend: str, coulee: Callable[..., Coulee], start: Callable[[type[Origin], str], Origin]
) -> None:
    a, b, c = start(NginxOrigin, "a"), start(NginxOrigin, "b"), start(Obedient, "c")
    assert isinstance(c, Obedient)
    text = app("health=CHECKS, outliers=EJECTIONS", "try_timeout_s=0.5", [a, b, c])
    proxy = coulee("--backend", backend, "--log", "json", app=text)
    with load(proxy) as client:
        for _ in range(FAILOVERS):
            a.kill()
            becomes(proxy, a, "unhealthy")
            a.start()
            recovers(proxy, a)
            is_asked(client, a)
            b.stop()
            becomes(proxy, b, "unhealthy")
            b.go_on()
            recovers(proxy, b)
            is_asked(client, b)
            c.obey(delay_s=3)  # its checks go well
            becomes(proxy, c, "ejected")
            c.obey(delay_s=0)
            becomes(proxy, c, "healthy")
            is_asked(client, c)
        for origin in a, b:
            origin.kill()
            becomes(proxy, origin, "unhealthy")
        is_asked(client, c, more=100)
    c.kill()
    becomes(proxy, c, "unhealthy")
    nothing_is_left(proxy, a, b, c)
    a.start()
    recovers(proxy, a)
    assert asked(proxy)[:2] == (200, "a")
    failed = failures(proxy)
    assert failed[a.at] & {"upstream_reset", "upstream_refused"}  # what was under way may be enough to eject it
    assert "upstream_timeout" in failed[b.at]
    assert failed[c.at] == {"upstream_timeout"}


def nothing_is_left(proxy: Coulee, *origins: Origin) -> None:
    """503, at once, with the reason, and when to ask again."""
    status, body, answer, _ = asked(proxy)
    assert status == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "no_healthy_endpoint" in answer.headers["Proxy-Status"]
    assert json.loads(body)["error"] == "no_healthy_endpoint"
    record = json.loads(proxy.lines[-1])
    assert record["attempts"] == []
    for origin in origins:
        assert f"{origin.at} is unhealthy" in record["detail"]
    assert min(asked(proxy)[3] for _ in range(3)) < AT_ONCE_S  # the machine may be busy with something else


def asked(proxy: Coulee) -> tuple[int, str, http.client.HTTPResponse, float]:
    """One request: status, body, answer, and seconds."""
    conn = http.client.HTTPConnection(HOST, proxy.port, timeout=WITHIN_S)
    with contextlib.closing(conn):
        began = time.monotonic()
        conn.request("GET", "/", headers={"Accept": "application/json"})
        answer = conn.getresponse()
        body = answer.read().decode()
        return answer.status, body, answer, time.monotonic() - began


# ----------------------------------------------------------------------------------------------- on some


@SOME_BACKENDS
def test_without_checks_what_fails_is_ejected_and_returns(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...]
) -> None:
    a, *_ = obedient
    proxy = coulee("--backend", some_backend, "--log", "json", app=app("outliers=EJECTIONS", origins=obedient))
    with load(proxy) as client:
        for _ in range(FAILOVERS):
            before = states(proxy, a).count("ejected")
            a.kill()
            passes(proxy, a, "ejected", before + 2)  # it is tried again, and found to be no better
            a.start()
            becomes(proxy, a, "healthy")
            is_asked(client, a)
    assert "upstream_refused" in failures(proxy)[a.at]


@SOME_BACKENDS
def test_circuits_open_however_many_fail_and_close_when_trials_succeed(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...]
) -> None:
    a, b, c = obedient
    text = app("outliers=None, breaker=Breaker(open_s=0.3, open_max_s=0.3)", origins=obedient)
    proxy = coulee("--backend", some_backend, "--log", "json", app=text)
    with load(proxy) as client:
        for _ in range(FAILOVERS):
            before = {origin: states(proxy, origin).count("circuit open") for origin in (a, b)}
            a.kill()
            b.kill()
            for origin in a, b:
                passes(proxy, origin, "circuit open", before[origin] + 2)  # the first trial fails
            is_asked(client, c, more=50)
            for origin in a, b:
                origin.start()
                becomes(proxy, origin, "healthy")
                is_asked(client, origin)
    for origin in a, b:
        assert {"half open", "circuit open", "healthy"} == set(states(proxy, origin))


@SOME_BACKENDS
def test_an_origin_that_answers_503_is_passed_over_where_503_is_tried_again(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...]
) -> None:
    *_, c = obedient
    text = app("health=CHECKS, outliers=EJECTIONS", "statuses=(503,)", obedient)
    proxy = coulee("--backend", some_backend, "--log", "json", app=text)
    with load(proxy) as client:
        for _ in range(FAILOVERS):
            c.obey(status=503)
            becomes(proxy, c, "ejected")
            c.obey(status=200)
            becomes(proxy, c, "healthy")
            is_asked(client, c)
    assert re.search(r"is ejected: \d+ failures in a row, the last 503", proxy.said)
    assert any(attempt["reason"] == "upstream_status" for record in proxy.records for attempt in record["attempts"])


@SOME_BACKENDS
def test_where_all_fail_they_are_not_asked_much_more_than_usual(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...]
) -> None:
    for origin in obedient:
        origin.obey(status=503)
    text = app("outliers=None", "statuses=(503,)", obedient)
    proxy = coulee("--backend", some_backend, "--log", "json", app=text)
    began = time.monotonic()
    with Client(proxy.port) as client:
        until(lambda: len(client.wrong) >= 500, "answers come")
    seconds = time.monotonic() - began
    assert (client.lost, client.answered) == ([], 0)
    assert {status for status, _ in client.wrong} == {503}
    requests = len(client.wrong)
    retries = sum(origin.obey() for origin in obedient) - requests
    assert 100 <= retries <= most_retries(requests, seconds), "and without a budget there would be two for each"


@SOME_BACKENDS
def test_a_hedged_request_does_not_wait_for_who_is_slow(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...]
) -> None:
    a, b, c = obedient
    c.obey(delay_s=1.0)
    # One of ten would be slow, which is less than the budget and more than one of a hundred.
    weighed = ", ".join(f"Endpoint({each.url!r}, weight={weight})" for each, weight in ((a, 4), (b, 5), (c, 1)))
    proxy = coulee("--backend", some_backend, "--log", "json", app=app(weighed, "hedge_after_s=0.05"))
    with Client(proxy.port) as client:
        until(lambda: client.answered >= 400 * FAILOVERS, "answers come")
    assert (client.lost, client.wrong) == ([], [])
    took_s = sorted(client.took_s)
    print(f"{len(took_s)} requests, p50 {took_s[len(took_s) // 2]:.4f} s, p99 {took_s[len(took_s) * 99 // 100]:.4f} s")
    assert took_s[len(took_s) * 99 // 100] < 0.5
    hedged = [record for record in proxy.records if len(record["attempts"]) == 2]
    assert len(hedged) > len(took_s) // 20
    assert failures(proxy) == {c.at: {"superseded"}}
    assert client.answers["c"] == 0


@SOME_BACKENDS
def test_a_session_outlives_its_endpoint(
    some_backend: str, coulee: Callable[..., Coulee], curl: Curl, obedient: tuple[Obedient, ...], tmp_path: Path
) -> None:
    by_name = {origin.name: origin for origin in obedient}
    text = app("policy=Sticky('a secret of at least sixteen bytes'), health=CHECKS", origins=obedient)
    proxy = coulee("--backend", some_backend, app=text)

    def visits(count: int) -> set[str]:
        jar = str(tmp_path / "jar")
        answers = [curl("-b", jar, "-c", jar, proxy.url) for _ in range(count)]
        assert [each.status for each in answers] == [200] * count
        return {each.body.decode() for each in answers}

    [first] = visits(6)
    by_name[first].kill()
    [second] = visits(6)
    assert second != first
    becomes(proxy, by_name[first], "unhealthy")
    assert visits(3) == {second}
    by_name[first].start()
    becomes(proxy, by_name[first], "healthy")
    assert visits(6) == {second}


@SOME_BACKENDS
def test_a_file_of_endpoints_is_rewritten_under_load(
    some_backend: str, coulee: Callable[..., Coulee], obedient: tuple[Obedient, ...], tmp_path: Path
) -> None:
    a, b, c = obedient
    path = tmp_path / "endpoints.toml"

    def write(*origins: Origin) -> None:
        new = tmp_path / "new"
        new.write_text("".join(f'[[endpoints]]\nurl = "{each.url}"\n' for each in origins))
        new.replace(path)

    write(a, b)
    text = app(f"discovery=File({str(path)!r}, interval_s=0.1), outliers=EJECTIONS")
    proxy = coulee("--backend", some_backend, "--log", "json", app=text)
    until(lambda: asked(proxy)[0] == 200, "the file is read")
    with load(proxy) as client:
        for _ in range(FAILOVERS):
            write(a, c)
            becomes(proxy, b, "removed")
            is_asked(client, c)
            had = b.obey()
            path.write_text("endpoints = 3\n")
            until(lambda: "discovery failed, 2 endpoints stay" in proxy.said, "it says that the file is broken")
            is_asked(client, c, more=50)
            assert b.obey() == had, "who was removed gets nothing"
            write(a, b)
            becomes(proxy, c, "removed")
            is_asked(client, b)
