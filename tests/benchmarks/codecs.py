"""What the codec alone costs: the four heads of one small exchange, through our own codec, through the one on h11, and
through h11 without any code of ours.

Rules: the heads have the ten request and ten answer fields of the whole-proxy runs, and the answer 100 bytes of body;
no two exchanges have the same bytes, so that no cache serves us better than traffic would; the same codecs are used
again and again, many pairs in turn, as a proxy has many connections; a head is written as it was read, with what the
reading found out about it, as the proxy does too. Each round runs every codec, and what is reported are medians.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import h11

from coulee.core.codec import Codec, Role
from coulee.core.config import Limits
from coulee.core.http1 import Http1Codec
from coulee.core.http1_h11 import H11Codec
from tests.benchmarks.processes import BenchError
from tests.benchmarks.report import aligned
from tests.benchmarks.scenarios import ANSWER_FIELDS, FIELDS, REQUEST_FIELDS

HEADS = ("read request", "write request", "read answer", "write answer")
PAIRS = 100
ROUNDS = 40
WARM_UP_ROUNDS = 3
BODY_SIZE = 100

Times = Sequence[float]
"""CPU microseconds for each of `HEADS`."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, as bytes; `mark` is in both heads and nowhere else."""

    mark: bytes
    request: bytes
    answer: bytes
    body: bytes


class Pair(Protocol):
    """The two codecs that a proxy has for one exchange: towards its client, and towards its origin."""

    def read_request(self, data: bytes) -> Any:
        """The head, as the codec gives it."""
        ...

    def write_request(self, head: Any) -> bytes:
        """The bytes of what was read."""
        ...

    def read_answer(self, data: bytes) -> Any:
        """The head with its body."""
        ...

    def write_answer(self, head: Any) -> bytes:
        """The bytes of what was read."""
        ...


class OfCodecs:
    """A pair of ours."""

    def __init__(self, make: Callable[[Role, Limits], Codec]) -> None:
        self.server = make("server", Limits())
        self.client = make("client", Limits())

    def read_request(self, data: bytes) -> Any:
        self.server.feed(data)
        return self.server.next_part()

    def write_request(self, head: Any) -> bytes:
        return self.client.write(*head)  # type: ignore[return-value]

    def read_answer(self, data: bytes) -> Any:
        self.client.feed(data)
        return self.client.next_part()

    def write_answer(self, head: Any) -> bytes:
        return self.server.write(*head)  # type: ignore[return-value]


class OfH11:
    """h11 itself, as its documentation uses it."""

    def __init__(self) -> None:
        self.server = h11.Connection(h11.SERVER)
        self.client = h11.Connection(h11.CLIENT)

    def read_request(self, data: bytes) -> Any:
        server = self.server
        if server.our_state is h11.DONE:
            server.start_next_cycle()
        server.receive_data(data)
        return server.next_event(), b"", server.next_event()

    def write_request(self, head: Any) -> bytes:
        client = self.client
        if client.our_state is h11.DONE:
            client.start_next_cycle()
        request, _, _ = head
        sent = h11.Request(method=request.method, target=request.target, headers=list(request.headers.raw_items()))
        return (client.send(sent) or b"") + (client.send(h11.EndOfMessage()) or b"")

    def read_answer(self, data: bytes) -> Any:
        client = self.client
        client.receive_data(data)
        return client.next_event(), client.next_event().data, client.next_event()  # type: ignore[union-attr]

    def write_answer(self, head: Any) -> bytes:
        server = self.server
        answer, body, _ = head
        fields = list(answer.headers.raw_items())
        sent = h11.Response(status_code=answer.status_code, headers=fields, reason=answer.reason)
        data = (server.send(sent) or b"") + (server.send(h11.Data(data=body)) or b"")
        return data + (server.send(h11.EndOfMessage()) or b"")


CODECS: dict[str, Callable[[], Pair]] = {
    "coulee's own": lambda: OfCodecs(Http1Codec),
    "coulee on h11": lambda: OfCodecs(H11Codec),
    "h11 itself": OfH11,
}


