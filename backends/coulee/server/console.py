"""What the program prints: one line a request, and events as they happen.

Two forms of the same records: short lines for people at a terminal, JSON lines for machines. JSON is made by a JSON
writer and short lines are escaped, so that no request can forge a line of the log; a line is capped at 8 KiB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Final, TextIO

from coulee.core.report import Access, Event

LINE_MAX: Final = 8192

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

    def __call__(self, record: object) -> None:
        """Print one record."""
        if isinstance(record, Access):
            if self.form == "short":
                self._print(short_line(record, colours=self.colours))
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
            print(escaped(f"! {event.name}: {event.text}"), file=self.errors, flush=True)
            print(str(event.fields.get("traceback", "")).rstrip(), file=self.errors, flush=True)
        elif event.name == "retry" and self.form == "short":
            self._print(escaped(f"{clock(event.at)} ! {event.text}"))
        elif event.name == "draining" and self.form == "short" and event.fields.get("grace_s"):
            self._print(f"{clock(event.at)} {event.text}")

    def _print(self, line: str) -> None:
        try:
            self.out.write(line[:LINE_MAX] + "\n")
            self.out.flush()
        except BrokenPipeError:
            self.form = "none"  # whoever read our lines has left; the proxy goes on


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
    path = " -> ".join(attempt.peer for attempt in record.attempts)
    failures = [attempt.reason for attempt in record.attempts[:-1]]
    return f"{path} (retry: {', '.join(failures)})" if failures else path


def short_line(record: Access, *, colours: bool = False) -> str:
    """`12:00:02 GET /a 200 11ms flaky -> fast (retry: upstream_reset)`."""
    status = str(record.status) if record.status else "---"
    reason = f" [{record.reason}{': ' + record.detail if record.detail else ''}]" if record.reason else ""
    path = path_of(record)
    if colours:
        good = record.status and record.status < 400
        status = f"{_GREEN if good else _YELLOW if 400 <= record.status < 500 else _RED}{status}{_PLAIN}"
        path = f"{_DIM}{escaped(path)}{_PLAIN}"
    else:
        path = escaped(path)
    size = "" if not record.bytes_out else f" {record.bytes_out}B"
    head = escaped(f"{clock(record.started)} {record.method} {record.target}")
    return f"{head} {status} {record.duration_s * 1000:.0f}ms{size} {path}{escaped(reason)}".rstrip()


def json_line(record: Access) -> str:
    """All of a record as one JSON object."""
    fields = asdict(record)
    fields["version"] = f"{record.version[0]}.{record.version[1]}"
    return json.dumps(fields, default=str)
