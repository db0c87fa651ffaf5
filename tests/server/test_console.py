"""What the program prints: no request can forge a line, JSON lines parse, and whoever stops reading hurts nobody."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from coulee.core.report import Access, Attempt, Event
from coulee.core.seam import PeerCertificate, Security
from coulee.core.tunnel_exchange import TunnelAccess
from coulee.server.console import Console, clock, escaped, json_line, path_of, short_line, tunnel_line


@pytest.fixture(autouse=True)
def in_utc() -> Iterator[None]:
    """Lines show local time: let that be UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def record(**changes: Any) -> Access:
    """An ordinary record, but for what is changed."""
    fields: dict[str, Any] = {
        "client": ("10.0.0.9", 50000), "method": "GET", "target": "/a", "version": (1, 1), "authority": "a.example",
        "status": 200, "reason": "", "detail": "", "started": 1767225602.5, "duration_s": 0.0114, "first_byte_s": 0.01,
        "bytes_in": 0, "bytes_out": 0, "peer": "fast", "reused": False, "attempts": [Attempt("fast", "")], "tags": {},
    }  # fmt: skip
    return Access(**{**fields, **changes})


def printed(thing: object, form: str = "short") -> tuple[str, str]:
    """What goes to the two outputs for one record."""
    out, errors = io.StringIO(), io.StringIO()
    Console(form, out, errors)(thing)
    return out.getvalue(), errors.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --------------------------------------------------------------------------------------------------- short lines


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "00:00:02 GET /a 200 11ms fast"),
        ({"bytes_out": 1234}, "00:00:02 GET /a 200 11ms 1234B fast"),
        ({"attempts": []}, "00:00:02 GET /a 200 11ms answered here"),
        (
            {"attempts": [Attempt("flaky", "upstream_reset", "gone"), Attempt("fast", "")]},
            "00:00:02 GET /a 200 11ms flaky -> fast (retry: upstream_reset)",
        ),
        (
            {"status": 502, "reason": "upstream_refused", "attempts": [Attempt("fast", "upstream_refused")]},
            "00:00:02 GET /a 502 11ms fast [upstream_refused]",
        ),
        (
            {"status": 400, "reason": "bad_request", "detail": "no Host", "attempts": []},
            "00:00:02 GET /a 400 11ms  [bad_request: no Host]",
        ),
        ({"status": 0, "reason": "client_gone", "attempts": []}, "00:00:02 GET /a --- 11ms  [client_gone]"),
        ({"status": 0, "attempts": []}, "00:00:02 GET /a --- 11ms"),
    ],
)
def test_a_request_is_one_short_line(changes: dict[str, Any], line: str) -> None:
    assert short_line(record(**changes)) == line
    assert printed(record(**changes)) == (f"{line}\n", "")


def test_a_path_names_every_attempt_and_why_it_was_not_the_last() -> None:
    attempts = [Attempt("a", "upstream_refused"), Attempt("b", "upstream_reset"), Attempt("c", "upstream_timeout")]
    assert path_of(record(attempts=attempts)) == "a -> b -> c (retry: upstream_refused, upstream_reset)"


@pytest.mark.parametrize(
    ("status", "colour"), [(200, "32"), (302, "32"), (404, "33"), (499, "33"), (500, "31"), (0, "31")]
)
def test_a_terminal_gets_colours_by_status(status: int, colour: str) -> None:
    out = Terminal()
    Console("short", out, io.StringIO())(record(status=status))
    shown = status or "---"
    assert out.getvalue() == f"00:00:02 GET /a \x1b[{colour}m{shown}\x1b[0m 11ms \x1b[2mfast\x1b[0m\n"


def test_only_short_lines_on_a_terminal_are_coloured() -> None:
    out = Terminal()
    Console("json", out, io.StringIO())(record())
    assert "\x1b" not in out.getvalue()


# ----------------------------------------------------------------------------------------------------- forgeries