def exchanges(rng: random.Random, count: int) -> list[Exchange]:
    """So many exchanges, no two alike."""
    made: list[Exchange] = []
    for _ in range(count):
        mark, session, number = f"{rng.getrandbits(128):032x}", f"{rng.getrandbits(128):032x}", rng.getrandbits(24)
        asked = [f"GET /items/{number}?page={number % 97} HTTP/1.1", "Host: shop.example.test"]
        asked += [field.replace("6f1c2a52-9c1b-4a55-8a0e-0d5f0d9f7b11", mark) for field in REQUEST_FIELDS]
        asked = [field.replace("session=0123456789abcdef0123456789abcdef", f"session={session}") for field in asked]
        answered = ["HTTP/1.1 200 OK", "Server: nginx", "Date: Mon, 02 Jun 2025 10:11:12 GMT"]
        answered += ["Content-Type: text/plain", f"Content-Length: {BODY_SIZE}", "Connection: keep-alive"]
        answered += [f"{name}: {value}" for name, value in ANSWER_FIELDS if name not in ("ETag", "X-Trace-Id")]
        answered += [f'ETag: "{session}"', f"X-Trace-Id: {mark}"]
        assert len(asked) == len(answered) == 1 + FIELDS
        body = rng.randbytes(BODY_SIZE)
        request, answer = ("\r\n".join((*lines, "", "")).encode("ascii") for lines in (asked, answered))
        made.append(Exchange(mark.encode("ascii"), request, answer + body, body))
    return made


def one_round(pairs: Sequence[Pair], work: Sequence[Exchange]) -> Times:
    """Carry one exchange through each pair, head by head; raise unless all come out whole."""
    clock = time.process_time_ns
    began = clock()
    requests = [pair.read_request(each.request) for pair, each in zip(pairs, work, strict=True)]
    read_request = clock() - began
    began = clock()
    asked = [pair.write_request(head) for pair, head in zip(pairs, requests, strict=True)]
    write_request = clock() - began
    began = clock()
    answers = [pair.read_answer(each.answer) for pair, each in zip(pairs, work, strict=True)]
    read_answer = clock() - began
    began = clock()
    answered = [pair.write_answer(head) for pair, head in zip(pairs, answers, strict=True)]
    write_answer = clock() - began
    for each, request, answer in zip(work, asked, answered, strict=True):
        if each.mark not in request or each.mark not in answer or not answer.endswith(b"\r\n\r\n" + each.body):
            raise BenchError(f"a codec has spoiled an exchange: {request!r} {answer!r}")
    return [ns / 1e3 / len(work) for ns in (read_request, write_request, read_answer, write_answer)]


def measure(rounds: int = ROUNDS) -> dict[str, list[Times]]:
    """The times of every codec, round by round."""
    rng = random.Random(9112)
    pairs = {name: [make() for _ in range(PAIRS)] for name, make in CODECS.items()}
    times: dict[str, list[Times]] = {name: [] for name in CODECS}
    for number in range(-WARM_UP_ROUNDS, rounds):
        for name in CODECS:
            taken = one_round(pairs[name], exchanges(rng, PAIRS))
            if number >= 0:
                times[name].append(taken)
    return times


def table(times: dict[str, list[Times]]) -> str:
    """The codecs as rows, the heads as columns; the ratios are the medians of each round's own."""
    own = [sum(each) for each in next(iter(times.values()))]
    rows = [["CPU us", *HEADS, "all four", "times ours"]]
    for name, rounds in times.items():
        sums = [sum(each) for each in rounds]
        ratio = statistics.median(each / ours for each, ours in zip(sums, own, strict=True))
        heads = [statistics.median(column) for column in zip(*rounds, strict=True)]
        rows.append([name, *(f"{each:.1f}" for each in (*heads, statistics.median(sums))), f"{ratio:.1f}x"])
    return aligned(rows)


def as_json(times: dict[str, list[Times]]) -> dict[str, object]:
    """The medians, in CPU microseconds."""
    return {
        name: dict(zip(HEADS, (statistics.median(column) for column in zip(*rounds, strict=True)), strict=True))
        for name, rounds in times.items()
    }
