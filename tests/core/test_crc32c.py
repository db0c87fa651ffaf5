"""CRC-32C against what others have computed."""

from __future__ import annotations

import pytest

from coulee.core.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),  # the check value by which checksums are told apart
        (bytes(32), 0x8A9136AA),  # RFC 3720 section B.4, and so the next three
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_the_checksum_is_that_of_others(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum
