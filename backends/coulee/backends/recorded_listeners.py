"""Listeners as a recording keeps them: what their machine has to know of them in a replay, as plain values.

A replay does no TLS, so certificates are kept without their keys and chains: by whom they are for, and until when. A
function that chooses among them is a program's own, and is not kept: a `Proxy(listen=...)` has it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, cast

from coulee.backends.recorded_certificates import FACTS, certificate_of
from coulee.core.seam import (
    Certificate,
    ClientCertificates,
    KeepAlive,
    ListenAt,
    Listener,
    ListenerTls,
    ListenOptions,
    ProxyProtocol,
)


def to_plain(where: ListenAt) -> Any:
    """An address as it is, and a listener as a dictionary for JSON."""
    if not isinstance(where, Listener):
        return where
    kept: dict[str, Any] = {"address": where.address, "options": asdict(where.options)}
    if where.proxy_protocol is not None:
        kept["trusted"] = list(where.proxy_protocol.trusted)
    if where.tls is not None:
        tls = where.tls
        asked = tls.client_certificates
        kept["tls"] = {
            "sources": [_source(each.name, each.interval_s, each.certificates) for each in tls.sources],
            "client_certificates": None
            if asked is None
            else [asked.ca.decode("latin-1"), asked.required, asked.depth_max],
            "alpn": list(tls.alpn),
            "minimum_version": tls.minimum_version,
            "covered_only": tls.covered_only,
        }
    return kept


def _source(name: str, interval_s: float, certificates: Sequence[Certificate]) -> dict[str, Any]:
    kept = [{each: getattr(certificate, each) for each in FACTS} for certificate in certificates]
    return {"name": name, "interval_s": None if interval_s == inf else interval_s, "certificates": kept}


def from_plain(kept: Any) -> ListenAt:
    """The reverse. Raises ValueError, KeyError or TypeError for what is none."""
    if isinstance(kept, str):
        return kept
    if not isinstance(kept, dict):
        return kept[0], kept[1]
    told = cast("dict[str, Any]", kept)
    address, options, tls = told["address"], dict(told["options"]), told.get("tls")
    if options["keep_alive"] is not None:
        options["keep_alive"] = KeepAlive(**options["keep_alive"])
    return Listener(
        address if isinstance(address, str) else (address[0], address[1]),
        None if tls is None else _tls(tls),
        ProxyProtocol(tuple(told["trusted"])) if "trusted" in told else None,
        ListenOptions(**options),
    )


def _tls(told: dict[str, Any]) -> ListenerTls:
    asked = told["client_certificates"]
    return ListenerTls(
        [Kept.of(each) for each in told["sources"]],
        client_certificates=None if asked is None else ClientCertificates(asked[0].encode("latin-1"), *asked[1:]),
        alpn=tuple(told["alpn"]),
        minimum_version=told["minimum_version"],
        covered_only=told["covered_only"],
    )


@dataclass(slots=True, eq=False)
class Kept:
    """A source as it was. What it found later is in the recording."""

    name: str
    interval_s: float
    certificates: list[Certificate]
    stamp: object = None

    @classmethod
    def of(cls, told: dict[str, Any]) -> Kept:
        """From a dictionary."""
        certificates = [certificate_of(each) for each in told["certificates"]]
        return cls(told["name"], inf if told["interval_s"] is None else told["interval_s"], certificates)

    def look(self, stamp: object) -> None:
        """A replay asks nobody."""
