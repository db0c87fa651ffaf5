"""The atheris target: `python -m fuzz.target http1 [options of libFuzzer] [folders]`. `python -m fuzz` runs it for you.

Every input is a case, and every case must have all the properties; libFuzzer looks for inputs that reach new code. To
merge, it starts itself once more by the name in `FUZZ_PROGRAM`, a file that can be executed.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["coulee.core", "wsproto"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """The whole program; libFuzzer ends the process."""
    name, *options = sys.argv[1:]
    target = TARGETS[name]

    def one_input(data: bytes) -> None:
        """What libFuzzer calls; an exception is a find."""
        target.check(target.case.from_bytes(data))

    atheris.Setup([os.environ.get("FUZZ_PROGRAM", sys.argv[0]), *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
