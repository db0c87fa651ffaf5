"""The command line: `coulee LISTEN --to URL`, `coulee run FILE`, `coulee demo`.

Exit codes: 0 all went well, 1 something failed while running, 2 wrong usage or configuration, 3 cannot listen. Whatever
the user did wrong is answered by one line that says what, where, and what to do.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Final, Literal, NoReturn, TypeAlias

import click

from coulee.backends.addresses import parse_address
from coulee.core import Proxy
from coulee.core.seam import Address
from coulee.lb import Cluster
from coulee.server.console import Console
from coulee.server.holder import holder_of
from coulee.server.load import LoadError, load_proxy
from coulee.server.replaying import replay
from coulee.server.systemd import SYSTEMD, Service, listen_at

CANNOT_LISTEN: Final = 3


@dataclass(frozen=True, slots=True)
class Backend:
    """A choice of --backend: the module that has its `run`, what else `run` is to know, and the library it needs."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    library: str = ""  # also the name of the extra that installs it


BACKENDS: Final = {
    "asyncio": Backend("coulee.backends.asyncio"),
    "uvloop": Backend("coulee.backends.asyncio", {"uvloop": True}, "uvloop"),
    "trio": Backend("coulee.backends.trio", library="trio"),
    "curio": Backend("coulee.backends.curio", library="curio"),
    "threads": Backend("coulee.backends.threads"),
}
DEMO_BACKENDS: Final = ("asyncio", "uvloop")  # the demo's own client and clock are asyncio's
CODECS: Final = ("own", "h11")
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
    for option in (
        click.option("--backend", type=click.Choice(list(BACKENDS)), default="asyncio",
                     help="What carries out the I/O."),
        click.option("--http1-codec", type=click.Choice(CODECS), default=None,
                     help="What reads and writes HTTP/1: our own codec, or h11 [default: own]."),
        click.option("--log", "form", type=click.Choice(["short", "json", "none"]), help="Form of the access lines "
                     "[default: short on a terminal, else json]."),
        click.option("--quiet", is_flag=True, help="The same as --log none."),
        click.option("--grace", "grace_s", type=click.FloatRange(min=0), default=30.0, show_default=True,
                     help="Seconds that running requests get when coulee is stopped."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(version("coulee"), "-V", "--version", prog_name="coulee", message="%(prog)s %(version)s")
def main() -> None:
    """A programmable HTTP reverse proxy and load balancer.

    \b
    coulee 127.0.0.1:8000 --to http://127.0.0.1:9000 --to http://127.0.0.1:9001
    coulee run app.py
    coulee demo
    """


@main.command()
@click.argument("listen")
@click.option("--to", "urls", multiple=True, metavar="URL", help="An origin; give it again for each further one.")
@_shared_options
def serve(
    listen: str,
    urls: tuple[str, ...],
    backend: str,
    http1_codec: Codec | None,
    form: str | None,
    quiet: bool,
    grace_s: float,
) -> None:
    """Listen at LISTEN (HOST:PORT, :PORT or unix:/PATH) and pass requests on to the origins given with --to.

    A socket that systemd hands over for LISTEN is used; `systemd` for LISTEN stands for all that it hands over. The
    word `serve` may be left out.
    """
    if not urls:
        raise click.UsageError(f"no origin given: try coulee {listen} --to http://127.0.0.1:9000")
    addresses = _addresses(listen)
    try:
        proxy = Proxy(Cluster(*urls))
    except ValueError as error:
        raise click.UsageError(f"--to: {error}") from None
    _choose_codec(proxy, http1_codec)
    _run(proxy, addresses, backend, form, quiet, grace_s, f"coulee {listen} {' '.join(f'--to {url}' for url in urls)}")


@main.command()
@click.argument("target", metavar="FILE.py|MODULE[:NAME]")
@click.option("--listen", default="127.0.0.1:8000", show_default=True,
              help="HOST:PORT, :PORT or unix:/PATH; or `systemd`, for the sockets that it hands over.")  # fmt: skip
@_shared_options
def run(
    target: str, listen: str, backend: str, http1_codec: Codec | None, form: str | None, quiet: bool, grace_s: float
) -> None:
    """Run the Proxy that a Python file or module makes."""
    addresses = _addresses(listen)
    try:
        proxy = load_proxy(target)
    except LoadError as error:
        _stop(str(error), 2)
    _choose_codec(proxy, http1_codec)
    _run(proxy, addresses, backend, form, quiet, grace_s, f"coulee run {target} --listen {listen}")


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
    _need_library(backend)
    loop_factory = importlib.import_module("uvloop").new_event_loop if backend == "uvloop" else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run_demo(address, traffic, console))
    if console.listen_failed is not None:
        _cannot_listen([address], console, f"coulee demo --listen {listen}")


main.add_command(replay)


def _choose_codec(proxy: Proxy, http1_codec: Codec | None) -> None:
    """What the command line says counts more than what the program said."""
    if http1_codec is not None:
        proxy.config = replace(proxy.config, http1_codec=http1_codec)


def _run(
    proxy: Proxy, listen: list[Address], backend: str, form: str | None, quiet: bool, grace_s: float, command: str
) -> None:
    """Run a proxy until it is told to stop; leave with the right code."""
    from coulee.server.watch import say_what_is_down

    console = Console("none" if quiet else form or ("short" if sys.stdout.isatty() else "json"))

    def say_ready(event: Any) -> None:
        print(f"coulee ({backend}) {event.text}", file=sys.stderr, flush=True)
        say_what_is_down(proxy, console.errors)

    service = Service()
    console.on_listening = say_ready
    console.on_draining = service.draining
    _need_library(backend)
    chosen = BACKENDS[backend]
    try:
        importlib.import_module(chosen.module).run(
            proxy, listen, reporter=console, grace_s=grace_s, on_ready=service.ready, **chosen.options
        )
    except OSError as error:
        if console.listen_failed is None:
            _stop(str(error), 1)
    if console.listen_failed is not None:
        _cannot_listen(listen, console, command)


def _cannot_listen(listen: list[Address], console: Console, command: str) -> None:
    """Say who is in the way."""
    assert console.listen_failed is not None
    address = listen[0]
    why = console.listen_failed.text
    if isinstance(address, str):
        _stop(f"cannot listen on {address}: {why}", CANNOT_LISTEN)
    host, port = address
    holder = holder_of(port) if "in use" in why else None
    if holder is not None:
        why = f"in use by {holder}"
    elif "ermission" in why and port < 1024:
        why = "ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    elif "in use" not in why:
        _stop(f"cannot listen on {host}:{port}: {why}", CANNOT_LISTEN)  # another port would not help
    free = command.replace(f":{port}", f":{port + 1 if port >= 1024 else 8000}", 1)
    _stop(f"cannot listen on {host}:{port}: {why}. Try: {free}", CANNOT_LISTEN)


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _addresses(text: str) -> list[Address]:
    try:
        return listen_at(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _need_library(backend: str) -> None:
    """Say what is missing before anything starts."""
    library = BACKENDS[backend].library
    if library and importlib.util.find_spec(library) is None:
        _stop(f'--backend {backend} needs: pip install "coulee[{library}]"', 2)


def _stop(message: str, code: int) -> NoReturn:
    """One line, and out."""
    click.echo(f"coulee: {message}", err=True)
    sys.exit(code)
