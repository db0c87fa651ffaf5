"""The parts of a message, the answers that filters make with `respond`, and the records and settings beside them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from coulee.core.config import Config, Forwarding, Limits, Retry, Timeouts
from coulee.core.headers import Headers
from coulee.core.parts import Data, Interim, Request, Response, Trailers, respond
from coulee.core.report import Access, Attempt, Counters, Event

# ------------------------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?c=d", "/a/b", "c=d"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("?b", "", "b"),
        ("*", "*", ""),
        ("http://h/a?b", "http://h/a", "b"),
        ("/a%3Fb?c", "/a%3Fb", "c"),
    ],
)
def test_a_target_is_a_path_and_a_query(target: str, path: str, query: str) -> None:
    request = Request("GET", target)
    assert (request.path, request.query) == (path, query)


def test_a_bare_request_has_no_body_and_says_so() -> None:
    request = Request("GET", "/")
    assert (request.length, request.data, request.ended) == (0, b"", True)
    assert (request.version, request.scheme, request.authority) == ((1, 1), "http", "")
    assert request.headers == Headers()


def test_a_bare_answer_has_no_body_and_says_so() -> None:
    response = Response(204)
    assert (response.length, response.data, response.ended) == (0, b"", True)
    assert (response.version, response.reason) == ((1, 1), "")
    assert Interim(103).headers == Headers()


def test_two_messages_do_not_share_their_fields() -> None:
    one, two = Request("GET", "/"), Request("GET", "/")
    one.headers.add("X-A", "1")
    assert "X-A" not in two.headers


def test_a_piece_of_a_body_is_not_its_last_unless_it_says_so() -> None:
    assert Data(b"a").ended is False
    assert Trailers(Headers({"X-Sum": "1"})).headers["x-sum"] == "1"


# ------------------------------------------------------------------------------------------------------- respond


def test_an_answer_of_bytes_has_no_type_unless_one_is_given() -> None:
    answer = respond(200, b"\x00\x01")
    assert (answer.status, answer.data, answer.length, answer.ended) == (200, b"\x00\x01", 2, True)
    assert list(answer.headers) == []
    assert list(respond(200, b"a", content_type="image/png").headers) == [("Content-Type", "image/png")]


def test_an_answer_of_text_is_utf_8() -> None:
    answer = respond(200, "caf\xe9")
    assert (answer.data, answer.length) == (b"caf\xc3\xa9", 5)
    assert list(answer.headers) == [("Content-Type", "text/plain; charset=utf-8")]


def test_an_answer_of_text_may_be_of_another_type() -> None:
    answer = respond(200, "<p>", content_type="text/html")
    assert list(answer.headers) == [("Content-Type", "text/html")]


def test_an_answer_of_json() -> None:
    answer = respond(401, json={"error": "missing key"})
    assert (answer.status, answer.data, answer.length) == (401, b'{"error": "missing key"}', 24)
    assert list(answer.headers) == [("Content-Type", "application/json")]


@pytest.mark.parametrize(("value", "body"), [([], b"[]"), (0, b"0"), (False, b"false"), ("", b'""')])
def test_json_that_counts_as_false_is_sent_all_the_same(value: object, body: bytes) -> None:
    assert respond(200, json=value).data == body


def test_json_may_be_of_another_type() -> None:
    answer = respond(400, json={}, content_type="application/problem+json")
    assert list(answer.headers) == [("Content-Type", "application/problem+json")]


def test_a_type_among_the_fields_goes_before_the_one_that_was_guessed() -> None:
    answer = respond(200, "<p>", headers={"content-type": "text/html", "X-A": "1"})
    assert list(answer.headers) == [("content-type", "text/html"), ("X-A", "1")]


def test_the_fields_of_an_answer_are_its_own() -> None:
    mine = Headers({"X-A": "1"})
    answer = respond(200, headers=mine)
    answer.headers.set("X-A", "2")
    assert mine["X-A"] == "1"


def test_an_answer_without_a_body() -> None:
    answer = respond(204)
    assert (answer.data, answer.length, list(answer.headers)) == (b"", 0, [])


# ------------------------------------------------------------------------------------------ settings and records


def test_a_configuration_can_be_shared_because_it_cannot_be_changed() -> None:
    config = Config()
    assert (config.limits, config.timeouts, config.retry) == (Limits(), Timeouts(), Retry())
    for part, name in ((config, "server_name"), (config.limits, "head_bytes_max"), (config.timeouts, "linger_s")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)


def test_one_limit_is_changed_without_touching_the_others() -> None:
    limits = replace(Limits(), head_bytes_max=65536)
    assert limits.head_bytes_max == 65536
    assert limits == Limits(head_bytes_max=65536)
    assert Config(limits=limits).timeouts == Timeouts()


def test_every_number_says_its_unit_in_its_name() -> None:
    assert [each.name for each in fields(Timeouts) if not each.name.endswith("_s")] == []
    assert [each.name for each in fields(Limits) if not each.name.endswith(("_max", "_bytes"))] == []


def test_every_limit_is_a_limit_and_every_time_passes() -> None:
    assert [each.name for each in fields(Limits) if not 0 < getattr(Limits(), each.name) < 10**9] == [
        "request_body_bytes_max"
    ], "bodies are passed on, and need none"
    assert [each.name for each in fields(Timeouts) if not 0.0 < getattr(Timeouts(), each.name) <= 3600.0] == []


def test_defaults_that_lean_on_each_other_do() -> None:
    limits, timeouts = Limits(), Timeouts()
    assert limits.buffer_low_bytes < limits.buffer_high_bytes
    assert timeouts.upstream_keep_alive_idle_s < timeouts.keep_alive_idle_s


def test_defaults_are_safe() -> None:
    assert Forwarding().trusted_peers == ()
    assert Retry().non_idempotent is False
    assert Config().underscore_in_names == "drop"
    assert Config().cancel_on_half_close is False


def test_counters_begin_at_nothing_and_each_has_reasons_of_its_own() -> None:
    one, two = Counters(), Counters()
    one.reasons["pool_full"] = 1
    assert two.reasons == {}
    assert [getattr(two, each.name) for each in fields(Counters) if each.name != "reasons"] == [0] * 14


def test_an_event_has_fields_of_its_own() -> None:
    one, two = Event("retry", "text", 1.0), Event("retry", "text", 1.0)
    one.fields["peer"] = "a"
    assert two.fields == {}


def test_an_attempt_that_went_well_says_only_where() -> None:
    attempt = Attempt("a:80", "")
    assert (attempt.peer, attempt.reason, attempt.detail, attempt.reused) == ("a:80", "", "", False)


def test_an_access_record_holds_what_the_log_needs() -> None:
    names = [each.name for each in fields(Access)]
    assert names == [
        "client", "method", "target", "version", "authority", "status", "reason", "detail", "started", "duration_s",
        "first_byte_s", "bytes_in", "bytes_out", "peer", "reused", "attempts", "tags", "security",
        "server_name",
    ]  # fmt: skip
