"""What is shown of a run: the table, the JSON and the picture."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import pytest

from coulee.lb import Outliers
from coulee.server.whatif import table as tables
from coulee.server.whatif.chart import HEATS, INNER, LEFT, WIDTH, chart
from coulee.server.whatif.scenario import Scenario
from coulee.server.whatif.table import as_json, table
from coulee.server.whatif.tally import SLICES, STATES, Row, Tally
from tests.server.whatif_stage import CONSTANT, checked, cluster, play, scenario

SVG = "{http://www.w3.org/2000/svg}"
OUTAGE = """
[[event]]
at = "10s"
endpoint = "a0"
what = "die"
for = "20s"
[[event]]
at = "40s"
endpoint = "a1"
what = "errors"
for = "5s"
"""


def played() -> tuple[Tally, Scenario]:
    what = scenario(OUTAGE)
    return play(what, cluster(health=checked(), outliers=Outliers()), retries_max=1), what


# ------------------------------------------------------------------------------------------------ in text


def test_the_table_says_it_all() -> None:
    what = scenario(OUTAGE)
    assert (
        table(play(what, cluster(outliers=Outliers()), retries_max=1), what, "app.py")
        == """\
app.py under outage.toml: 1m, seed 1

endpoint  weight  requests   share  errors                    retries    p50    p99  changes  not healthy  in the end
a0             1       200  32.8 %  10 (upstream_refused 10)        0  20 ms  20 ms        4          30s  healthy
a1             1       409  67.2 %  20 (503 20)                    10  20 ms  20 ms        2          10s  healthy

requests   599
went well  579 (96.7 %), 10 of them after a retry
errors     20 (503 20)
retries    10, 0 of them hedges; 0 refused by the budget
latency    p50 20 ms, p99 21 ms, p99.9 21 ms, as clients saw it

