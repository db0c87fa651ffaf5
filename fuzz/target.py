"""The atheris target: `python -m fuzz.target [options of libFuzzer] [folders]`. `python -m fuzz` runs it for you.

Every input is a case, and every case must have all the properties; libFuzzer looks for inputs that reach new code. To
merge, it starts itself once more by the name in `FUZZ_PROGRAM`, a file that can be executed.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["coulee.core.headers", "coulee.core.http1", "coulee.core.http1_grammar"]):
    from coulee.core.http1 import Http1Codec

from fuzz.case import Case
from fuzz.properties import check


def one_input(data: bytes) -> None:
    """What libFuzzer calls; an exception is a find."""
    check(Case.from_bytes(data), Http1Codec)


def main() -> None:
    """The whole program; libFuzzer ends the process."""
    atheris.Setup([os.environ.get("FUZZ_PROGRAM", sys.argv[0]), *sys.argv[1:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
