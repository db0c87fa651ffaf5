"""Endpoints from DNS: what is asked, which answers count, for how long they do, and what is told of those that are
none."""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Callable, Sequence
from struct import pack
from typing import Any

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.lb.dns import CNAMES_MAX, PIPELINED_MAX, Dns, DnsSrv, Kind
from tests.core.world import World
from tests.lb.seeking import NameServer, Seeker, add, framed, seeking

SERVER = ("10.0.0.53", 53)
SERVERS = [SERVER, ("10.0.0.54", 53)]

Zone = dict[str, list[str] | str]


def looked_up(source: Dns | DnsSrv, zone: Zone, *, beside: Sequence[str] = ()) -> tuple[World, Seeker, NameServer]:
    """A look-up that was answered."""
    world, seeker = seeking(source)
    server = NameServer(world, zone, beside=beside)
    server.serves(world.connects())
    return world, seeker, server


def error_of(source: Dns | DnsSrv, zone: Zone) -> str:
    """What was said of a look-up that gave nothing."""
    world, seeker, _ = looked_up(source, zone)
    assert seeker.sets == []
    (said,) = seeker.said
    assert len(world.closed) == 1
    return said


def dns_of(kind: Kind = "A", **options: Any) -> Dns:
    return Dns("a.internal", 8080, server=SERVER, kind=kind, **options)


def srv() -> DnsSrv:
    return DnsSrv("_http._tcp.a.internal", server=SERVER)


# -------------------------------------------------------------------------------------------------------------- names


def test_the_addresses_of_a_name_are_endpoints_in_one_order() -> None:
    world, seeker, server = looked_up(dns_of(), {"a.internal A": ["60 10.0.0.2", "60 10.0.0.1"]})
    assert [each.address for each in seeker.sets[0]] == [("10.0.0.1", 8080), ("10.0.0.2", 8080)]
    assert server.asked == ["a.internal A"]
    assert seeker.said == []
    assert world.closed, "a look-up is one connection"
    world.wait(66)
    server.zone["a.internal A"] = ["60 10.0.0.1", "60 10.0.0.2"]
    server.serves(world.connects())
    assert len(seeker.sets) == 1
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("kind", "addresses", "asked"),
    [
        ("A", ["10.0.0.1"], ["a.internal A"]),
        ("AAAA", ["2001:db8::1"], ["a.internal AAAA"]),
        ("both", ["10.0.0.1", "2001:db8::1"], ["a.internal A", "a.internal AAAA"]),
    ],
)
def test_kinds_of_addresses(kind: Kind, addresses: list[str], asked: list[str]) -> None:
    zone: Zone = {"a.internal A": ["60 10.0.0.1"], "a.internal AAAA": ["30 2001:db8::1"]}
    _, seeker, server = looked_up(dns_of(kind), zone)
    assert [each.address for each in seeker.sets[0]] == [(address, 8080) for address in addresses]
    assert server.asked == asked


def test_a_query_asks_one_thing_and_for_recursion() -> None:
    world, _ = seeking(dns_of())
    assert world.connecting[0].address == SERVER
    (query,) = NameServer(world, {}).queries(world.connects())
    assert [str(each) for each in query.question] == ["a.internal. IN A"]
    assert query.flags == dns.flags.RD
    assert query.opcode() == dns.opcode.QUERY
    assert not query.answer
    assert not query.additional


def test_numbers_of_queries_are_the_machines_and_differ() -> None:
    def numbers() -> list[int]:
        world, _ = seeking(dns_of("both"))
        found = [query.id for query in NameServer(world, {}).queries(world.connects())]
        world.wait(5)
        return found + [query.id for query in NameServer(world, {}).queries(world.connects())]

    assert numbers() == numbers()
    assert len(set(numbers())) == 4


def test_with_both_kinds_a_name_may_have_one() -> None:
    assert looked_up(dns_of("both"), {"a.internal A": ["60 10.0.0.1"]})[1].names == [["10.0.0.1:8080"]]
    assert looked_up(dns_of("both"), {"a.internal AAAA": ["60 ::1"]})[1].names == [["[::1]:8080"]]


