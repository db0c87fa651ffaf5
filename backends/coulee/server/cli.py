"""The command line: `coulee LISTEN --to URL`, `coulee run FILE`, `coulee demo`, what is done about those that run
(`coulee reload`, `coulee status`), what has happened (`coulee replay`), and what would (`coulee lb simulate`).

Exit codes: 0 all went well, 1 something failed while running, 2 wrong usage or configuration, 3 cannot listen, 4 there
is no supervisor to talk to. Whatever the user did wrong is answered by one line that says what, where, and what to do.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final, Literal, NoReturn, TypeAlias

import click

from coulee.core import Proxy
from coulee.core.seam import Address, parse_address
from coulee.lb import Cluster, Grpc, HealthCheck, Http, Probe, Tcp, TlsHello
from coulee.lb.policies import POLICIES
from coulee.server.console import Console
from coulee.server.control import reload, status
from coulee.server.edges import Edges, edge_options, taken_from, warnings
from coulee.server.handover import offered
from coulee.server.load import LoadError, load_proxy
from coulee.server.program import BACKENDS, Failure, Program, cannot_listen, need_library
from coulee.server.recording import Records
from coulee.server.redaction import Redaction
from coulee.server.replaying import replay
from coulee.server.systemd import SYSTEMD, Service, listen_at
from coulee.server.whatif.command import lb

DEMO_BACKENDS: Final = ("asyncio", "uvloop")  # the demo's own client and clock are asyncio's
CODECS: Final = ("own", "h11")
CHECKS: Final[dict[str, Callable[[], Probe]]] = {"tcp": Tcp, "tls": TlsHello, "grpc": Grpc}
Codec: TypeAlias = Literal["own", "h11"]


class _Commands(click.Group):
    """Lets `coulee :8000 --to ...` stand for `coulee serve :8000 --to ...`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        first = args[0]
        if self.get_command(ctx, first) is None and (":" in first or first.isdigit() or first == SYSTEMD):
            return super().resolve_command(ctx, ["serve", *args])
        return super().resolve_command(ctx, args)


