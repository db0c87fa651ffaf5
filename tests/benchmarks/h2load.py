"""h2load, which makes the load of HTTP/2.

Rules: one thread; the ten request fields of all generators; after the first window, which lasts as long as is asked, a
window is a number of requests instead, as many as that time would take by the first one's rate: h2load leaves what is
under way at the end of a time, and that is much of what a slow peer did. Anything but a 2xx is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.processes import HOST, BenchError
from tests.benchmarks.scenarios import Load, Scenario

LEAST_TURNS = 4
"""How often each stream is used at least in a window."""
_COUNTS = re.compile(
    r"^requests: .*, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.MULTILINE
)
_DATA = re.compile(r"^traffic: .* \((\d+)\) data$", re.MULTILINE)


class H2load:
    """Says how h2load is run, and what it counted."""

    def __init__(self, folder: Path) -> None:
        self._program = shutil.which("h2load")
        self._folder = folder
        self._rates: dict[tuple[str, int], float] = {}

    @property
    def name(self) -> str:
        if self._program is None:
            return "no h2load"
        return subprocess.run([self._program, "--version"], capture_output=True, text=True, check=False).stdout.strip()

    def command(self, scenario: Scenario, port: int, seconds: int) -> list[str]:
        """What to run for one window. Raises `BenchError` where h2load is missing."""
        if self._program is None:
            raise BenchError("h2load is not installed (Debian: nghttp2-client)")
        options = ["-t1", f"-c{scenario.connections}", f"-m{scenario.streams}"]
        rate = self._rates.get((scenario.name, port))
        if rate is None:
            options.append(f"-D{seconds}")
        else:
            least = LEAST_TURNS * scenario.connections * scenario.streams
            options.append(f"-n{max(least, round(rate * seconds))}")
        options += [word for field in scenario.fields for word in ("-H", field)]
        if scenario.upload:
            body = self._folder / f"{scenario.name}.body"
            body.write_bytes(scenario.body)
            options += ["-d", str(body)]
        return [self._program, *options, f"https://{HOST}:{port}{scenario.path}"]

    def counted(self, scenario: Scenario, port: int, seconds: int, printed: str) -> Load:
        """What it says that it did. Raises `BenchError` where it says nothing of the kind."""
        counts, data = _COUNTS.search(printed), _DATA.search(printed)
        if counts is None or data is None:
            raise BenchError(f"h2load printed no counts: {printed.strip().rpartition(chr(10))[2]}")
        done, succeeded, failed, errored, late = map(int, counts.groups())
        self._rates.setdefault((scenario.name, port), succeeded / seconds)
        return Load(succeeded, int(data[1]), max(failed, done - succeeded) + errored + late)