def test_with_both_kinds_a_server_may_deny_a_name_that_has_the_other() -> None:
    # It should not (RFC 4074 section 4.2), and some do.
    zone: Zone = {"a.internal A": ["60 10.0.0.1"], "a.internal AAAA": "NXDOMAIN"}
    assert looked_up(dns_of("both"), zone)[1].names == [["10.0.0.1:8080"]]


def test_with_both_kinds_half_of_an_answer_is_none() -> None:
    zone: Zone = {"a.internal A": ["60 10.0.0.1"], "a.internal AAAA": "SERVFAIL"}
    assert error_of(dns_of("both"), zone) == "a.internal (A and AAAA): 10.0.0.53:53: SERVFAIL"


# ---------------------------------------------------------------------------------------------------------------- TTL


@pytest.mark.parametrize(
    ("records", "valid_s"),
    [(["60 10.0.0.1"], 60), (["0 10.0.0.1"], 1), (["86400 10.0.0.1"], 300), (["7 x.internal", "3 10.0.0.1"], 3),
     (["3 x.internal", "7 10.0.0.1"], 3)],
)  # fmt: skip
def test_an_answer_is_asked_for_again_when_its_shortest_ttl_has_run_out(records: list[str], valid_s: float) -> None:
    lines = records
    if len(records) == 2:
        alias, address = records[0].split(), records[1].split()
        lines = [f"a.internal {alias[0]} CNAME {alias[1]}.", f"{alias[1]} {address[0]} A {address[1]}"]
    world, seeker, _ = looked_up(dns_of(), {"a.internal A": lines})
    assert seeker.names == [["10.0.0.1:8080"]]
    world.wait(valid_s - 0.01)
    assert not world.connecting
    world.wait(valid_s * 0.1 + 0.02)
    assert world.connecting


def test_the_bounds_of_a_ttl_can_be_set() -> None:
    world, _, _ = looked_up(dns_of(ttl_min_s=20, ttl_max_s=30), {"a.internal A": ["0 10.0.0.1"]})
    world.wait(19.9)
    assert not world.connecting
    world, _, _ = looked_up(dns_of(ttl_min_s=20, ttl_max_s=30), {"a.internal A": ["900 10.0.0.1"]})
    world.wait(33.1)
    assert world.connecting


def test_of_both_kinds_the_shorter_ttl_counts() -> None:
    zone: Zone = {"a.internal A": ["60 10.0.0.1"], "a.internal AAAA": ["2 ::1"]}
    world, _, _ = looked_up(dns_of("both"), zone)
    world.wait(2.3)
    assert world.connecting


# ------------------------------------------------------------------------------------------------------------ aliases


def test_an_alias_is_followed_within_an_answer() -> None:
    zone: Zone = {"a.internal A": ["a.internal 60 CNAME b.internal.", "b.internal 60 A 10.0.0.1"]}
    _, seeker, server = looked_up(dns_of(), zone)
    assert seeker.names == [["10.0.0.1:8080"]]
    assert len(server.asked) == 1


def test_an_alias_that_the_server_leaves_open_is_asked_for() -> None:
    zone: Zone = {
        "a.internal A": ["a.internal 60 CNAME b.internal.", "b.internal 5 CNAME c.internal."],
        "c.internal A": ["c.internal 60 CNAME d.internal.", "d.internal 60 A 10.0.0.1"],
    }
    world, seeker, server = looked_up(dns_of(), zone)
    assert seeker.names == [["10.0.0.1:8080"]]
    assert server.asked == ["a.internal A", "c.internal A"]
    world.wait(5.6)
    assert world.connecting, "the shortest TTL on the way counts"


def test_aliases_that_never_end_are_an_error() -> None:
    zone: Zone = {
        "a.internal A": ["a.internal 60 CNAME b.internal."],
        "b.internal A": ["b.internal 60 CNAME a.internal."],
    }
    world, seeker, server = looked_up(dns_of(), zone)
    assert len(server.asked) == CNAMES_MAX + 1
    said = f"a.internal (A): 10.0.0.53:53: an alias of an alias of an alias, and no end after {CNAMES_MAX}"
    assert seeker.said == [said]
    zone = {"a.internal A": ["a.internal 60 CNAME b.internal.", "b.internal 60 CNAME a.internal."]}
    assert error_of(dns_of(), zone) == "a.internal (A): 10.0.0.53:53: an answer that makes no sense (ChainTooLong)"


