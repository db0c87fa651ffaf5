"""Where the codec of HTTP/1.1 is: in what it reads, and in what it writes."""

from __future__ import annotations

from enum import Enum, auto


class Reading(Enum):
    """Where in a message of the peer we are."""

    HEAD = auto()
    LENGTH = auto()  # so many bytes of body are left
    CHUNK_LINE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_END = auto()  # of the connection
    DONE = auto()


class Writing(Enum):
    """Where in a message of ours we are."""

    HEAD = auto()
    LENGTH = auto()
    CHUNKS = auto()
    UNTIL_END = auto()
    DONE = auto()