def _shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that runs a proxy."""
    options = (
        click.option("--backend", type=click.Choice(list(BACKENDS)), default="asyncio",
                     help="What carries out the I/O."),
        click.option("--http1-codec", type=click.Choice(CODECS), default=None,
                     help="What reads and writes HTTP/1: our own codec, or h11 [default: own]."),
        click.option("--log", "form", type=click.Choice(["short", "json", "none"]), help="Form of the access lines "
                     "[default: short on a terminal, else json]."),
        click.option("--quiet", is_flag=True, help="The same as --log none."),
        click.option("--grace", "grace_s", type=click.FloatRange(min=0), default=30.0, show_default=True,
                     help="Seconds that running requests get when coulee is stopped."),
        click.option("--workers", type=click.IntRange(min=1), default=None, metavar="N",
                     help="Run N processes, and one that minds them: it replaces those that die, and all of them on "
                     "SIGHUP or coulee reload [default: this process alone]."),
        click.option("--worker-timeout", "silence_max_s", type=click.FloatRange(min=0), default=60.0, show_default=True,
                     metavar="SECONDS", help="Kill a worker whose loop does not turn for so long, or that is not ready "
                     "so long after its start; 0 never."),
        click.option("--record", metavar="FILE", help="Write down all that the proxy is told, for coulee replay."),
        click.option("--record-ring", "ring_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help="Record the last SECONDS in memory, and write FILE when a filter, or coulee itself, fails."),
        click.option("--record-redact", "redact", metavar="WORD,...", help="Do not record bodies, query, credentials, "
                     "fields (all but those that frame), or a field of this name. All of HTTP/2 is hidden then."),
    )  # fmt: skip
    for option in reversed(options):  # the last to be added is the first that --help shows
        function = option(function)
    return function


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(version("coulee"), "-V", "--version", prog_name="coulee", message="%(prog)s %(version)s")
def main() -> None:
    """A programmable HTTP reverse proxy and load balancer.

    \b
    coulee 127.0.0.1:8000 --to http://127.0.0.1:9000 --to http://127.0.0.1:9001
    coulee run app.py --workers 2
    coulee demo
    """


def _health(_context: click.Context, _parameter: click.Parameter, value: str | None) -> HealthCheck | None:
    """What --health asks for."""
    if value is None:
        return None
    if value in CHECKS:
        return HealthCheck(CHECKS[value]())
    if not value.startswith("/"):
        raise click.BadParameter(f"{value!r} is no check: write a path, as /health, or one of {', '.join(CHECKS)}")
    try:
        return HealthCheck(Http(path=value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@main.command()
@click.argument("listen")
@click.option(
    "--to",
    "urls",
    multiple=True,
    metavar="URL",
    help="An origin, as http://HOST:PORT, https://, "
    "h2c:// (HTTP/2 without TLS) or unix:/PATH; give it again for each further one.",
)
@click.option(
    "--balance",
    type=click.Choice(list(POLICIES)),
    default="round-robin",
    show_default=True,
    help="How an origin is chosen for each request.",
)
@click.option(
    "--health",
    metavar="PATH|tcp|tls|grpc",
    callback=_health,
    help="Check the origins every 5 s: with a GET of PATH, or one of the others. One that fails three checks gets "
    "nothing until two succeed.",
)
@edge_options(upstreams=True)
@_shared_options
def serve(listen: str, urls: tuple[str, ...], balance: str, health: HealthCheck | None, **options: Any) -> None:
    """Listen at LISTEN (HOST:PORT, :PORT or unix:/PATH) and pass requests on to the origins given with --to.

    A socket that systemd hands over for LISTEN is used; `systemd` for LISTEN stands for all that it hands over. The
    word `serve` may be left out.
    """
    if not urls:
        raise click.UsageError(f"no origin given: try coulee {listen} --to http://127.0.0.1:9000")
    addresses = _addresses(listen)
    edges = taken_from(options)
    try:
        edges.check_origins(urls)
        transport = edges.transport()
    except ValueError as error:
        _stop(str(error), 2)
    try:
        cluster = Cluster(*urls, policy=balance, health=health, transport=transport)
    except ValueError as error:
        raise click.UsageError(f"--to: {error}") from None
    command = f"coulee {listen} {' '.join(f'--to {url}' for url in urls)}"
    _run(lambda: Proxy(cluster), addresses, command, {"origins": list(urls)}, edges, **options)


@main.command()
@click.argument("target", metavar="FILE.py|MODULE[:NAME]")
@click.option("--listen", default="127.0.0.1:8000", show_default=True,
              help="HOST:PORT, :PORT or unix:/PATH; or `systemd`, for the sockets that it hands over.")  # fmt: skip
@edge_options(upstreams=False)
@_shared_options
def run(target: str, listen: str, **options: Any) -> None:
    """Run the Proxy that a Python file or module makes."""
    command = f"coulee run {target} --listen {listen}"
    edges = taken_from(options)
    _run(lambda: load_proxy(target), _addresses(listen), command, {"program": target}, edges, **options)


main.add_command(reload)
main.add_command(status)


@main.command()
@click.option("--listen", default="127.0.0.1:8000", show_default=True, help="HOST:PORT of the proxy.")
@click.option("--traffic", type=click.FloatRange(min=0, max=100), default=1.0, show_default=True,
              help="Requests a second that the demo makes itself; 0 for none.")  # fmt: skip
@click.option("--backend", type=click.Choice(DEMO_BACKENDS), default="asyncio", help="What carries out the I/O.")
def demo(listen: str, traffic: float, backend: str) -> None:
    """Show what coulee does: three origins (fast, slow, flaky), the proxy, and a line for each exchange."""
    import asyncio

    from coulee.server.demo import run_demo

    console = Console("short")
    address = _address(listen)
    if isinstance(address, str):
        raise click.UsageError("the demo listens at HOST:PORT, so that a browser finds it")
    try:
        need_library(backend)
    except Failure as failure:
        _stop(str(failure), failure.code)
    loop_factory = importlib.import_module("uvloop").new_event_loop if backend == "uvloop" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run_demo(address, traffic, console))
    if console.listen_failed is not None:
        failed = cannot_listen(address, console.listen_failed.text, f"coulee demo --listen {listen}")
        _stop(str(failed), failed.code)


main.add_command(replay)
main.add_command(lb)


def _run(
    make: Callable[[], Proxy],
    listen: list[Address],
    command: str,
    about: dict[str, Any],
    edges: Edges,
    *,
    backend: str,
    http1_codec: Codec | None,
    form: str | None,
    quiet: bool,
    grace_s: float,
    workers: int | None,
    silence_max_s: float,
    record: str | None,
    ring_s: float | None,
    redact: str | None,
) -> None:
    """Run a program until it is told to stop; leave with the right code."""

    def chosen() -> Proxy:
        proxy = make()
        _choose_codec(proxy, http1_codec)
        edges.impose(proxy)
        return proxy

    form = "none" if quiet else form or ("short" if sys.stdout.isatty() else "json")
    records = _records(record, ring_s, redact, {**about, "backend": backend})
    program = Program(chosen, listen, backend, form, grace_s, command, records, edges)
    try:
        need_library(backend)
        program.check()
        for line in warnings(edges):
            click.echo(f"coulee: {line}", err=True)
        if workers is None:
            _run_alone(program)
        else:
            sys.exit(_run_workers(program, workers, silence_max_s))
    except LoadError as error:
        _stop(str(error), 2)
    except Failure as failure:
        _stop(str(failure), failure.code)


def _records(path: str | None, ring_s: float | None, redact: str | None, about: dict[str, Any]) -> Records | None:
    """What is to be recorded."""
    if path is None:
        if ring_s is not None or redact is not None:
            raise click.UsageError("there is nothing to record without --record FILE")
        return None
    try:
        return Records(path, ring_s, None if redact is None else Redaction(redact.split(",")), about)
    except ValueError as error:
        raise click.UsageError(f"--record-redact: {error}") from None


def _choose_codec(proxy: Proxy, http1_codec: Codec | None) -> None:
    """What the command line says counts more than what the program said."""
    if http1_codec is not None:
        proxy.config = replace(proxy.config, http1_codec=http1_codec)


def _run_alone(program: Program) -> None:
    """In this process."""
    from coulee.server.hangup import explain_signals
    from coulee.server.watch import say_what_is_down

    console = Console(program.form)
    proxy = program.make()

    def say_ready(event: Any) -> None:
        print(f"coulee ({program.backend}) {event.text}", file=sys.stderr, flush=True)
        say_what_is_down(proxy, console.errors)

    service = Service()
    console.on_listening = say_ready
    console.on_draining = service.draining
    explain_signals()
    program.run(proxy, console, service.ready)


def _run_workers(program: Program, workers: int, silence_max_s: float) -> int:
    """In several: this goes on in the supervisor and in each worker. The exit code."""
    from coulee.server.processes import supervise
    from coulee.server.worker import Post, work

    outcome = supervise(program, workers, silence_max_s)
    return work(program, outcome) if isinstance(outcome, Post) else outcome


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _addresses(text: str) -> list[Address]:
    try:
        return offered() or listen_at(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _stop(message: str, code: int) -> NoReturn:
    """One line, and out."""
    click.echo(f"coulee: {message}", err=True)
    sys.exit(code)
