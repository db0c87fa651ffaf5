"""curio, also where it does not import by itself.

curio 1.6 is the last release that its author makes. On CPython 3.12 and later its import asks for names that are gone:
three private ones of `multiprocessing.connection`, under which they still are with an underscore, and `ssl.wrap_socket`,
which it only wraps and nobody here calls. They are lent for as long as the import lasts.
"""

from __future__ import annotations

import importlib
import multiprocessing.connection
import ssl
from typing import Any

_RENAMED = ("CHALLENGE", "WELCOME", "FAILURE")


def import_curio() -> Any:
    """The module, which has no types. Raises ImportError where it is not installed."""
    renamed: Any = multiprocessing.connection
    lent = [name for name in _RENAMED if not hasattr(renamed, name)]
    for name in lent:
        setattr(renamed, name, getattr(renamed, f"_{name}"))
    wrap_is_lent = not hasattr(ssl, "wrap_socket")
    if wrap_is_lent:
        ssl.wrap_socket = lambda: None  # type: ignore[attr-defined]
    try:
        return importlib.import_module("curio")
    finally:
        if wrap_is_lent:
            del ssl.wrap_socket  # type: ignore[attr-defined]
        for name in lent:
            delattr(renamed, name)
