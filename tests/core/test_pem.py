"""Files with blocks of PEM, taken apart."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coulee.core.pem import has_certificates, pem_blocks


def block(label: str, der: bytes, *, line: int = 64, end: bytes = b"\n") -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + line] for at in range(0, len(text), line)]
    return end.join([f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----".encode(), b""])


DERS = st.lists(st.tuples(st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "X509 CRL"]), st.binary(max_size=200)))
BETWEEN = st.sampled_from([b"", b"\n", b"# root of -----\n", "subject=Företag\n".encode(), b"-----BEGIN a-----\n"])


@given(DERS, BETWEEN, st.sampled_from([1, 4, 64, 1000]), st.sampled_from([b"\n", b"\r\n", b"\n \t"]))
def test_blocks_are_found_whatever_stands_between(
    written: list[tuple[str, bytes]], between: bytes, line: int, end: bytes
) -> None:
    data = between + between.join(block(label, der, line=line, end=end).rstrip(b" \t") for label, der in written)
    found = pem_blocks(data + between)
    assert [(each.label, each.der) for each in found] == written
    assert not any(each.encrypted for each in found)
    for each in found:
        assert pem_blocks(each.text)[0] == each, "its text stands for itself"


@given(st.binary(max_size=80) | st.lists(st.sampled_from(
    [b"-----BEGIN A-----", b"-----END A-----", b"\n", b"-----BEGIN B-----\n", b"AAAA", b"=", b"\xff"])).map(b"".join)
)  # fmt: skip
def test_whatever_is_in_a_file_there_are_blocks_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        pem_blocks(data)


def test_a_block_that_does_not_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="it has no end of its block CERTIFICATE"):
        pem_blocks(block("CERTIFICATE", b"abc") + block("CERTIFICATE", b"abc")[:-8])
    with pytest.raises(ValueError, match="it has no end of its block PRIVATE KEY"):
        pem_blocks(block("PRIVATE KEY", b"abc").replace(b"END PRIVATE", b"END PUBLIC"))


@pytest.mark.parametrize("body", [b"secret!\n", b"c2VjcmV0c2V\n", b"=\n", b"c2Vj=cmV0\n", b"c2VjcmU=c2Vj\n"])
def test_what_is_not_base64_is_an_error_that_does_not_quote_it(body: bytes) -> None:
    with pytest.raises(ValueError, match="what is in its block PRIVATE KEY is not base64") as caught:
        pem_blocks(b"-----BEGIN PRIVATE KEY-----\n" + body + b"-----END PRIVATE KEY-----\n")
    assert body.decode().strip() not in str(caught.value) or body == b"=\n"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        block("ENCRYPTED PRIVATE KEY", b"secret"),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,A0\n\nc2VjcmV0\n"
            b"-----END RSA PRIVATE KEY-----\n"
        ),
    ],
)
def test_encrypted_keys_are_told_by_their_labels_and_their_headers(text: bytes) -> None:
    (found,) = pem_blocks(text)
    assert (found.encrypted, found.der) == (True, b"")
    assert found.label.endswith("PRIVATE KEY")
    assert found.text == text


def test_a_block_begins_with_a_line() -> None:
    assert pem_blocks(b"like -----BEGIN CERTIFICATE-----\nand so on") == []


def test_no_secret_is_in_the_text_of_a_block() -> None:
    (found,) = pem_blocks(block("PRIVATE KEY", b"secret"))
    assert repr(found) == "Block(label='PRIVATE KEY', encrypted=False)"


def test_whether_there_are_certificates_is_a_guess() -> None:
    assert has_certificates(b"a\n" + block("CERTIFICATE", b"abc"))
    assert not has_certificates(block("PRIVATE KEY", b"abc"))
    assert not has_certificates("é".encode() + block("CERTIFICATE", b"abc"))
