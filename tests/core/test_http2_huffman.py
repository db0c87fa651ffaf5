"""Strings in the Huffman code of HTTP/2: the code is that of RFC 7541 appendix B, and each wrong end is refused."""

from __future__ import annotations

import hpack.huffman_constants as of_hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core import http2_huffman
from coulee.core.http2_huffman import plain

CODES: list[str] = [
    f"{code:0{length}b}"
    for code, length in zip(of_hpack.REQUEST_CODES, of_hpack.REQUEST_CODES_LENGTH, strict=True)
]  # fmt: skip
"""Of each byte in bits, and of the end of a string."""


def coded(text: bytes, padding: str = "1111111") -> bytes:
    """A string in the code, one bit after the other. Of the padding there is as much as fills the last byte."""
    bits = "".join(CODES[byte] for byte in text)
    bits += padding[: -len(bits) % 8]
    assert len(bits) % 8 == 0
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


@pytest.mark.parametrize(
    ("written", "text"),
    [  # appendix C.4 and C.6
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("25a849e95ba97d7f", b"custom-key"),
        ("25a849e95bb8e8b4bf", b"custom-value"),
        ("6402", b"302"),
        ("aec3771a4b", b"private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
        ("640eff", b"307"),
        ("9bd9ab", b"gzip"),
        ("94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
         b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
)  # fmt: skip
def test_the_strings_of_the_rfc(written: str, text: bytes) -> None:
    assert plain(bytes.fromhex(written)) == text
    assert coded(text).hex() == written


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_at_each_place(byte: int) -> None:
    for before in range(8):  # "0" has five bits, so that the byte begins everywhere
        text = b"0" * before + bytes((byte,))
        assert plain(coded(text)) == text


@given(st.binary(max_size=200))
def test_any_bytes_come_back(text: bytes) -> None:
    assert plain(coded(text)) == text


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4, 5, 6, 7])
def test_padding_is_ones_and_less_than_a_byte(bits: int) -> None:
    text = next(text for text in (b"0" * count for count in range(8)) if -5 * len(text) % 8 == bits)
    assert plain(coded(text)) == text
    with pytest.raises(ValueError, match="does not end well"):
        plain(coded(text) + b"\xff")
    for wrong in range(2**bits - 1):  # every other padding; five of its bits may say something themselves
        padding = f"{wrong:0{bits}b}"
        if all(not padding.startswith(code) for code in CODES):
            with pytest.raises(ValueError, match="does not end well"):
                plain(coded(text, padding))


@pytest.mark.parametrize("text", [b"", b"0", b"abc", b"\n", b"\xff" * 3])
def test_no_string_says_where_it_ends(text: bytes) -> None:
    bits = "".join(CODES[byte] for byte in text) + CODES[256]
    for behind in ("1" * (-len(bits) % 8), (CODES[ord("0")] * 8)[: -len(bits) % 8 + 40]):
        whole = bits + behind
        written = bytes(int(whole[at : at + 8], 2) for at in range(0, len(whole) - len(whole) % 8, 8))
        with pytest.raises(ValueError, match="does not end well"):
            plain(written)


def test_what_is_kept_is_bounded_whatever_comes() -> None:
    """A node for each symbol but one, which begin symbols, and one that nothing leads out of; 256 steps each."""
    nodes = [http2_huffman._ROOT]
    for node in nodes:
        for following in node.then or node.make_steps():
            if following not in nodes:
                nodes.append(following)
        assert len(node.then) == len(node.said) == 256
        assert max(map(len, node.said)) <= 2
    assert len(nodes) == 257
