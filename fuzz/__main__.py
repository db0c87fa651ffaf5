"""Fuzzes a codec: `python -m fuzz http2 --minutes 10`, which is `make fuzz TARGET=http2 MINUTES=10`, and without a name
each of them in turn; `python -m fuzz http2 --replay FILE`.

The committed corpus is laid out as files for libFuzzer, which runs on one core and adds what reaches new code. At the
end the smallest inputs that reach all that was reached are put back into the corpus, and what broke a property stays in
`fuzz/crashes`, to be replayed without atheris.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Final

from fuzz import corpus
from fuzz.targets import TARGETS, Target

ROOT: Final = Path(__file__).parents[1]
CRASHES: Final = ROOT / "fuzz" / "crashes"
PROGRESS_S: Final = 10.0

_LINE: Final = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+(?:.*exec/s: (\d+))?")
_CHATTER: Final = ("INFO:", "WARNING: Failed to find function", "#", "Dictionary:", '"', "Done ")


def main(arguments: list[str] | None = None) -> int:
    """The whole program; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS), help="the codec; http1 where it is to replay")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to look for new inputs")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="check these inputs, and nothing else")
    options = parser.parse_args(arguments)
    if options.replay:
        return max(replay(TARGETS[options.target or "http1"], path) for path in options.replay)
    names = [options.target] if options.target else list(TARGETS)
    return max([fuzz(TARGETS[name], options.minutes / len(names)) for name in names])


# ------------------------------------------------------------------------------------------------------- replaying


def replay(target: Target, path: Path) -> int:
    """Check one input; gives 1 where it breaks a property."""
    case = target.case.from_bytes(path.read_bytes())
    print(f"{path}: {case.to_line()}")
    try:
        reading = target.check(case)
    except Exception:
        traceback.print_exc(limit=-4)
        return 1
    for event in reading.events:
        print(f"  {event!r}")
    print(f"  refused: {reading.refused}" if reading.fault else "  no fault")
    return 0


# --------------------------------------------------------------------------------------------------------- fuzzing


def fuzz(target: Target, minutes: float) -> int:
    """Look for new inputs and put the good ones into the corpus; gives 1 where one broke a property."""
    by_hand, found = corpus.load(target.corpus, target.case.from_line)
    CRASHES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "target")
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fuzz.target {target.name} "$@"\n')
        program.chmod(0o755)
        base, new = Path(folder, "by_hand"), Path(folder, "found")
        for place, cases in ((base, by_hand), (new, found)):
            place.mkdir()
            for number, case in enumerate(cases):
                (place / f"{number:05}").write_bytes(case.to_bytes())
        started = time.time()
        options = [f"-max_total_time={max(1, round(minutes * 60))}", f"-max_len={target.bytes_max}", "-timeout=10",
                   f"-dict={target.dictionary}", f"-artifact_prefix={CRASHES}/", str(new), str(base)]  # fmt: skip
        status = _libfuzzer(program, options, minutes)
        print("keeping the smallest inputs that reach all that was reached ...")
        merge = ["-merge=1", f"-max_len={target.bytes_max}", f"-artifact_prefix={CRASHES}/", str(base), str(new)]
        _libfuzzer(program, merge, None)
        kept = [target.case.from_bytes(path.read_bytes()) for path in sorted(base.iterdir())]
    kept = [case for case in kept if case not in by_hand and _passes(target, case)]
    dropped = corpus.store(kept, target.corpus)
    size = target.corpus.stat().st_size
    print(f"{target.corpus.relative_to(ROOT)}: {len(by_hand)} cases by hand, {len(kept) - dropped} found "
          f"(before: {len(found)}), {size:,} bytes")  # fmt: skip
    return _tell_crashes(target, started) or status


def _passes(target: Target, case: Any) -> bool:
    try:
        target.check(case)
    except Exception:
        return False
    return True


def _tell_crashes(target: Target, since: float) -> int:
    crashes = [path for path in sorted(CRASHES.iterdir()) if path.stat().st_mtime >= since - 1]
    for path in crashes:
        name = path.relative_to(ROOT)
        print(f"FOUND: {name}; replay it with: {sys.executable} -m fuzz {target.name} --replay {name}")
    if not crashes:
        print("no input broke a property")
    return 1 if crashes else 0


def _libfuzzer(program: Path, options: list[str], minutes: float | None) -> int:
    """Run the target, and say now and then how far it is; gives its exit status."""
    environment = {**os.environ, "FUZZ_PROGRAM": str(program)}
    child = subprocess.Popen([program, *options], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True, errors="replace")  # fmt: skip
    assert child.stderr is not None
    started = last = time.monotonic()
    try:
        for line in child.stderr:
            match = _LINE.match(line)
            now = time.monotonic()
            if match and minutes is not None and now - last >= PROGRESS_S:
                last = now
                runs, code, features, size, speed = match.groups()
                print(f"{(now - started) / 60:4.1f} of {minutes:g} min: {int(runs):,} inputs ({speed or '-'}/s), "
                      f"{code} branches and {features} features reached by {size}", flush=True)  # fmt: skip
            elif minutes is not None and line.strip() and not line.startswith(_CHATTER):
                print(line, end="", flush=True)
    except KeyboardInterrupt:
        print("stopped; what was found is kept")
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