0:00:10.9  a0 is ejected: 5 failures in a row, the last upstream_refused
0:00:20.9  a0 is healthy
0:00:21.9  a0 is ejected: 5 failures in a row, the last upstream_refused
0:00:41.9  a0 is healthy
0:00:41.9  a1 is ejected: 20 failures in a row, the last 503
0:00:51.9  a1 is healthy
"""
    )


def test_lists_in_the_table_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHANGES_SHOWN", 2)
    tally, what = played()
    assert table(tally, what, "app.py").endswith("unhealthy: refused\n... and 5 more changes of state\n")
    tally.errors = {"a": 1, "b": 20, "c": 20, "d": 3}
    assert "\nerrors     44 (b 20, c 20, d 3, ...)\n" in table(tally, what, "app.py")
    tally.requests += 1234
    assert "\nrequests   1,833, 1,234 of them under way\n" in table(tally, what, "app.py")


def test_a_slow_start_is_not_counted_as_not_healthy() -> None:
    row = Row("a", 1, "slow_start")
    row.becomes("healthy", 30.0, 10.0)
    tally = Tally(60.0, rows={"a": row})
    tally.close()
    assert re.search(r"\na .* 0            -  healthy\n", table(tally, scenario(), "app.py"))


def test_where_nothing_came_there_is_nothing_to_show() -> None:
    what = scenario(top="", endpoints="", length="10s")
    tally = Tally(10.0, rows={"a": Row("a", 1, "healthy")})
    tally.close()
    text = table(tally, what, "app.py")
    assert "went well  0 (-), 0 of them after a retry" in text
    assert text.endswith("latency    p50 -, p99 -, p99.9 -, as clients saw it\n")
    check(chart(tally, what, "app.py"))


def test_the_json_has_the_same_numbers_and_the_curves() -> None:
    tally, what = played()
    data = json.loads(json.dumps(as_json(tally, what, "app.py")))
    assert (data["program"], data["scenario"], data["seed"], data["duration_s"]) == ("app.py", "outage.toml", 1, 60.0)
    assert (data["requests"], data["ok"], data["failed"], data["under_way"]) == (599, 594, 5, 0)
    assert data["errors"] == {"503": 5}
    assert data["latency_s"]["p50"] == pytest.approx(0.02, rel=0.03)
    assert [each["name"] for each in data["endpoints"]] == ["a0", "a1"]
    assert data["endpoints"][0]["failures"] == {"upstream_refused": 5}
    assert sum(data["endpoints"][0]["slices"]["requests"]) == data["endpoints"][0]["requests"]
    assert data["changes"][0]["state"] == "ejected"
    assert data["changes"][0]["before"] == "healthy"
    assert data["changes_in_all"] == len(data["changes"]) == 7
    assert {name: len(values) for name, values in data["slices"].items() if name != "length_s"} == dict.fromkeys(
        ("requests", "ok_at_once", "rescued", "failed", "retries", "p50_s", "p99_s"), SLICES)  # fmt: skip


# ------------------------------------------------------------------------------------------------ in a picture


def texts(picture: str) -> list[tuple[float, float, float, str]]:
    """Where each text begins and ends, its line, and what it says; with letters as wide as they ever are."""
    found: list[tuple[float, float, float, str]] = []
    for each in ET.fromstring(picture).iter(f"{SVG}text"):
        names = each.attrib["class"].split()
        letter = 10.5 if "title" in names else 8.2 if "panel" in names else 6.3 if "small" in names else 7.0
        x, width = float(each.attrib["x"]), len(each.text or "") * letter
        left = x - width if "end" in names else x - width / 2 if "middle" in names else x
        found.append((left, left + width, float(each.attrib["y"]), each.text or ""))
    return found


def check(picture: str) -> None:
    """No text leaves the picture, or runs into another one; every class has a colour; every number is one."""
    places = texts(picture)
    for left, right, _, text in places:
        assert left >= 0, text
        assert right <= WIDTH + 12, text
    for at, (left, right, y, text) in enumerate(places):
        for other_left, other_right, other_y, other in places[at + 1 :]:
            apart = right <= other_left or other_right <= left or abs(y - other_y) >= 8
            assert apart, f"{text!r} runs into {other!r}"
    names = {name for each in ET.fromstring(picture).iter() for name in each.attrib.get("class", "").split()}
    style = picture[picture.index("<style>") : picture.index("</style>")]
    assert not [name for name in sorted(names) if f".{name} " not in style]
    assert not re.search(r"\b(?:nan|inf|None)\b", re.sub(r">[^<]*<", "><", picture))


def test_the_picture_has_a_panel_for_each_thing_and_no_text_in_another_s_way() -> None:
    tally, what = played()
    picture = chart(tally, what, "app.py")
    check(picture)
    shown = [text for *_, text in texts(picture)]
    for text in ("app.py under outage.toml", "what happens", "a0 dies", "a1: 100 % 503", "requests a second",
                 "errors and retries a second", "latency, as clients saw it", "state of each endpoint", "unhealthy",
                 "ejected", "something is wrong with it", "requests to it", "a0", "a1", "1m",
                 "each endpoint: mean latency, retries and failures", "failures", "20 ms"):  # fmt: skip
        assert text in shown
    assert "circuit open" not in shown  # there was none
    assert chart(*played(), "app.py") == picture


def boxes(picture: str, name: str) -> list[tuple[float, float, float, float]]:
    """Left, top, width and height of all that has a class, but for what stands in a legend."""
    found = [each.attrib for each in ET.fromstring(picture).iter(f"{SVG}rect") if each.attrib.get("class") == name]
    return [(float(each["x"]), float(each["y"]), float(each["width"]), float(each["height"])) for each in found
            if each["width"] != "13.0"]  # fmt: skip


def test_how_each_endpoint_did_is_seen_over_the_time() -> None:
    """a0 is five times as slow from 0:15 to 0:30, and half of what a1 answers from 0:45 on are failures."""
    events = """
[[event]]
at = "15s"
endpoint = "a0"
what = "slow"
factor = 5
for = "15s"

