"""Scenarios in TOML: what can be written, and for each mistake one line that says where it is and what to do."""

from __future__ import annotations

import pytest

from coulee.server.whatif.lines import TomlError, duration_s
from coulee.server.whatif.scenario import Happening, Load, OriginModel, Outages, Scenario, read_scenario

WHOLE = """\
seed = 7
duration = "1h30m"            # a comment = is no key
requests_per_s = 1_000
arrivals = "even"
posts = 0.25
keys = { clients = 10, paths = 3 }

[endpoints]
count = 20
zones = ["eu", "us"]
latency = { median = "20ms", p99 = "200ms" }
concurrency = 8
errors = 0.001

[[endpoint]]
name = "a3"
concurrency = 2
[endpoint.latency]
median = "1s"

[[load]]
at = "10m"
requests_per_s = 2000

[[load]]
at = 1200
over = "100s"
requests_per_s = 1000

[[event]]
at = "20m"
endpoint = "a3"
what = "slow"
factor = 3
for = "5m"

[[event]]
at = 0
zone = "eu"
what = "flap"
up = "10s"
down = "500ms"

[[event]]
at = "30m"
share = 0.3
what = "errors"
status = 500
rate = 0.5

[[event]]
at = "40m"
endpoints = ["a1", "a2"]
what = "weight"
value = 3

[outages]
mean_between = "1h"
mean_duration = "1m"
kinds = ["die", "slow"]
factor = 4
"""


