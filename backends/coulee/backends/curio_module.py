"""curio, also where it does not import by itself.

curio 1.6 is the last release that its author makes. On CPython 3.12 and later its import asks for names that are gone:
three of `multiprocessing.connection`, which have an underscore now, and `ssl.wrap_socket`, which it wraps and nobody
here calls. They are lent to it while the import lasts, and no longer, so that nobody else's test for them sees them.
"""

from __future__ import annotations

import importlib
import multiprocessing.connection
import ssl
from typing import Any

_RENAMED = ("CHALLENGE", "WELCOME", "FAILURE")


def import_curio() -> Any:
    """The module, which has no types. Raises ImportError where it is not installed."""
    connection: Any = multiprocessing.connection
    tls: Any = ssl
    renamed = [name for name in _RENAMED if not hasattr(connection, name)]
    for name in renamed:
        setattr(connection, name, getattr(connection, f"_{name}"))
    is_gone = not hasattr(tls, "wrap_socket")
    if is_gone:
        tls.wrap_socket = lambda: None
    try:
        return importlib.import_module("curio")
    except ModuleNotFoundError as error:
        raise ImportError('coulee.backends.curio needs: pip install "coulee[curio]"') from error
    finally:
        if is_gone:
            del tls.wrap_socket
        for name in renamed:
            delattr(connection, name)
