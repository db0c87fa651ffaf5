"""`coulee lb simulate FILE --scenario outage.toml`: what would happen.

Exit codes: 0 it was played, and what --check asks for held; 1 something of that did not hold; 2 the program, the
scenario or the command line is wrong, or a file cannot be read or written.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from coulee.server.load import LoadError, load_balanced

if TYPE_CHECKING:
    from coulee.server.whatif.scenario import Scenario

SCENARIO_BYTES_MAX: Final = 4 << 20


@click.group()
def lb() -> None:
    """Find out what a cluster would do."""


@lb.command()
@click.argument("target", metavar="FILE.py|MODULE[:NAME]")
@click.option(
    "--scenario",
    "path",
    required=True,
    metavar="FILE.toml",
    help="What happens: how many requests come, how the origins are, and which outages they have.",
)
@click.option(
    "--svg",
    "picture",
    metavar="FILE",
    help="Where the picture goes [default: the scenario's name with .svg, in this folder].",
)
@click.option("--no-svg", is_flag=True, help="Make no picture.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON in place of the table.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Use another seed than the scenario's.")
@click.option("--check", "asked", multiple=True, metavar="CHECK", help="Fail unless this holds, such as 'errors<0.1%' "
              "or 'p99<300ms'; give it again for each further one.")  # fmt: skip
def simulate(
    target: str,
    path: str,
    picture: str | None,
    no_svg: bool,
    wants_json: bool,
    seed: int | None,
    asked: tuple[str, ...],
) -> None:
    """Play the cluster of a program in virtual time, and show what came of it.

    Policies, health checks, ejection, circuits, retries and their budget are the real ones. Clients, the network and
    the origins are a model: nothing is connected to. The same seed gives the same table.
    """
    from coulee.server.whatif.bars import Bar  # here, for no other command needs any of it
    from coulee.server.whatif.chart import chart
    from coulee.server.whatif.play import Play
    from coulee.server.whatif.table import as_json, table

    if no_svg and picture is not None:
        raise click.UsageError("--svg and --no-svg: give one of them")
    try:
        bars = [Bar(each) for each in asked]
    except ValueError as error:
        raise click.UsageError(f"--check: {error}") from None
    scenario = _scenario(path, seed)
    place = None if no_svg else Path(picture or Path(path).with_suffix(".svg").name)
    if place is not None and not place.parent.is_dir():
        _stop(f"{place}: there is no such folder")
    try:
        play = Play(scenario, load_balanced(target))
    except LoadError as error:
        _stop(str(error))
    except ValueError as error:
        at_fault = "" if str(error).startswith(path) else f"{target}: "
        _stop(f"{at_fault}{error}")
    meter = _Meter(scenario.duration_s)
    tally = play.run(meter)
    meter.clear()
    if wants_json:
        click.echo(json.dumps(as_json(tally, scenario, target), indent=1))
    else:
        click.echo(table(tally, scenario, target), nl=False)
    if place is not None:
        _write(place, chart(tally, scenario, target))
    failures = [f"{bar.text} does not hold: {instead}" for bar in bars if (instead := bar.broken_by(tally))]
    for failure in failures:
        click.echo(f"coulee: {failure}", err=True)
    sys.exit(1 if failures else 0)


def _scenario(path: str, seed: int | None) -> Scenario:
    from coulee.server.whatif.scenario import read_scenario

    try:
        data = Path(path).read_bytes()
        if len(data) > SCENARIO_BYTES_MAX:
            _stop(f"{path}: it is over {SCENARIO_BYTES_MAX >> 20} MiB; that is no scenario")
        scenario = read_scenario(data.decode(), path)
    except OSError as error:
        _stop(f"{path}: {error.strerror or error}")
    except UnicodeDecodeError:
        _stop(f"{path}: it is no text in UTF-8")
    except ValueError as error:
        _stop(str(error))
    return scenario if seed is None else replace(scenario, seed=seed)


def _write(place: Path, text: str) -> None:
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        _stop(f"{place}: {error.strerror or error}")
    click.echo(f"the picture is in {place}", err=True)


class _Meter:
    """Says on a terminal how far it is."""

    def __init__(self, duration_s: float) -> None:
        self.duration_s = duration_s
        self.shows = sys.stderr.isatty()

    def __call__(self, part: float, requests: int) -> None:
        if self.shows:
            line = f"\r{part * 100:3.0f} % of {self.duration_s:g} s, {requests:,} requests"
            click.echo(line, err=True, nl=False)

    def clear(self) -> None:
        """Away with it."""
        if self.shows:
            click.echo("\r\x1b[K", err=True, nl=False)


def _stop(message: str) -> NoReturn:
    """One line, and out."""
    click.echo(f"coulee: {message}", err=True)
    sys.exit(2)
