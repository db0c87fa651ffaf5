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
from coulee.lb.groups import Priority
from coulee.lb.health import CheckFailed, HealthCheck, Probe
from coulee.lb.ketama import Ketama
from coulee.lb.keys import Key, by_address, by_cookie, by_header, by_path, by_target
from coulee.lb.loads import LeastRequests, PeakEwma, TwoChoices
from coulee.lb.locality import Locality
from coulee.lb.maglev import Maglev
from coulee.lb.outliers import Outliers
from coulee.lb.policy import Policy, View
from coulee.lb.probes import Grpc, Http, Tcp, TlsHello
from coulee.lb.rendezvous import Rendezvous
from coulee.lb.slow_start import SlowStart
from coulee.lb.sticky import Sticky
from coulee.lb.subsets import ByLabels, DeterministicSubset, by_header_label
from coulee.lb.turns import RandomChoice, RoundRobin

__all__ = [
    "Breaker",
    "ByLabels",
    "CheckFailed",
    "Cluster",
    "DeterministicSubset",
    "Endpoint",
    "Grpc",
    "HealthCheck",
    "Http",
    "Ketama",
    "Key",
    "LeastRequests",
    "Locality",
    "Maglev",
    "Outliers",
    "PeakEwma",
    "Policy",
    "Priority",
    "Probe",
    "RandomChoice",
    "Rendezvous",
    "RetryBudget",
    "RoundRobin",
    "SlowStart",
    "Status",
    "Sticky",
    "Tcp",
    "TlsHello",
    "TwoChoices",
    "View",
    "by_address",
    "by_cookie",
    "by_header",
    "by_header_label",
    "by_path",
    "by_target",
    "peer_from_url",
]
