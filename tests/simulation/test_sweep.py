"""The sweep: many seeds, each run twice, with oracles; and a census, so that no fault is only believed to be tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.scenario import run

SEEDS = int(os.environ.get("SEEDS", "1000"))
BLOCKS = 10
FAIR = 4  # one seed in so many is fair: no faults, and everything must come out as planned

EXPECTED_REASONS = (
    "none", "bad_request", "method_not_allowed", "header_timeout", "expectation_failed", "header_too_large",
    "not_implemented", "client_gone", "version_not_supported", "send_timeout", "body_timeout", "upstream_refused",
    "upstream_unreachable", "upstream_connect_timeout", "upstream_reset", "upstream_timeout",
    "upstream_invalid", "pool_full", "filter_error", "too_many_connections", "body_too_large", "idle_timeout",
    "circuit_open", "no_healthy_endpoint", "plain_http", "misdirected", "upstream_tls", "http2_flood", "http2_error",
    "upstream_refused_stream", "deadline_exceeded", "shutting_down", "websocket_error", "websocket_too_large",
    "rate_limited",
)  # fmt: skip
"""What must come up somewhere in a thousand seeds."""

EXPECTED_AT_THE_SEAM = (
    "operation:Hold", "operation:Cancel", "completion:Blocked", "completion:Sent", "completion:Finished", "error:reset",
    "error:truncated", "error:refused", "error:unreachable", "error:timed_out", "error:resources",
)  # fmt: skip
"""... and go over the seam."""

EXPECTED_OF_BALANCING = (
    "attempt:upstream_status", "attempt:superseded", "attempt:pool_full", "state:ejected", "state:circuit_open",
    "state:half_open", "state:unhealthy", "state:slow_start", "state:healthy", "state:draining", "state:maintenance",
    "state:removed", "won:later", "won:earlier", "answered after a status", "hedges",
)  # fmt: skip
"""... and of load balancing."""

EXPECTED_AT_THE_EDGES = (
    "edge:told", "turned away:tls_failed", "turned away:tls_timeout", "turned away:proxy_header_invalid",
    "turned away:proxy_header_untrusted", "turned away:proxy_header_timeout", "operation:Secure", "completion:Secured",
    "error:tls", "edge:a bad certificate", "edge:another protocol", "edge:known by a certificate", "edge:resumed",
    "cut short",
)  # fmt: skip
"""... and of TLS and the PROXY protocol."""

EXPECTED_OF_HTTP2 = (
    "event:http2_error", "event:http2_flood", "event:http2_goaway", "http2:2.0", "http2:takes back", "http2:leaves",
    "http2:asks oddly", "http2:floods", "http2:breaks", "http2:refuse", "http2:http1", "http2:goaway",
    "http2:goaway_all", "http2:bad_head", "http2:early_end", "http2:refused by us", "http2:cut by us",
    "http2:fallen back", "http2:shared", "http2:calls", "http2:websockets",
)  # fmt: skip
"""... and of HTTP/2."""

EXPECTED_OF_WEBSOCKET = (
    *(f"websocket:{kind}" for kind in ("agrees", "refuses", "another protocol", "unasked")),
    *(f"websocket:{filtered}{end}, by {who}" for filtered in ("", "filtered, ")
      for end in ("close frame", "half-close") for who in ("client", "origin")),
    "websocket:silence", "websocket:filtered, silence",
    *(f"websocket:filtered, {end}, by {who}" for end in ("asks to close", "breaks a rule")
      for who in ("client", "origin")),
    *(f"websocket:{what} {who}" for what in ("early by", "reset heard by", "pong heard by", "1001 heard by",
      "1002 heard by", "1009 heard by", "4321 heard by", "deflated by", "deflated for")
      for who in ("client", "origin")),
    "websocket:client killed", "websocket:origin killed", "websocket:by bytes", "websocket:fragments",
    "websocket:ping between fragments", "websocket:slow", "websocket:filtered, idle_timeout", "websocket:idle_timeout",
    "websocket:client_gone", "websocket:filtered, client_gone", "websocket:upstream_reset",
    "websocket:filtered, upstream_reset", "websocket:filtered, shutting_down",
)  # fmt: skip
"""... and of WebSocket."""

_census: Counter[str] = Counter()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_seed_ends_well_and_twice_the_same(block: int) -> None:
    for seed in range(block, SEEDS, BLOCKS):
        hostile = seed % FAIR != 0
        first = run(seed, hostile=hostile)
        second = run(seed, hostile=hostile)
        assert first.trace_hash == second.trace_hash, f"seed {seed} gives two traces"
        assert first.requests == second.requests
        _census.update(first.census)


def test_every_fault_and_every_reason_occurred() -> None:
    if SEEDS < 1000 or not _census:
        pytest.skip("the census is of a thousand seeds, run in this process")
    never = [name for name, count in _census.items() if name.startswith("fault:") and not count]
    assert not never, f"faults that never struck: {never}"
    kinds = [name for name in EXPECTED_AT_THE_SEAM if not _census[name]]
    assert not kinds, f"what never went over the seam: {kinds}"
    absent = [reason for reason in EXPECTED_REASONS if not _census[f"reason:{reason}"]]
    assert not absent, f"reasons that never came up: {absent}"
    never = [name for name in EXPECTED_OF_BALANCING if not _census[name]]
    assert not never, f"what never came up of load balancing: {never}"
    never = [name for name in EXPECTED_AT_THE_EDGES if not _census[name]]
    assert not never, f"what never came up at the edges: {never}"
    never = [name for name in EXPECTED_OF_HTTP2 if not _census[name]]
    assert not never, f"what never came up of HTTP/2: {never}"
    never = [name for name in EXPECTED_OF_WEBSOCKET if not _census[name]]
    assert not never, f"what never came up of WebSocket: {never}"
    assert min(_census["retries"], _census["reuses"], _census["attempts:3"], _census["upgraded"]) > 0


def test_traces_do_not_depend_on_the_hash_seed() -> None:
    """Sets and dicts of strings iterate differently from process to process; nothing may come of it."""
    script = (
        "import json; from tests.simulation.scenario import run; "
        "print(json.dumps([run(seed, hostile=seed % 4 != 0).trace_hash for seed in range(40)]))"
    )
    root = Path(__file__).parents[2]
    traces: list[list[str]] = []
    for hash_seed in ("0", "1", "4242"):
        paths = os.pathsep.join([str(root), *sys.path])  # what is tested here is tested there
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, cwd=root
        )
        assert done.returncode == 0, done.stderr
        traces.append(json.loads(done.stdout))
    assert traces[0] == traces[1] == traces[2]
    assert len(set(traces[0])) == 40, "and every seed has a trace of its own"
