"""The outcomes that every backend is held to, by the name of their scenario."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

GOLDEN: Final = Path(__file__).with_name("golden.txt")
PREFACE: Final = """\
What comes of each scenario, on every backend. Written by `python -m tests.conformance.scenarios`, reviewed by people.

A record is an access record without its times. Behind the name of a client or an origin stands how its connection had
ended when the script did: `open`, `eof` or `reset` by the proxy, or `left` by itself. Then follows what it had
received: each line ends with CR and LF, but one with a backslash at its end.
"""


def read() -> dict[str, str]:
    """The text of each."""
    texts = re.split(r"(?m)^(?=## )", GOLDEN.read_text())[1:]
    return {text.partition("\n")[0].removeprefix("## "): text.rstrip("\n") + "\n" for text in texts}
