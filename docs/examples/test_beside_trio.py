"""The program runs, and stands in the documentation as it runs."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

trio = pytest.importorskip("trio")


def answer_one(listening: socket.socket) -> None:
    conn, _ = listening.accept()
    with conn:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")


def ask(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"GET /welcome HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return client.makefile("rb").read()


def test_each_request_is_passed_on_and_written_down_by_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    from beside_trio import main

    answers: list[bytes] = []

    async def client(driver: Any) -> None:
        answers.append(await trio.to_thread.run_sync(ask, driver.addresses[0]))
        driver.stop()

    async def both(origin: str) -> None:
        async with trio.open_nursery() as nursery:
            await main(origin, "127.0.0.1:0", lambda driver: nursery.start_soon(client, driver))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        origin = threading.Thread(target=answer_one, args=(listening,), daemon=True)
        origin.start()
        trio.run(both, f"http://127.0.0.1:{listening.getsockname()[1]}")
        origin.join(10)
    assert answers[0].endswith(b"\r\n\r\nhello")
    assert capsys.readouterr().out == "GET /welcome\n"


def test_it_is_the_program_in_the_documentation() -> None:
    here = Path(__file__).parent
    assert (here / "beside_trio.py").read_text() in (here.parent / "backends.md").read_text()