def test_as_many_aliases_as_there_may_be_are_followed() -> None:
    zone: Zone = {"a.internal A": ["a.internal 60 CNAME n1.internal."]}
    for number in range(1, CNAMES_MAX):
        zone[f"n{number}.internal A"] = [f"n{number}.internal 60 CNAME n{number + 1}.internal."]
    zone[f"n{CNAMES_MAX}.internal A"] = ["60 10.0.0.1"]
    assert looked_up(dns_of(), zone)[1].names == [["10.0.0.1:8080"]]


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ({}, "a.internal (A): there is no such name"),
        ({"a.internal AAAA": ["60 ::1"]}, "a.internal (A): there are no such records"),
        ({"a.internal A": []}, "a.internal (A): there are no such records"),
        ({"a.internal A": "SERVFAIL"}, "a.internal (A): 10.0.0.53:53: SERVFAIL"),
        ({"a.internal A": "REFUSED"}, "a.internal (A): 10.0.0.53:53: REFUSED"),
        ({"a.internal A": ["a.internal 60 CNAME b.internal."]}, "a.internal (A): there is no such name"),
    ],
)
def test_what_a_server_may_say_instead(zone: Zone, message: str) -> None:
    assert error_of(dns_of(), zone) == message


def test_no_such_name_of_either_kind() -> None:
    assert error_of(dns_of("both"), {}) == "a.internal (A and AAAA): there is no such name"
    assert error_of(dns_of("both"), {"a.internal A": []}) == "a.internal (A and AAAA): there are no such records"


Twist = Callable[[dns.message.Message], bytes]


def twisted(**changes: Any) -> Twist:
    def twist(answer: dns.message.Message) -> bytes:
        for name, value in changes.items():
            setattr(answer, name, value)
        return framed(answer.to_wire())

    return twist


def other_question(answer: dns.message.Message) -> bytes:
    other = dns.message.make_query("b.internal", "A", id=answer.id)
    response = dns.message.make_response(other)
    add(response.answer, "b.internal 60 A 10.9.9.9")
    return framed(response.to_wire())


def update(answer: dns.message.Message) -> bytes:
    wire = bytearray(answer.to_wire())
    wire[2] |= 5 << 3  # the code of an update, which has other sections
    return framed(bytes(wire))


def notice(answer: dns.message.Message) -> bytes:
    wire = bytearray(answer.to_wire())
    wire[2] |= 4 << 3  # the code of a notice, which is no answer to a question
    return framed(bytes(wire))


