"""Plain data as bytes: what a recording keeps of addresses, of what jobs have returned, and of reports.

Rules:

- Whatever comes back is equal to what went in, type for type: tuples stay tuples, and an int is not a bool.
- Reading never runs code that a file names: there is no class in it but exceptions that are imported already. Other
  objects are pickled, and `decode` reads those only where it is told to trust who wrote them.
- A damaged file is a `ValueError`.

Layout: a tag of one byte, then four bytes of length or count where there is one, then the content.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from struct import Struct, error
from typing import Any, Final

_length: Final = Struct("<I")
_double: Final = Struct("<d")
_NESTED_MAX: Final = 100  # levels, for a reader does not want to be led into the ground

Opaque = Callable[[object], bytes]
"""What stands for an object that is not plain."""


class Untrusted(ValueError):
    """An object that only unpickling brings back."""


class Lost(Exception):
    """Stands for an exception whose class is not here; the text is what it said."""


def encode(value: object, opaque: Opaque | None = None) -> bytes:
    """`value` as bytes. Objects that are not plain are what `opaque` says; as a rule, pickled, where they can be."""
    pieces: list[bytes] = []
    _put(value, pieces.append, opaque or _pickled, 0)
    return b"".join(pieces)


def _put(value: Any, put: Callable[[bytes], object], opaque: Opaque, depth: int) -> None:
    kind = value.__class__
    if kind is str:
        put(_text(b"s", value.encode("utf-8", "surrogatepass")))
    elif kind is float:
        put(b"f" + _double.pack(value))
    elif kind is int:
        put(_text(b"i", b"%d" % value))
    elif value is None or kind is bool:
        put(b"N" if value is None else b"T" if value else b"F")
    elif kind is bytes:
        put(_text(b"b", value))
    elif depth > _NESTED_MAX:
        put(opaque(value))
    elif kind is tuple or kind is list:
        _put_all(b"t" if kind is tuple else b"l", value, put, opaque, depth)
    elif kind is dict:
        pairs = [each for pair in value.items() for each in pair]
        _put_all(b"d", pairs, put, opaque, depth)
    elif isinstance(value, BaseException):
        arguments = value.args if _is_simple(kind) else (str(value),)
        _put_all(b"e", (kind.__module__, kind.__qualname__, str(value), arguments), put, opaque, depth)
    else:
        put(opaque(value))


def _put_all(tag: bytes, items: Any, put: Callable[[bytes], object], opaque: Opaque, depth: int) -> None:
    put(tag + _length.pack(len(items)))
    for item in items:
        _put(item, put, opaque, depth + 1)


def _text(tag: bytes, text: bytes) -> bytes:
    return tag + _length.pack(len(text)) + text


def _is_simple(kind: Any) -> bool:
    """Whether an exception is all in its `args`."""
    return kind.__module__ == "builtins" or kind.__init__ in (Exception.__init__, OSError.__init__)


def _pickled(value: object) -> bytes:
    try:
        return _text(b"p", pickle.dumps(value))
    except Exception:  # a lock, a socket, a generator; and what classes of users' raise there
        return _text(b"o", type(value).__qualname__.encode())


# ----------------------------------------------------------------------------------------------------- reading


def decode(data: bytes, *, trusted: bool = False) -> Any:
    """The value that `encode` was given. Raises `ValueError`, and `Untrusted` for a pickle that is not `trusted`."""
    try:
        value, end = _get(data, 0, trusted, 0)
    except (error, IndexError, TypeError, AttributeError, UnicodeDecodeError) as trouble:
        raise ValueError(f"damaged data: {trouble}") from trouble
    if end != len(data):
        raise ValueError(f"damaged data: {len(data) - end} bytes too many")
    return value


def _get(data: bytes, at: int, trusted: bool, depth: int) -> tuple[Any, int]:
    tag = data[at : at + 1]
    at += 1
    if tag in _SINGLE and tag:
        return _SINGLE[tag], at
    if tag == b"f":
        return _double.unpack_from(data, at)[0], at + 8
    (count,) = _length.unpack_from(data, at)
    at += 4
    if tag in b"tlde":
        if depth > _NESTED_MAX or count > len(data):
            raise ValueError(f"damaged data: {count} items at byte {at}")
        items: list[Any] = []
        for _ in range(count):
            item, at = _get(data, at, trusted, depth + 1)
            items.append(item)
        return _gathered(tag, items), at
    text = data[at : at + count]
    if len(text) < count:
        raise ValueError("damaged data: it ends too early")
    return _single(tag, text, trusted), at + count


_SINGLE: Final = {b"N": None, b"T": True, b"F": False}


def _gathered(tag: bytes, items: list[Any]) -> Any:
    if tag == b"l":
        return items
    if tag == b"t":
        return tuple(items)
    if tag == b"d":
        return dict(zip(items[::2], items[1::2], strict=True))
    return _exception(*items)


def _single(tag: bytes, text: bytes, trusted: bool) -> Any:
    if tag == b"b":
        return text
    if tag == b"s":
        return text.decode("utf-8", "surrogatepass")
    if tag == b"i":
        return int(text)
    if tag == b"p":
        if not trusted:
            raise Untrusted("an object that was pickled, which only who trusts its writer should read")
        return pickle.loads(text)  # noqa: S301
    if tag == b"o":
        raise Untrusted(f"a {text.decode(errors='replace')}, which cannot be kept in a file")
    raise ValueError(f"damaged data: no such tag: {tag!r}")


def _exception(module: str, name: str, text: str, arguments: Iterable[Any]) -> BaseException:
    """An exception of the same class, where that is imported already; else a `Lost`."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return Lost(f"{name}: {text}")
    if _is_simple(found):
        return found(*arguments)
    made = found.__new__(found, *arguments)  # not made by its __init__, whose arguments nobody knows
    made.args = tuple(arguments)
    return made
