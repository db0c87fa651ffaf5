"""What `--record` does: makes a proxy one that is recorded; and the other way round, what a recording was made of."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from coulee.backends.recorder import Recorder, open_private
from coulee.backends.recording import Header
from coulee.backends.ring import Ring
from coulee.core import Access, Config, Event, Forward, Proxy
from coulee.core.listener import as_listener
from coulee.core.seam import ListenAt, Listener, Machine, UpstreamTls
from coulee.core.transport import DIRECT, Transport
from coulee.lb import Cluster
from coulee.server.load import load_proxy
from coulee.server.redaction import Redaction


class NotWritable(Exception):
    """A place where no recording can be written: one line."""


@dataclass(frozen=True, slots=True)
class Records:
    """The options of recording. `ring_s`: keep that many seconds in memory, and write them when something fails of
    ours or of a filter. `about` says what is run: `program`, or `origins`."""

    path: str
    ring_s: float | None = None
    redaction: Redaction | None = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @contextmanager
    def around(self, proxy: Proxy, is_worker: bool) -> Generator[Machine, None, None]:
        """The proxy, recorded as long as the block lasts; each of several workers has a file of its own. Raises
        `NotWritable`."""
        path = Path(f"{self.path}.{os.getpid()}" if is_worker else self.path)
        try:
            if self.ring_s is None:
                open_private(path).close()
            elif not os.access(path.parent, os.W_OK):
                raise NotADirectoryError(0, "there is no such folder, or nothing can be written in it")
        except OSError as error:
            raise NotWritable(f"--record {path}: {error.strerror}") from error
        recorder = self._recorder(proxy, str(path))
        failure: BaseException | None = None
        try:
            yield recorder
        except BaseException as error:
            failure = error
            raise
        finally:
            recorder.close(None if isinstance(failure, KeyboardInterrupt) else failure)

    def _recorder(self, proxy: Proxy, path: str) -> Recorder | Ring:
        redactor = self.redaction.redactor if self.redaction is not None else None
        hidden = ", ".join(self.redaction.names) if self.redaction is not None else ""
        about = {**self.about, **_reached(proxy)} if "origins" in self.about else self.about
        secrets = f"without {hidden}" if hidden else "with all that is said; --record-redact credentials,bodies hides"
        if self.ring_s is None:
            _say(f"recording to {path}, {secrets}")
            return Recorder(proxy, path, about=about, redactor=redactor, on_trouble=_say)
        _say(f"recording the last {self.ring_s:g} s in memory, for {path}, {secrets}")
        return Ring(
            proxy,
            path,
            self.ring_s,
            is_failure,
            about=about,
            redactor=redactor,
            on_dump=lambda dumped: _say(f"recorded: {dumped} (coulee replay {dumped})"),
            on_trouble=_say,
        )


def _say(line: str) -> None:
    print(f"coulee: {line}", file=sys.stderr, flush=True)


def is_failure(record: object) -> bool:
    """Whether a report tells of a mistake, of a filter's author or ours."""
    if isinstance(record, Access):
        return record.reason in ("filter_error", "internal_error")
    return isinstance(record, Event) and record.name == "internal_error"


_TLS_KEPT: Final = ("server_name", "verified_name", "alternative_names", "verify", "alpn")
"""What a replay has to know of TLS with origins. Authorities and certificates would be of no use to it."""


def _reached(proxy: Proxy) -> dict[str, Any]:
    """How origins are reached that were named one by one."""
    cluster = proxy.balancer
    assert isinstance(cluster, Cluster)
    tls = cluster.transport.tls
    kept = None if tls is None else {name: getattr(tls, name) for name in _TLS_KEPT}
    return {"transport": {"tls": kept, "proxy_protocol": cluster.transport.proxy_protocol}}


def _transport(kept: Mapping[str, Any]) -> Transport:
    tls = None if kept["tls"] is None else _made(UpstreamTls, kept["tls"])
    return replace(DIRECT, tls=tls, proxy_protocol=kept["proxy_protocol"])


def definition_of(header: Header, target: str | None) -> Proxy:
    """What was recorded, with the configuration and the certificates of then. `target` is where it is now, if it has
    moved.

    Raises `LoadError`, and ValueError where the recording does not say what it is of.
    """
    about = header.about
    target = target or about.get("program")
    if target is not None:
        proxy = load_proxy(target)
    elif about.get("origins"):
        transport = _transport(about["transport"]) if "transport" in about else DIRECT
        proxy = Proxy(Cluster(*about["origins"], transport=transport))
    else:
        raise ValueError("this recording does not say of what it is: coulee replay FILE app.py")
    if isinstance(about.get("config"), dict):
        proxy.config = _restored(Config(), about["config"])
    if header.defined:
        own = [as_listener(where) for where in proxy.listen_at]
        proxy.listen_at = [_as_then(*pair) for pair in zip_longest(header.defined, own[: len(header.defined)])]
    return proxy


def _as_then(then: ListenAt, now: Listener | None) -> Listener:
    """A listener of the program with the certificates that it had; who chooses among them is in the program only."""
    listener = as_listener(then)
    if listener.tls is None or now is None or now.tls is None:
        return listener
    return replace(listener, tls=replace(listener.tls, choose=now.tls.choose))


def _restored(default: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass of settings from JSON. What this version does not know is left out: another may have written it."""
    changes: dict[str, Any] = {}
    for each in fields(default):
        if each.name not in values:
            continue
        before, value = getattr(default, each.name), values[each.name]
        if is_dataclass(before):
            changes[each.name] = _restored(before, value)
        elif each.name in _WHERE_SET and value.__class__ is dict:
            changes[each.name] = _made(_WHERE_SET[each.name], value)
        else:
            changes[each.name] = tuple(value) if isinstance(before, tuple) else value
    return replace(default, **changes)


_WHERE_SET: Final[dict[str, Any]] = {"forward": Forward}
"""Settings that are None as a rule."""


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass of settings that has no default."""
    known = {each.name for each in fields(kind) if each.init}
    return kind(**{name: _hashable(value) for name, value in values.items() if name in known})


def _hashable(value: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if value.__class__ is list else value