@pytest.mark.parametrize(
    ("twist", "why"),
    [
        (lambda answer: twisted(id=answer.id ^ 1)(answer), "an answer to what was not asked"),
        (twisted(flags=dns.flags.RD), "an answer to what was not asked"),
        (other_question, "an answer to what was not asked"),
        (lambda answer: twisted(flags=answer.flags | dns.flags.TC)(answer), "a truncated answer"),
        (lambda answer: framed(answer.to_wire()[:-1]), "an answer that is none (ShortHeader)"),
        (lambda _: framed(b""), "an answer that is none (ShortHeader)"),
        (lambda answer: framed(answer.to_wire() + b"x"), "an answer that is none (TrailingJunk)"),
        (update, "an answer that is none"),
        (notice, "an answer that is none"),
        (lambda answer: framed(answer.to_wire())[:-1], "it closed the connection before its answer was whole"),
        (lambda _: b"", "it closed the connection before its answer was whole"),
        (lambda _: b"\x00", "it closed the connection before its answer was whole"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(twist: Twist, why: str) -> None:
    world, seeker = seeking(dns_of())
    conn = world.connects()
    server = NameServer(world, {"a.internal A": ["60 10.9.9.9"]})
    (query,) = server.queries(conn)
    data = twist(server.answer(query))
    if data:
        world.receives(conn, data)
    if conn not in world.closed:
        world.receives(conn, b"")
    assert seeker.sets == []
    (said,) = seeker.said
    if why.startswith("an answer that is none"):
        assert said.startswith("a.internal (A): 10.0.0.53:53: an answer that is none")
    else:
        assert said == f"a.internal (A): 10.0.0.53:53: {why}"


def test_an_answer_counts_once() -> None:
    world, seeker = seeking(dns_of("both"))
    conn = world.connects()
    server = NameServer(world, {"a.internal A": ["60 10.0.0.1"]})
    first, _ = server.queries(conn)
    world.receives(conn, framed(server.answer(first).to_wire()) * 2)
    assert seeker.said == ["a.internal (A and AAAA): 10.0.0.53:53: an answer to what was not asked"]


def test_answers_come_in_any_order_and_in_any_pieces() -> None:
    world, seeker = seeking(dns_of("both"))
    conn = world.connects()
    server = NameServer(world, {"a.internal A": ["60 10.0.0.1"], "a.internal AAAA": ["60 ::1"]})
    data = b"".join(framed(server.answer(query).to_wire()) for query in reversed(server.queries(conn)))
    for index in range(len(data)):
        assert seeker.sets == []
        world.receives(conn, data[index : index + 1])
    assert seeker.names == [["10.0.0.1:8080", "[::1]:8080"]]


@given(data=st.binary(max_size=80), framing=st.booleans(), number=st.booleans())
def test_whatever_a_server_sends_it_is_an_answer_or_one_error(data: bytes, framing: bool, number: bool) -> None:
    world, seeker = seeking(dns_of())
    conn = world.connects()
    (query,) = NameServer(world, {}).queries(conn)
    if number:
        data = pack("!HH", query.id, dns.flags.QR) + data
    world.receives(conn, framed(data) if framing else data or b"\x00")
    if conn not in world.closed:
        world.receives(conn, b"")
    assert seeker.sets == []
    (said,) = seeker.said
    assert said.startswith("a.internal (A): ")


@given(at=st.integers(0, 60), flip=st.integers(1, 255))
def test_a_damaged_answer_is_an_answer_or_one_error(at: int, flip: int) -> None:
    world, seeker = seeking(dns_of())
    conn = world.connects()
    server = NameServer(world, {"a.internal A": ["60 10.0.0.1", "60 10.0.0.2"]})
    wire = bytearray(server.answer(server.queries(conn)[0]).to_wire())
    wire[at % len(wire)] ^= flip
    world.receives(conn, framed(bytes(wire)))
    if conn not in world.closed:
        NameServer(world, {}).serves(conn)
    assert len(seeker.sets) + len(seeker.said) == 1
    assert all("(A): " in said for said in seeker.said)


# ------------------------------------------------------------------------------------------------------------ servers


def test_servers_are_asked_in_turn_until_one_has_an_answer() -> None:
    world, seeker = seeking(Dns("a.internal", server=SERVERS))
    world.refuses()
    assert world.connecting[0].address == SERVERS[1]
    NameServer(world, {"a.internal A": ["60 10.0.0.1"]}).serves(world.connects())
    assert seeker.names == [["10.0.0.1:80"]]
    assert seeker.said == []


def test_a_server_that_fails_is_followed_by_the_next_and_one_that_knows_is_not() -> None:
    world, seeker = seeking(Dns("a.internal", server=SERVERS))
    NameServer(world, {"a.internal A": "SERVFAIL"}).serves(world.connects())
    assert world.connecting[0].address == SERVERS[1]
    NameServer(world, {}).serves(world.connects())
    assert seeker.said == ["a.internal (A): there is no such name"]
    world, seeker = seeking(Dns("a.internal", server=SERVERS))
    NameServer(world, {}).serves(world.connects())
    assert not world.connecting


def test_when_no_server_has_an_answer_each_is_told_of() -> None:
    world, seeker = seeking(Dns("a.internal", server=SERVERS, server_timeout_s=2))
    silent = world.connects()
    world.wait(2)
    assert world.closed == [silent]
    world.refuses()
    (said,) = seeker.said
    assert said.startswith("a.internal (A): 10.0.0.53:53: no answer within 2 s; 10.0.0.54:53: upstream_refused: ")


def test_each_server_has_its_time() -> None:
    world, seeker = seeking(Dns("a.internal", server=[*SERVERS, ("10.0.0.55", 53)], server_timeout_s=2))
    for _ in range(3):
        assert seeker.said == []
        world.connects()
        world.wait(2)
    (said,) = seeker.said
    assert said.count("no answer within 2 s") == 3


@pytest.mark.parametrize(
    ("server", "addresses"),
    [
        ("10.0.0.53", [SERVER]),
        (("::1", 5353), [("::1", 5353)]),
        (["10.0.0.53", ("10.0.0.54", 1)], [SERVER, ("10.0.0.54", 1)]),
        (("10.0.0.53", "10.0.0.54"), [SERVER, ("10.0.0.54", 53)]),
        ((("10.0.0.53", 53),), [SERVER]),
    ],
)
def test_ways_to_name_servers(server: Any, addresses: list[object]) -> None:
    assert [peer.address for peer in Dns("a.internal", server=server).servers] == addresses


@pytest.mark.parametrize("server", [3, ("10.0.0.53", 53, 54), [("10.0.0.53",)], ("a", 1.0), None])
def test_what_names_no_server(server: Any) -> None:
    with pytest.raises(ValueError, match=r'is no name server; write server=\("10\.0\.0\.53", 53\)$'):
        Dns("a.internal", server=server)


def test_no_server_is_refused() -> None:
    with pytest.raises(ValueError, match=r'^there is no name server; write server=\("10\.0\.0\.53", 53\)$'):
        Dns("a.internal", server=[])


# ----------------------------------------------------------------------------------------------------------- services

SRV = "_http._tcp.a.internal SRV"


def test_a_service_has_weights_priorities_and_ports() -> None:
    zone: Zone = {
        SRV: ["60 20 5 8080 b.internal.", "60 10 3 80 a.internal.", "60 10 0 81 a.internal."],
        "a.internal A": ["60 10.0.0.1"],
        "b.internal A": ["60 10.0.0.2", "60 10.0.0.3"],
    }
    _, seeker, server = looked_up(srv(), zone)
    found = [(each.name, each.weight, each.priority, each.labels["target"]) for each in seeker.sets[0]]
    assert found == [
        ("10.0.0.1:80", 3, 0, "a.internal"),
        ("10.0.0.1:81", 1, 0, "a.internal"),
        ("10.0.0.2:8080", 5, 1, "b.internal"),
        ("10.0.0.3:8080", 5, 1, "b.internal"),
    ]
    assert sorted(server.asked) == [SRV, "a.internal A", "b.internal A"]


def test_addresses_that_come_with_the_records_are_not_asked_for() -> None:
    zone: Zone = {SRV: ["60 0 1 80 a.internal.", "60 0 1 80 b.internal."], "b.internal A": ["60 10.0.0.2"]}
    beside = ["A.internal 2 A 10.0.0.1", "a.internal 2 A 10.0.0.9", "a.internal 1 TXT x"]
    world, seeker, server = looked_up(srv(), zone, beside=beside)
    assert sorted(seeker.names[0]) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"]
    assert server.asked == [SRV, "b.internal A"]
    world.wait(1.9)
    assert not world.connecting
    world.wait(0.4)
    assert world.connecting, "their TTL counts"


def test_with_both_kinds_the_one_that_did_not_come_is_asked_for() -> None:
    zone: Zone = {SRV: ["60 0 1 80 a.internal."], "a.internal AAAA": ["60 ::1"]}
    source = DnsSrv("_http._tcp.a.internal", server=SERVER, kind="both")
    _, seeker, server = looked_up(source, zone, beside=["a.internal 60 A 10.0.0.1"])
    assert seeker.names == [["10.0.0.1:80", "[::1]:80"]]
    assert server.asked == [SRV, "a.internal AAAA"]


@pytest.mark.parametrize(("first", "second"), [("a.internal", "b.internal"), ("b.internal", "a.internal")])
def test_two_records_that_lead_to_one_address_are_one_endpoint(first: str, second: str) -> None:
    zone: Zone = {
        SRV: [f"60 5 9 80 {second}.", f"60 1 2 80 {first}."],
        "a.internal A": ["60 10.0.0.1"],
        "b.internal A": ["60 10.0.0.1"],
    }
    _, seeker, _ = looked_up(srv(), zone)
    (found,) = seeker.sets[0]
    assert (found.name, found.weight, found.priority, found.labels["target"]) == ("10.0.0.1:80", 2, 0, first)


def test_of_a_service_the_shorter_ttl_counts() -> None:
    world, seeker, _ = looked_up(srv(), {SRV: ["2 0 1 80 a.internal."], "a.internal A": ["60 10.0.0.1"]})
    assert seeker.names == [["10.0.0.1:80"]]
    world.wait(2.3)
    assert world.connecting


def test_a_target_without_an_address_is_passed_over() -> None:
    zone: Zone = {
        SRV: ["60 0 1 80 gone.internal.", "60 0 1 80 six.internal.", "60 0 1 80 a.internal.", "60 0 1 80 ."],
        "a.internal A": ["60 10.0.0.1"],
        "six.internal AAAA": ["60 ::1"],
    }
    assert looked_up(srv(), zone)[1].names == [["10.0.0.1:80"]]


def test_a_target_that_a_server_fails_at_is_an_error() -> None:
    zone: Zone = {
        SRV: ["60 0 1 80 a.internal.", "60 0 1 80 b.internal."],
        "a.internal A": ["60 10.0.0.1"],
        "b.internal A": "SERVFAIL",
    }
    assert error_of(srv(), zone) == "_http._tcp.a.internal (SRV): 10.0.0.53:53: SERVFAIL"


def test_many_targets_are_asked_for_a_few_at_a_time() -> None:
    count = PIPELINED_MAX * 2 + 1
    zone: Zone = {SRV: [f"60 0 1 80 n{number}.internal." for number in range(count)]}
    zone |= {f"n{number}.internal A": [f"60 10.0.0.{number}"] for number in range(count)}
    world, seeker = seeking(srv())
    server = NameServer(world, zone)
    conn = world.connects()
    together: list[int] = []
    while queries := server.queries(conn):
        together.append(len(queries))
        world.receives(conn, b"".join(framed(server.answer(query).to_wire()) for query in queries))
    assert together == [1, PIPELINED_MAX, PIPELINED_MAX, 1]
    assert len(seeker.sets[0]) == count


@pytest.mark.parametrize(
    ("zone", "message"),
    [
        ({}, "there is no such name"),
        ({"_http._tcp.a.internal TXT": ["60 x"]}, "there are no such records"),
        ({SRV: ["60 0 0 0 ."]}, "the service is decidedly not offered there"),
        ({SRV: ["60 0 1 80 gone.internal."]}, "no target has an address (A)"),
        (
            {SRV: ["60 0 1 0 a.internal."], "a.internal A": ["60 10.0.0.1"]},
            "the service is decidedly not offered there",
        ),
    ],
)
def test_what_a_server_may_say_of_a_service_instead(zone: Zone, message: str) -> None:
    assert error_of(srv(), zone) == f"_http._tcp.a.internal (SRV): {message}"


# ----------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dns_of("a"), "kind is 'a'; it must be one of 'A', 'AAAA', 'both'"),  # type: ignore[arg-type]
        (lambda: Dns("a", 0, server=SERVER), "port is 0; it must be from 1 to 65535"),
        (lambda: Dns("a", 65536, server=SERVER), "port is 65536; it must be from 1 to 65535"),
        (lambda: dns_of(server_timeout_s=0), "server_timeout_s is 0; it must be above 0"),
        (lambda: dns_of(ttl_min_s=0), "ttl_min_s is 0; it must be above 0"),
        (lambda: dns_of(ttl_min_s=2, ttl_max_s=1), "ttl_min_s is 2, and more than ttl_max_s, which is 1"),
        (lambda: Dns("a..b", server=SERVER), "'a..b' is no DNS name: A DNS label is empty."),
        (lambda: Dns("a" * 64, server=SERVER), f"{'a' * 64!r} is no DNS name: A DNS label is > 63 octets long."),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert str(caught.value) == message


def test_a_look_up_has_no_state() -> None:
    source = dns_of()
    assert source.fresh() is source


def test_without_dnspython_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "dns":
            raise ModuleNotFoundError("No module named 'dns'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "coulee.lb.dns")
    with pytest.raises(ImportError, match=r'^Dns needs: pip install "coulee\[dns\]"$'):
        importlib.import_module("coulee.lb.dns")


def test_a_server_that_takes_no_connection_is_one_that_does_not_answer() -> None:
    world, seeker = seeking(dns_of(server_timeout_s=2))
    world.wait(2)
    (said,) = seeker.said
    assert said.startswith("a.internal (A): 10.0.0.53:53: ")


def test_whoever_cancels_it_finds_nothing_left() -> None:
    for connected in (False, True):
        world, seeker = seeking(dns_of())
        if connected:
            world.connects()
        seeker.stops()
        world.gives(None)
        assert not any(world.machine.leftovers.values()), world.machine.leftovers
