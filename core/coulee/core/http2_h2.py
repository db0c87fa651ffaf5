"""python-hyper's h2 as we use it: for the states of streams and for the windows, and for no more.

- Its validation is switched off: `http2_fields` does all of it.
- Header compression is ours. Of a head h2 sees the first field alone, each way: of the others it would read lengths,
  and end the connection for what breaks no more than one message.
- How many streams there may be is minded by whoever knows when one is really over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from coulee.core.codec import PREFACE, Role
from coulee.core.config import Config
from coulee.core.http2_fields import FieldList
from coulee.core.http2_frames import ENDLESS, settings_frame
from coulee.core.http2_hpack import ENTRY_BYTES, Decoder, Encoder, Field

if TYPE_CHECKING:
    import hpack

CLOSED_STREAMS_MAX: Final = 16
"""So many streams that are over, and as many as are open, may lie about in h2 before it is made to forget them."""

PSEUDO_FIELDS: Final = 5
"""In a head at most (RFC 9113 section 8.3, RFC 8441); the limits are without them."""

HEEDED: Final = frozenset(SettingCodes)
"""The settings that h2 knows."""


class H2(H2Connection):
    """One connection of h2. `first_words` is what we begin with."""

    MAX_CLOSED_STREAMS = 1000  # of which it knows how they ended; for any of them more may be on its way

    def __init__(self, role: Role, config: Config) -> None:
        server = role == "server"
        super().__init__(
            H2Configuration(
                client_side=not server,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        # Twice the limit: a head that is somewhat too large is answered, and only what is far too large ends it all.
        # Answers to many clients come by one connection, so that it takes more fields in one of them to end that.
        limits = config.limits
        times = 2 if server else 4
        fields_max = PSEUDO_FIELDS + times * max(limits.fields_max, limits.trailer_fields_max)
        bytes_max = 2 * max(limits.head_bytes_max, limits.trailers_bytes_max) + ENTRY_BYTES * fields_max
        self.heads_read = HeadsRead(bytes_max, fields_max)
        # The peer may let us keep more than we want to, but that would be our memory.
        self.heads_written = HeadsWritten(config.http2.table_bytes_max)
        self.decoder = cast("hpack.Decoder", self.heads_read)
        self.encoder = cast("hpack.Encoder", self.heads_written)
        self._clean_at = CLOSED_STREAMS_MAX
        self.first_words = self._begin(server, config)

    def _begin(self, server: bool, config: Config) -> bytes:
        http2 = config.http2
        self.local_settings = Settings(client=not server, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: ENDLESS})
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.HEADER_TABLE_SIZE: http2.table_bytes_max,
            SettingCodes.INITIAL_WINDOW_SIZE: http2.stream_window_bytes,
            SettingCodes.MAX_FRAME_SIZE: http2.frame_bytes_max,
        }
        self.update_settings(settings)  # which counts from the peer's acknowledgement on
        self.data_to_send()  # what h2 makes of it is not all that we say
        said = {int(number): value for number, value in settings.items()}
        said[SettingCodes.MAX_HEADER_LIST_SIZE] = config.limits.head_bytes_max
        if server:
            said[SettingCodes.MAX_CONCURRENT_STREAMS] = http2.streams_max
            if config.upgrades:
                said[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1  # RFC 8441 section 3
            self.receive_data(PREFACE)  # the reader of frames has seen it
        else:
            said[SettingCodes.ENABLE_PUSH] = 0
        words = settings_frame(said) if server else PREFACE + settings_frame(said)
        window = http2.connection_window_bytes
        if not server:  # clients take their answers at speeds of their own, and must not wait for each other
            # Twice what all streams can hold, for h2 may owe the peer up to half of a window.
            window = min(max(window, 2 * http2.upstream_streams_max * http2.stream_window_bytes), ENDLESS)
        more = window - self.inbound_flow_control_window
        if more > 0:
            self.increment_flow_control_window(more)
        return words + self.data_to_send()

    @property
    def open_inbound_streams(self) -> int:
        """h2 asks for it with each new stream, and has a look at all of them then, to forget those that are over. Now
        and then is enough, for how many are open is counted elsewhere."""
        if len(self.streams) < self._clean_at:
            return 0
        count = super().open_inbound_streams
        self._clean_at = 2 * count + CLOSED_STREAMS_MAX
        return count

    @property
    def open_outbound_streams(self) -> int:
        """The same for streams of ours."""
        if len(self.streams) < self._clean_at:
            return 0
        count = super().open_outbound_streams
        self._clean_at = 2 * count + CLOSED_STREAMS_MAX
        return count

    def open_windows(self, numbers: Iterable[int]) -> None:
        """Our SETTINGS count now. Where they have made windows smaller, what was consumed before may be enough to open
        one again, and h2 would look to that only when more is."""
        for number in numbers:
            self.acknowledge_received_data(0, number)

    def has_open(self, number: int) -> bool:
        """Whether a stream is not over for h2, so that it can be reset."""
        stream = self.streams.get(number)
        return stream is not None and not stream.closed


class HeadsRead(Decoder):
    """Header compression as h2 sees it: of a head it gets `:status`, which tells a 1xx from an answer, or nothing."""

    __slots__ = ("fields", "may_be_interim")

    fields: FieldList
    may_be_interim: bool  # elsewhere h2 would end the connection for a 1xx: at the end of a stream, and behind it

    def decode(self, block: bytes, raw: bool = True) -> FieldList:
        """See `Decoder`; all of it is in `fields`."""
        self.fields = fields = super().decode(block)
        return fields[:1] if self.may_be_interim and fields and fields[0][0] == b":status" else []


class HeadsWritten(Encoder):
    """... and what it writes is what was put in `fields`."""

    __slots__ = ("fields",)

    fields: FieldList

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `Encoder`."""
        return super().encode(self.fields)
