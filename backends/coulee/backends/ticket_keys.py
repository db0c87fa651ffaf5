"""The keys of session tickets, made equal for all workers of a program, so that any of them resumes what another began
(RFC 5077, RFC 8446 section 4.6.1).

Python's `ssl` has no words for them, so they are set in OpenSSL itself. Where that cannot be done each context has keys
of its own, as OpenSSL draws them: a client that comes to another worker then has a full handshake.

Rules:

- The secret is drawn when this module is first imported: before workers are forked, who inherit it.
- Keys are made from it for each listener apart (`about`), so that a session of one is never resumed at another, whose
  clients may have to show certificates. They are the same for all certificates of a listener, those to come included.
"""

from __future__ import annotations

import _ssl
import ctypes
import os
import ssl
import sys
from hashlib import shake_256
from typing import Any, Final

_SECRET: Final = os.urandom(32)
_KEYS_BYTES: Final = 80  # a name, a key for AES and one for HMAC (SSL_CTX_set_tlsext_ticket_keys(3))
_SET_KEYS: Final = 59
_GET_KEYS: Final = 58


def share(context: ssl.SSLContext, about: bytes) -> bool:
    """Give a context the keys that all contexts `about` the same have; False where that cannot be done."""
    if _control is None:
        return False
    keys = shake_256(_SECRET + about).digest(_KEYS_BYTES)
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)  # the first field of a SSLContext
    read = ctypes.create_string_buffer(_KEYS_BYTES)
    done = _control(pointer, _SET_KEYS, _KEYS_BYTES, keys) and _control(pointer, _GET_KEYS, _KEYS_BYTES, read)
    return bool(done) and read.raw == keys


def _found() -> Any:
    """OpenSSL's own function, by way of the module that is linked with it; None where it cannot be had."""
    if sys.implementation.name != "cpython" or not hasattr(_ssl, "__file__"):
        return None
    try:
        function = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_long
    function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
    return function


_control: Final = _found()
