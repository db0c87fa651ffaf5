"""The closed list of reasons: each has all that docs, answers and metrics need, and every failure maps to one."""

from __future__ import annotations

import re

import pytest

from coulee.core.errors import REASONS, ExchangeError, Reason, connect_error
from coulee.core.seam import ErrorKind

# RFC 9209 section 2.3, all of them
PROXY_ERRORS = {
    "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited",
    "destination_ip_unroutable", "connection_refused", "connection_terminated", "connection_timeout",
    "connection_read_timeout", "connection_write_timeout", "connection_limit_reached", "tls_protocol_error",
    "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
    "http_response_incomplete", "http_response_header_section_size", "http_response_header_size",
    "http_response_body_size", "http_response_trailer_section_size", "http_response_trailer_size",
    "http_response_transfer_coding", "http_response_content_coding", "http_response_timeout", "http_upgrade_failed",
    "http_protocol_error", "proxy_internal_response", "proxy_internal_error", "proxy_configuration_error",
    "proxy_loop_detected",
}  # fmt: skip


@pytest.mark.parametrize("word", list(REASONS))
def test_each_reason_has_all_that_it_is_used_for(word: str) -> None:
    reason = REASONS[word]
    assert reason.word == word
    assert re.fullmatch(r"[a-z]+2?(_[a-z]+)*", word)
    assert reason.proxy_error in PROXY_ERRORS
    assert reason.meaning
    assert not reason.meaning.endswith(".")
    assert reason.advice.endswith(".")


def test_the_status_of_a_reason_says_whose_doing_it_was() -> None:
    statuses: dict[str, set[int]] = {"downstream": set(), "upstream": set(), "coulee": set()}
    for reason in REASONS.values():
        statuses[reason.side].add(reason.status)
    assert statuses == {
        "downstream": {0, 400, 403, 405, 408, 413, 414, 417, 421, 429, 431, 501, 504, 505},
        "upstream": {502, 503, 504},
        "coulee": {0, 500, 502, 503},
    }


def test_the_list_is_closed() -> None:
    assert sorted(REASONS) == [
        "bad_request", "body_timeout", "body_too_large", "circuit_open", "client_gone", "deadline_exceeded",
        "expectation_failed", "filter_error", "forward_denied", "header_timeout", "header_too_large", "http2_error",
        "http2_flood", "idle_timeout", "internal_error", "method_not_allowed",
        "misdirected", "no_healthy_endpoint", "not_implemented", "plain_http", "pool_full", "proxy_header_invalid",
        "proxy_header_timeout", "proxy_header_untrusted", "rate_limited", "send_timeout", "shutting_down", "superseded",
        "target_too_long", "tls_failed", "tls_timeout", "too_many_connections", "too_many_handshakes",
        "upgrade_unsupported",
        "upstream_connect_timeout", "upstream_invalid", "upstream_proxy_refused", "upstream_refused",
        "upstream_refused_stream", "upstream_reset", "upstream_status", "upstream_timeout", "upstream_tls",
        "upstream_unreachable", "version_not_supported", "websocket_error", "websocket_too_large",
    ]  # fmt: skip


def test_a_reason_cannot_be_changed() -> None:
    reason: Reason = REASONS["pool_full"]
    with pytest.raises(AttributeError):
        reason.status = 200  # type: ignore[misc]


def test_an_error_takes_status_and_side_from_the_list() -> None:
    error = ExchangeError("upstream_timeout", "10.0.0.1:80 said nothing")
    assert (error.reason, error.status, error.side) == ("upstream_timeout", 504, "upstream")
    assert error.detail == "10.0.0.1:80 said nothing"
    assert str(error) == "upstream_timeout: 10.0.0.1:80 said nothing"


def test_an_error_without_a_detail_says_what_its_word_means() -> None:
    error = ExchangeError("pool_full")
    assert error.detail == ""
    assert str(error) == "pool_full: every connection to the endpoint is busy and the queue is full or took too long"


def test_an_error_may_have_a_closer_status() -> None:
    assert ExchangeError("header_too_large", "the target is too long", 414).status == 414
    assert ExchangeError("header_too_large", "", 0).status == 0


def test_a_word_that_is_not_on_the_list_is_our_own_mistake() -> None:
    with pytest.raises(KeyError, match=r"^'upstream_sulks'$"):
        ExchangeError("upstream_sulks")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("refused", "upstream_refused"),
        ("unreachable", "upstream_unreachable"),
        ("timed_out", "upstream_connect_timeout"),
        ("tls", "upstream_tls"),
        ("resources", "upstream_unreachable"),
        ("reset", "upstream_reset"),
        ("aborted", "upstream_reset"),
        ("other", "upstream_reset"),
        (None, "upstream_reset"),
    ],
)
def test_each_way_for_a_connect_to_fail_has_its_reason(kind: ErrorKind | None, reason: str) -> None:
    error = connect_error(kind, "the system's words")
    assert (error.reason, error.detail) == (reason, "the system's words")
