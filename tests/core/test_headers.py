"""Header fields: what is read, added, set and removed, what is refused, and a plain list of pairs as the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.headers import TOKEN, Headers, encode_field, field_pattern

# ------------------------------------------------------------------------------------------------------- making


def test_fields_are_made_from_pairs_a_mapping_or_other_fields() -> None:
    pairs = Headers([("Set-Cookie", "a"), ("Set-Cookie", "b")])
    assert pairs.block == b"\r\nSet-Cookie: a\r\nSet-Cookie: b"
    assert Headers({"X-A": "1", "X-B": "2"}).block == b"\r\nX-A: 1\r\nX-B: 2"
    assert Headers(pairs).block == b"\r\nSet-Cookie: a\r\nSet-Cookie: b"
    assert Headers().block == b""


def test_a_copy_is_independent() -> None:
    fields = Headers({"X-A": "1"})
    for copy in (fields.copy(), Headers(fields)):
        copy.set("X-A", "2")
        assert copy.block == b"\r\nX-A: 2"
    assert fields.block == b"\r\nX-A: 1"


def test_blanks_around_a_value_are_not_kept() -> None:
    assert Headers({"X-A": " \t1 2\t "}).block == b"\r\nX-A: 1 2"


def test_text_is_one_character_a_byte() -> None:
    assert Headers({"X-A": "caf\xe9"}).block == b"\r\nX-A: caf\xe9"
    assert Headers.from_block(b"\r\nX-A: \x80\xff")["x-a"] == "\x80\xff"


# ------------------------------------------------------------------------------------------------------ reading


def test_names_compare_without_case() -> None:
    fields = Headers({"Content-TYPE": "text/HTML"})
    assert fields.get("content-type") == "text/HTML"
    assert fields["CONTENT-TYPE"] == "text/HTML"
    assert "Content-Type" in fields


def test_a_field_that_is_not_there() -> None:
    fields = Headers({"X-A": "1"})
    assert fields.get("X-B") is None
    assert fields.get("X-B", "else") == "else"
    assert fields.get_all("X-B") == []
    assert "X-B" not in fields
    with pytest.raises(KeyError, match=r"^'X-B'$"):
        fields["X-B"]


@pytest.mark.parametrize("name", ["X-Name", "Name", "X-Name-Id", "Name-Id", "ame", "Nam", "", "X"])
def test_a_name_is_matched_whole(name: str) -> None:
    others = {"X-Name": "1", "Name": "2", "X-Name-Id": "3", "Name-Id": "4"}
    fields = Headers(others)
    assert fields.get(name) == others.get(name)
    fields.remove(name)
    assert list(fields) == [(other, value) for other, value in others.items() if other != name]


def test_a_name_inside_a_value_is_no_field() -> None:
    fields = Headers.from_block(b"\r\nX-A: Host: b\r\nX-B:Host:c")
    assert "Host" not in fields
    assert fields.get("X-A") == "Host: b"
    assert fields.get("X-B") == "Host:c"
    fields.remove("host")
    assert fields.block == b"\r\nX-A: Host: b\r\nX-B:Host:c"


def test_several_lines_of_a_name_are_joined_by_get_and_apart_in_get_all() -> None:
    fields = Headers.from_block(b"\r\nVia: 1.1 a\r\nHost: h\r\nvia:1.1 b\t\r\nVIA: ")
    assert fields.get("via") == "1.1 a, 1.1 b, "
    assert fields.get_all("Via") == ["1.1 a", "1.1 b", ""]


@pytest.mark.parametrize("block", [b"\r\nX-A:", b"\r\nX-A: ", b"\r\nX-A: \t", b"\r\nX-A:\r\nX-B: 1"])
def test_an_empty_value_is_a_value(block: bytes) -> None:
    fields = Headers.from_block(block)
    assert fields.get("X-A", "else") == ""
    assert "X-A" in fields


def test_only_text_can_be_a_name() -> None:
    assert 1 not in Headers({"1": "x"})
    assert b"X-A" not in Headers({"X-A": "x"})


def test_iterating_gives_the_fields_in_order_with_their_names_as_they_were_written() -> None:
    fields = Headers.from_block(b"\r\nhost:a\r\nX-Caf\xe9: \xe9 \r\nHOST: b:c")
    assert list(fields) == [("host", "a"), ("X-Caf\xe9", "\xe9"), ("HOST", "b:c")]
    assert fields.raw() == [(b"host", b"a"), (b"X-Caf\xe9", b"\xe9"), (b"HOST", b"b:c")]
    assert len(fields) == 3
    assert list(Headers()) == []
    assert len(Headers()) == 0


def test_fields_are_true_where_there_are_any() -> None:
    assert Headers({"X-A": ""})
    assert not Headers()


def test_fields_are_equal_whatever_the_case_of_their_names_and_the_blanks_around_values() -> None:
    assert Headers.from_block(b"\r\nX-A:1\r\nX-B: 2") == Headers([("x-a", "1"), ("X-b", "2")])
    assert Headers([("X-A", "1")]) != Headers([("X-A", "2")])
    assert Headers([("X-A", "v")]) != Headers([("X-A", "V")])
    assert Headers([("X-A", "1"), ("X-B", "2")]) != Headers([("X-B", "2"), ("X-A", "1")])
    assert Headers() != []


def test_fields_that_can_change_have_no_hash() -> None:
    with pytest.raises(TypeError, match=r"unhashable"):
        hash(Headers())


def test_fields_show_themselves_as_what_would_make_them() -> None:
    assert repr(Headers({"X-A": "1"})) == "Headers([('X-A', '1')])"


# ----------------------------------------------------------------------------------------------------- changing


def test_add_appends_beside_others_of_the_name() -> None:
    fields = Headers({"X-A": "1", "X-B": "2"})
    fields.add("x-a", "3")
    assert fields.block == b"\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3"
    assert fields.get_all("X-A") == ["1", "3"]


def test_set_puts_a_field_where_the_first_of_its_name_stood_and_drops_the_others() -> None:
    fields = Headers.from_block(b"\r\nX-A: 0\r\nx-b:1\r\nX-C: 2\r\nX-B: 3\r\nX-BB: 4\r\nX-B:")
    fields["X-b"] = "new"
    assert fields.block == b"\r\nX-A: 0\r\nX-b: new\r\nX-C: 2\r\nX-BB: 4"


def test_set_appends_what_was_not_there() -> None:
    fields = Headers({"X-A": "1"})
    fields.set("X-B", "2")
    assert fields.block == b"\r\nX-A: 1\r\nX-B: 2"


def test_what_was_set_is_what_get_gives_next() -> None:
    fields = Headers({"X-A": "1"})
    assert fields.get("x-a") == "1"
    fields["X-A"] = "2"
    assert fields.get("x-a") == "2"
    fields.block = b"\r\nX-A: 3"
    assert fields.get("x-a") == "3"


def test_remove_drops_every_line_of_each_name() -> None:
    fields = Headers.from_block(b"\r\nX-A: 1\r\nX-B: 2\r\nx-a:3\r\nX-C:\r\nX-D: 4")
    fields.remove("X-A", "x-c", "X-Z")
    assert fields.block == b"\r\nX-B: 2\r\nX-D: 4"


def test_remove_without_a_name_drops_nothing() -> None:
    fields = Headers({"X-A": "1"})
    fields.remove()
    assert fields.block == b"\r\nX-A: 1"


def test_del_drops_a_field_and_says_when_there_is_none() -> None:
    fields = Headers([("X-A", "1"), ("x-a", "2")])
    del fields["X-a"]
    assert fields.block == b""
    with pytest.raises(KeyError, match=r"^'X-A'$"):
        del fields["X-A"]


def test_a_name_with_signs_that_mean_something_to_a_regular_expression() -> None:
    fields = Headers.from_block(b"\r\nX.A: 1\r\nX-A: 2\r\nX+*: 3")
    fields.remove("x.a")
    assert fields.block == b"\r\nX-A: 2\r\nX+*: 3"
    fields.set("x+*", "4")
    assert fields.block == b"\r\nX-A: 2\r\nx+*: 4"


@pytest.mark.parametrize("name", ["caf\u20ac", "\u212a", "X-A: 1\r\nX-B"])
def test_a_name_that_no_field_can_have_is_not_there_and_can_be_removed_without_a_word(name: str) -> None:
    fields = Headers({"K": "1", "X-A": "1", "X-B": "2"})
    assert name not in fields
    assert fields.get(name) is None
    fields.remove(name)
    assert fields.block == b"\r\nK: 1\r\nX-A: 1\r\nX-B: 2"


# ------------------------------------------------------------------------------------------------------ refused

INJECTIONS = ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rb", "a\0b", "a\x7fb", "a\x0bb", "\n", "a\x1b[31m", "a\r", "\na"]


def change_by_add(fields: Headers, name: str, value: str) -> None:
    fields.add(name, value)


def change_by_set(fields: Headers, name: str, value: str) -> None:
    fields.set(name, value)


def change_by_item(fields: Headers, name: str, value: str) -> None:
    fields[name] = value


def change_by_making(fields: Headers, name: str, value: str) -> None:
    fields.block += Headers([(name, value)]).block


WAYS = [change_by_add, change_by_set, change_by_item, change_by_making]


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("value", INJECTIONS)
def test_no_value_can_hold_a_control_character(change: Callable[[Headers, str, str], None], value: str) -> None:
    fields = Headers({"X-A": "1"})
    with pytest.raises(ValueError, match=r"^the value of X-A has a control character: '"):
        change(fields, "X-A", value)
    assert fields.block == b"\r\nX-A: 1", "and nothing was changed"


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("name", ["", "X A", "X-A:", "X-A\r\nX-Evil", "X\0", "X\t", "caf\xe9", "\u20ac", "X(A)", 'X"A'])
def test_no_name_can_be_more_than_a_token(change: Callable[[Headers, str, str], None], name: str) -> None:
    fields = Headers({"X-A": "1"})
    with pytest.raises(ValueError, match=r"is no field name: use letters, digits and"):
        change(fields, name, "1")
    assert fields.block == b"\r\nX-A: 1"


def test_a_value_past_iso_8859_1_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"^the value of X-A has characters past ISO 8859-1; encode them first$"):
        Headers().add("X-A", "\u20ac")


def test_a_tab_inside_a_value_is_allowed() -> None:
    assert encode_field("X-A", "a\tb") == b"\r\nX-A: a\tb"


def test_a_pattern_matches_whole_fields_only() -> None:
    pattern = field_pattern(("a", "b-c"))
    assert pattern.sub(b"", b"\r\nA: 1\r\nB-C:2\r\nAB: 3\r\nX: a: 4") == b"\r\nAB: 3\r\nX: a: 4"


# --------------------------------------------------------------------------------------------- the reference model


class Pairs:
    """The reference: a plain list of pairs, and the obvious way to do each thing."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []

    def add(self, name: str, value: str) -> None:
        self.pairs.append((name, value.strip(" \t")))

    def set(self, name: str, value: str) -> None:
        pairs: list[tuple[str, str]] = []
        placed = False
        for other in self.pairs:
            if other[0].lower() != name.lower():
                pairs.append(other)
            elif not placed:
                pairs.append((name, value.strip(" \t")))
                placed = True
        self.pairs = pairs if placed else [*pairs, (name, value.strip(" \t"))]

    def remove(self, *names: str) -> None:
        lower = [name.lower() for name in names]
        self.pairs = [pair for pair in self.pairs if pair[0].lower() not in lower]

    def get_all(self, name: str) -> list[str]:
        return [value for other, value in self.pairs if other.lower() == name.lower()]


TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~09azAZ"
NAMES = st.one_of(
    st.sampled_from(["A", "a", "AB", "B", "x-a", "X-A", "X-A-B", "A.B", "a+", "Set-Cookie"]),
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=3),
)
VALUES = st.one_of(
    st.sampled_from(["", " ", "a: b", "x-a:1", ":", ", ", "\t1\t", "A:"]),
    st.text([chr(at) for at in range(256) if at == 9 or 32 <= at != 127], max_size=8),
)
CHANGES = st.one_of(
    st.tuples(st.just("add"), NAMES, VALUES),
    st.tuples(st.just("set"), NAMES, VALUES),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("remove"), NAMES, NAMES),
)


@given(st.lists(CHANGES, max_size=12), NAMES)
def test_any_sequence_of_changes_gives_what_a_plain_list_of_pairs_gives(
    changes: list[tuple[str, ...]], asked: str
) -> None:
    fields, model = Headers(), Pairs()
    for method, *args in changes:
        getattr(fields, method)(*args)
        getattr(model, method)(*args)
        assert list(fields) == model.pairs
        assert len(fields) == len(model.pairs)
        assert bool(fields) is bool(model.pairs)
        for name in (asked, args[0]):
            values = model.get_all(name)
            assert fields.get_all(name) == values
            assert fields.get(name, "none") == (", ".join(values) if values else "none")
            assert (name in fields) is bool(values)
    assert Headers(model.pairs) == fields
    assert Headers.from_block(fields.block) == fields


@given(st.text(max_size=6), st.text(max_size=6))
def test_whatever_is_added_is_either_refused_or_exactly_one_field(name: str, value: str) -> None:
    fields = Headers({"X-Before": "1"})
    try:
        fields.add(name, value)
    except ValueError:
        assert fields.block == b"\r\nX-Before: 1"
    else:
        assert TOKEN.fullmatch(name.encode("ascii"))
        assert list(fields) == [("X-Before", "1"), (name, value.strip(" \t"))]
        assert fields.block.count(b"\r") == fields.block.count(b"\n") == 2
