"""What is asked of every peer, and how a figure is made of what was counted.

Rules: a scenario is data; small answers are priced per request, large ones per byte.
"""

from __future__ import annotations

from dataclasses import dataclass

REQUEST_FIELDS = (  # with Host, which the generators add, ten
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,fr;q=0.3",
    "Accept-Encoding: gzip, deflate, br",
    "Cache-Control: no-cache",
    "Referer: http://example.test/a/page/before/this/one",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "Authorization: Bearer 0123456789abcdef0123456789abcdef",
    "X-Request-Id: 6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11",
)
ANSWER_FIELDS = (  # of /small; with Server, Date, Content-Type, Content-Length and Connection, which nginx adds, ten
    ("Cache-Control", "private, max-age=60"),
    ("ETag", "0123456789abcdef"),
    ("Vary", "Accept-Encoding"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Trace-Id", "6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11"),
)
FIELDS = 10


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator counted in one window."""

    requests: int
    bytes: int
    errors: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    size: int
    connections: int
    per_byte: bool = False

    @property
    def path(self) -> str:
        return f"/{self.name}"

    @property
    def unit(self) -> str:
        return "MB/CPU-s (more is better)" if self.per_byte else "CPU us/request"

    def figure(self, load: Load, cpu_ns: int) -> float:
        """MB per CPU second for a scenario priced per byte, else CPU microseconds per request."""
        return load.bytes * 1e3 / cpu_ns if self.per_byte else cpu_ns / 1e3 / load.requests


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("small", size=100, connections=50),
        Scenario("64k", size=64 * 1024, connections=50),
        Scenario("10m", size=10 * 1024 * 1024, connections=4, per_byte=True),
    )
}
