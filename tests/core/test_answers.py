"""The answers that coulee gives itself: they name the reason three times, and tell nothing that is for the operator."""

from __future__ import annotations

import json

import pytest

from coulee.core.answers import PHRASES, error_answer
from coulee.core.errors import REASONS, ExchangeError
from coulee.core.headers import Headers
from coulee.core.parts import Request


def asking(**fields: str) -> Request:
    return Request("GET", "/", Headers(fields))


def test_a_program_is_answered_in_json() -> None:
    answer = error_answer(ExchangeError("upstream_timeout"), asking(), "coulee")
    assert (answer.status, answer.reason, answer.version, answer.ended) == (504, "Gateway Timeout", (1, 1), True)
    assert list(answer.headers) == [
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("Proxy-Status", 'coulee; error=http_response_timeout; details="upstream_timeout"'),
    ]
    assert answer.data == (
        b'{"error": "upstream_timeout", "status": 504, "message": "the endpoint did not answer in time"}\n'
    )
    assert answer.length == 95


def test_a_browser_is_answered_with_a_page() -> None:
    answer = error_answer(ExchangeError("upstream_refused"), asking(Accept="text/html,*/*;q=0.8"), "coulee")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.data.decode()
    assert page.startswith('<!doctype html><html lang="en"><meta charset="utf-8"><title>502 Bad Gateway</title>')
    assert "<h1>502 Bad Gateway</h1><p>Nothing listens at the endpoint's address.</p>" in page
    assert "<code>upstream_refused</code>" in page
    assert "{" in page, "the style's braces came through"
    assert "{{" not in page
    assert answer.length == len(page)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/plain", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html", "application/json"),
        ("application/problem+json, text/html", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        ("TEXT/HTML", "text/html; charset=utf-8"),
        ("text/html, application/json", "text/html; charset=utf-8"),
    ],
)
def test_who_names_html_before_any_json_gets_a_page(accept: str, kind: str) -> None:
    answer = error_answer(ExchangeError("pool_full"), asking(Accept=accept), "coulee")
    assert answer.headers["content-type"] == kind


def test_a_503_says_when_to_come_again() -> None:
    assert error_answer(ExchangeError("pool_full"), asking(), "coulee").headers["retry-after"] == "1"
    assert "retry-after" not in error_answer(ExchangeError("upstream_timeout"), asking(), "coulee").headers


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "0"), (0.001, "1"), (1.0, "1"), (1.01, "2"), (59.9, "60"), (60.0, "60")]
)
def test_a_503_says_when_to_come_again_in_whole_seconds_and_never_too_early(seconds: float, said: str) -> None:
    error = ExchangeError("circuit_open", retry_after_s=seconds)
    assert error_answer(error, asking(), "coulee").headers["retry-after"] == said
    assert "retry-after" not in error_answer(ExchangeError("upstream_reset", retry_after_s=9), asking(), "c").headers


def test_a_405_says_what_is_allowed() -> None:
    answer = error_answer(ExchangeError("method_not_allowed"), asking(), "coulee")
    assert answer.headers["allow"] == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert "allow" not in error_answer(ExchangeError("bad_request"), asking(), "coulee").headers


def test_the_name_of_the_server_is_ours_to_choose() -> None:
    answer = error_answer(ExchangeError("bad_request"), asking(), "edge-7")
    assert answer.headers["proxy-status"] == 'edge-7; error=http_request_error; details="bad_request"'


def test_the_closer_status_of_an_error_is_used() -> None:
    answer = error_answer(ExchangeError("header_too_large", status=414), asking(), "coulee")
    assert (answer.status, answer.reason) == (414, "URI Too Long")
    assert json.loads(answer.data)["status"] == 414


def test_a_status_without_a_phrase_is_an_error() -> None:
    answer = error_answer(ExchangeError("upstream_invalid", status=599), asking(), "coulee")
    assert (answer.status, answer.reason) == (599, "Error")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_nothing_that_is_for_the_operator_reaches_the_client(accept: str) -> None:
    detail = "10.1.2.3:9000 <b>KeyError</b>"
    answer = error_answer(ExchangeError("filter_error", detail), asking(Accept=accept), "coulee")
    assert b"10.1.2.3" not in answer.data + answer.headers.block
    assert b"KeyError" not in answer.data + answer.headers.block


@pytest.mark.parametrize("word", [word for word, reason in REASONS.items() if reason.status])
def test_every_reason_that_is_answered_has_a_phrase_and_both_forms(word: str) -> None:
    assert REASONS[word].status in PHRASES
    as_json = error_answer(ExchangeError(word), asking(), "coulee")
    as_page = error_answer(ExchangeError(word), asking(Accept="text/html"), "coulee")
    assert json.loads(as_json.data)["error"] == word
    assert f"<code>{word}</code>".encode() in as_page.data
    assert as_json.length == len(as_json.data)
    assert as_page.length == len(as_page.data)
