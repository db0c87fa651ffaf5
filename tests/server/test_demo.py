"""The demo, as somebody at a terminal meets it: where to look, what to try, a line for each exchange, Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

COULEE = str(Path(sys.executable).with_name("coulee"))
WITHIN_S = 20.0
RETRIED = r"^\d\d:\d\d:\d\d GET (/\S*) 200 \d+ms \d+B flaky -> (fast|slow) \(retry: upstream_reset\)$"
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Demo:
    """`coulee demo`, running."""

    def __init__(self, *args: str, terminal: bool = False) -> None:
        command = [COULEE, "demo", *args]
        if terminal:
            command = [sys.executable, "-c", ON_A_TERMINAL, *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\r\n"))

    def line(self, pattern: str) -> re.Match[str]:
        """The first line that matches, which may still have to come."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            for line in list(self.said):
                match = re.search(pattern, line)
                if match is not None:
                    return match
            time.sleep(0.01)
        raise AssertionError(f"no line like {pattern}: {self.said}")

    def url(self) -> str:
        """Where its proxy is."""
        return self.line(r"the proxy is (http://127\.0\.0\.1:\d+),")[1]

    def get(self, path: str) -> bytes:
        """One request of our own; all that was answered."""
        with socket.create_connection(("127.0.0.1", int(self.url().rpartition(":")[2])), timeout=WITHIN_S) as client:
            client.sendall(b"GET %s HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n" % path.encode())
            return client.makefile("rb").read()

    def ended(self) -> tuple[int, float]:
        """Its exit code, and the seconds that it took to end."""
        began = time.monotonic()
        code = self.process.wait(WITHIN_S)
        took_s = time.monotonic() - began
        self._reader.join(WITHIN_S)
        return code, took_s

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def demo() -> Generator[Callable[..., Demo], None, None]:
    """Starts the demo on a free port; ends it behind the test."""
    running: list[Demo] = []

    def begin(*args: str, terminal: bool = False) -> Demo:
        where = () if "--listen" in args else ("--listen", "127.0.0.1:0")
        running.append(Demo(*where, *args, terminal=terminal))
        return running[-1]

    yield begin
    for each in running:
        each.close()


def test_it_says_where_the_proxy_is_what_is_behind_it_and_what_to_try(demo: Callable[..., Demo]) -> None:
    running = demo("--traffic", "0")
    url = running.url()
    running.line(r"^  fast   answers in 9 ms$")
    running.line(r"^  slow   answers in 120 ms$")
    running.line(r"^  flaky  answers in 9 ms, or hangs up \(50%\), and is down now and then$")
    running.line(r"^try, in another terminal:$")
    running.line(rf"^  curl {re.escape(url)}/$")
    running.line(r"^Ctrl-C ends it\.")


def test_each_line_to_try_works(demo: Callable[..., Demo]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    running = demo("--traffic", "0")
    running.line(r"^Ctrl-C ends it\.")
    commands = [line.strip() for line in running.said if re.match(r"^  (curl|for) ", line)]
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True,
                              env=dict(os.environ, no_proxy="*"))  # fmt: skip
        assert "hello from " in done.stdout
    assert done.stdout.count("hello from ") == 20


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_it_makes_traffic_of_its_own_and_shows_retries_that_no_client_notices(
    demo: Callable[..., Demo], backend: str
) -> None:
    if backend == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    running = demo("--traffic", "50", "--backend", backend)
    match = running.line(RETRIED)
    running.line(rf"^\d\d:\d\d:\d\d ! GET {match[1]}: flaky failed \(upstream_reset\), trying again$")
    for name in ("fast", "slow"):
        running.line(rf"^\d\d:\d\d:\d\d GET /\S* 200 \d+ms \d+B {name}$")
    requests = [line for line in running.said if re.match(r"^\d\d:\d\d:\d\d GET ", line)]
    assert all(" 200 " in line for line in requests), requests


def test_it_shows_fail_over_when_the_flaky_origin_is_down(demo: Callable[..., Demo]) -> None:
    running = demo("--traffic", "20")
    running.line(r"^-- flaky is down for 4 s: nothing listens at 127\.0\.0\.1:\d+$")
    # Where it was ejected a moment before, as it may be, nobody asks it but its check.
    running.line(r"flaky -> (fast|slow) \(retry: upstream_refused\)$|! flaky is unhealthy: upstream_refused: ")
    running.line(r"^-- flaky is up again$")
    requests = [line for line in running.said if re.match(r"^\d\d:\d\d:\d\d GET ", line)]
    assert all(" 200 " in line for line in requests), requests


def test_requests_of_our_own_are_all_answered_and_shown_as_they_happen(demo: Callable[..., Demo]) -> None:
    running = demo("--traffic", "0")
    for number in range(12):
        answer = running.get(f"/mine/{number}")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\n\r\nhello from " in answer
        running.line(rf" GET /mine/{number} 200 ")
    deadline = time.monotonic() + WITHIN_S
    while not any(re.search(RETRIED, line) for line in running.said):
        assert running.get("/until/it/fails").startswith(b"HTTP/1.1 200 OK\r\n")
        assert time.monotonic() < deadline, "the flaky origin never fails"


def test_it_works_on_ipv6_too(demo: Callable[..., Demo]) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 on loopback")
    running = demo("--listen", "[::1]:0", "--traffic", "20")
    running.line(r"the proxy is http://\S+,")
    assert re.search(r"http://\[::1\]:\d+,", running.said[0])
    running.line(r" GET /\S* 200 ")


def test_a_unix_socket_is_refused_because_no_browser_finds_it(demo: Callable[..., Demo], tmp_path: Path) -> None:
    running = demo("--listen", f"unix:{tmp_path}/demo.sock")
    running.line("the demo listens at HOST:PORT")
    assert running.process.wait(5) == 2


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("traffic", ["0", "50"])
def test_a_signal_ends_it_within_a_second_with_code_0(
    demo: Callable[..., Demo], number: signal.Signals, traffic: str
) -> None:
    running = demo("--traffic", traffic)
    running.get("/first")
    running.line(" GET /first 200 ")
    running.process.send_signal(number)
    code, took_s = running.ended()
    assert code == 0
    assert took_s < 1.0
    assert "bye" in running.said
    assert not [line for line in running.said if "Traceback" in line]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_ctrl_c_at_a_terminal_ends_it_within_a_second_with_code_0(demo: Callable[..., Demo]) -> None:
    running = demo("--traffic", "0", terminal=True)
    running.line(r"^Ctrl-C ends it\.")
    assert running.get("/coloured").startswith(b"HTTP/1.1 200 ")
    assert "\x1b[32m200\x1b[0m" in running.line(" GET /coloured ").string
    assert running.process.stdin is not None
    running.process.stdin.write("\x03")
    running.process.stdin.flush()
    code, took_s = running.ended()
    assert (code, took_s < 1.0) == (0, True)
    assert running.said[-1] == "bye"


def test_it_listens_at_8000_by_default() -> None:
    done = subprocess.run([COULEE, "demo", "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert "[default: 127.0.0.1:8000]" in " ".join(done.stdout.split())
