"""A server of grpcio without generated code, as a program: `grpc_ends.py SETTINGS`; and what clients of it need.

SETTINGS is JSON: `pair`, a file with a certificate and its key. Its first line of output is JSON with its ports,
`plain` and `tls`. It ends with its input. Messages are bytes, and JSON where they say something; its methods are at the
end.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import grpc  # type: ignore[import-untyped]

HOST: Final = "127.0.0.1"
SERVICE: Final = "coulee.Test"
NO_LIMIT: Final = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
COUNTS: Final = Counter[str]()
_LOCK: Final = threading.Lock()


def count(word: str) -> None:
    with _LOCK:
        COUNTS[word] += 1


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """What it was given."""
    count("echo")
    return request


def told(request: bytes, context: grpc.ServicerContext) -> bytes:
    """What has come beside the message; and metadata of its own, before and behind."""
    context.send_initial_metadata((("x-early", "1"), ("x-early-bin", bytes(range(256)))))
    context.set_trailing_metadata((("x-late", "2"), ("x-late-bin", b"\x00\xff")))
    pairs = [
        (name, value.hex() if isinstance(value, bytes) else value) for name, value in context.invocation_metadata()
    ]
    return json.dumps({"metadata": pairs, "left_s": context.time_remaining()}).encode()


def gathered(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    """How many there were, and what."""
    sha, number = hashlib.sha256(), 0
    for request in requests:
        sha.update(request)
        number += 1
    return json.dumps({"number": number, "sha256": sha.hexdigest()}).encode()


def many(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """`times` one of `size`, `every` so many seconds."""
    wish = json.loads(request)
    for number in range(wish["times"]):
        yield number.to_bytes(4, "big") * (wish.get("size", 4) // 4)
        if wish.get("every"):
            time.sleep(wish["every"])


def chat(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Each, as it comes."""
    yield from requests


def fails(request: bytes, context: grpc.ServicerContext) -> bytes:
    """With the `code` and `details` that are asked for, and nothing before."""
    wish = json.loads(request)
    context.set_trailing_metadata((("x-late", "2"),))
    context.abort(next(code for code in grpc.StatusCode if code.value[0] == wish["code"]), wish["details"])
    raise AssertionError


def fails_late(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """... behind one message."""
    yield b"first"
    fails(request, context)


def waits(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Say so, and then nothing until it is over; it is counted by its name."""
    over = threading.Event()

    def ended() -> None:
        count(f"over {request.decode()}")
        over.set()

    context.add_callback(ended)
    yield b"begun"
    over.wait(60)


def squeezed(request: bytes, context: grpc.ServicerContext) -> bytes:
    """What it was given, compressed."""
    context.set_compression(grpc.Compression.Gzip)
    return request


def counts(request: bytes, context: grpc.ServicerContext) -> bytes:
    """What has been counted so far."""
    return json.dumps(COUNTS).encode()


def handlers() -> dict[str, Any]:
    """All methods, by their names."""
    return {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Told": grpc.unary_unary_rpc_method_handler(told),
        "Gathered": grpc.stream_unary_rpc_method_handler(gathered),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
        "FailsLate": grpc.unary_stream_rpc_method_handler(fails_late),
        "Waits": grpc.unary_stream_rpc_method_handler(waits),
        "Squeezed": grpc.unary_unary_rpc_method_handler(squeezed),
        "Counts": grpc.unary_unary_rpc_method_handler(counts),
    }


def main(settings: dict[str, Any]) -> None:
    """Serve until the input ends."""
    server = grpc.server(ThreadPoolExecutor(128), options=NO_LIMIT)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers()),))
    pair = Path(settings["pair"]).read_bytes()
    ports = {
        "plain": server.add_insecure_port(f"{HOST}:0"),
        "tls": server.add_secure_port(f"{HOST}:0", grpc.ssl_server_credentials([(pair, pair)])),
    }
    server.start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    server.stop(0).wait()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))


# --------------------------------------------------------------------------------------------------------- clients


class Client:
    """A channel to such a server; each method of it is one of the server's."""

    def __init__(self, target: str, ca: bytes | None = None, compression: Any = None) -> None:
        # Each has connections of its own; none goes by a proxy of this machine's.
        options = [*NO_LIMIT, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        if ca is None:
            self.channel = grpc.insecure_channel(target, options, compression)
        else:
            self.channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), options, compression)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def unary(self, name: str) -> Any:
        return self.channel.unary_unary(f"/{SERVICE}/{name}")

    def gathers(self, name: str) -> Any:
        return self.channel.stream_unary(f"/{SERVICE}/{name}")

    def streams(self, name: str) -> Any:
        return self.channel.unary_stream(f"/{SERVICE}/{name}")

    def talks(self, name: str) -> Any:
        return self.channel.stream_stream(f"/{SERVICE}/{name}")
