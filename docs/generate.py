"""Writes the pages of the documentation that are tables of the code: errors.md and configuration.md.

    python docs/generate.py             rewrites both
    python docs/generate.py --check     says whether they are what it would write

The tables themselves are in `coulee.core.errors`, `coulee.core.config` and the settings of `coulee.lb`.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import is_dataclass
from inspect import cleandoc
from math import inf
from pathlib import Path
from typing import Final

from coulee.core import (
    REASONS,
    Config,
    ExchangeError,
    Forwarding,
    Http2,
    Limits,
    Reason,
    Request,
    Retry,
    Timeouts,
    WebSocket,
)
from coulee.core.answers import error_answer
from coulee.core.forward import Forward
from coulee.core.listener import Listener, ProxyProtocol
from coulee.core.options import ConnectOptions, KeepAlive, ListenOptions
from coulee.core.peer import PeerLimits
from coulee.core.tls import ClientCertificates, ListenerTls, UpstreamTls
from coulee.core.transport import Transport
from coulee.lb import Breaker, HealthCheck, Outliers, RetryBudget, SlowStart, Tcp

HERE: Final = Path(__file__).parent
NOTE: Final = "<!-- Written by docs/generate.py. Do not edit: change the code, and run it again. -->\n"


def pages() -> dict[str, str]:
    """What is to be in each file."""
    return {"errors.md": errors_page(), "configuration.md": configuration_page()}


# ------------------------------------------------------------------------------------------------- errors.md

SIDES: Final = {"downstream": "the client's", "upstream": "the origin's", "coulee": "coulee's, or its operator's"}

ERRORS_INTRO: Final = """\
# Reasons

A request that does not end well ends with one *reason*: a word of the closed list on this page. The same word is in

- the error answer that coulee gives, and its `Proxy-Status` field (RFC 9209);
- the access record, as `reason`, and in it that of each failed attempt, as `attempts[].reason`;
- the counters, as `counters.reasons`;
- the `ExchangeError` that filters see, and that they may raise with a word of this list.

An error answer is JSON, or a small page for a client that asks for `text/html` before it asks for JSON. It names the
word, never an address or an exception's text: those are in the access record, as `detail`. For example:

```http
{example}
```

The status is the usual one. Where a message has a closer one, that is sent instead. Status 0 means that no answer is
sent, because nobody is left to take it. Once the head of an answer has been sent its status stands; then a failure cuts
the connection, so that the client cannot take what it has for the whole.

A filter may give another answer in its `fail_to_proxy` phase; see [Filters](filters.md).

"""


def errors_page() -> str:
    """errors.md: one entry a reason."""
    lines = [NOTE, ERRORS_INTRO.format(example=example_answer())]
    lines.append("| reason | status | whose doing |\n|---|---|---|\n")
    lines += [f"| [`{word}`](#{word}) | {reason.status} | {SIDES[reason.side]} |\n" for word, reason in REASONS.items()]
    for side, whose in SIDES.items():
        lines.append(f"\n## {whose[0].upper()}{whose[1:]} doing\n")
        lines += [error_entry(reason) for reason in REASONS.values() if reason.side == side]
    return "".join(lines)


def error_entry(reason: Reason) -> str:
    """All that there is to say of one."""
    status = str(reason.status) if reason.status else "0: there is nobody left to answer"
    return (
        f"\n### {reason.word}\n\n"
        f"{sentence(reason.meaning)}\n\n"
        f"- What to do: {sentence(reason.advice)}\n"
        f"- Status: {status}\n"
        f"- RFC 9209 error type: `{reason.proxy_error}`\n"
    )


def example_answer() -> str:
    """An error answer as it goes out, but for its framing and date."""
    answer = error_answer(ExchangeError("upstream_refused"), Request("GET", "/"), Config().server_name)
    fields = "".join(f"{name}: {value}\n" for name, value in answer.headers)
    return f"HTTP/1.1 {answer.status} {answer.reason}\n{fields}\n{answer.data.decode().rstrip()}"


# ------------------------------------------------------------------------------------------ configuration.md

CONFIGURATION_INTRO: Final = """\
# Configuration

Everything that can be set in the core is a field of `Config`, or of one of the five that it is made of. All are frozen
dataclasses, and every field has a default that is safe. Units are in the names: `_s` are seconds, `_bytes` are bytes,
and `_max` is a bound. A value that makes no sense raises `ValueError`, at once or when the `Proxy` is made.

```python run
from coulee.core import Config, Forwarding, Limits, Proxy, Timeouts
from coulee.lb import Cluster

config = Config(
    limits=Limits(head_bytes_max=64 * 1024),
    timeouts=Timeouts(answer_timeout_s=300),
    forwarding=Forwarding(trusted_peers=("10.0.0.0/8",)),
)
proxy = Proxy(Cluster("http://127.0.0.1:9000"), config=config)
```

