"""Plain data as bytes, and back."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.backends.plain import Lost, Untrusted, decode, encode

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers() | st.binary(), inner)
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal, type for type: 1 is neither True nor 1.0."""
    return repr(left) == repr(right)


@given(PLAIN)
def test_what_comes_back_is_what_went_in(value: object) -> None:
    assert same(decode(encode(value)), value)


@given(PLAIN, st.data())
def test_damaged_data_is_a_value_error(value: object, data: st.DataObject) -> None:
    whole = encode(value)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    for piece in (whole[:at], damaged, whole + b"N"):
        try:
            decode(piece)
        except ValueError:
            continue
        assert piece == damaged, "a piece of it is not the whole"


@pytest.mark.parametrize(
    "error",
    [
        LookupError("not there", 3),
        FileNotFoundError(2, "No such file"),
        socket.gaierror(-2, "unknown name"),
        CancelledError("the job was cancelled"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyboardInterrupt(),
    ],
)
def test_exceptions_come_back_as_what_they_were(error: BaseException) -> None:
    again = decode(encode(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args


class Particular(Exception):
    def __init__(self, code: int, *, colour: str) -> None:
        super().__init__(f"{colour} {code}")
        self.code = code


def test_an_exception_with_an_init_of_its_own_keeps_its_class_and_its_text() -> None:
    again = decode(encode(Particular(3, colour="red")))
    assert type(again) is Particular
    assert str(again) == "red 3"


def test_an_exception_whose_class_is_not_here_keeps_its_text() -> None:
    class Local(Exception):
        pass

    again = decode(encode(Local("somewhere else")))
    assert type(again) is Lost
    assert "Local: somewhere else" in str(again)


def test_objects_are_unpickled_for_who_trusts_their_writer_only() -> None:
    data = encode({1, 2})
    with pytest.raises(Untrusted, match="trusts"):
        decode(data)
    assert decode(data, trusted=True) == {1, 2}


def test_what_cannot_be_pickled_is_told_by_its_class() -> None:
    with pytest.raises(Untrusted, match="a lock, which cannot be kept"):
        decode(encode(threading.Lock()), trusted=True)


def test_what_is_nested_without_end_ends() -> None:
    nest: list[object] = []
    nest.append(nest)
    assert len(encode(nest, lambda _: b"N")) < 1000
    with pytest.raises(ValueError, match="damaged"):
        decode(b"l\1\0\0\0" * 10_000)


def test_a_tag_that_is_none_is_damage() -> None:
    with pytest.raises(ValueError, match="no such tag"):
        decode(b"z\0\0\0\0")
