"""What the program prints: one line a request, and events as they happen.

Two forms of the same records: short lines for people at a terminal, JSON lines for machines. JSON is made by a JSON
writer and short lines are escaped, so that no request can forge a line of the log; a line is capped at 8 KiB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Final, TextIO

from coulee.core.report import Access, Attempt, Event
from coulee.core.tunnel_exchange import TunnelAccess

LINE_MAX: Final = 8192
TEXT_MAX: Final = 1024  # of one field, where a line is long

_RED, _GREEN, _YELLOW, _DIM, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"


class Console:
    """The reporter of the program: call it with each record.

    `form` is `short`, `json` or `none`; errors and events of consequence go to `errors` (stderr) in every form.
    """

    def __init__(self, form: str, out: TextIO | None = None, errors: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.errors = errors or sys.stderr
        self.form = form
        self.colours = form == "short" and self.out.isatty()
        self.listen_failed: Event | None = None
        self.on_listening: Callable[[Event], None] | None = None
        self.on_draining: Callable[[Event], None] | None = None

    def __call__(self, record: object) -> None:
        """Print one record."""
        if isinstance(record, Access | TunnelAccess):
            if self.form == "short":
                if isinstance(record, Access):
                    self._print(short_line(record, colours=self.colours))
                else:
                    self._print(tunnel_line(record, colours=self.colours))
            elif self.form == "json":
                self._print(json_line(record))
        elif isinstance(record, Event):
            self._event(record)

    def _event(self, event: Event) -> None:
        if event.name == "listen_failed":
            self.listen_failed = event
        elif event.name == "listening":
            if self.on_listening is not None:
                self.on_listening(event)
        elif event.name in ("filter_error", "internal_error"):
            lines = [f"! {event.name}: {event.text}"]
            lines += [f"  {line}" for line in str(event.fields.get("traceback", "")).splitlines()]
            for line in lines:  # an exception's text may hold what a client sent
                self._print_to(self.errors, escaped(line))
        elif event.name in ("endpoint", "discovery", "certificates", "turned_away", "insecure"):
            self._print_to(self.errors, escaped(f"{clock(event.at)} ! {event.text}"))
        elif event.name in ("retry", "hedge") and self.form == "short":
            self._print(escaped(f"{clock(event.at)} ! {event.text}"))
        elif event.name == "draining":
            if self.on_draining is not None:
                self.on_draining(event)
            if self.form == "short" and event.fields.get("grace_s"):
                self._print(f"{clock(event.at)} {event.text}")

    def _print(self, line: str) -> None:
        try:
            self._print_to(self.out, line)
        except BrokenPipeError:
            self.form = "none"  # whoever read our lines has left; the proxy goes on

    def _print_to(self, out: TextIO, line: str) -> None:
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()


def escaped(text: str) -> str:
    """Text that cannot start a new line or move the cursor."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def clock(at: float) -> str:
    """The local time of day."""
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def path_of(record: Access) -> str:
    """Where the request went, attempt after attempt: `flaky -> fast (retry: upstream_reset)`."""
    if not record.attempts:
        return "answered here" if record.status and not record.reason else ""
    return _path(record.attempts)


def _path(attempts: Sequence[Attempt]) -> str:
    path = " -> ".join(attempt.peer for attempt in attempts)
    failures = [attempt.reason for attempt in attempts[:-1]]
    return f"{path} (retry: {', '.join(failures)})" if failures else path


def short_line(record: Access, *, colours: bool = False) -> str:
    """`12:00:02 GET /a 200 11ms flaky -> fast (retry: upstream_reset)`."""
    status = str(record.status) if record.status else "---"
    reason = f" [{record.reason}{': ' + record.detail if record.detail else ''}]" if record.reason else ""
    path, reason = _short(path_of(record)), _short(reason)
    if colours:
        good = record.status and record.status < 400
        status = f"{_GREEN if good else _YELLOW if 400 <= record.status < 500 else _RED}{status}{_PLAIN}"
        path = f"{_DIM}{path}{_PLAIN}"
    size = "" if not record.bytes_out else f" {record.bytes_out}B"
    head = f"{clock(record.started)} {_short(record.method)} {_short(record.target)}"
    return f"{head} {status} {record.duration_s * 1000:.0f}ms{size} {path}{reason}".rstrip()


def tunnel_line(record: TunnelAccess, *, colours: bool = False) -> str:
    """`12:00:02 TUNNEL a.example 11ms 120B up 3400B down 10.0.0.1:443`."""
    reason = f" [{record.reason}{': ' + record.detail if record.detail else ''}]" if record.reason else ""
    path, reason = _short(_path(record.attempts)), _short(reason)
    if colours:
        path, reason = f"{_DIM}{path}{_PLAIN}", f"{_RED}{reason}{_PLAIN}" if reason else ""
    head = f"{clock(record.started)} TUNNEL {_short(record.server_name or '-')} {record.duration_s * 1000:.0f}ms"
    return f"{head} {record.bytes_in}B up {record.bytes_out}B down {path}{reason}".rstrip()


def json_line(record: Access | TunnelAccess) -> str:
    """All of a record as one JSON object; texts are shortened where the line would be too long otherwise."""
    names = [each.name for each in dataclass_fields(record)]
    values = {name: getattr(record, name) for name in names}  # not asdict(), which copies what filters put into tags
    if isinstance(record, Access):
        values["version"] = f"{record.version[0]}.{record.version[1]}"
    values["attempts"] = [asdict(attempt) for attempt in record.attempts]
    values["security"] = None if record.security is None else asdict(record.security)
    line = json.dumps(values, default=str)
    if len(line) <= LINE_MAX:
        return line
    for name in names:
        if isinstance(values[name], str):
            values[name] = _short(values[name])
    for attempt in values["attempts"]:
        attempt["detail"] = _short(attempt["detail"])
    line = json.dumps(values, default=str)
    if len(line) > LINE_MAX:
        values["tags"] = {"omitted": "the line would be too long with them"}
        values["attempts"] = values["attempts"][-1:]
    return json.dumps(values, default=str)


def _short(text: str) -> str:
    """Text that cannot start a new line and leaves room for the rest of it."""
    text = escaped(text[:TEXT_MAX])
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."
