"""`coulee replay FILE`: run a fresh core through a recording, and show what it asks for.

A line for each completion (`<`) and each operation (`>`), with the seconds since the recording began; in the end, one
that says whether all went as recorded. Exit codes: 0 it did, 1 it did not, 2 the file or the program cannot be read.
"""

from __future__ import annotations

import pdb  # noqa: T100
import sys
from bdb import BdbQuit
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import NoReturn

import click

from coulee.backends.recording import Recording, RecordingError, Turn
from coulee.backends.replay import Replay, Step
from coulee.backends.trace import line, number_of
from coulee.core import Access, Event, Exchange, Proxy
from coulee.core.seam import Accepted, Address, Connect, Received, Report, Run, Send, show_address
from coulee.core.tunnel_exchange import TunnelAccess
from coulee.server.console import escaped, short_line, tunnel_line
from coulee.server.load import LoadError
from coulee.server.recording import definition_of
from coulee.server.redaction import Redaction


@click.command()
@click.argument("file")
@click.argument("target", required=False, metavar="[FILE.py|MODULE[:NAME]]")
@click.option("--until", "until_s", type=click.FloatRange(min=0), metavar="SECONDS",
              help="Stop at this time, and say what is under way.")  # fmt: skip
@click.option("--exchange", type=click.IntRange(min=1), metavar="N",
              help="Show one exchange alone: that of the Nth access record.")  # fmt: skip
@click.option("--pdb", "debug", is_flag=True, help="Stop in the Python debugger: where --until says, before the first "
              "turn of --exchange, and where the proxy raises or does otherwise than recorded.")  # fmt: skip
@click.option("--whole", is_flag=True, help="Show all of what is sent and received, not the first bytes.")
@click.option("--quiet", is_flag=True, help="Show only whether all went as recorded.")
@click.option("--trust", is_flag=True, help="Read what jobs have returned even where that is a pickle, which can run "
              "any code: only for a file whose writer you trust.")  # fmt: skip
def replay(
    file: str,
    target: str | None,
    until_s: float | None,
    exchange: int | None,
    debug: bool,
    whole: bool,
    quiet: bool,
    trust: bool,
) -> None:
    """Run a fresh proxy through a recording that --record has made, and show what it does.

    The program is the one that was recorded; name it where it is somewhere else now.
    """
    try:
        session = _Session(file, target, trust, whole=whole, quiet=quiet, debug=debug)
        extent = session.extent_of(exchange) if exchange is not None else None
        sys.exit(session.run(until_s, extent))
    except (RecordingError, LoadError, ValueError) as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"{file}: {error.strerror or error}")
    except BdbQuit:
        sys.exit(1)


@dataclass(slots=True)
class _Extent:
    """Where an exchange is in a recording."""

    record: Access | TunnelAccess
    conn: int  # its client's connection
    first: int  # its turns, by number
    last: int