[[event]]
at = "45s"
endpoint = "a1"
what = "errors"
status = 503
rate = 0.5
"""
    what = scenario(events)
    tally = play(what, cluster(outliers=None), retries_max=2, statuses=(503,))
    picture = chart(tally, what, "app.py")
    check(picture)
    slow = boxes(picture, f"heat{HEATS}")
    assert [(round((x - LEFT) / INNER * 60), round(width / INNER * 60)) for x, _, width, _ in slow] == [(15, 15)]
    top = slow[0][1]
    failures = [box for box in boxes(picture, "bad") if box[1] > top]
    assert failures
    assert min(x for x, *_ in failures) >= LEFT + INNER * 0.74
    bottom = top + 24 + 22  # of the second endpoint's strip
    assert {round(y + height, 1) for _, y, _, height in failures} == {round(bottom, 1)}
    assert {round(y, 1) for _, y, _, _ in boxes(picture, "rescued") if y >= top} <= {round(top, 1), round(top + 24, 1)}
    row = tally.rows["a1"]
    assert 0.3 < sum(row.failures_in) / sum(row.attempts_in[90:]) < 0.7
    assert sum(row.retries_in) + sum(tally.rows["a0"].retries_in) == sum(tally.retries) > 0
    of_json = as_json(tally, what, "app.py")["endpoints"][0]["slices"]
    assert of_json["mean_latency_s"][10] == pytest.approx(0.02, rel=0.01)
    assert of_json["mean_latency_s"][45] == pytest.approx(0.1, rel=0.01)
    assert of_json["retries"] == tally.rows["a0"].retries_in


def test_light_and_dark_have_the_same_classes() -> None:
    picture = chart(*played(), "app.py")
    light, dark = picture.split("@media (prefers-color-scheme: dark)")
    coloured = r"\.([a-z0-9_-]+) \{ (?:fill|stroke): #"
    assert set(re.findall(coloured, light)) <= set(re.findall(coloured, dark)) | {"start", "p99-line"}
    assert {name for name in STATES if f".{name} {{" in dark} == set(STATES)


def test_a_strip_is_as_long_as_its_state_lasted() -> None:
    picture = chart(*played(), "app.py")
    scale = (WIDTH - LEFT - 24) / 60
    rects = [each for each in ET.fromstring(picture).iter(f"{SVG}rect") if len(each)]
    sick = next(each for each in rects if each.attrib["class"] == "unhealthy")
    assert float(sick.attrib["x"]) == pytest.approx(LEFT + 13 * scale, abs=0.2 * scale)
    assert float(sick.attrib["width"]) == pytest.approx(19 * scale, abs=0.3 * scale)
    assert sick[0].text == "a0: unhealthy, 0:00:13.0 - 0:00:32.1"


def test_what_users_named_is_escaped() -> None:
    tally, what = played()
    picture = chart(tally, what, "<b>&.py")
    ET.fromstring(picture)
    assert "<b>" not in picture
    assert "&lt;b&gt;&amp;.py under outage.toml" in picture


def test_many_events_are_put_into_a_few_lanes_and_the_rest_is_counted() -> None:
    many = "".join(f'[[event]]\nat = {30 + at * 0.2}\nendpoint = "a0"\nwhat = "drain"\n' for at in range(20))
    late = '[[event]]\nat = "59s"\nendpoints = ["a0", "a1"]\nwhat = "maintenance"\n'
    never = '[[event]]\nat = "2m"\nendpoint = "a0"\nwhat = "die"\n'
    what = scenario(many + late + never + '[outages]\nmean_between = "1h"\nmean_duration = "1s"\n')
    picture = chart(play(what), what, "app.py")
    check(picture)
    shown = [text for *_, text in texts(picture)]
    assert shown.count("a0 drained") == 6
    assert "and 14 more events" in shown
    assert "a0, a1 in maintenance" in shown  # beside the bar, for behind it there is no room
    assert "a0 dies" not in shown
    alone = scenario(late)
    check(chart(play(alone), alone, "app.py"))


@pytest.mark.parametrize("count", [1, 13, 41, 150])
def test_any_number_of_endpoints_fits(count: int) -> None:
    endpoints = f"{CONSTANT}count = {count}\n"
    what = scenario('[[event]]\nat = "10s"\nendpoint = "a0"\nwhat = "die"\n', endpoints=endpoints)
    picture = chart(play(what, cluster(health=checked())), what, "app.py")
    check(picture)
    shown = [text for *_, text in texts(picture)]
    assert "a0" in shown
    assert ("and 30 more endpoints, to which less happened" in shown) == (count == 150)
    assert ("requests to it" in shown) == (count <= 40)


def test_of_more_endpoints_than_fit_those_are_shown_to_which_something_happened() -> None:
    what = scenario('[[event]]\nat = "10s"\nendpoint = "a149"\nwhat = "die"\n', endpoints=CONSTANT + "count = 150\n")
    shown = [text for *_, text in texts(chart(play(what, cluster(health=checked())), what, "app.py"))]
    names = [text for text in shown if re.fullmatch(r"a\d+", text)]
    assert names[0] == "a0"
    assert int(names[-1][1:]) < 149  # every second one is labelled, and it is the last
    picture = chart(play(what, cluster(health=checked())), what, "app.py")
    assert "a149: unhealthy" in picture


def test_a_long_name_is_cut_at_its_beginning() -> None:
    row = Row("unix:/run/a/long/way/to/origin.sock", 1, "healthy")
    tally = Tally(60.0, rows={row.name: row})
    tally.close()
    shown = [text for *_, text in texts(chart(tally, scenario(), "app.py"))]
    assert "\u2026ay/to/origin.sock" in shown


def test_without_events_there_is_no_panel_of_them() -> None:
    assert "what happens" not in chart(play(scenario()), scenario(), "app.py")
