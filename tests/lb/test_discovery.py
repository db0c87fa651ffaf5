"""Sources and who asks them: when they are asked, what their host is told, and that no error reaches it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.effects import blocking, sleep
from coulee.core.kernel import deadline
from coulee.core.peer import Peer, PeerLimits
from coulee.core.seam import Finished
from coulee.lb import discovery
from coulee.lb.discovery import DiscoveryError, Found, Function, HttpSd
from coulee.lb.documents import parse_json
from coulee.lb.endpoint import Endpoint
from tests.core.world import World
from tests.lb.seeking import Scripted, Seeker, seeking

A, B, C = "http://a", "http://b", "http://c"


def finished(world: World, value: object = None, error: BaseException | None = None) -> None:
    """The oldest job ends."""
    world.gives(Finished(world.jobs.pop(0).job, value, error))


# ------------------------------------------------------------------------------------------------------ when and what


def test_a_source_is_asked_at_once_and_after_each_interval_and_a_little() -> None:
    source = Scripted([A], interval_s=10.0)
    world, seeker = seeking(source)
    assert seeker.names == [["a:80"]]
    world.wait(100)
    pauses = [after - before for before, after in pairwise(source.asked)]
    assert len(pauses) == 9
    assert all(10.0 <= pause <= 11.0 for pause in pauses)
    assert len(set(pauses)) == 9, "two proxies would ask in step"


def test_the_host_is_told_of_a_set_only_where_it_is_another_one() -> None:
    source = Scripted([A, B], [A, B], [A, B, C], [A, B, C], [B, C])
    world, seeker = seeking(source)
    world.wait(100)
    assert seeker.names == [["a:80", "b:80"], ["a:80", "b:80", "c:80"], ["b:80", "c:80"]]
    assert seeker.said == []


def test_the_order_of_an_answer_counts_for_nothing() -> None:
    source = Scripted([A, B], [B, A])
    world, seeker = seeking(source)
    world.wait(15)
    assert len(source.asked) == 2
    assert seeker.names == [["a:80", "b:80"]]


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": 2},
        {"priority": 1},
        {"zone": "eu"},
        {"labels": {"version": "2"}},
        {"name": "alpha"},
        {"limits": PeerLimits(requests_max=1)},
        {"group": "blue"},
    ],
)
def test_all_that_an_endpoint_is_defined_by_makes_another_set(changed: dict[str, Any]) -> None:
    source = Scripted(Found([Endpoint(A)]), Found([Endpoint(A, **changed)]))
    world, seeker = seeking(source)
    world.wait(15)
    assert len(seeker.sets) == 2


def test_a_definition_that_is_changed_in_place_is_another_one() -> None:
    endpoint = Endpoint(A, labels={"version": "1"})
    world, seeker = seeking(Function(lambda: [endpoint], interval_s=10))
    endpoint.weight = 2
    world.wait(11)
    assert len(seeker.sets) == 2
    endpoint.labels["version"] = "2"  # type: ignore[index]
    world.wait(11)
    assert len(seeker.sets) == 3


def test_the_same_answer_as_before_is_not_looked_at_again() -> None:
    class Once(list[Endpoint]):
        looks = 0

        def __iter__(self) -> Iterator[Endpoint]:
            Once.looks += 1
            return super().__iter__()

    world, seeker = seeking(Scripted(Found(Once([Endpoint(A)]))))
    once = Once.looks
    world.wait(100)
    assert Once.looks == once > 0
    assert seeker.names == [["a:80"]]


def test_an_answer_says_for_how_long_it_is_valid() -> None:
    source = Scripted([A], interval_s=10.0, valid_s=2.0)
    world, _ = seeking(source)
    world.wait(1.9)
    assert len(source.asked) == 1
    world.wait(0.4)
    assert len(source.asked) == 2


@pytest.mark.parametrize("valid_s", [0.0, -1.0, float("nan")])
def test_whatever_a_source_says_it_is_not_asked_without_a_pause(valid_s: float) -> None:
    source = Scripted([A], valid_s=valid_s)
    world, _ = seeking(source)
    world.wait(1.05)
    assert len(source.asked) == 11


def test_equal_seeds_ask_at_equal_times() -> None:
    def times() -> list[float]:
        source = Scripted(OSError("x"), [A], OSError("x"), [A])
        seeking(source)[0].wait(100)
        return source.asked

    assert times() == times()


def test_a_large_set_is_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SLICE", 10)
    turns = 0

    class Counting(World):
        def gives(self, *args: Any) -> Any:
            nonlocal turns
            turns += 1
            return super().gives(*args)

    monkeypatch.setattr("tests.lb.seeking.World", Counting)
    world, seeker = seeking(Function(lambda: [f"http://10.0.0.1:{port}" for port in range(1, 101)]))
    assert seeker.sets == []
    world.wait(0)
    assert len(seeker.sets[0]) == 100
    assert turns >= 20, "10 to make them, 10 to compare them"


# -------------------------------------------------------------------------------------------------------------- errors


def test_an_error_keeps_the_last_good_set_and_is_said_once() -> None:
    source = Scripted([A, B], OSError("broken"))
    world, seeker = seeking(source)
    world.wait(100)
    assert seeker.names == [["a:80", "b:80"]]
    assert seeker.said == ["script: OSError: broken"]


def test_an_answer_without_endpoints_is_an_error() -> None:
    world, seeker = seeking(Scripted([A], []))
    world.wait(100)
    assert seeker.names == [["a:80"]]
    assert seeker.said == ["script: there are no endpoints in the answer"]


def test_another_error_is_said_again_and_so_is_the_recovery() -> None:
    source = Scripted(OSError("one"), OSError("one"), OSError("two"), OSError("one"), [A], [A], OSError("one"))
    world, seeker = seeking(source)
    world.wait(100)
    assert seeker.said[:3] == [f"script: OSError: {text}" for text in ("one", "two", "one")]
    recovered_s = source.asked[4] - source.asked[0]
    assert seeker.said[3:] == [
        f"script, after {recovered_s:.0f} s without an answer that is one",
        "script: OSError: one",
    ]
    assert seeker.names == [["a:80"]]


def test_after_errors_it_is_asked_again_with_a_back_off() -> None:
    source = Scripted(OSError("x"), interval_s=300.0)
    world, _ = seeking(source)
    world.wait(400)
    pauses = [after - before for before, after in pairwise(source.asked)]
    for pause, most in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=False):
        assert most / 2 <= pause <= most
    assert len(pauses) >= 9
    assert len(set(pauses)) == len(pauses)


def test_the_back_off_is_no_longer_than_the_interval() -> None:
    source = Scripted(OSError("x"), interval_s=3.0)
    world, _ = seeking(source)
    world.wait(200)
    assert max(after - before for before, after in pairwise(source.asked)) <= 3.0


def test_a_success_ends_the_back_off() -> None:
    answers = [OSError("x")] * 6
    source = Scripted(*answers, [A], OSError("x"), [A], interval_s=100.0)
    world, _ = seeking(source)
    world.wait(300)
    assert source.asked[8] - source.asked[7] <= 1.0


def test_years_of_errors_are_borne() -> None:
    source = Scripted(OSError("x"), interval_s=0.1)
    world, _ = seeking(source)
    world.wait(150)
    assert len(source.asked) > 1200


def test_an_answer_that_takes_too_long_is_an_error() -> None:
    world, seeker = seeking(Scripted(sleep(5.1), [A], timeout_s=5.0))
    world.wait(4.9)
    assert seeker.said == []
    world.wait(0.1)
    assert seeker.said == ["script: no answer within 5 s"]
    world.wait(1.1)
    assert seeker.names == [["a:80"]]


def test_a_time_limit_of_the_source_itself_is_told_as_what_it_is() -> None:
    async def slow() -> None:
        with deadline(1):
            await sleep(2)

    world, seeker = seeking(Function(slow))
    world.wait(1)
    assert seeker.said == ["slow(): DeadlineExceeded: no end within 1 s"]


def test_what_cannot_be_cut_short_is_waited_for_and_that_is_said() -> None:
    world, seeker = seeking(Scripted(sleep(1000), timeout_s=None))
    world.wait(9.9)
    assert seeker.said == []
    world.wait(100)
    assert seeker.said == ["script: no answer for 10 s, and still waiting for it"]
    world.wait(890.2)
    assert seeker.names == [["late:80"]]
    assert seeker.said[1:] == ["script, after 990 s without an answer that is one"]


def test_nothing_is_said_of_an_answer_that_came_in_time() -> None:
    source = Scripted(sleep(9), [A], timeout_s=None, interval_s=1000)
    world, seeker = seeking(source)
    world.wait(500)
    assert seeker.said == []
    assert seeker.names == [["late:80"]]


def test_an_endpoint_that_is_given_twice_is_an_error() -> None:
    for again in (Endpoint("http://A:80"), Endpoint("http://other", name="a:80"), Endpoint(("a", 80), name="other")):
        world, seeker = seeking(Scripted(Found([Endpoint(A), again])))
        world.wait(0)
        assert seeker.said == [f"script: endpoint {again.name} is given twice"]
        assert seeker.sets == []


def test_there_is_a_most_of_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ENDPOINTS_MAX", 2)
    _, seeker = seeking(Scripted([A, B]))
    assert seeker.names == [["a:80", "b:80"]]
    _, seeker = seeking(Scripted([A, B, C]))
    assert seeker.said == ["script: there are more than 2 endpoints"]


def test_a_set_that_the_host_cannot_bear_is_an_error_and_offered_again() -> None:
    source = Scripted([A])
    world, seeker = seeking(source)
    source.answers = [Found([Endpoint(B)])]
    seeker.refuses = ValueError("no room")
    world.wait(30)
    assert seeker.said == ["script: ValueError: no room"]
    seeker.refuses = None
    world.wait(30)
    assert seeker.names == [["a:80"], ["b:80"]]


def test_whatever_an_error_says_is_one_line_of_bounded_length() -> None:
    world, seeker = seeking(Scripted(OSError("a\nb\x1b\ud800" + "x" * 10_000), DiscoveryError("ü\n" * 10_000)))
    world.wait(5)
    assert seeker.said[0].startswith("script: OSError: a\\nb\\x1b\\ud800xxx")
    assert seeker.said[1].startswith("ü\\nü")
    assert all(len(text) < 900 and text.isprintable() for text in seeker.said)


@pytest.mark.parametrize("timeout_s", [5.0, None])
@pytest.mark.parametrize("after_s", [0.0, 3.0, 12.0])
def test_whoever_cancels_it_finds_nothing_left(timeout_s: float | None, after_s: float) -> None:
    async def ask() -> None:
        await blocking(print)

    for answers in ([sleep(100)], [ask()], [OSError("x")], [[A]]):
        world, seeker = seeking(Scripted(*answers, OSError("y"), timeout_s=timeout_s))
        world.wait(after_s)
        seeker.stops()
        world.gives(None)
        for job in list(world.jobs):
            world.gives(Finished(job.job, None, None))
        assert not any(world.machine.leftovers.values()), world.machine.leftovers


ANSWERS = st.lists(
    st.one_of(
        st.sampled_from([OSError("x"), ValueError("y"), DiscoveryError("z")]),
        st.lists(st.sampled_from([A, B, C]), max_size=4),
    ),
    min_size=1,
    max_size=8,
)


@given(answers=ANSWERS)
def test_the_host_has_the_last_good_set_whatever_comes(answers: list[Any]) -> None:
    good = [each for each in answers if isinstance(each, list) and each and len({*each}) == len(each)]
    source = Scripted(*answers)
    world, seeker = seeking(source)
    world.wait(120)
    assert len(source.asked) > len(answers)
    assert [set(each) for each in seeker.names[-1:]] == [{f"{url[-1]}:80" for url in each} for each in good[-1:]]
    changes = [each for each, before in zip(good, [None, *good], strict=False) if {*each} != {*(before or ())}]
    assert len(seeker.sets) == len(changes)
    failing = [each not in good for each in answers]
    said_well = [text for text in seeker.said if text.startswith("script, after")]
    assert len(said_well) == sum(a and not b for a, b in pairwise(failing))


# ----------------------------------------------------------------------------------------------------------- functions


def found_by(function: Callable[[], Any], **options: Any) -> tuple[World, Seeker]:
    world, seeker = seeking(Function(function, **options))
    world.wait(0)
    return world, seeker


async def as_it_is() -> list[str]:
    await sleep(1)
    return [A]


def test_a_function_gives_urls_pairs_peers_and_endpoints() -> None:
    peer = Peer(("10.0.0.1", 80), name="peer")
    endpoint = Endpoint(C, zone="eu")
    _, seeker = found_by(lambda: [A, (B, 3), peer, endpoint])
    (found,) = seeker.sets
    assert [each.name for each in found] == ["a:80", "b:80", "peer", "c:80"]
    assert [each.weight for each in found] == [1, 3, 1, 1]
    assert found[3] is endpoint


def test_a_function_may_be_a_generator() -> None:
    def zones() -> Iterator[str]:
        yield A
        yield B

    assert found_by(zones)[1].names == [["a:80", "b:80"]]


def test_a_function_gives_a_document_of_either_shape() -> None:
    assert found_by(lambda: [{"targets": ["a"]}])[1].names == [["a:80"]]
    assert found_by(lambda: {"endpoints": [A]})[1].names == [["a:80"]]


def test_a_function_may_say_for_how_long_its_answer_is_valid() -> None:
    asked: list[int] = []

    def once() -> Found:
        asked.append(1)
        return Found([Endpoint(A)], valid_s=100)

    world, seeker = found_by(once, interval_s=1)
    assert seeker.names == [["a:80"]]
    world.wait(99)
    assert len(asked) == 1


def test_a_function_may_be_async() -> None:
    world, seeker = found_by(as_it_is)
    assert seeker.sets == []
    world.wait(1)
    assert seeker.names == [["a:80"]]


def test_an_async_function_has_its_time() -> None:
    world, seeker = found_by(as_it_is, timeout_s=0.5)
    world.wait(0.5)
    assert seeker.said == ["as_it_is(): no answer within 0.5 s"]


def test_a_blocking_function_is_called_on_a_thread() -> None:
    world, seeker = found_by(lambda: [A], blocking=True)
    assert seeker.sets == []
    assert world.jobs[0].mode == "blocking"
    finished(world, world.jobs[0].call())
    world.wait(0)
    assert seeker.names == [["a:80"]]


def test_a_thread_that_hangs_gets_no_company() -> None:
    world, seeker = found_by(lambda: [A], blocking=True, interval_s=1, timeout_s=1)
    world.wait(1000)
    assert len(world.jobs) == 1
    assert seeker.said == ["<lambda>(): no answer for 10 s, and still waiting for it"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "source(): it gave a NoneType; a list of URLs is wanted"),
        (A, "source(): it gave a str; a list of URLs is wanted"),
        (b"[]", "source(): it gave a bytes; a list of URLs is wanted"),
        ({A}, "source(): it gave a set; a list of URLs is wanted"),
        (frozenset([A]), "source(): it gave a frozenset; a list of URLs is wanted"),
        ([A, 3], "source(): [1]: a int is no URL, no (url, weight) and no Endpoint"),
        ([(A, 1, 2)], "source(): [0]: a tuple is no URL, no (url, weight) and no Endpoint"),
        ([(A, "1")], "source(): [0]: a tuple is no URL, no (url, weight) and no Endpoint"),
        ([(A, -1)], "source(): [0]: endpoint a:80: weight is -1; it must be from 0 to 65535"),
        ([A, "b:1"], "source(): [1]: 'b:1' has no scheme; write http://b:1"),
        ([{"targets": [1]}], "source(): [0].targets[0]: 1 is no text"),
        ([A, A], "source(): endpoint a:80 is given twice"),
        ([], "source(): there are no endpoints in the answer"),
    ],
)
def test_what_a_function_may_not_give(answer: object, message: str) -> None:
    def source() -> object:
        return answer

    assert found_by(source)[1].said == [message]


def test_a_function_that_never_ends_to_give_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ENDPOINTS_MAX", 10)

    def ports() -> Iterator[str]:
        port = 1
        while True:
            yield f"http://a:{port}"
            port += 1

    assert found_by(ports)[1].said == ["ports(): there are more than 10 endpoints"]


def test_an_object_that_can_be_called_has_the_name_of_its_type() -> None:
    class Inventory:
        def __call__(self) -> list[str]:
            return []

    assert Function(Inventory()).name == "Inventory()"


def test_an_async_function_is_none_for_a_thread() -> None:
    with pytest.raises(ValueError, match=r"^as_it_is is async, and a thread does not await it; leave out blocking=Tru"):
        Function(as_it_is, blocking=True)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_times_make_sense(value: float) -> None:
    for name in ("interval_s", "timeout_s"):
        options: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=rf"^{name} is .*; it must be above 0$"):
            Function(list, **options)
        with pytest.raises(ValueError, match=rf"^{name} is .*; it must be above 0$"):
            HttpSd("http://sd", **options)


def test_a_fresh_function_is_set_as_the_first() -> None:
    first = Function(as_it_is, interval_s=3, timeout_s=4)
    fresh = first.fresh()
    assert fresh is not first
    assert (fresh.function, fresh.interval_s, fresh.timeout_s, fresh.blocking) == (as_it_is, 3, 4, False)
    assert Function(list, blocking=True).fresh().timeout_s is None


# ---------------------------------------------------------------------------------------------------------------- HTTP


def answered(world: World, body: object, status: int = 200) -> bytes:
    """The next connection is made and its request answered; gives the request."""
    conn = world.connects()
    request = world.sent(conn)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    world.receives(conn, f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode())
    for piece in (data[:50], data[50:]):
        if piece:
            world.receives(conn, piece)
    world.wait(0)
    return request


def test_an_address_is_asked_as_prometheus_asks() -> None:
    source = HttpSd("http://sd.internal:9090/targets?team=a", interval_s=15, headers={"Authorization": "Bearer x"})
    world, seeker = seeking(source)
    assert world.connecting[0].address == ("sd.internal", 9090)
    assert answered(world, [{"targets": ["10.0.0.1:80"]}]) == (
        b"GET /targets?team=a HTTP/1.1\r\n"
        b"Host: sd.internal:9090\r\n"
        b"Accept: application/json\r\n"
        b"X-Prometheus-Refresh-Interval-Seconds: 15\r\n"
        b"Authorization: Bearer x\r\n\r\n"
    )
    assert seeker.names == [["10.0.0.1:80"]]
    world.wait(16.5)
    assert b"Bearer x" in answered(world, [{"targets": ["10.0.0.2:80"]}])
    assert seeker.names == [["10.0.0.1:80"], ["10.0.0.2:80"]]
    assert seeker.said == []


def test_the_path_may_be_left_out_and_fields_may_be_replaced() -> None:
    world, _ = seeking(HttpSd("http://sd", headers={"accept": "application/vnd.sd+json"}))
    request = answered(world, [])
    assert request.startswith(b"GET / HTTP/1.1\r\nHost: sd\r\naccept: application/vnd.sd+json\r\n")
    assert b"Accept:" not in request


def test_an_answer_like_the_last_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def noted(data: bytes, place: str) -> object:
        read.append(data)
        return parse_json(data, place)

    monkeypatch.setattr(discovery, "parse_json", noted)
    world, seeker = seeking(HttpSd("http://sd"))
    for targets in ("a", "a", "b", "b", "a"):
        answered(world, [{"targets": [targets]}])
        world.wait(33)
    assert len(read) == 3
    assert seeker.names == [["a:80"], ["b:80"], ["a:80"]]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, [], "http://sd/x: it answered 404, and not 200"),
        (204, b"", "http://sd/x: it answered 204, and not 200"),
        (302, [], "http://sd/x: it answered 302, and not 200"),
        (200, b"<html>", "http://sd/x:1: no JSON: Expecting value (column 1)"),
        (200, [], "http://sd/x: there are no endpoints in the answer"),
        (200, [{"targets": [0]}], "http://sd/x: [0].targets[0]: 0 is no text"),
        (200, [{"targets": ["unix:/a"]}], "http://sd/x: [0].targets[0]: a Unix socket is of this machine, and the doc"),
        (200, b"x" * 101, "http://sd/x: upstream_invalid: the answer to a sub-request is over 100 bytes"),
    ],
)
def test_an_answer_that_is_no_list_of_targets(status: int, body: object, message: str) -> None:
    world, seeker = seeking(HttpSd("http://sd/x", document_bytes_max=100))
    answered(world, body, status)
    (said,) = seeker.said
    assert said.startswith(message)
    assert seeker.sets == []


def test_nobody_there_is_an_error() -> None:
    world, seeker = seeking(HttpSd("http://sd"))
    world.refuses()
    assert seeker.said == ["http://sd: upstream_refused: connection refused"]


def test_an_answer_that_does_not_come_is_an_error_and_its_connection_is_closed() -> None:
    world, seeker = seeking(HttpSd("http://sd", timeout_s=2))
    conn = world.connects()
    world.wait(2)
    assert seeker.said == ["http://sd: no answer within 2 s"]
    assert world.closed == [conn]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sd/targets", "'sd/targets' has no scheme; write http://sd/targets"),
        ("wss://sd", "'wss://sd': the scheme 'wss' is not supported; write http://..., https://... or h2c://..."),
        ("http://", "'http://' has no host; write http://127.0.0.1:9000"),
        ("http://sd:x/", "'http://sd:x': the port is no number from 1 to 65535"),
        ("http://[::1", "'http://[::1' is no URL: Invalid IPv6 URL"),
        ("http://me:secret@sd/", "sd: give a name and password as headers={'Authorization': ...}"),
        ("http://sd/a b", "'http://sd/a b' has characters that no URL has"),
        ("http://sd/\r\nX: y", "'http://sd/\\r\\nX: y' has characters that no URL has"),
        ("http://sd/\u00fc", "'http://sd/ü' has characters that no URL has"),
    ],
)
def test_a_url_that_cannot_be_asked(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        HttpSd(url)
    assert str(caught.value) == message


def test_a_fresh_source_has_read_nothing() -> None:
    first = HttpSd("http://sd", interval_s=3, timeout_s=4, headers={"A": "b"}, document_bytes_max=5000)
    world, seeker = seeking(first)
    answered(world, [{"targets": ["a"]}])
    assert seeker.names == [["a:80"]]
    fresh = first.fresh()
    assert (fresh.name, fresh.interval_s, fresh.timeout_s, fresh.headers) == ("http://sd", 3, 4, {"A": "b"})
    assert fresh.document_bytes_max == 5000
    assert fresh._found is None