class _Session:
    def __init__(self, file: str, target: str | None, trust: bool, *, whole: bool, quiet: bool, debug: bool) -> None:
        self.file = file
        self.trust = trust
        self.whole = whole
        self.quiet = quiet
        self.debug = debug
        header = Recording(file).header
        self.header = header
        self.definition = definition_of(header, target)
        self.redactor = Redaction(header.redacted).redactor if header.redacted else None
        self.began = 0.0

    def replay(self) -> Replay:
        return Replay(Recording(self.file, trusted=self.trust), self.definition, self.redactor)

    # -- all of it

    def run(self, until_s: float | None, extent: _Extent | None) -> int:
        """Replay, show, and judge; the exit code."""
        replay = self.replay()
        family = _Family(replay, extent.conn) if extent is not None else None
        turns = operations = 0
        for turn in replay.recording:
            if not turns:
                self.began = turn.now
            if until_s is not None and turn.now - self.began > until_s:
                self._under_way(replay, until_s)
                if self.debug:
                    self._in_debugger(replay, turn)
                return 0
            if self.debug and extent is not None and turns == extent.first:
                step = self._in_debugger(replay, turn)
            else:
                step = replay.step(turn)
            turns += 1
            operations += len(step.operations)
            if extent is None or family is None or (extent.first <= step.number <= extent.last and family.has(step)):
                self._show(step)
            if step.error is not None or step.difference:
                return self._ended(step)
            if extent is not None and step.number == extent.last:
                return 0
        print(f"{turns:,} turns, {operations:,} operations, all as recorded; {replay.recording.end}")
        return 0

    def _show(self, step: Step) -> None:
        if self.quiet:
            return
        at = step.turn.now - self.began
        completion = step.turn.completion
        if completion is None:
            print(f"{at:.6f} < time has passed")
        else:
            print(escaped(line(at, completion, whole=self.whole)))
        for operation in step.operations:
            if not isinstance(operation, Report):
                print(escaped(line(at, operation, whole=self.whole)))
            elif isinstance(operation.record, Access):
                print(f"{at:.6f} > Report {short_line(operation.record)}")
            elif isinstance(operation.record, TunnelAccess):
                print(f"{at:.6f} > Report {tunnel_line(operation.record)}")
            elif isinstance(operation.record, Event):
                print(escaped(f"{at:.6f} > Report {operation.record.name}: {operation.record.text}"))

    def _ended(self, step: Step) -> int:
        """The machine has raised, or gone another way."""
        at = step.turn.now - self.began
        error = step.error
        if error is not None:
            how = "as it did when it was recorded" if not step.difference else "which it did not when it was recorded"
            what = escaped(f"{type(error).__name__}: {error}")
            print(f"turn {step.number}, at {at:.6f} s: the proxy raises {what}, {how}")
            if self.debug:
                pdb.post_mortem(error.__traceback__)
            return 1 if step.difference else 0
        print(f"turn {step.number}, at {at:.6f} s, goes another way: {step.difference}")
        for why in self._possible_reasons():
            print(f"  {why}")
        if self.debug:
            self._look(step)
        return 1

    def _possible_reasons(self) -> Iterator[str]:
        about = self.header.about
        yield "the program has changed, or a filter asks a clock, or randomness of its own; or it is a bug of coulee's"
        if self.header.redacted:
            yield f"hidden in this recording: {', '.join(self.header.redacted)}; who looks at that decides otherwise"
        if about.get("coulee") != version("coulee"):
            yield f"recorded with coulee {about.get('coulee')}, and this is {version('coulee')}"

    def _under_way(self, replay: Replay, until_s: float) -> None:
        print(f"at {until_s:g} s:")
        machine = replay.machine
        assert isinstance(machine, Proxy)
        for kind, count in machine.leftovers.items():
            if count:
                print(f"  {count} {kind if count > 1 else kind[:-1]}")
        for downstream in machine.downstreams:
            for exchange in downstream.exchanges:
                asked = f"{exchange.request.method} {exchange.request.target}"
                where = f"at {exchange.peer.name}" if exchange.peer is not None else "not sent on yet"
                since = exchange.started - self.began
                print(escaped(f"  {asked} of {show_address(exchange.client)}, since {since:.6f} s, {where}"))

    # -- in the debugger

    def _in_debugger(self, replay: Replay, turn: Turn) -> Step:
        """`machine` is the proxy, `turn` what it will be told. `s`, three times, steps into it."""
        machine = replay.machine
        pdb.set_trace()  # noqa: T100
        assert machine is replay.machine
        return replay.step(turn)

    def _look(self, step: Step) -> None:
        """`step` is the turn that goes another way."""
        pdb.set_trace()  # noqa: T100

    # -- one exchange

    def extent_of(self, number: int) -> _Extent:
        """Where the exchange of the Nth access record is. Raises ValueError where there are not so many."""
        replay = self.replay()
        machine = replay.machine
        assert isinstance(machine, Proxy)
        records = 0
        peers: dict[int, Address] = {}
        heard: dict[int, list[tuple[float, int]]] = {}  # of each client: when something came, and in which turn
        for turn in replay.recording:
            completion = turn.completion
            step = replay.step(turn)
            if isinstance(completion, Accepted):
                peers[completion.conn] = completion.peer
            elif completion is not None and number_of(completion) in peers:
                connection = machine.connections.get(number_of(completion))
                if connection is not None:  # a balancer may have said in between for whom it comes
                    peers[connection.number] = connection.peer
            if isinstance(completion, Received) and completion.conn in peers:
                heard.setdefault(completion.conn, []).append((turn.now, step.number))
            for operation in step.operations:
                if isinstance(operation, Report) and isinstance(operation.record, Access | TunnelAccess):
                    records += 1
                    if records == number:
                        return self._extent(operation.record, peers, heard, step.number)
            if step.error is not None or step.difference:
                break
        raise ValueError(f"{self.file} has {records} exchanges, as far as a replay comes, and no number {number}")

    def _extent(
        self,
        record: Access | TunnelAccess,
        peers: dict[int, Address],
        heard: dict[int, list[tuple[float, int]]],
        last: int,
    ) -> _Extent:
        """The connection whose peer is the record's, and which had last heard something when the exchange began."""
        started = record.started - self.header.wall_clock_offset_s
        best = (-1, 0)
        for conn, turns in heard.items():
            if peers[conn] == record.client:
                began = max((turn for now, turn in turns if now <= started + 1e-5), default=turns[0][1])
                best = max(best, (began, conn))
        return _Extent(record, best[1], best[0], last)


class _Family:
    """What belongs to an exchange: its client's connection, and those that it opens or asks, and its jobs."""

    def __init__(self, replay: Replay, conn: int) -> None:
        self._machine = replay.machine
        self._conn = conn
        self._numbers = {conn}
        self._before: object = None

    def has(self, step: Step) -> bool:
        """Whether a turn is about any of it, or has got the exchange on; all turns are to be shown to this."""
        completion = step.turn.completion
        before, self._before = self._before, self._state()
        asked = {number_of(operation) for operation in step.operations}
        about = completion is not None and number_of(completion) in self._numbers
        if not about and before == self._before and not asked & self._numbers:
            return False
        self._numbers |= {
            number_of(operation) for operation in step.operations if isinstance(operation, Connect | Run | Send)
        }
        return True

    def _state(self) -> object:
        """How far the exchange is: timers, which are in no completion, get it on too."""
        machine = self._machine
        assert isinstance(machine, Proxy)
        exchange = getattr(machine.connections.get(self._conn), "exchange", None)
        if not isinstance(exchange, Exchange):
            return None
        jobs = [job for job, task in machine.jobs.items() if task is not None and task is exchange.task]
        return exchange.attempts, len(exchange.tried), exchange.upstream, exchange.bytes_in, exchange.bytes_out, jobs


def _stop(message: str) -> NoReturn:
    click.echo(f"coulee: {message}", err=True)
    sys.exit(2)
