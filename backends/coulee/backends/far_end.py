"""A scripted end of a simulated connection: what tests and examples put at the other side of a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from coulee.backends.layer import Layer, LayerError
from coulee.backends.network import Attempt, Network
from coulee.backends.pipes import Socket
from coulee.backends.simulated_tls import KEY_UPDATE_WANTED
from coulee.core.seam import Address, ErrorKind

LayerFault: TypeAlias = Literal["stall_1", "stall_2", "alert_1", "alert_2", "truncate", "update", "flood"]
"""What an end may do wrong in TLS: fall silent in the middle of its first or second flight, send an alert in its place,
or end without a farewell. Or it wants new keys before all that it says, or very often, and then takes no answer."""

LAYER_FAULTS = ("tls_stall", "tls_alert", "tls_truncate", "tls_update", "tls_flood")
"""By the names of the census."""

FLOOD_UPDATES = (3000, 20_000, 9000)
"""By turns: the second is more than are answered to who takes nothing, see `layer.OWN_BYTES_MAX`."""

CLIENT_HOST = "10.0.0.9"  # where scripted clients come from, unless told otherwise


class FarEnd:
    """A scripted end of a connection: subclass it, or set `on_opened`, `on_received` and `on_closed`.

    It knows nothing of HTTP. Its calls never raise: before the connection stands they wait, after its end they are
    ignored. When both sides have half-closed it closes by itself.

    When it has a `layer`, all this is within it: it is opened when the handshake is done. `layer_fault` is what it does
    wrong then. What `prelude` has goes before everything else; `skip` says how long what comes before everything else
    is, or None where more of it is to come.
    """

    on_opened: Callable[[], object] | None = None
    on_received: Callable[[bytes], object] | None = None
    on_closed: Callable[[ErrorKind | None], object] | None = None

    def __init__(self) -> None:
        self.layer: Layer | None = None
        self.layer_fault: LayerFault | None = None
        self.prelude = b""
        self.skip: Callable[[bytes], int | None] | None = None
        self._skipped = b""
        self._flights = 0  # of the handshake, that we have sent
        self._silent = False  # by a fault
        self.network: Network | None = None
        self.address: Address = ""  # what was connected to
        self.peer: Address = ""  # who is at the other end
        self.is_open = False
        self.is_closed = False
        self._socket: Socket | None = None
        self._attempt: Attempt | None = None
        self._waiting: list[Callable[[], None]] = []  # calls made before it stands
        self._paused = False
        self._ended = False  # the end of the peer's stream was heard

    # -- what a script overrides

    def opened(self) -> None:
        """The connection stands."""
        if self.on_opened is not None:
            self.on_opened()

    def received(self, data: bytes) -> None:
        """Bytes came, or `b""` for the end of the stream."""
        if self.on_received is not None:
            self.on_received(data)

    def closed(self, error: ErrorKind | None) -> None:
        """The connection has ended: in order, by our own hand, or by an error."""
        if self.on_closed is not None:
            self.on_closed(error)

    # -- what a script calls

    def write(self, data: bytes) -> None:
        """Send bytes; what does not fit into the window waits."""
        if self._socket is not None and self._stands:
            if not self._silent:
                self._socket.write(data if self.layer is None else self._updates() + self.layer.encrypt(data))
        elif not self.is_closed:
            self._waiting.append(lambda: self.write(data))

    def write_eof(self) -> None:
        """Half-close behind what was written."""
        if self._socket is None or not self._stands:
            self._waiting.append(self.write_eof)
            return
        self._say_farewell()
        self._socket.write_eof()
        if self._ended:
            self._socket.close(False)

    def reset(self) -> None:
        """Reset the connection."""
        self._end(True)

    def close(self) -> None:
        """Close behind what was written."""
        self._end(False)

    def _end(self, abort: bool) -> None:
        if self._socket is not None:
            if not abort:
                self._say_farewell()
            self._socket.close(abort)
        elif self._waiting and not abort:
            self._waiting.append(self.close)
        elif self._attempt is not None:
            self._attempt.cancel()

    def pause(self) -> None:
        """Take nothing more, so that the other side's window fills up."""
        self._paused = True
        if self._socket is not None:
            self._socket.pause()

    def resume(self) -> None:
        """Take what comes."""
        self._paused = False
        if self._socket is not None and not self._ended:
            self._socket.resume()

    @property
    def unsent(self) -> int:
        """Bytes written that the other side has not taken yet."""
        return 0 if self._socket is None else self._socket.unsent

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have the script go on in `delay_s` seconds."""
        assert self.network is not None, "this end is at no connection yet"
        self.network.call_later(delay_s, call)

    # -- what the network calls

    def dial(self, network: Network, address: Address, source: Address | None) -> None:
        """Connect."""
        self.network = network
        self.address = address
        if source is None:
            source = (CLIENT_HOST, network.free_port()) if isinstance(address, tuple) else ""
        self._attempt = network.dial(self, address, source, exposed=False)

    def take_over(self, network: Network, socket: Socket) -> None:
        """Be the end of a connection that came in."""
        self.network = network
        self.address = socket.local
        self.peer = socket.remote
        socket.owner = self

    def joined(self, socket: Socket) -> None:
        """See `Owner`."""
        self._socket = socket
        self.peer = socket.remote
        self.is_open = True
        socket.slow_down()
        if not self._paused or self.layer is not None:
            socket.resume()
        if self.prelude:
            socket.write(self.prelude)
        if self.layer is not None:
            self._take_in(self.layer, b"")
        else:
            self._come_to_stand()

    def _come_to_stand(self) -> None:
        self.opened()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def readable(self, data: bytes) -> None:
        """See `Owner`."""
        if self.skip is not None and data:
            self._skipped += data
            length = self.skip(self._skipped)
            if length is None:
                return
            data, self.skip = self._skipped[length:], None
            if not data:
                return
        if self.layer is None:
            self._pass_on(data)
        elif data:
            self._take_in(self.layer, data)
        elif not self.layer.ended and not self.is_closed:
            self.reset()  # nobody has said farewell

    def _pass_on(self, data: bytes) -> None:
        if not data:
            self._ended = True
        self.received(data)
        if self._ended and self._socket is not None and (self._socket.eof_sent or self._socket.eof_due):
            self._socket.close(False)

    # -- its TLS

    @property
    def _stands(self) -> bool:
        return self.layer is None or self.layer.security is not None

    def _take_in(self, layer: Layer, data: bytes) -> None:
        before = layer.security
        try:
            plain = layer.receive(data)
        except LayerError:
            self._speak(layer)
            self._silent = True
            self._end(False)
            return
        self._speak(layer)
        if layer.security is not before:
            self._come_to_stand()
        if plain:
            self._pass_on(plain)
        if layer.ended and not self._ended:
            self._pass_on(b"")

    def _speak(self, layer: Layer) -> None:
        """Send a flight of the handshake, as far as no fault is in the way."""
        data, layer.to_send = layer.to_send, b""
        if not data or self._silent or self._socket is None:
            return
        self._flights += 1
        fault, network = self.layer_fault, self.network
        assert network is not None
        if fault is not None and fault[-1] == str(self._flights):
            self._silent = True
            network.census[f"fault:tls_{fault[:-2]}"] += 1
            data = data[: len(data) // 2] if fault.startswith("stall") else b"\x15\3\3\0\2\2\x28"
        self._socket.write(data)

    def _updates(self) -> bytes:
        """What is said of TLS itself before there is something to say."""
        fault, network = self.layer_fault, self.network
        assert network is not None
        if fault == "update":
            network.census["fault:tls_update"] += 1
            return KEY_UPDATE_WANTED
        if fault == "flood" and not self._paused:
            network.census["fault:tls_flood"] += 1
            self.pause()
            floods = network.census["fault:tls_flood"]
            return KEY_UPDATE_WANTED * FLOOD_UPDATES[floods % len(FLOOD_UPDATES)]
        return b""

    def _say_farewell(self) -> None:
        if self.layer is None or self._silent or self._socket is None:
            return
        if self.layer_fault == "truncate":
            assert self.network is not None
            self.network.census["fault:tls_truncate"] += 1
        else:
            self._socket.write(self.layer.farewell())
        self._silent = True

    def writable(self) -> None:
        """See `Owner`."""

    def broken(self, kind: ErrorKind | None, detail: str) -> None:
        """See `Owner`."""
        self.is_closed = True
        self.closed(kind)


class Stage:
    """Where scripted ends await connections."""

    def __init__(self, network: Network, on_connect: Callable[[FarEnd], FarEnd | None]) -> None:
        self.network = network
        self.on_connect = on_connect

    def incoming(self, socket: Socket) -> None:
        """See `Place`."""
        if socket.released:
            return
        far = FarEnd()
        far.take_over(self.network, socket)
        instead = self.on_connect(far)
        if instead is not None and instead is not far:
            far = instead
            far.take_over(self.network, socket)
        far.joined(socket)