FORGERY = "/x\r\n00:00:03 GET /forged 200 1ms fast"
NASTY = [
    FORGERY,
    "\n",
    "\r",
    "\x85",
    "\u2028",
    "\u2029",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1b[2J",
    "\x9b2J",
    "\x08",
    "\0",
    "\u202e",
]
WHERE = ["method", "target", "authority", "detail", "peer", "reason"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("colours", [False, True])
def test_no_request_can_forge_a_short_line_or_move_the_cursor(where: str, nasty: str, colours: bool) -> None:
    attempts = [Attempt(f"a{nasty}", f"b{nasty}", nasty), Attempt("c", "")]
    out = Terminal() if colours else io.StringIO()
    Console("short", out, io.StringIO())(
        record(**{"status": 500, "reason": "bad_request", where: nasty, "attempts": attempts})
    )
    line = out.getvalue()
    ours = ("\x1b[31m", "\x1b[2m", "\x1b[0m") if colours else ()
    for code in ours:
        line = line.replace(code, "")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("nasty", NASTY)
def test_no_request_can_forge_a_json_line(where: str, nasty: str) -> None:
    tags: dict[str, object] = {f"k{nasty}": nasty}
    out, _ = printed(record(**{where: nasty, "tags": tags}), "json")
    assert out[:-1].isprintable()
    assert json.loads(out)[where] == nasty
    assert json.loads(out)["tags"] == tags


def test_what_is_escaped_can_still_be_read() -> None:
    assert escaped("caf\xe9 \u20ac") == "caf\xe9 \u20ac"
    assert escaped("a\r\nb\x1b\0\x85\u2028\udc80") == "a\\r\\nb\\x1b\\x00\\x85\\u2028\\udc80"


@pytest.mark.parametrize("name", ["filter_error", "internal_error"])
def test_no_request_can_forge_a_line_through_the_text_of_an_exception(name: str) -> None:
    # `raise ValueError(unquote(query))` puts a request's bytes into the last lines of a traceback.
    traceback = (
        'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: \x1b[2J/x\n00:00:03 GET /forged 200'
    )
    out, errors = printed(Event(name, f"text {FORGERY}", 0.0, {"traceback": traceback}))
    assert out == ""
    lines = errors.splitlines()
    assert lines[0] == f"! {name}: text /x\\r\\n00:00:03 GET /forged 200 1ms fast"
    assert any("ValueError" in line for line in lines)
    assert [line for line in lines if line.startswith("00:00:03")] == []
    assert "\x1b" not in errors


def test_no_request_can_forge_a_line_through_a_retry() -> None:
    out, _ = printed(Event("retry", f"GET {FORGERY}: a failed", 1767225602.5))
    assert out == "00:00:02 ! GET /x\\r\\n00:00:03 GET /forged 200 1ms fast: a failed\n"


# ---------------------------------------------------------------------------------------------------- JSON lines


def test_a_record_as_json_has_all_that_there_is() -> None:
    attempts = [Attempt("flaky", "upstream_reset", "gone", True), Attempt("fast", "")]
    out, errors = printed(record(attempts=attempts, tags={"user": "caf\xe9"}), "json")
    assert errors == ""
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "client": ["10.0.0.9", 50000], "method": "GET", "target": "/a", "version": "1.1", "authority": "a.example",
        "status": 200, "reason": "", "detail": "", "started": 1767225602.5, "duration_s": 0.0114, "first_byte_s": 0.01,
        "bytes_in": 0, "bytes_out": 0, "peer": "fast", "reused": False,
        "attempts": [
            {"peer": "flaky", "reason": "upstream_reset", "detail": "gone", "reused": True},
            {"peer": "fast", "reason": "", "detail": "", "reused": False},
        ],
        "tags": {"user": "caf\xe9"}, "security": None, "server_name": "",
    }  # fmt: skip


def test_a_clients_tls_is_an_object_of_its_own() -> None:
    shown = PeerCertificate("CN=alice", "CN=ca", ("DNS:alice.test",), "00ff", "1", 4e9)
    told = json.loads(json_line(record(security=Security("TLSv1.3", "AES", "http/1.1", False, shown))))["security"]
    assert told == {
        "version": "TLSv1.3", "cipher": "AES", "alpn": "http/1.1", "resumed": False,
        "certificate": {"subject": "CN=alice", "issuer": "CN=ca", "names": ["DNS:alice.test"], "fingerprint": "00ff",
                        "serial": "1", "not_after": 4e9},
    }  # fmt: skip


def test_a_client_on_a_unix_socket_is_its_path() -> None:
    assert json.loads(json_line(record(client="")))["client"] == ""


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert json.loads(json_line(record(tags={"at": 1 + 2j})))["tags"] == {"at": "(1+2j)"}


def test_a_tag_that_cannot_be_copied_is_written_as_text_too() -> None:
    tag = json.loads(json_line(record(tags={"lock": threading.Lock()})))["tags"]["lock"]
    assert tag.startswith("<unlocked _thread.lock object")


@pytest.mark.parametrize("length", [8192, 32 * 1024])
@pytest.mark.parametrize("where", ["target", "detail", "authority"])
def test_a_json_line_parses_however_long_the_request_was(length: int, where: str) -> None:
    out, _ = printed(record(**{where: "/" + "a" * length}), "json")
    assert len(out) <= 8193
    parsed = json.loads(out)
    assert parsed[where].startswith("/aaaa")
    assert parsed["status"] == 200


def test_a_short_line_is_capped_and_tells_how_it_ended_all_the_same() -> None:
    out, _ = printed(record(target="/" + "a" * 32 * 1024, status=403))
    assert len(out) <= 8193
    assert out.startswith("00:00:02 GET /aaaa")
    assert out.endswith(" 403 11ms fast\n")


# -------------------------------------------------------------------------------------------------------- events


def test_an_error_of_a_filter_goes_to_stderr_with_its_traceback_in_every_form() -> None:
    event = Event("filter_error", "KeyError: 'user'", 0.0, {"traceback": "Traceback ...\nKeyError: 'user'\n"})
    for form in ("short", "json", "none"):
        out, errors = printed(event, form)
        assert out == ""
        lines = [line.strip() for line in errors.splitlines()]
        assert lines[0] == "! filter_error: KeyError: 'user'"
        assert "Traceback ..." in lines[1]
        assert "KeyError: 'user'" in lines[2]
        assert len(lines) == 3


def test_a_retry_is_told_in_the_short_form_only() -> None:
    event = Event("retry", "GET /a: flaky failed (upstream_reset), trying again", 1767225602.5)
    assert printed(event) == ("00:00:02 ! GET /a: flaky failed (upstream_reset), trying again\n", "")
    assert printed(event, "json") == ("", "")
    assert printed(event, "none") == ("", "")


def test_a_hedge_is_told_in_the_short_form_only() -> None:
    event = Event("hedge", "GET /a: slow takes its time, asking fast too", 1767225602.5)
    assert printed(event) == ("00:00:02 ! GET /a: slow takes its time, asking fast too\n", "")
    assert printed(event, "json") == ("", "")
    assert printed(event, "none") == ("", "")


@pytest.mark.parametrize("form", ["short", "json", "none"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("endpoint", "10.0.0.1:80 is ejected: 5 failures in a row (it was healthy for 3 s)"),
        ("discovery", "discovery failed, 2 endpoints stay: no JSON"),
    ],
)
def test_what_becomes_of_endpoints_goes_to_stderr_in_every_form(name: str, text: str, form: str) -> None:
    assert printed(Event(name, text, 1767225602.5, {"endpoint": "x"}), form) == ("", f"00:00:02 ! {text}\n")


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("name", ["endpoint", "discovery", "hedge"])
def test_neither_an_origin_nor_a_source_of_endpoints_can_forge_a_line(name: str, nasty: str) -> None:
    out, errors = printed(Event(name, f"a is unhealthy: not HTTP: {nasty}", 1767225602.5))
    line = out + errors
    assert line.startswith("00:00:02 ! a is unhealthy: not HTTP: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_a_drain_is_told_in_the_short_form_only_and_where_it_takes_time() -> None:
    event = Event("draining", "draining for at most 30 s", 1767225602.5, {"grace_s": 30.0})
    assert printed(Event("draining", "draining for at most 0 s", 0.0, {"grace_s": 0.0})) == ("", "")
    assert printed(event) == ("00:00:02 draining for at most 30 s\n", "")
    assert printed(event, "json") == ("", "")


def test_what_listens_is_told_to_whoever_wants_to_know() -> None:
    told: list[Event] = []
    console = Console("none", io.StringIO(), io.StringIO())
    event = Event("listening", "listening on 127.0.0.1:8000", 0.0)
    console(event)
    console.on_listening = told.append
    console(event)
    assert told == [event]


def test_a_listener_that_failed_is_kept_for_whoever_asks() -> None:
    console = Console("short", io.StringIO(), io.StringIO())
    assert console.listen_failed is None
    event = Event("listen_failed", "address in use", 0.0)
    console(event)
    assert console.listen_failed is event


@pytest.mark.parametrize("thing", [Event("something_new", "text", 0.0), "a word", None])
def test_what_is_not_known_is_not_printed(thing: object) -> None:
    assert printed(thing) == ("", "")


def test_the_form_none_prints_no_requests() -> None:
    assert printed(record(), "none") == ("", "")


# ------------------------------------------------------------------------------------------------------- outputs


def test_whoever_stops_reading_our_lines_does_not_stop_the_proxy() -> None:
    class Gone(io.StringIO):
        tries = 0

        def write(self, text: str) -> int:
            self.tries += 1
            raise BrokenPipeError

    out = Gone()
    console = Console("short", out, io.StringIO())
    console(record())
    console(record())
    assert out.tries == 1
    assert console.form == "none"


def test_letters_that_the_output_cannot_show_do_not_stop_the_proxy() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Console("short", out, io.StringIO())(record(target="/caf\xe9"))
    assert raw.getvalue() == b"00:00:02 GET /caf\\xe9 200 11ms fast\n"


def test_without_outputs_of_its_own_it_prints_to_stdout_and_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("short")
    assert (console.out, console.errors) == (sys.stdout, sys.stderr)
    console(record())
    console(Event("internal_error", "oh", 0.0))
    shown = capsys.readouterr()
    assert shown.out == "00:00:02 GET /a 200 11ms fast\n"
    assert shown.err.startswith("! internal_error: oh\n")


def test_the_clock_shows_local_time() -> None:
    assert clock(1767225602.9) == "00:00:02"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "XYZ-5")
        time.tzset()
        assert clock(1767225602.9) == "05:00:02"


# ------------------------------------------------------------------------------------------------------------ tunnels


def tunnelled(**changes: Any) -> TunnelAccess:
    fields: dict[str, Any] = {
        "client": ("10.0.0.9", 50000), "server_name": "a.example", "alpn": ("h2",), "peer": "one", "reason": "",
        "detail": "", "started": 1e9, "duration_s": 0.0112, "connected_s": 0.001, "bytes_in": 120, "bytes_out": 3400,
        "attempts": [Attempt("one", "")], "tags": {},
    }  # fmt: skip
    return TunnelAccess(**{**fields, **changes})


def test_a_tunnel_is_a_line() -> None:
    assert tunnel_line(tunnelled())[9:] == "TUNNEL a.example 11ms 120B up 3400B down one"
    attempts = [Attempt("one", "upstream_refused"), Attempt("two", "upstream_reset")]
    failed = tunnelled(server_name="", peer="", attempts=attempts, reason="upstream_reset", detail="gone\n", bytes_in=0,
                       bytes_out=0)  # fmt: skip
    assert tunnel_line(failed)[9:] == (
        "TUNNEL - 11ms 0B up 0B down one -> two (retry: upstream_refused) [upstream_reset: gone\\n]"
    )
    assert "\x1b[" in tunnel_line(failed, colours=True)


def test_a_tunnel_as_json_has_all_that_there_is() -> None:
    told = json.loads(json_line(tunnelled(security=Security("TLSv1.3", "AES"))))
    assert (told["server_name"], told["alpn"], told["bytes_in"], told["attempts"][0]["peer"]) == (
        "a.example",
        ["h2"],
        120,
        "one",
    )
    assert told["security"]["version"] == "TLSv1.3"
    assert "version" not in told


def test_a_tunnel_is_printed_as_requests_are() -> None:
    for form, words in (("short", "TUNNEL a.example"), ("json", '"server_name": "a.example"'), ("none", "")):
        out = io.StringIO()
        Console(form, out, io.StringIO())(tunnelled())
        assert words in out.getvalue()
        assert bool(words) is bool(out.getvalue())
