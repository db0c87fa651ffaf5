"""`python -m coulee`: the command line."""

from __future__ import annotations

from coulee.server.cli import main

if __name__ == "__main__":
    main()
