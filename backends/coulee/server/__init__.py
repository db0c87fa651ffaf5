"""The program: the command line, the demo, and what they print."""

from __future__ import annotations
