"""Load balancing: clusters of endpoints, the policies that choose among them, and what is known of their health.

To define a cluster: `Cluster`, `Endpoint`, a policy (`RoundRobin` to `Sticky`), `HealthCheck` with a probe, `Outliers`,
`Breaker`, `RetryBudget`, `SlowStart`. Where endpoints come from at run time: `coulee.discovery`.
"""

from __future__ import annotations

from coulee.lb.breaker import Breaker
from coulee.lb.budget import RetryBudget
from coulee.lb.cluster import Cluster
from coulee.lb.condition import Status
from coulee.lb.endpoint import Endpoint, peer_from_url
from coulee.lb.health import CheckFailed, HealthCheck, Probe
from coulee.lb.ketama import Ketama
from coulee.lb.keys import Key, by_address, by_cookie, by_header, by_path, by_target
from coulee.lb.loads import LeastRequests, PeakEwma, TwoChoices
from coulee.lb.outliers import Outliers
from coulee.lb.policy import Policy, View
from coulee.lb.probes import Grpc, Http, Tcp, TlsHello
from coulee.lb.slow_start import SlowStart
from coulee.lb.turns import RandomChoice, RoundRobin

__all__ = [
    "Breaker",
    "CheckFailed",
    "Cluster",
    "Endpoint",
    "Grpc",
    "HealthCheck",
    "Http",
    "Ketama",
    "Key",
    "LeastRequests",
    "Outliers",
    "PeakEwma",
    "Policy",
    "Probe",
    "RandomChoice",
    "RetryBudget",
    "RoundRobin",
    "SlowStart",
    "Status",
    "Tcp",
    "TlsHello",
    "TwoChoices",
    "View",
    "by_address",
    "by_cookie",
    "by_header",
    "by_path",
    "by_target",
    "peer_from_url",
]
