"""A connection of one's own, as packet traces: bytes both ways, and every way in which it can end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import pytest

from coulee.core import Config, ExchangeError, Peer, Timeouts, deadline, nursery, sleep
from coulee.core.codec import ProtocolError
from coulee.core.dial import Line, dial
from coulee.core.kernel import Cancelled, DeadlineExceeded, Task
from coulee.core.proxy import Proxy
from coulee.core.seam import Blocked, Closed, Connected, Hold, Received, Send, Sent
from coulee.core.sole_connection import SoleConnection
from tests.core.ledger import Ledger
from tests.core.world import World

PEER = Peer(("10.0.0.1", 7), "echo")
Use = Callable[[Line], Awaitable[object]]


class Dialled:
    """A machine in which a task dials, and does something with the line; what came of it."""

    def __init__(self, use: Use | None = None, *, limit_s: float = 1e9, connect_timeout_s: float = 3.0) -> None:
        self.proxy = Proxy(Ledger(), config=Config(timeouts=Timeouts(answer_timeout_s=20.0)), rng=Random(1))
        self.world = World(self.proxy)
        self.world.gives(None)
        self.use = use
        self.got: list[object] = []
        self.error: BaseException | None = None
        self.line: Line | None = None
        self.task: Task
        self.limit_s = limit_s
        self.connect_timeout_s = connect_timeout_s
        starter = _Starter(self)
        starter.hand_to(self.world)
        self.task = starter.task

    async def run(self) -> None:
        try:
            with deadline(self.limit_s):
                async with dial(PEER, self.connect_timeout_s) as self.line:
                    if self.use is not None:
                        self.got.append(await self.use(self.line))
        except (ExchangeError, DeadlineExceeded, RuntimeError) as error:
            self.error = error

    def stands(self) -> int:
        """The connection comes through."""
        connect = self.world.connecting[0]
        assert connect.address == PEER.address
        return self.world.connects()

    def is_over(self) -> None:
        """Nothing is left."""
        assert self.task.done
        self.world.wait(400)
        left = {kind: count for kind, count in self.proxy.leftovers.items() if count}
        assert not left, left


class _Starter:
    """Starts a task in a turn of the machine, as everything in it is."""

    def __init__(self, dialled: Dialled) -> None:
        self.dialled = dialled
        self.task: Task

    def hand_to(self, world: World) -> None:
        kernel = self.dialled.proxy.kernel
        self.task = Task(kernel, self.dialled.run())
        kernel.wake(self.task, None)
        world.gives(None)


def reason(error: BaseException | None) -> str:
    assert isinstance(error, ExchangeError)
    return error.reason


# ------------------------------------------------------------------------------------------------------- both ways


async def ask(line: Line) -> bytes:
    await line.send(b"PING")
    return await line.receive()


def test_bytes_go_both_ways_and_the_connection_ends_with_the_block() -> None:
    dialled = Dialled(ask)
    conn = dialled.stands()
    assert dialled.world.sent(conn) == b"PING"
    dialled.world.receives(conn, b"PONG")
    assert dialled.got == [b"PONG"]
    assert dialled.world.closing[conn] is False
    assert dialled.error is None
    dialled.is_over()


def test_what_came_before_it_is_asked_for_is_there() -> None:
    async def late(line: Line) -> list[bytes]:
        await line.send(b"a")
        first = await line.receive()
        return [first, await line.receive(), await line.receive()]

    dialled = Dialled(late)
    conn = dialled.stands()
    dialled.world.receives(conn, b"one")
    dialled.world.receives(conn, b"two")
    dialled.world.receives(conn, b"three")
    assert dialled.got == [[b"one", b"two", b"three"]]
    dialled.is_over()


async def all_of_it(line: Line) -> list[bytes]:
    pieces: list[bytes] = []
    while piece := await line.receive():
        pieces.append(piece)
    assert line.ended
    assert await line.receive() == b"", "and again"
    await line.send(b"bye")
    return pieces


def test_a_peer_that_half_closes_is_still_told_something() -> None:
    dialled = Dialled(all_of_it)
    conn = dialled.stands()
    dialled.world.receives(conn, b"a")
    assert dialled.line is not None
    assert not dialled.line.ended
    dialled.world.receives(conn, b"")
    assert dialled.got == [[b"a"]]
    assert dialled.world.sent(conn) == b"bye"
    dialled.is_over()


def test_bytes_and_the_end_while_nobody_reads() -> None:
    async def later(line: Line) -> list[bytes]:
        await sleep(1)
        return await all_of_it(line)

    dialled = Dialled(later)
    conn = dialled.stands()
    dialled.world.receives(conn, b"a")
    dialled.world.receives(conn, b"b")
    dialled.world.receives(conn, b"")
    dialled.world.wait(1)
    assert dialled.got == [[b"ab"]]
    dialled.is_over()


def test_two_tasks_may_use_a_line() -> None:
    got: list[bytes] = []

    async def read(line: Line) -> None:
        got.append(await line.receive())

    async def both(line: Line) -> None:
        with nursery() as tasks:
            tasks.start(read, line)
            await line.send(b"x")
            await tasks.join()

    dialled = Dialled(both)
    conn = dialled.stands()
    assert dialled.world.sent(conn) == b"x"
    dialled.world.receives(conn, b"y")
    assert got == [b"y"]
    dialled.is_over()


# --------------------------------------------------------------------------------------------------- how it can fail


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("refused", "upstream_refused"),
        ("unreachable", "upstream_unreachable"),
        ("timed_out", "upstream_connect_timeout"),
        ("reset", "upstream_reset"),
    ],
)
def test_who_is_not_there(kind: str, word: str) -> None:
    dialled = Dialled(ask)
    dialled.world.refuses(kind)  # type: ignore[arg-type]
    assert reason(dialled.error) == word
    dialled.is_over()


def test_a_connect_that_takes_too_long() -> None:
    dialled = Dialled(ask, connect_timeout_s=0.5)
    conn = dialled.world.connecting[0].conn
    dialled.world.wait(0.4)
    assert dialled.error is None
    dialled.world.wait(0.2)
    assert str(dialled.error) == "upstream_connect_timeout: not connected within 0.5 s"
    assert dialled.world.closing[conn] is True
    dialled.is_over()


@pytest.mark.parametrize("answered", [True, False])
def test_who_gives_up_before_it_stands_hears_no_more_of_it(answered: bool) -> None:
    dialled = Dialled(ask, limit_s=0.5)
    conn = dialled.world.connecting[0].conn
    dialled.world.holds_closes = answered
    dialled.world.wait(0.5)
    assert isinstance(dialled.error, DeadlineExceeded)
    assert dialled.world.closing[conn] is True
    if answered:
        dialled.world.gives(Closed(conn, "aborted"))
    dialled.is_over()


def test_a_reset_while_somebody_reads() -> None:
    dialled = Dialled(ask)
    conn = dialled.stands()
    dialled.world.resets(conn)
    assert reason(dialled.error) == "upstream_reset"
    assert str(dialled.error) == "upstream_reset: the connection was closed"
    dialled.is_over()


def test_what_came_before_a_reset_is_still_read() -> None:
    async def later(line: Line) -> bytes:
        await sleep(1)
        got = await line.receive()
        with pytest.raises(ExchangeError, match="upstream_reset: gone away"):
            await line.send(b"x")
        with pytest.raises(ExchangeError, match="upstream_reset: gone away"):
            await line.receive()
        return got

    dialled = Dialled(later)
    conn = dialled.stands()
    dialled.world.receives(conn, b"last words")
    dialled.world.resets(conn, detail="gone away")
    dialled.world.wait(1)
    assert dialled.got == [b"last words"]
    dialled.is_over()


def test_a_peer_that_says_nothing() -> None:
    dialled = Dialled(ask)
    conn = dialled.stands()
    dialled.world.wait(19.9)
    assert dialled.error is None
    dialled.world.wait(0.2)
    assert str(dialled.error) == "upstream_timeout: echo sent nothing in time"
    assert dialled.world.closing[conn] is True
    dialled.is_over()


def test_the_wait_for_a_piece_begins_with_each() -> None:
    dialled = Dialled(all_of_it)
    conn = dialled.stands()
    for _ in range(5):
        dialled.world.wait(19)
        dialled.world.receives(conn, b".")
    assert dialled.error is None
    dialled.world.receives(conn, b"")
    assert dialled.got == [[b"."] * 5]
    dialled.is_over()


def test_a_deadline_of_ones_own() -> None:
    dialled = Dialled(ask, limit_s=2.0)
    conn = dialled.stands()
    dialled.world.wait(2.0)
    assert isinstance(dialled.error, DeadlineExceeded)
    assert dialled.world.closing[conn] is True
    dialled.is_over()


def test_a_task_that_is_cancelled() -> None:
    dialled = Dialled(ask)
    conn = dialled.stands()
    dialled.task.cancel()
    assert isinstance(dialled.task.error, Cancelled)
    dialled.world.gives(None)
    assert dialled.world.closing[conn] is True
    dialled.is_over()


def test_an_error_in_the_block_resets_the_connection() -> None:
    async def boom(line: Line) -> None:
        raise RuntimeError("boom")

    dialled = Dialled(boom)
    (conn,) = [connect.conn for connect in dialled.world.connecting]
    dialled.stands()
    assert isinstance(dialled.error, RuntimeError)
    assert dialled.world.closing[conn] is True
    dialled.is_over()


def test_a_block_that_does_nothing_is_a_check_of_the_connection() -> None:
    dialled = Dialled()
    conn = dialled.stands()
    assert dialled.world.closing[conn] is False
    assert dialled.error is None
    dialled.is_over()


def test_bytes_without_framing_cannot_be_wrong() -> None:
    dialled = Dialled(ask)
    conn = dialled.stands()
    connection = dialled.proxy.connections[conn]
    assert isinstance(connection, SoleConnection)
    with pytest.raises(AssertionError, match="finds no fault"):
        connection.fault(ProtocolError("nothing"))
    dialled.world.resets(conn)
    dialled.is_over()


def test_a_line_is_used_inside_its_block() -> None:
    line = dial(PEER)
    for use in (line.receive(), line.send(b"")):
        with pytest.raises(AssertionError, match="a line is open inside its block"):
            use.send(None)


# ------------------------------------------------------------------------------------------------------ back-pressure


async def flood(line: Line) -> int:
    sent = 0
    for _ in range(20):
        await line.send(b"x" * 30_000)
        sent += 30_000
    return sent


def test_who_sends_more_than_is_taken_waits() -> None:
    dialled = Dialled(flood)
    conn = dialled.stands()
    assert len(dialled.world.sent(conn)) == 600_000, "one turn sends what it makes"
    assert dialled.got == [600_000]
    dialled.is_over()
    counted: list[int] = []

    async def slowly(line: Line) -> None:
        for _ in range(20):
            await line.send(b"x" * 30_000)
            counted.append(30_000)
            await line.receive()

    dialled = Dialled(slowly)
    world, conn = dialled.world, dialled.stands()
    world.gives(Blocked(conn))
    for _ in range(10):
        if world.reading[conn]:
            world.receives(conn, b".")
    assert sum(counted) == 90_000, "the mark is reached, and the next piece waits"
    assert len(world.sent(conn)) == 30_000
    world.gives(Sent(conn))
    assert len(world.sent(conn)) >= 60_000
    world.receives(conn, b"")
    assert sum(counted) == 600_000
    dialled.is_over()


def test_who_reads_too_slowly_holds_the_peer_back() -> None:
    async def later(line: Line) -> int:
        await sleep(1)
        return len(await line.receive())

    dialled = Dialled(later)
    world, conn = dialled.world, dialled.stands()
    assert world.gives(Received(conn, b"x" * 40_000)) == []
    assert world.gives(Received(conn, b"x" * 40_000)) == [Hold(conn)]
    world.wait(1)
    assert dialled.got == [80_000]
    dialled.is_over()


def test_who_takes_nothing_is_given_up_while_there_is_more_to_send() -> None:
    async def two(line: Line) -> None:
        await line.send(b"x" * 70_000)
        await line.receive()
        await line.send(b"y")

    dialled = Dialled(two)
    world, conn = dialled.world, dialled.stands()
    world.gives(Blocked(conn))
    world.receives(conn, b"go on")
    world.wait(61)
    assert str(dialled.error) == "upstream_timeout: echo took nothing in time"
    assert world.closing[conn] is True
    dialled.is_over()


@pytest.mark.parametrize("taken", [True, False])
def test_last_bytes_that_are_not_taken_do_not_keep_a_connection_for_ever(taken: bool) -> None:
    async def twice(line: Line) -> None:
        await line.send(b"one")
        await line.receive()
        await line.send(b"two")

    dialled = Dialled(twice)
    world, conn = dialled.world, dialled.stands()
    world.gives(Blocked(conn))
    world.receives(conn, b"go on")
    assert dialled.task.done
    assert conn not in world.closing, "what was sent in order goes out first"
    if taken:
        assert world.gives(Sent(conn))[0] == Send(conn, b"two")
        assert world.closing[conn] is False
    else:
        world.wait(30)
        assert world.closing[conn] is True
    dialled.is_over()


def test_a_connection_that_is_lost_behind_its_block() -> None:
    dialled = Dialled(ask)
    world, conn = dialled.world, dialled.stands()
    world.holds_closes = True
    world.receives(conn, b"PONG")
    world.gives(Closed(conn, "reset"))
    dialled.is_over()


def test_a_connect_and_a_close_that_cross() -> None:
    """The transport stands in the moment in which its block's time is over."""
    dialled = Dialled(ask, limit_s=0.5)
    world = dialled.world
    connect = world.connecting.pop(0)
    world.now = 0.6
    world.gives(Connected(connect.conn, connect.address, ("127.0.0.1", 40000)))
    world.gives(None)
    assert isinstance(dialled.error, DeadlineExceeded)
    assert world.closing[connect.conn] is True
    dialled.is_over()
