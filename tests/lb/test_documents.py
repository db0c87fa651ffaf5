"""Documents that name endpoints: both shapes, each mistake with its place, and that no other error comes of any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.tls import UpstreamTls
from coulee.core.transport import DIRECT, Transport
from coulee.lb import Cluster, documents
from coulee.lb.documents import DiscoveryError, parse_json, parse_toml, read_document, toml_lines
from coulee.lb.endpoint import Endpoint


def read(document: object, *, lines: Sequence[int] = (), sockets: bool = True) -> list[Endpoint]:
    return list(read_document(document, "file", lines=lines, sockets=sockets))


def error_of(document: object, **options: Any) -> str:
    with pytest.raises(DiscoveryError) as caught:
        read(document, **options)
    return str(caught.value)


def shown(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.name, endpoint.weight, endpoint.priority, endpoint.zone, dict(endpoint.labels)


# -------------------------------------------------------------------------------------------------------- both shapes


def test_target_groups_of_prometheus() -> None:
    labels = {"weight": "3", "zone": "eu", "priority": "1", "version": "2", "__meta_x": "y"}
    found = read(
        [
            {"targets": ["10.0.0.1:80", "http://[::1]:81", "name"], "labels": labels},
            {"targets": []},
            {"targets": ["10.0.0.2:8080"]},
        ]
    )
    rest = {"version": "2", "__meta_x": "y"}
    assert [shown(each) for each in found] == [
        ("10.0.0.1:80", 3, 1, "eu", rest),
        ("[::1]:81", 3, 1, "eu", rest),
        ("name:80", 3, 1, "eu", rest),
        ("10.0.0.2:8080", 1, 0, "", {}),
    ]
    assert [each.address for each in found][1] == ("::1", 81)


def test_the_plain_shape() -> None:
    text = b"""
        [[endpoints]]
        url = "http://10.0.0.1:80"
        weight = 3
        zone = "eu"
        priority = 1
        labels = { version = "2" }

        [[endpoints]]
        url = "unix:/run/a"
    """
    found = read(parse_toml(text, "file"))
    assert [shown(each) for each in found] == [
        ("10.0.0.1:80", 3, 1, "eu", {"version": "2"}),
        ("unix:/run/a", 1, 0, "", {}),
    ]


def test_in_the_plain_shape_an_endpoint_may_be_its_url_alone() -> None:
    assert [shown(each) for each in read({"endpoints": ["http://a", {"url": "http://b", "weight": 0}]})] == [
        ("a:80", 1, 0, "", {}),
        ("b:80", 0, 0, "", {}),
    ]


def test_no_endpoints_are_no_error_here() -> None:
    assert read([]) == read({"endpoints": []}) == read([{"targets": []}]) == []


def test_labels_of_a_group_are_not_shared_among_its_endpoints() -> None:
    one, two = read([{"targets": ["a", "b"], "labels": {"x": "y"}}])
    assert one.labels == two.labels
    assert one.labels is not two.labels


def test_a_target_without_a_scheme_leaves_it_to_the_cluster_how_it_is_reached() -> None:
    document = [{"targets": ["a", "https://b", "h2c://c:9000", "http://d", "unix:/run/e"]}]
    found = read(document)
    assert [each.scheme for each in found] == ["", "https", "h2c", "http", ""]
    assert [each.transport for each in found] == [
        DIRECT, Transport(tls=UpstreamTls("b", "b")), Transport(prior_knowledge=True), DIRECT, DIRECT,
    ]  # fmt: skip
    [member] = Cluster(*read([{"targets": ["a:8443"]}]), transport=Transport(tls=UpstreamTls())).members
    assert member.transport == Transport(tls=UpstreamTls("a", "a"))


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (1, "file: 1 is neither a list of target groups nor a table with `endpoints`"),
        (None, "file: None is neither a list of target groups nor a table with `endpoints`"),
        ([[]], "file: [0]: [] is no target group; write {\"targets\": [...]}"),
        ([{"targets": []}, {"target": []}], "file: [1]: there is no field 'target'; there are targets, labels"),
        ([{}], "file: [0]: `targets` is missing, or no list"),
        ([{"targets": "a:80"}], "file: [0]: `targets` is missing, or no list"),
        ([{"targets": ["a", 3]}], "file: [0].targets[1]: 3 is no text"),
        ([{"targets": ["a:b"]}], "file: [0].targets[0]: 'http://a:b': the port is no number from 1 to 65535"),
        ([{"targets": [""]}], "file: [0].targets[0]: 'http://' has no host; write http://127.0.0.1:9000"),
        ([{"targets": ["a"], "labels": []}], "file: [0].labels: [] is no table of labels"),
        ([{"targets": ["a"], "labels": {"x": 1}}], "file: [0].labels.x: 1 is no text"),
        ([{"targets": ["a"], "labels": {"weight": 1}}], "file: [0].labels.weight: 1 is no text"),
        (
            [{"targets": ["a"], "labels": {"weight": "-1"}}],
            "file: [0].labels.weight: '-1' is no whole number from 0 on",
        ),
        (
            [{"targets": ["a"], "labels": {"priority": "1_0"}}],
            "file: [0].labels.priority: '1_0' is no whole number from 0 on",
        ),
        (
            [{"targets": ["a"], "labels": {"weight": "65536"}}],
            "file: [0].targets[0]: endpoint a:80: weight is 65536; it must be from 0 to 65535",
        ),
        (
            [{"targets": ["a", "b"]}, {"targets": ["c", "b:80"]}],
            "file: [1].targets[1]: b:80 stands at [0].targets[1] already",
        ),
        ({}, "file: `endpoints` is missing, or no list"),
        ({"endpoints": {}}, "file: `endpoints` is missing, or no list"),
        ({"endpoint": []}, "file: there is no field 'endpoint'; there are endpoints"),
        ({"endpoints": [3]}, "file: endpoints[0]: 3 is no endpoint; write a URL, or a table with `url`"),
        ({"endpoints": [{}]}, "file: endpoints[0]: `url` is missing"),
        ({"endpoints": [{"url": 1}]}, "file: endpoints[0].url: 1 is no text"),
        ({"endpoints": ["a:80"]}, "file: endpoints[0]: 'a:80' has no scheme; write http://a:80"),
        (
            {"endpoints": [{"url": "http://a", "wieght": 1}]},
            "file: endpoints[0]: there is no field 'wieght'; there are url, weight, zone, priority, labels",
        ),
        ({"endpoints": [{"url": "http://a", "weight": True}]}, "file: endpoints[0].weight: True is no whole number"),
        ({"endpoints": [{"url": "http://a", "weight": 1.0}]}, "file: endpoints[0].weight: 1.0 is no whole number"),
        ({"endpoints": [{"url": "http://a", "priority": "1"}]}, "file: endpoints[0].priority: '1' is no whole number"),
        (
            {"endpoints": [{"url": "http://a", "priority": -1}]},
            "file: endpoints[0]: endpoint a:80: priority is -1; the first group is 0, the next 1",
        ),
        ({"endpoints": [{"url": "http://a", "zone": 1}]}, "file: endpoints[0].zone: 1 is no text"),
        ({"endpoints": [{"url": "http://a", "labels": 1}]}, "file: endpoints[0].labels: 1 is no table of labels"),
        ({"endpoints": [{"url": "http://a", "labels": {1: ""}}]}, "file: endpoints[0].labels: 1 is no text"),
        (
            {"endpoints": ["http://a", "http://A:80"]},
            "file: endpoints[1]: a:80 stands at endpoints[0] already",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(document: object, message: str) -> None:
    assert error_of(document) == message


def test_what_comes_from_elsewhere_reaches_no_socket_of_this_machine() -> None:
    document = [{"targets": ["unix:/run/docker.sock"]}]
    assert [each.address for each in read(document)] == ["/run/docker.sock"]
    refused = "file: [0].targets[0]: a Unix socket is of this machine, and the document is not"
    assert error_of(document, sockets=False) == refused
    assert read([{"targets": ["a"]}], sockets=False)


def test_a_value_is_shown_as_far_as_a_line_goes() -> None:
    long = "a" * 500
    for document in (long, [long], [{"targets": [f"{long}:x"]}], [{"targets": [], "labels": {long: 1}}]):
        assert len(error_of(document)) < 250
    assert len(error_of({"endpoints": ["unix:/" + long] * 2})) < 250
    digits = error_of({"endpoints": [16**5000]})  # more than Python shows
    assert digits.startswith("file: endpoints[0]: ")
    assert len(digits) < 250


def test_there_is_a_most_of_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "ENDPOINTS_MAX", 2)
    assert len(read([{"targets": ["a", "b"]}])) == 2
    assert error_of([{"targets": ["a", "b", "c"]}]) == "file: [0].targets[2]: there are more than 2 endpoints"


# -------------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file:1: no JSON: Expecting value (column 1)"),
        (b'[\n{"targets": [}]', "file:2: no JSON: Expecting value (column 14)"),
        (b'[{"targets": ["10.0.0.1:80"]', "file:1: no JSON: Expecting ',' delimiter (column 29)"),
        (b"NaN", "file: no JSON: NaN is no number that JSON has"),
        (b"[" * 100_000, "file: no JSON: it is nested too deep"),
        (b"[\n\n\xff]", "file:3: no UTF-8: invalid start byte"),
    ],
)
def test_what_is_no_json_is_told_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        parse_json(data, "file")
    assert str(caught.value) == message


def test_a_number_of_more_digits_than_are_read_is_an_error_like_others() -> None:
    with pytest.raises(DiscoveryError, match=r"^file: no JSON: Exceeds the limit"):
        parse_json(b"1" * 5000, "file")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'a = 1\n[[endpoints]\nurl = "http://a"', "file:2: no TOML: Expected ']]' at the end of an array declaration"),
        (b"a = 1\na = 2\nb = 3", "file:2: no TOML: Cannot overwrite a value"),
        (b'url = "http', "file: no TOML: Unterminated string (at end of document)"),
        (b"a = " + b"[" * 100_000, "file: no TOML: it is nested too deep"),
        (b"\n\xff", "file:2: no UTF-8: invalid start byte"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        parse_toml(data, "file")
    assert str(caught.value) == message


def test_a_byte_order_mark_is_no_matter() -> None:
    assert parse_json(b"\xef\xbb\xbf[]", "file") == []
    assert parse_toml(b"\xef\xbb\xbfa = 1", "file") == {"a": 1}


def test_a_mistake_in_a_toml_text_is_told_with_its_line() -> None:
    text = b'# ours\n[[endpoints]]\nurl = "http://a"\n\n  [[ endpoints ]] # the other\nurl = "b"\n'
    assert toml_lines(text) == [2, 5]
    expected = "file:5: endpoints[1]: 'b' has no scheme; write http://b"
    assert error_of(parse_toml(text, "file"), lines=toml_lines(text)) == expected


def test_lines_that_cannot_be_the_endpoints_are_not_told() -> None:
    text = b'a = """\n[[endpoints]]\n"""\n[[endpoints]]\nurl = "b"\n'
    document = {"endpoints": parse_toml(text, "file")["endpoints"]}
    assert toml_lines(text) == [2, 4]
    assert error_of(document, lines=toml_lines(text)).startswith("file: endpoints[0]: ")


# --------------------------------------------------------------------------------------------------------------- laws

NAMES = st.sampled_from(["targets", "labels", "endpoints", "url", "weight", "zone", "priority"]) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["10.0.0.1:80", "http://a", "unix:/a", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
GROUPS = st.lists(st.fixed_dictionaries({"targets": st.lists(VALUES)}, optional={"labels": VALUES}))
TABLES = st.lists(st.fixed_dictionaries({"url": VALUES}, optional={"weight": VALUES, "labels": VALUES}))
SHAPED = GROUPS | st.fixed_dictionaries({"endpoints": TABLES})


@given(document=VALUES | SHAPED, sockets=st.booleans())
def test_any_values_are_endpoints_or_one_error(document: object, sockets: bool) -> None:
    with suppress(DiscoveryError):
        endpoints = read(document, sockets=sockets)
        assert len({endpoint.key for endpoint in endpoints}) == len(endpoints)


@given(data=st.binary() | VALUES.map(lambda value: json.dumps(value).encode()), cut=st.integers(0, 200))
def test_any_bytes_are_values_or_one_error(data: bytes, cut: int) -> None:
    for parse in (parse_json, parse_toml):
        with suppress(DiscoveryError):
            parse(data[:cut], "file")
    assert all(0 < line <= data.count(b"\n") + 1 for line in toml_lines(data))


LABELS = st.dictionaries(st.text(max_size=5).filter(lambda name: name not in ("weight", "zone", "priority")), st.text())


@given(
    endpoints=st.lists(
        st.tuples(st.integers(1, 65535), st.integers(0, 65535), st.integers(0, 99), st.text(), LABELS),
        unique_by=lambda each: each[0],
        max_size=5,
    )
)
def test_both_shapes_say_the_same(endpoints: list[tuple[int, int, int, str, dict[str, str]]]) -> None:
    groups: list[object] = []
    tables: list[object] = []
    for port, weight, priority, zone, labels in endpoints:
        ours = {"weight": str(weight), "priority": str(priority), "zone": zone}
        groups.append({"targets": [f"10.0.0.1:{port}"], "labels": labels | ours})
        tables.append(
            {"url": f"http://10.0.0.1:{port}", "weight": weight, "priority": priority, "zone": zone, "labels": labels}
        )
    assert [shown(each) for each in read(groups)] == [shown(each) for each in read({"endpoints": tables})]
    assert len(read(groups)) == len(endpoints)
