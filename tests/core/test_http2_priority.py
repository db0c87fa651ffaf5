"""What is sent first of what waits (RFC 9218): the Priority field row by row, the order, and any sequence of events
against a model that keeps nothing but lists."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coulee.core.http2_priority import UNSAID, VALUE_BYTES_MAX, Priority, Waiting, merged, parse_priority

DEFAULT = Priority()

# -- the field

READ = [
    (b"", 3, False),
    (b"u=0", 0, False),
    (b"u=7", 7, False),
    (b"i", 3, True),
    (b"u=5, i", 5, True),
    (b"i,u=5", 5, True),
    (b"i=?1", 3, True),
    (b"i=?0", 3, False),
    (b"  u=1 \t,\t i \t", 1, True),
    (b"u=-0", 0, False),
    (b"u=000000000000002", 2, False),
    (b"u=1;a;b=2;  c=?0, i;x", 1, True),
    (b"u=1, u=2", 2, False),  # the last counts
    (b"i, i=?0", 3, False),
    (b"u=1, u=8", 3, False),  # ... even where it says nothing
    (b"u=1, u", 3, False),
    (b"i, i=1", 3, False),
    # ignored: out of range, or of another type
    (b"u=8, i", 3, True),
    (b"u=-1, i", 3, True),
    (b"u=999999999999999, i", 3, True),
    (b"u=1.0, i", 3, True),
    (b'u="1", i', 3, True),
    (b"u=:MQ==:, i", 3, True),
    (b"u=@1, i", 3, True),
    (b"u=a1, i", 3, True),
    (b"u=?1, i", 3, True),
    (b"u, i", 3, True),
    (b"u=(1 2), i", 3, True),
    (b"u=1, i=1", 1, False),
    (b"u=1, i=(?1)", 1, False),
    (b"u=1, i=a", 1, False),
    (b"u=1, i=a;b", 1, False),
    # ignored: unknown, with values of all types
    (b"U_no", 3, False),
    (b"ui=1, iu, u=2", 2, False),
    (b'a="i, u=1 \\" \\\\", u=2', 2, False),
    (b"a=:aGFsbG8=:, b=::, u=2", 2, False),
    (b"a=b/c:d!, *=*, u=2", 2, False),
    (b"a=-1.5, b=123456789012.123, u=2", 2, False),
    (b"a=@-15, u=2", 2, False),
    (b'a=%"f%c3%bc \\", u=2', 2, False),
    (b'a=( 1  "b";c=1 d ) ;e, u=2', 3, False),  # a blank before the semicolon
    (b'a=( 1  "b";c=1 d );e, u=2', 2, False),
    (b"a=(), b=( ), u=2", 2, False),
    # no dictionary: ignored whole
    (b"u=1,", 3, False),
    (b"u=1, ", 3, False),
    (b",u=1", 3, False),
    (b"u=1,,i", 3, False),
    (b"u=1 i", 3, False),
    (b"u=1;", 3, False),
    (b"\tu=1", 3, False),
    (b"u=", 3, False),
    (b"u =1", 3, False),
    (b"u= 1", 3, False),
    (b"u=1, I", 3, False),
    (b"u=1, =2", 3, False),
    (b"u=1, 1", 3, False),
    (b"u=1, a=1234567890123456", 3, False),
    (b"u=1, a=1234567890123.1", 3, False),
    (b"u=1, a=1.1234", 3, False),
    (b"u=1, a=1.", 3, False),
    (b"u=1, a=.1", 3, False),
    (b"u=1, a=+1", 3, False),
    (b"u=1, a=--1", 3, False),
    (b"u=1, a=?2", 3, False),
    (b"u=1, a=?01", 3, False),
    (b'u=1, a="b', 3, False),
    (b'u=1, a="\\b"', 3, False),
    (b'u=1, a="\x07"', 3, False),
    (b"u=1, a=:b", 3, False),
    (b"u=1, a=:=b:", 3, False),
    (b"u=1, a=@1.5", 3, False),
    (b'u=1, a=%"%C3"', 3, False),
    (b"u=1, a=(1", 3, False),
    (b'u=1, a=(1"b")', 3, False),
    (b"u=1, a=((1))", 3, False),
    (b"u=1, a=(1\t2)", 3, False),
    (b"u=1, i=?1\n", 3, False),
    (b"u=1\n", 3, False),
    (b"u=1, \xff", 3, False),
    ("u=1, a=\u0661", 3, False),  # a digit elsewhere
    (b"\0", 3, False),
]  # fmt: skip


@pytest.mark.parametrize(("value", "urgency", "incremental"), READ)
def test_the_field(value: bytes | str, urgency: int, incremental: bool) -> None:
    assert parse_priority(value) == Priority(urgency, incremental)
    if isinstance(value, bytes):
        assert parse_priority(value.decode("latin-1")) == Priority(urgency, incremental)


def test_the_longest_field() -> None:
    value = b"u=1, a=" + b"1" * 15
    value += b" " * (VALUE_BYTES_MAX - len(value))
    assert parse_priority(value) == Priority(1)
    assert parse_priority(value + b" ") == DEFAULT


def test_what_an_answer_says_counts_for_more() -> None:
    asked = Priority(5, True)
    assert merged(asked, b"u=1") == Priority(1, True)  # the example of section 8
    assert merged(asked, "i=?0") == Priority(5, False)
    assert merged(asked, b"u=3, i=?0") == DEFAULT
    assert merged(Priority(5), b"i") == asked
    for nothing in (b"", b"u=9", b"i=1", b"u=1,", b"a", b"\xff", b"u=1" + b" " * VALUE_BYTES_MAX):
        assert merged(asked, nothing) == asked


def test_an_urgency_that_is_none() -> None:
    for urgency in (-1, 8):
        with pytest.raises(AssertionError):
            Priority(urgency)


@given(st.binary(max_size=30) | st.text(alphabet='ui=?01:"(,; \t.a', max_size=30))
def test_any_field_reads(value: bytes | str) -> None:
    """Whatever it is; and where it says something, it says the same behind an unknown parameter."""
    said = parse_priority(value)
    if said != DEFAULT:
        more = b"a=(1);b, " + (value if isinstance(value, bytes) else value.encode()).lstrip(b" ")
        assert parse_priority(more) == said


# -- the order


def open_windows(stream: int) -> int:
    return 2**31 - 1


def order(waiting: Waiting, size_max: int = 10, windows: Callable[[int], int] = open_windows) -> list[int]:
    """The streams, in the order of their pieces."""
    streams: list[int] = []
    while (piece := waiting.take(size_max, windows)) is not None:
        streams.append(piece[0])
    return streams


def waiting_of(priorities: dict[int, Priority], size: int = 30) -> Waiting:
    waiting = Waiting(100)
    for stream, priority in priorities.items():
        waiting.set_priority(stream, priority)
        waiting.put(stream, bytes(size), ended=True)
    return waiting


def test_one_body() -> None:
    waiting = Waiting(100)
    assert not waiting
    waiting.put(1, b"abc", ended=True)
    assert (bool(waiting), waiting.waits(1), waiting.size(1), waiting.total) == (True, True, 3, 3)
    assert waiting.take(10, open_windows) == (1, b"abc", True, None)
    assert (bool(waiting), waiting.waits(1), waiting.size(1), waiting.total) == (False, False, 0, 0)
    assert waiting.take(10, open_windows) is None


def test_pieces_are_cut_and_joined() -> None:
    waiting = Waiting(100)
    for data in (b"abcd", b"", b"e", b"fgh"):
        waiting.put(1, data, ended=False)
    cut = [waiting.take(size, open_windows) for size in (1, 2, 3, 2)]
    assert cut == [(1, b"a", False, None), (1, b"bc", False, None), (1, b"def", False, None), (1, b"gh", False, None)]
    assert not waiting
    waiting.put(1, b"", ended=False)
    assert not waiting  # nothing was put


def test_a_whole_piece_is_passed_on_as_it_is() -> None:
    data = bytes(1000)
    waiting = Waiting(100)
    for piece in (b"abcd", b"efgh", data, data):
        waiting.put(1, piece, ended=False)
    assert waiting.take(8, open_windows) == (1, b"abcdefgh", False, None)
    for _ in range(2):
        taken = waiting.take(1000, open_windows)
        assert taken is not None
        assert taken[1] is data


def test_trailers_come_behind_the_last_byte() -> None:
    waiting = Waiting(100)
    fields = [("a", "b")]
    waiting.put(1, b"abc", ended=False)
    waiting.close(1, fields)
    assert waiting.take(2, open_windows) == (1, b"ab", False, None)
    assert waiting.take(2, lambda stream: 0) is None
    assert waiting.take(2, open_windows) == (1, b"c", True, fields)
    assert not waiting


def test_an_end_needs_no_window() -> None:
    waiting = Waiting(100)
    waiting.put(1, b"a", ended=False)
    waiting.put(3, b"", ended=True)
    waiting.close(5, "trailers")
    assert (waiting.waits(3), waiting.size(3)) == (True, 0)
    assert waiting.take(9, lambda stream: 0) == (3, b"", True, None)
    assert waiting.take(9, lambda stream: -5) == (5, b"", True, "trailers")
    assert waiting.take(9, lambda stream: 0) is None
    assert (waiting.size(1), waiting.total) == (1, 1)


def test_nothing_comes_behind_an_end() -> None:
    waiting = Waiting(100)
    waiting.put(1, b"a", ended=True)
    with pytest.raises(AssertionError):
        waiting.put(1, b"b", ended=False)
    with pytest.raises(AssertionError):
        waiting.close(1, "trailers")


def test_the_urgent_come_first() -> None:
    waiting = waiting_of({1: Priority(7), 3: Priority(3, True), 5: Priority(0, True), 7: DEFAULT}, size=10)
    assert order(waiting) == [5, 3, 7, 1]


def test_the_urgent_come_first_though_they_come_late() -> None:
    waiting = waiting_of({1: Priority(4)})
    assert waiting.take(10, open_windows) == (1, bytes(10), False, None)
    waiting.set_priority(3, Priority(2))
    waiting.put(3, bytes(20), ended=True)
    assert order(waiting) == [3, 3, 1, 1]


def test_in_the_order_of_their_requests() -> None:
    assert order(waiting_of({5: DEFAULT, 1: DEFAULT, 9: DEFAULT, 3: DEFAULT}, size=20)) == [1, 1, 3, 3, 5, 5, 9, 9]


def test_incremental_ones_share() -> None:
    assert order(waiting_of(dict.fromkeys((5, 1, 3), UNSAID))) == [5, 1, 3] * 3


def test_those_in_order_have_one_place_among_the_incremental() -> None:
    """Neither starves, whichever came first (section 10)."""
    both = {1: DEFAULT, 3: UNSAID, 5: DEFAULT, 7: UNSAID}
    assert order(waiting_of(both, size=20)) == [1, 3, 7, 1, 3, 7, 5, 5]


def test_their_place_goes_with_the_last_of_them() -> None:
    waiting = waiting_of({1: DEFAULT, 3: UNSAID})
    assert waiting.take(10, open_windows) == (1, bytes(10), False, None)
    waiting.drop(1)
    waiting.set_priority(5, DEFAULT)
    waiting.put(5, bytes(30), ended=True)
    assert order(waiting) == [3, 5, 3, 5, 3, 5]


def test_a_shut_window_is_passed_over_and_keeps_its_place() -> None:
    waiting = waiting_of({1: DEFAULT, 3: DEFAULT, 5: UNSAID, 7: UNSAID}, size=20)
    assert order(waiting, windows=lambda stream: 0 if stream in (1, 5) else 99) == [3, 7, 3, 7]
    assert order(waiting) == [5, 1, 5, 1]  # 5 had its turn before those who went meanwhile
    waiting = waiting_of({1: Priority(0), 3: Priority(7)})
    assert order(waiting, windows=lambda stream: 0 if stream == 1 else 99) == [3, 3, 3]


def test_windows_cut_pieces() -> None:
    waiting = waiting_of({1: DEFAULT})
    assert waiting.take(10, lambda stream: 3) == (1, bytes(3), False, None)
    assert waiting.take(10, lambda stream: 20) == (1, bytes(10), False, None)
    assert waiting.take(20, lambda stream: 17) == (1, bytes(17), True, None)


# -- priorities


def test_who_says_nothing_shares() -> None:
    waiting = Waiting(100)
    for stream in (3, 1):
        waiting.put(stream, bytes(20), ended=True)
    assert order(waiting) == [3, 1, 3, 1]
    waiting.default = DEFAULT
    for stream in (3, 1):
        waiting.put(stream, bytes(20), ended=True)
    assert order(waiting) == [1, 1, 3, 3]


def test_a_priority_that_changes_while_a_body_waits() -> None:
    waiting = waiting_of(dict.fromkeys((1, 3, 5), DEFAULT), size=20)
    waiting.set_priority(3, Priority(1))
    waiting.set_priority(1, DEFAULT)
    assert order(waiting, size_max=20) == [3, 1, 5]
    waiting = waiting_of(dict.fromkeys((1, 3, 5), UNSAID), size=10)
    waiting.set_priority(1, UNSAID)  # which changes nothing
    assert order(waiting) == [1, 3, 5]


def test_a_priority_lasts_until_the_end() -> None:
    waiting = Waiting(100)
    assert waiting.priority(3) is None
    assert waiting.set_priority(3, Priority(1))  # before there is anything of it
    assert waiting.priority(3) == Priority(1)
    for ended in (False, True):
        waiting.put(1, b"a", ended=False)
        waiting.put(3, b"b", ended=ended)
        assert waiting.priority(3) == Priority(1)
        assert order(waiting) == [3, 1]
    assert waiting.priority(3) is None
    waiting.set_priority(3, Priority(1))
    waiting.drop(3)
    assert waiting.priority(3) is None


def test_so_many_priorities_are_remembered() -> None:
    waiting = Waiting(2)
    assert waiting.set_priority(1, Priority(1))
    assert waiting.set_priority(3, Priority(2))
    assert not waiting.set_priority(5, Priority(0))
    assert waiting.priority(5) is None
    assert waiting.set_priority(3, Priority(3))
    waiting.put(5, b"a", ended=True)
    assert not waiting.set_priority(5, Priority(0))  # counts, but only while it waits
    waiting.put(1, b"a", ended=True)
    assert order(waiting) == [5, 1]
    assert waiting.set_priority(5, Priority(0))  # 1 is over


def test_drop() -> None:
    waiting = waiting_of({1: DEFAULT, 3: UNSAID, 5: Priority(1), 7: DEFAULT}, size=10)
    for stream in (1, 3, 9):
        waiting.drop(stream)
    assert (waiting.total, waiting.size(1), waiting.waits(3)) == (20, 0, False)
    assert order(waiting) == [5, 7]


@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.binary(min_size=1, max_size=30), min_size=1)), min_size=1, max_size=6
    ),
    st.integers(1, 20),
)
def test_fair_shares(bodies: list[tuple[bool, list[bytes]]], size_max: int) -> None:
    """While several have something to send, none of them is more than one piece ahead of another."""
    waiting = Waiting(100)
    came: dict[int, list[bytes]] = {}
    in_order: list[int] = []
    for stream, (incremental, pieces) in enumerate(bodies, 1):
        waiting.set_priority(stream, Priority(incremental=incremental))
        for piece in pieces:
            waiting.put(stream, piece, ended=False)
        came[stream] = []
        if not incremental:
            in_order.append(stream)
    while waiting:
        able = [stream for stream in came if waiting.waits(stream)]
        taken = waiting.take(size_max, open_windows)
        assert taken is not None
        came[taken[0]].append(taken[1])
        turns = [len(came[stream]) for stream in able if stream not in in_order]
        if any(stream in in_order for stream in able):
            turns.append(sum(len(came[stream]) for stream in in_order))
        assert max(turns) - min(turns) <= 1
    for stream, (_, pieces) in enumerate(bodies, 1):
        assert b"".join(came[stream]) == b"".join(pieces)
        assert all(len(piece) == size_max for piece in came[stream][:-1])


# -- anything, in any order

STREAMS = st.sampled_from([1, 3, 5, 7, 9])
PRIORITIES = st.builds(Priority, st.sampled_from([0, 3, 7]), st.booleans())


class Sequences(RuleBasedStateMachine):
    """What is written against what comes out. The model looks through all that waits: of the places in the round of the
    most urgent level where something can be sent, the one whose last turn, or whose coming, was the longest ago."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = Waiting(100)
        self.left: dict[int, bytes] = {}  # what waits of each stream
        self.ends: dict[int, object | None] = {}  # of those that have ended: their trailers
        self.said: dict[int, Priority] = {}
        self.treated: dict[int, Priority] = {}  # of those that wait
        self.turns: dict[tuple[int, int], int] = {}  # of each place, its urgency and its stream or 0: when it was
        self.time = 0

    @initialize(known=st.booleans())
    def begin(self, known: bool) -> None:
        if known:
            self.waiting.default = DEFAULT

    def place(self, stream: int) -> tuple[int, int]:
        priority = self.treated[stream]
        return priority.urgency, stream if priority.incremental else 0

    def enter(self, stream: int) -> None:
        if stream not in self.left:
            self.left[stream] = b""
            self.treat(stream, self.said.get(stream, self.waiting.default))

    def treat(self, stream: int, priority: Priority | None) -> None:
        """Those places are kept that still have somebody in them."""
        self.treated.pop(stream, None)
        places = [self.place(each) for each in self.treated]
        self.turns = {place: turn for place, turn in self.turns.items() if place in places}
        if priority is not None:
            self.time += 1
            self.treated[stream] = priority
            self.turns.setdefault(self.place(stream), self.time)

    def forget(self, stream: int) -> None:
        if self.left.pop(stream, None) is not None:
            self.treat(stream, None)

    @rule(stream=STREAMS, data=st.binary(max_size=12), ended=st.booleans())
    def put(self, stream: int, data: bytes, ended: bool) -> None:
        if stream in self.ends:
            return
        self.waiting.put(stream, data, ended)
        if data or ended:
            self.enter(stream)
            self.left[stream] += data
        if ended:
            self.ends[stream] = None

    @rule(stream=STREAMS)
    def close(self, stream: int) -> None:
        if stream in self.ends:
            return
        self.ends[stream] = trailers = object()
        self.waiting.close(stream, trailers)
        self.enter(stream)

    @rule(stream=STREAMS)
    def drop(self, stream: int) -> None:
        self.waiting.drop(stream)
        self.forget(stream)
        self.ends.pop(stream, None)
        self.said.pop(stream, None)

    @rule(stream=STREAMS, priority=PRIORITIES)
    def set_priority(self, stream: int, priority: Priority) -> None:
        assert self.waiting.set_priority(stream, priority)
        self.said[stream] = priority
        if stream in self.left and self.treated[stream] != priority:
            self.treat(stream, priority)

    @rule(size_max=st.integers(1, 9), windows=st.dictionaries(STREAMS, st.integers(-2, 12)))
    def take(self, size_max: int, windows: dict[int, int]) -> None:
        def window(stream: int) -> int:
            return windows.get(stream, 4)

        able = [stream for stream, left in self.left.items() if not left or window(stream) > 0]
        piece = self.waiting.take(size_max, window)
        if not able:
            assert piece is None
            return
        first = min(able, key=lambda each: (self.place(each)[0], self.turns[self.place(each)], each))
        assert piece is not None
        stream, data, ended, trailers = piece
        assert stream == first
        assert len(data) == min(size_max, len(self.left[stream]), max(0, window(stream)))
        assert self.left[stream].startswith(data)
        left = self.left[stream] = self.left[stream][len(data) :]
        assert ended == (not left and stream in self.ends)
        assert trailers is (self.ends[stream] if ended else None)
        self.time += 1
        self.turns[self.place(stream)] = self.time
        if not left:
            self.forget(stream)
        if ended:
            del self.ends[stream]
            self.said.pop(stream, None)

    @invariant()
    def the_counts_agree(self) -> None:
        waiting = self.waiting
        assert bool(waiting) == bool(self.left)
        assert waiting.total == sum(map(len, self.left.values()))
        for stream in (1, 3, 5, 7, 9):
            assert waiting.waits(stream) == (stream in self.left)
            assert waiting.size(stream) == len(self.left.get(stream, b""))
            assert waiting.priority(stream) == self.said.get(stream)

    def teardown(self) -> None:
        """All of it comes out in the end, and then nothing is kept."""
        for stream in (1, 3, 5, 7, 9):
            self.close(stream)
        while self.left:
            self.take(9, {})
        self.the_counts_agree()
        assert not self.said


TestSequences = Sequences.TestCase