A proxy that is started as `coulee LISTEN --to URL` has the defaults; one that is started as `coulee run app.py` has the
`config` that `app.py` gave it. What answers when a limit is passed is on the page of [reasons](errors.md).
"""

CLUSTER_INTRO: Final = """
# Of a cluster

What a `Cluster`, and each of its endpoints, can be given; what they are for is on the page about
[load balancing](load-balancing.md).
"""


class NoCertificates:
    """Stands for a source, of which the tables tell nothing."""

    name = ""
    interval_s = inf
    stamp = None
    certificates = ()

    def look(self, stamp: object) -> None:
        """See `CertificateSource`."""


CLUSTER_SECTIONS: Final[dict[type, object]] = {
    HealthCheck: HealthCheck(Tcp()),
    Outliers: Outliers(),
    Breaker: Breaker(),
    RetryBudget: RetryBudget(),
    SlowStart: SlowStart(),
    PeerLimits: PeerLimits(),
}

EDGES_INTRO: Final = """
# Of listeners, and of how origins are reached

What a `Listener`, and the `transport` of a `Cluster`, can be given; what they are for is on the page about
[TLS and other edges](tls.md).
"""

EDGE_SECTIONS: Final[dict[type, object]] = {
    Listener: Listener("127.0.0.1:8000"),
    ListenerTls: ListenerTls(NoCertificates()),
    ClientCertificates: None,
    ProxyProtocol: ProxyProtocol(("unix",)),
    Forward: Forward(hosts=("a.test",)),
    ListenOptions: ListenOptions(),
    Transport: Transport(),
    UpstreamTls: UpstreamTls(),
    ConnectOptions: ConnectOptions(),
    KeepAlive: KeepAlive(),
}
REQUIRED: Final = {
    (HealthCheck, "probe"),
    (Listener, "address"),
    (ListenerTls, "certificates"),
    (ClientCertificates, "ca"),
    (ProxyProtocol, "trusted"),
    (Forward, "hosts"),
}

SECTIONS: Final = {
    Config: "",
    Limits: "limits",
    Timeouts: "timeouts",
    Http2: "http2",
    WebSocket: "websocket",
    Retry: "retry",
    Forwarding: "forwarding",
}


def configuration_page() -> str:
    """configuration.md: one table a class."""
    return (
        NOTE
        + CONFIGURATION_INTRO
        + "".join(
            config_table(kind, kind(), f"The field `{field}` of `Config`. " if field else "")
            for kind, field in SECTIONS.items()
        )
        + CLUSTER_INTRO
        + "".join(config_table(kind, instance, "") for kind, instance in CLUSTER_SECTIONS.items())
        + EDGES_INTRO
        + "".join(config_table(kind, instance, "") for kind, instance in EDGE_SECTIONS.items())
    )


def config_table(kind: type, instance: object, place: str) -> str:
    """The fields of one dataclass."""
    lines = [
        f"\n## {kind.__name__}\n\n{place}{cleandoc(kind.__doc__ or '')}\n\n",
        "| field | type | default | meaning |\n|---|---|---|---|\n",
    ]
    for name, annotation, text in documented_fields(kind):
        if name.startswith("_"):
            continue
        value = getattr(instance, name, getattr(kind, name))
        default = "" if (kind, name) in REQUIRED else shown(name, value)
        lines.append(f"| `{name}` | `{cell(annotation)}` | {default} | {cell(text or section_link(value))} |\n")
    return "".join(lines)


def documented_fields(kind: type) -> list[tuple[str, str, str]]:
    """Name, type and docstring of each field: the string literal under it."""
    tree = ast.parse(Path(str(sys.modules[kind.__module__].__file__)).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    fields: list[tuple[str, str, str]] = []
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = ""
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                text = str(below.value.value)
            fields.append((node.target.id, ast.unparse(node.annotation), text))
    return fields


def section_link(value: object) -> str:
    """What stands for the text of a field that is a section of its own."""
    name = type(value).__name__
    return f"See [{name}](#{name.lower()})."


def shown(name: str, value: object) -> str:
    """A default, and for many bytes how many KiB that is."""
    if is_dataclass(value):
        return f"`{type(value).__name__}()`"
    if name == "ciphers":
        return "see [CIPHERS](tls.md)"
    if name == "mode" and isinstance(value, int):
        return f"`{value:#o}`"
    if isinstance(value, int) and "bytes" in name and value and value % 1024 == 0:
        return f"`{value}` ({value // 1024} KiB)"
    if isinstance(value, float) and value != round(value, 3):
        return f"`{value:.2f}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# ------------------------------------------------------------------------------------------------------ text


def sentence(text: str) -> str:
    """With a capital at its beginning, unless it begins with code, and a stop at its end."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def cell(text: str) -> str:
    """Prose as it can stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write the pages, or compare."""
    stale = 0
    for name, text in pages().items():
        path = HERE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"docs/{name} {'is stale' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
