"""A listening socket, as backends implement it and the driver uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from coulee.core.seam import LISTEN_OPTIONS, Address, Closed, ErrorKind, Listening, ListenOptions, show_address

if TYPE_CHECKING:
    from coulee.backends.driver import Driver, Wire


class Listener(ABC):
    """One listening socket, from `Listen` to its `Closed`, with the credits to accept that it has."""

    __slots__ = ("address", "credits", "driver", "gone", "is_open", "local", "number", "options")

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.number = number
        self.credits: deque[int] = deque()  # numbers of connections to come; the machine bounds them
        self.is_open = False
        self.address: Address = ""  # as it was asked for
        self.options: ListenOptions = LISTEN_OPTIONS  # likewise
        self.local: Address = ""
        self.gone = False

    # -- what a backend implements; an OSError from any of these ends the listener

    @abstractmethod
    def listen(self, address: Address) -> None:
        """Open, with `options`. Answered by `opened` or `lost`."""

    @abstractmethod
    def watch(self) -> None:
        """There are credits: `admit` what comes, as long as there are. May be called when watching."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket, or give up opening it. Nothing may be called on this listener afterwards."""

    def welcome(self) -> None:  # noqa: B027 - most have nothing to do
        """The machine is about to be told to stop: let in who waits already, as far as there are credits. For a
        backend where nobody else may be told of them."""

    # -- what a backend calls

    def opened(self, local: Address) -> None:
        """The socket listens at `local`."""
        assert not self.is_open, f"backend, law 1: listener {self.number} was opened twice"
        assert not self.gone, f"backend, law 2: listener {self.number} opens after its end"
        self.is_open = True
        self.local = local
        self.driver.post(Listening(self.number, local))
        if self.credits and not self.gone:
            self.watch()

    def admit(self) -> Wire:
        """A connection has come: spend a credit on it. Answered by `opened` or `lost` of the wire."""
        assert not self.gone, f"backend, law 2: listener {self.number} accepts after its end"
        assert self.credits, f"backend, law 1: listener {self.number} accepts without a credit"
        return self.driver.admitted(self.credits.popleft())

    def lost(self, kind: ErrorKind, detail: str = "") -> None:
        """The socket could not be opened, or broke."""
        assert not self.gone, f"backend, law 1: listener {self.number} was lost twice"
        if not self.is_open:
            self.driver.unopened.append(f"cannot listen on {show_address(self.address)}: {detail}")
        self.driver.end_listener(self, Closed(self.number, kind, detail), asked=False)