def failure(text: str) -> str:
    with pytest.raises(TomlError) as caught:
        read_scenario(text, "outage.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_that_can_be_written_is_read() -> None:
    read = read_scenario(WHOLE, "outage.toml")
    assert (read.name, read.seed, read.duration_s, read.arrivals) == ("outage.toml", 7, 5400.0, "even")
    assert (read.posts, read.clients, read.paths) == (0.25, 10, 3)
    assert (read.count, read.zones) == (20, ("eu", "us"))
    assert read.origin == OriginModel(0.02, 0.2, 8, 0.001)
    assert read.origins == (("a3", 16, OriginModel(1.0, 10.0, 2, 0.001)),)
    assert read.load[:2] == (Load(0.0, 1000.0), Load(600.0, 2000.0))
    assert read.load[2] == Load(1200.0, 1995.0)
    assert read.load[-2:] == (Load(1299.0, 1005.0), Load(1300.0, 1000.0))
    assert [(each.at_s, each.what) for each in read.happenings] == [
        (0.0, "flap"), (1200.0, "slow"), (1800.0, "errors"), (2400.0, "weight")]  # fmt: skip
    flap, slow, errors, weight = read.happenings
    assert flap == Happening(0.0, "flap", 39, zone="eu", up_s=10.0, down_s=0.5)
    assert slow == Happening(1200.0, "slow", 32, names=("a3",), factor=3.0, for_s=300.0)
    assert errors == Happening(1800.0, "errors", 46, share=0.3, status=500, rate=0.5)
    assert weight == Happening(2400.0, "weight", 53, names=("a1", "a2"), weight=3)
    assert read.outages == Outages(3600.0, 60.0, ("die", "slow"), factor=4.0)


def test_nothing_need_be_written() -> None:
    assert read_scenario("", "x.toml") == Scenario(name="x.toml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("1h30m", 5400.0), ("20ms", 0.02), ("1m500ms", 60.5), ("2.5s", 2.5), ("0s", 0.0),
     ("1", None), ("", None), ("1d", None), ("1s m", None), ("-1s", None), ("s", None), ("1 s", None)],
)  # fmt: skip
def test_durations(text: str, seconds: float | None) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 7", "seed = -7", "outage.toml:1: seed is -7; it must be from 0 to 1e+09"),
        ("seed = 7", "seed = 1.5", "outage.toml:1: seed is 1.5; it must be a whole number"),
        ("seed = 7", "seed = true", "outage.toml:1: seed is true; it must be a number"),
        ("seed = 7", "sed = 7", "outage.toml:1: there is no sed here; did you mean seed?"),
        ("seed = 7", "xyzzy = 7", ("outage.toml:1: there is no xyzzy here; there are duration, keys, endpoints, seed, "
         "requests_per_s, load, arrivals, posts, endpoint, event, outages")),
        ('"1h30m"', '"soon"', 'outage.toml:2: duration is "soon"; write a duration such as "90s", "20ms" or "1h30m"'),
        ('"1h30m"', "true", 'outage.toml:2: duration is true; write a duration such as "90s", "20ms" or "1h30m"'),
        ('"1h30m"', "0", "outage.toml:2: duration is 0; it must be longer than nothing"),
        ('"1h30m"', "-1", "outage.toml:2: duration is -1; it must be longer than nothing"),
        ('"1h30m"', "inf", "outage.toml:2: duration is inf; it must be longer than nothing"),
        ('"1h30m"', '"200h"', "outage.toml:2: duration is over 7 days; nobody waits for the end of it"),
        ("1_000", "nan", "outage.toml:3: requests_per_s is nan; it must be from 0 to 1e+06"),
        ("1_000", '"many"', 'outage.toml:3: requests_per_s is "many"; it must be a number'),
        ('"even"', '"odd"', 'outage.toml:4: arrivals is "odd"; it must be one of poisson, even'),
        ("0.25", "1.25", "outage.toml:5: posts is 1.25; it must be from 0 to 1"),
        ("clients = 10", "clients = 0", "outage.toml:6: clients is 0; it must be from 1 to 1e+06"),
        ("paths = 3", "path = 3", "outage.toml:6: there is no path here; did you mean paths?"),
        ("keys = { clients = 10, paths = 3 }", "keys = 3", "outage.toml:6: keys is 3; it must be a table"),
        ("count = 20", "count = 10001", "outage.toml:9: count is 10001; it must be from 0 to 10000"),
        ("count = 20", "", "outage.toml:10: zones are for the endpoints of count; those of the program have their own"),
        ('["eu", "us"]', "[]", "outage.toml:10: zones is []; it must be a list with at least one text"),
        ('["eu", "us"]', "[1]", "outage.toml:10: zones has 1 in it; it must be a list of texts"),
        ('"200ms" }', '"2ms" }', "outage.toml:11: p99 is below the median"),
        ('"200ms" }', '"200ms", p50 = 1 }', "outage.toml:11: there is no p50 here; there are median, p99"),
        ('name = "a3"', "", 'outage.toml:15: an [[endpoint]] needs the name of one, such as name = "127.0.0.1:9000"'),
        ('name = "a3"', 'name = ""', 'outage.toml:16: name is ""; it must be a text'),
        ('name = "a3"', 'name = "a3"\nzone = 3', ("outage.toml:17: there is no zone here; there are name, latency, "
         "concurrency, errors")),
        ('median = "1s"', 'median = "1"', ('outage.toml:19: median is "1"; write a duration such as "90s", "20ms" or '
         '"1h30m"')),
        ('at = "10m"\n', "", ('outage.toml:21: a [[load]] needs at and requests_per_s, such as at = "10m" and '
         "requests_per_s = 2000")),
        ("at = 1200\n", 'at = "5m"\n', ("outage.toml:26: at is before the end of the [[load]] above it; write them in "
         "the order of time")),
        ('over = "100s"', 'uber = "100s"', ("outage.toml:27: there is no uber here; there are at, "
         "requests_per_s, over")),
        ('at = "20m"\n', "", 'outage.toml:30: an [[event]] needs at, such as at = "10m" and what = "die"'),
        ('what = "slow"\n', "", 'outage.toml:30: an [[event]] needs what, such as at = "10m" and what = "die"'),
        ('what = "slow"', 'what = "burn"', ('outage.toml:33: what is "burn"; it must be one of die, vanish, hang, '
         "slow, errors, flap, recover, drain, maintenance, ready, weight")),
        ('endpoint = "a3"\n', "", ("outage.toml:30: an [[event]] needs one of endpoint, endpoints, zone and share; "
         "there is none")),
        ('endpoint = "a3"\n', 'endpoint = "a3"\nshare = 1\n', ("outage.toml:30: an [[event]] needs one of endpoint, "
         "endpoints, zone and share; there are endpoint and share")),
        ('what = "slow"', 'what = "die"', 'outage.toml:34: factor is for what = "slow", not for "die"'),
        ("factor = 3\n", "factor = 0\n", "outage.toml:34: factor is 0; it must be from 0.001 to 1e+06"),
        ("factor = 3\n", "factr = 3\n", "outage.toml:34: there is no factr here; did you mean factor?"),
        ('for = "5m"', 'for = "0x"', 'outage.toml:35: for is "0x"; write a duration such as "90s", "20ms" or "1h30m"'),
        ("share = 0.3", "share = 0", "outage.toml:46: share is 0; it must be from 1e-06 to 1"),
        ("status = 500", "status = 42", "outage.toml:48: status is 42; it must be from 200 to 599"),
        ('["a1", "a2"]', '["a1", ""]', 'outage.toml:53: endpoints has "" in it; it must be a list of texts'),
        ("value = 3\n", "", 'outage.toml:54: what = "weight" needs a value, such as value = 3'),
        ("value = 3\n", "value = 65536\n", "outage.toml:55: value is 65536; it must be from 0 to 65535"),
        ('"weight"\nvalue = 3', '"ready"\nfor = 3', 'outage.toml:55: what = "ready" has no end; leave for away'),
        ('mean_between = "1h"\n', "", ('outage.toml:57: [outages] needs mean_between, such as mean_between = "1h" and '
         'mean_duration = "1m"')),
        ('mean_duration = "1m"\n', "", ('outage.toml:57: [outages] needs mean_duration, such as mean_between = "1h" '
         'and mean_duration = "1m"')),
        ('["die", "slow"]', '["drain"]', ('outage.toml:60: kinds is "drain"; it must be one of die, vanish, hang, '
         "slow, errors, flap")),
        ("factor = 4", "rat = 4", "outage.toml:61: there is no rat here; did you mean rate?"),
        ("[outages]", "[[outages]]", "outage.toml:57: outages must be written as [outages], and once"),
        ("[[load]]\nat = \"10m\"\nrequests_per_s = 2000\n\n[[load]]", "[load]", ("outage.toml:21: load must be written "
         "as [[load]], once for each")),
        ("seed = 7", "seed = = 7", "outage.toml:1: Invalid value"),
        ("factor = 4\n", 'factor = "', "outage.toml:61: Unterminated string"),
        ("factor = 4\n", "factor = [", "outage.toml:61: Invalid value"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_line(old: str, new: str, message: str) -> None:
    assert WHOLE.count(old) == 1, "the mistake is made in one place"
    assert failure(WHOLE.replace(old, new)) == message


def test_a_key_inside_a_text_of_several_lines_is_none() -> None:
    assert failure('a = """\nb = 1\n"""\nb = 2\n').startswith("outage.toml:1: there is no a here")
    text = "[[event]]\nat = 1\nendpoint = '''\nwhat = 3\n'''\nwhat = 'burn'\n"
    assert failure(text).startswith('outage.toml:6: what is "burn"')


def test_names_may_be_quoted_and_dotted() -> None:
    assert failure("keys.clients = 0").startswith("outage.toml:1: clients is 0")
    assert failure("seed = 1\n\"keys\" . 'clients' = 0").startswith("outage.toml:2: clients is 0")


def test_there_are_not_more_events_than_can_be_played() -> None:
    text = '[[event]]\nat = 1\nendpoint = "a"\nwhat = "die"\n' * 10_001
    assert failure(text) == "outage.toml:1: there are 10001 events; 10000 are the most"
