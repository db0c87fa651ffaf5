"""Strings in the Huffman code of HTTP/2 (RFC 7541 section 5.2 and appendix B), read; nothing is ever written in it.

    coded --> a byte at a time, from node to node of the tree --> plain

Rules:

- The code is canonical: of symbols with equally many bits the lower has the lower code, and shorter codes come before
  longer ones. So the number of bits of each symbol is all that has to be known.
- A byte is one step: where it leads from a node, and what it completes on its way. The steps of a node are made when
  it is first come to, for all connections: they are of the code alone, and tell nothing of any string.
- There are 256 nodes, so whatever comes, no more than two megabytes are ever made.
- What ends a string is fewer than eight bits, all of them ones; the symbol for its end is never in it.
"""

from __future__ import annotations

from typing import Final

_SYMBOLS: Final = (
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, bytes.fromhex("01 87 89 8a 8b 8c 8d 8f 93 95 96 97 98 9b 9d 9e a5 a6 a8 ae af b4 b6 b7 bc bf c5 e7 ef")),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, bytes.fromhex("02 03 04 05 06 07 08 0b 0c 0e 0f 10 11 12 13 14 15 17 18 19 1a 1b 1c 1d 1e 1f 7f dc f9")),
    (30, b"\n\r\x16"),  # and the end of a string, which is the last of all
)  # fmt: skip
"""Appendix B: how many bits there are to a symbol. The symbols of each number are in their order."""


def plain(coded: bytes) -> bytes:
    """What a string says. Raises `ValueError`."""
    node = _ROOT
    text = bytearray()
    for byte in coded:
        then = node.then or node.make_steps()
        text += node.said[byte]
        node = then[byte]
    if not node.well_ended:
        raise ValueError("a string whose code does not end well (section 5.2)")
    return bytes(text)


class _Node:
    """The bits of a symbol that were read."""

    __slots__ = ("next", "said", "symbol", "then", "well_ended")

    def __init__(self) -> None:
        self.next: list[_Node] = []  # with a 0, and with a 1
        self.symbol = b""  # that ends here
        self.well_ended = False  # a string may end here
        self.then: list[_Node] = []  # where each byte leads
        self.said: list[bytes] = []  # what it completes

    def make_steps(self) -> list[_Node]:
        """Walk the tree for each of the 256 bytes, in their order. Gives `then`."""
        self._walk(self, b"", 8)
        return self.then

    def _walk(self, node: _Node, said: bytes, bits: int) -> None:
        if node.symbol:
            said += node.symbol
            node = _ROOT
        if not bits:
            self.then.append(node)
            self.said.append(said)
            return
        for following in node.next or [node, node]:  # behind the end of a string there is no way out
            self._walk(following, said, bits - 1)


def _tree() -> _Node:
    root = _Node()
    code = length = 0
    for bits, symbols in _SYMBOLS:
        for symbol in symbols:
            code <<= bits - length
            length = bits
            _leaf(root, code, bits).symbol = bytes((symbol,))
            code += 1
    _leaf(root, code, length)  # the end of a string: a node without a symbol
    node = root
    for _ in range(8):  # what is left of the last byte is all ones, and fewer than eight
        node.well_ended = True
        node = node.next[1]
    return root


def _leaf(node: _Node, code: int, length: int) -> _Node:
    for bit in range(length - 1, -1, -1):
        node.next = node.next or [_Node(), _Node()]
        node = node.next[code >> bit & 1]
    return node


_ROOT: Final = _tree()
