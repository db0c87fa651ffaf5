"""`coulee demo`: three origins, the proxy in front of them, and a line for each exchange, all in one process on
loopback.

It shows in ten seconds what a proxy is for: requests go round, one origin keeps failing, and no client notices. The
origins are coulee too: proxies whose filter answers everything.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Any, Final, cast

import click

from coulee.backends.asyncio import serve
from coulee.core import Exchange, ExchangeError, Filter, Peer, Proxy, Response, respond, sleep
from coulee.core.seam import Address, show_address
from coulee.lb import Cluster, HealthCheck, Tcp
from coulee.server.console import Console

ORIGINS: Final = {"fast": (0.009, 0.0), "slow": (0.120, 0.0), "flaky": (0.009, 0.5)}
"""For each origin: seconds to answer, and the share of requests that it resets instead."""

UP_S: Final = 8.0
DOWN_S: Final = 4.0
"""How long the flaky origin is up, and then down, in turns."""

PATHS: Final = ("/", "/products", "/products/7", "/cart", "/api/status")
"""What the demo's own client asks for."""


class _Origin(Filter):
    """Answers every request, or fails as an origin would."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.delay_s, self.fails = ORIGINS[name]

    async def request_filter(self, exchange: Exchange) -> Response:
        await sleep(self.delay_s)
        if exchange.rng.random() < self.fails:
            raise ExchangeError("client_gone", "the flaky origin hangs up", status=0)
        return respond(200, f"hello from {self.name}\n")


async def run_demo(listen: Address, traffic: float, console: Console) -> None:
    """Run the demo until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running: list[asyncio.Task[None]] = []
    try:
        addresses = {name: await _start(_nowhere(_Origin(name)), ("127.0.0.1", 0), running) for name in ORIGINS}
        flaky = running[-1]
        peers = [Peer(address, name=name) for name, address in addresses.items()]
        cluster = Cluster(*peers, health=HealthCheck(Tcp(), interval_s=2, fall=2, rise=1))
        address = await _start(Proxy(cluster), listen, running, console)
        _explain(address)
        running.append(asyncio.create_task(_flicker(flaky, addresses["flaky"], running)))
        if traffic > 0:
            running.append(asyncio.create_task(_make_traffic(address, traffic)))
        await stop.wait()
        click.echo("\nbye")
    except OSError:
        if console.listen_failed is None:
            raise
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _nowhere(origin: _Origin) -> Proxy:
    """A proxy that answers everything itself."""
    return Proxy(Cluster(Peer("nowhere")), [origin])


async def _flicker(flaky: asyncio.Task[None], address: Address, running: list[asyncio.Task[None]]) -> None:
    """Take the flaky origin down now and then, so that fail-over is to be seen."""
    while True:
        await asyncio.sleep(UP_S)
        flaky.cancel()
        await asyncio.gather(flaky, return_exceptions=True)
        running.remove(flaky)
        click.echo(f"-- flaky is down for {DOWN_S:.0f} s: nothing listens at {show_address(address)}")
        await asyncio.sleep(DOWN_S)
        await _start(_nowhere(_Origin("flaky")), address, running)
        flaky = running[-1]
        click.echo("-- flaky is up again")


async def _start(
    proxy: Proxy, listen: Address, running: list[asyncio.Task[None]], console: Console | None = None
) -> Address:
    """Run a proxy beside the others; returns the address where it listens. Raises `OSError`."""
    ready: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(proxy, listen, reporter=console, on_ready=lambda driver: ready.set_result(driver.addresses[0]))
    )
    running.append(task)
    await asyncio.wait([cast("asyncio.Future[Any]", ready), task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    return ready.result()


def _explain(address: Address) -> None:
    url = f"http://{show_address(address)}"
    click.echo(f"coulee demo: the proxy is {url}, in front of three origins")
    for name, (delay_s, fails) in ORIGINS.items():
        trouble = f", or hangs up ({fails:.0%}), and is down now and then" if fails else ""
        click.echo(f"  {name:<6} answers in {delay_s * 1000:.0f} ms{trouble}")
    click.echo("try, in another terminal:")
    for command in (f"curl {url}/", f"curl -i {url}/any/path", f"for i in $(seq 20); do curl -s {url}/; done"):
        click.echo(f"  {command}")
    click.echo("Ctrl-C ends it. A line for each request, and one with ! for a failed attempt or a change of health:")


async def _make_traffic(address: Address, per_second: float) -> None:
    """Ask for a page now and then, so that there is something to see."""
    host, port = cast("tuple[str, int]", address)
    turn = 0
    while True:
        path = PATHS[turn % len(PATHS)]
        turn += 1
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            head = f"GET {path} HTTP/1.1\r\nHost: {show_address(address)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            await reader.read()
            writer.close()
        await asyncio.sleep(1 / per_second)
