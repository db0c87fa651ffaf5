"""The payloads of three public projects through a whole proxy, whole and byte by byte, with the verdicts of their
runner: `reject`, `normalise`, `accept`.

They are not ours to copy: the folder `shared/corpus` stands beside a checkout of a developer, and where it is absent
these tests are skipped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.corpus.passage import Passage, by_bytes, pass_request, whole
from tests.corpus.reader import Message, NotHttp, heard_by_h11, read_answers, read_requests

FOLDER: Final = Path(__file__).parents[2].parent / "shared" / "corpus"
FILES: Final = {"garden.jsonl": 74, "gunicorn.jsonl": 130, "http11probe.jsonl": 142}

NOT_REFUSED: Final = {
    "gunicorn.invalid.006": "a request line of 4,112 bytes; RFC 9112 section 3 wants 8,000 supported",
    "gunicorn.invalid.008": "a field line within 8 KiB; RFC 9110 section 5.4 leaves the limit to the recipient",
    "gunicorn.invalid.limit_header_default_01": "as gunicorn.invalid.008",
    "gunicorn.invalid.011": "`0.0.0.0=5000` is a reg-name, RFC 3986 section 3.2.2",
    "gunicorn.invalid.012": "as gunicorn.invalid.011",
    "gunicorn.invalid.040": "an underscore may stand in a token, RFC 9110 section 5.6.2; the field is dropped",
    "probe.COMP-HTTP10-NO-HOST": "RFC 9112 section 3.2 asks a Host of HTTP/1.1 only",
    "probe.MAL-NON-ASCII-URL": "the row holds literal question marks, which make a query",
    "probe.MAL-URL-OVERLONG-UTF8": "as probe.MAL-NON-ASCII-URL",
}
"""What the rows want refused, and RFC 9110 and 9112 do not: it is forwarded, and read alike by everybody."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One row: its name, what is expected, and the bytes."""

    id: str
    expect: str
    raw: bytes


def payloads() -> list[Payload]:
    """All rows of the folder, or none where it is absent."""
    rows: list[Payload] = []
    for name in FILES:
        path = FOLDER / name
        if path.exists():
            for line in path.read_text().splitlines():
                row: dict[str, Any] = json.loads(line)
                rows.append(Payload(row["id"], row["expect"], base64.b64decode(row["raw_b64"])))
    return rows


PAYLOADS: Final = payloads()

if not PAYLOADS:
    pytest.skip("the public payloads are not here: shared/corpus, beside the checkout", allow_module_level=True)


def forwarded(passage: Passage) -> list[Message]:
    """The whole requests at the origins. Fails where the strict reader finds a fault in what reached them, or h11 reads
    it otherwise."""
    messages: list[Message] = []
    for data in passage.origins:
        try:
            read = [message for message in read_requests(data) if message.whole]
        except NotHttp as error:
            raise AssertionError(f"malformed bytes were forwarded: {error}") from error
        assert [(*message.start, message.body) for message in read] == heard_by_h11(data)
        messages += read
    return messages


def last_status(passage: Passage) -> int:
    """The last final status that the client got, 0 for none."""
    read = read_answers(passage.client, ["GET"] * 99, ended=True)
    return int(read[-1].start[0]) if read else 0


@pytest.mark.parametrize("split", [whole, by_bytes], ids=["whole", "by-bytes"])
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.id)
def test_a_payload(payload: Payload, split: Callable[[bytes], list[bytes]]) -> None:
    passage = pass_request(split(payload.raw), wait_s=2)
    messages = forwarded(passage)
    expect = "accept" if payload.id in NOT_REFUSED else payload.expect
    if expect == "reject":
        assert messages == []
        if passage.client:
            assert last_status(passage) >= 400
            assert passage.client_closed
    elif expect == "accept":
        assert messages
        assert last_status(passage) == 200
    else:
        assert expect == "normalise"
        assert messages or last_status(passage) >= 400 or passage.client == b""
    refused = [record for record in passage.access if record.reason]
    assert len(refused) <= 1, "nothing behind a refused request is read"
    assert len(passage.access) == len(messages) + len(refused)


def test_all_of_them_are_here() -> None:
    assert len(PAYLOADS) == sum(FILES.values())
    assert set(NOT_REFUSED) <= {payload.id for payload in PAYLOADS if payload.expect == "reject"}
