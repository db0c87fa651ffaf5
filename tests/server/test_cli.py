"""The command line: what it says to whoever writes it wrong, its exit codes, and how signals end it.

Every mistake is answered by one line that says what is wrong; click adds its usage lines. Never a traceback.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from coulee.core import Proxy
from coulee.lb import Cluster, Grpc, HealthCheck, Http, Probe, RoundRobin, Tcp, TlsHello
from coulee.lb.policies import POLICIES, policy_named
from coulee.server import cli

COULEE = str(Path(sys.executable).with_name("coulee"))
WITHIN_S = 15.0
DEAD = "http://127.0.0.1:9"  # the discard port, where nobody listens nowadays
GOOD_APP = """
from coulee.core import Proxy, respond
from coulee.lb import Cluster

proxy = Proxy(Cluster("http://127.0.0.1:9"))


@proxy.on("request_filter")
def hello(exchange):
    return respond(200, "hello")
"""


class Program:
    """coulee, running; its stderr is read as it comes."""

    def __init__(self, *args: str, folder: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [COULEE, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def line(self, word: str) -> str:
        """The first line of stderr with `word` in it."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            over = self.process.poll() is not None
            if over:
                self._reader.join(WITHIN_S)
            for line in self.said:
                if word in line:
                    return line.rstrip("\n")
            assert not over, f"ended with code {self.process.returncode}: {''.join(self.said)}"
            time.sleep(0.01)
        raise AssertionError(f"no line with {word!r}: {self.said}")

    def port(self) -> int:
        """Where it listens."""
        return int(self.line("listening on").rpartition(":")[2])

    def dial(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port()), timeout=WITHIN_S)

    def ended(self, within_s: float) -> int:
        """Its exit code."""
        code = self.process.wait(within_s)
        self._reader.join(WITHIN_S)
        assert "Traceback" not in "".join(self.said)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(WITHIN_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def start() -> Generator[Callable[..., Program], None, None]:
    """Starts coulee; ends it behind the test."""
    running: list[Program] = []

    def begin(*args: str, folder: Path | None = None) -> Program:
        running.append(Program(*args, folder=folder))
        return running[-1]

    yield begin
    for program in running:
        program.close()


def said_and_code(*args: str, folder: Path | None = None, timeout_s: float = 30.0) -> tuple[str, int]:
    """What coulee says and how it ends where it cannot start: one line, click's usage apart."""
    done = subprocess.run(
        [COULEE, *args],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        timeout=timeout_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage: ", "Try '"))]
    assert len(lines) == 1, done.stderr
    return lines[0], done.returncode


# ------------------------------------------------------------------------------------------------ wrong usage

AT = "127.0.0.1:0"
BACKENDS = [
    pytest.param(
        name, marks=pytest.mark.skipif(name != "threads" and find_spec(name) is None, reason=f"{name} is not installed")
    )
    for name in ("asyncio", "uvloop", "trio", "curio", "threads")
]
WRONG = {
    "unknown option": (["--nope"], "No such option '--nope'"),
    "unknown option of serve": ([AT, "--to", DEAD, "--nope"], "No such option '--nope'"),
    "unknown command": (["servee"], "No such command 'servee'. Did you mean 'serve'?"),
    "no origin": (["127.0.0.1:8000"], "no origin given: try coulee 127.0.0.1:8000 --to http://127.0.0.1:9000"),
    "no scheme": ([AT, "--to", "127.0.0.1:9000"], "has no scheme; write http://127.0.0.1:9000"),
    "unsupported scheme": ([AT, "--to", "ftp://a"], "the scheme 'ftp' is not supported"),
    "a scheme of something else": ([AT, "--to", "wss://a"], "the scheme 'wss' is not supported"),
    "no host": ([AT, "--to", "http://"], "'http://' has no host"),
    "a path in the origin": ([AT, "--to", "http://a/b"], "give scheme, host and port alone, as in http://a:80"),
    "bad port of the origin": ([AT, "--to", "http://a:b"], "the port is no number"),
    "port of the origin too large": ([AT, "--to", "http://a:65536"], "the port is no number from 1 to 65535"),
    "an origin twice": ([AT, "--to", DEAD, "--to", DEAD], "endpoint 127.0.0.1:9 is given twice"),
    "no path": ([AT, "--to", "unix:"], "'unix:' names no socket"),
    "bad port": (["127.0.0.1:x", "--to", DEAD], "'x' in '127.0.0.1:x' is not a port"),
    "port too large": (["127.0.0.1:65536", "--to", DEAD], "'65536' in '127.0.0.1:65536' is not a port"),
    "only a port": (["8000", "--to", DEAD], "write '127.0.0.1:8000'"),
    "a URL to listen at": (["http://127.0.0.1:8000", "--to", DEAD], "write '127.0.0.1:8000', without 'http://'"),
    "IPv6 without brackets": (["::1:8000", "--to", DEAD], "write an IPv6 address in brackets"),
    "no path to listen at": (["unix:", "--to", DEAD], "'unix:' needs a path behind it"),
    "one word too many": ([AT, "more", "--to", DEAD], "unexpected extra argument (more)"),
    "unknown backend": ([AT, "--to", DEAD, "--backend", "twisted"], "'twisted' is not one of 'asyncio', 'uvloop'"),
    "unknown log": ([AT, "--to", DEAD, "--log", "xml"], "'xml' is not one of 'short', 'json', 'none'"),
    "negative grace": ([AT, "--to", DEAD, "--grace", "-1"], "-1.0 is not in the range x>=0"),
    "unknown policy": (
        [AT, "--to", DEAD, "--balance", "fair"],
        f"'fair' is not one of {', '.join(map(repr, POLICIES))}",
    ),
    "unknown check": (
        [AT, "--to", DEAD, "--health", "http"],
        "'http' is no check: write a path, as /health, or one of tcp, tls, grpc",
    ),
    "no check at all": ([AT, "--to", DEAD, "--health", ""], "'' is no check: write a path, as /health, or one of"),
    "a path that is none": ([AT, "--to", DEAD, "--health", "/a b"], "path is '/a b'; it must be a path in ASCII"),
    "a URL to check": ([AT, "--to", DEAD, "--health", "http://a/b"], "'http://a/b' is no check: write a path"),
    "a policy for run": (["run", "app.py", "--balance", "random"], "No such option '--balance'"),
    "run without a file": (["run"], "Missing argument 'FILE.py|MODULE[:NAME]'"),
    "bad listen of run": (["run", "app.py", "--listen", "nowhere"], "'nowhere' has no port"),
    "bad listen of demo": (["demo", "--listen", "nowhere"], "'nowhere' has no port"),
    "bad traffic of demo": (["demo", "--traffic", "-1"], "-1.0 is not in the range"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_one_line_and_code_2(case: str) -> None:
    args, words = WRONG[case]
    line, code = said_and_code(*args)
    assert words in line
    assert code == 2


@pytest.mark.parametrize("backend", ["uvloop", "trio", "curio"])
def test_a_backend_whose_library_is_missing_is_one_line_with_the_cure_and_code_2(backend: str, tmp_path: Path) -> None:
    script = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name: None if name == {backend!r} else find(name)\n"
        "from coulee.server.cli import main\n"
        "sys.exit(main())\n"
    )
    for command in ([AT, "--to", DEAD], ["demo"])[: 2 if backend == "uvloop" else 1]:
        done = subprocess.run(
            [sys.executable, "-c", script, *command, "--backend", backend],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.stderr == f'coulee: --backend {backend} needs: pip install "coulee[{backend}]"\n'
        assert done.returncode == 2


def test_help_and_version_are_code_0() -> None:
    for args, words in (["--help"], "coulee demo"), (["--version"], "coulee 0."), (["run", "-h"], "--listen"):
        done = subprocess.run([COULEE, *args], capture_output=True, text=True, timeout=30, check=True)
        assert words in done.stdout
        assert done.stderr == ""


def test_python_dash_m_is_the_same_program() -> None:
    command = [sys.executable, "-m", "coulee", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.startswith("coulee ")


# ---------------------------------------------------------------------------------------------- cannot listen


@pytest.fixture
def taken() -> Generator[int, None, None]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


@pytest.mark.parametrize("command", ["serve", "run", "demo"])
def test_a_port_in_use_is_code_3_and_names_address_and_holder(command: str, taken: int, tmp_path: Path) -> None:
    address = f"127.0.0.1:{taken}"
    (tmp_path / "app.py").write_text(GOOD_APP)
    args = {"serve": [address, "--to", DEAD], "run": ["run", "app.py", "--listen", address],
            "demo": ["demo", "--listen", address]}[command]  # fmt: skip
    line, code = said_and_code(*args, folder=tmp_path)
    assert code == 3
    assert line.startswith(f"coulee: cannot listen on {address}: ")
    if sys.platform == "linux":
        holder = Path("/proc/self/comm").read_text().strip()
        assert f"in use by {holder} (pid " in line
        pid = re.search(r"\(pid (\d+)\)", line)
        assert pid is not None
        assert Path(f"/proc/{pid[1]}/comm").read_text().strip() == holder
    assert f"Try: coulee {' '.join(args[:1] if command != 'serve' else [])}" in line


def test_an_address_of_another_machine_is_code_3() -> None:
    line, code = said_and_code("192.0.2.1:8000", "--to", DEAD)
    assert code == 3
    assert line.startswith("coulee: cannot listen on 192.0.2.1:8000: ")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_that_does_not_resolve_is_code_3(backend: str) -> None:
    line, code = said_and_code("no-such-host.invalid:8000", "--to", DEAD, "--backend", backend)
    assert code == 3
    assert line.startswith("coulee: cannot listen on no-such-host.invalid:8000: ")


def test_a_path_that_cannot_be_bound_is_code_3(tmp_path: Path) -> None:
    line, code = said_and_code(f"unix:{tmp_path}/none/proxy.sock", "--to", DEAD)
    assert code == 3
    assert line.startswith(f"coulee: cannot listen on {tmp_path}/none/proxy.sock: ")


def test_a_unix_socket_in_use_is_code_3_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "held.sock"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()
        line, code = said_and_code(f"unix:{path}", "--to", DEAD)
    assert code == 3
    assert line.startswith(f"coulee: cannot listen on {path}: ")
    assert path.exists()


def test_a_file_in_the_place_of_a_unix_socket_is_code_3_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("all I have")
    try:
        line, code = said_and_code(f"unix:{path}", "--to", DEAD, timeout_s=2.0)
        assert code == 3
        assert line.startswith(f"coulee: cannot listen on {path}: ")
    finally:
        assert path.read_text() == "all I have"


# -------------------------------------------------------------------------------------------------- coulee run

APPS = {
    "missing file": (None, "app.py: there is no such file"),
    "syntax error": ("x = 1\ndef f(:\n", "app.py:2: invalid syntax"),
    "no proxy": ("x = 1\n", "app.py: makes no Proxy; write `proxy = Proxy("),
    "a name that is not there": (
        "from coulee.core import Proxy\n\nproxy = Prxy()\n",
        "app.py:3: NameError: name 'Prxy'",
    ),
    "an error in a function": (
        "def f():\n    return 1 / 0\n\n\nf()\n",
        "app.py:2: ZeroDivisionError: division by zero",
    ),
    "an import that is not there": ("import no_such_module\n", "app.py:1: ModuleNotFoundError: No module named"),
    "two proxies": (
        "from coulee.core import Proxy\nfrom coulee.lb import Cluster as C\na, b = Proxy(C('http://a')), Proxy(C('http://b'))",
        "app.py: makes several proxies (a, b); say which, as app.py:a",
    ),
    "not utf-8": ("x = '\xff'\n", "app.py:1: "),
}


@pytest.mark.parametrize("case", APPS)
def test_a_bad_file_is_one_line_with_its_place_and_code_2(case: str, tmp_path: Path) -> None:
    text, words = APPS[case]
    if text is not None:
        (tmp_path / "app.py").write_text(text, encoding="latin-1")
    line, code = said_and_code("run", "app.py", "--listen", AT, folder=tmp_path)
    assert line.startswith("coulee: ")
    assert words in line
    assert code == 2


BAD_URL = "from coulee.core import Proxy\nfrom coulee.lb import Cluster\n\nproxy = Proxy(Cluster('127.0.0.1:9000'))\n"


@pytest.mark.parametrize("how", ["absolute", "relative", "module"])
def test_a_mistake_that_coulee_finds_has_the_users_file_and_line(how: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(BAD_URL)
    target = {"absolute": str(tmp_path / "app.py"), "relative": "app.py", "module": "app"}[how]
    line, code = said_and_code("run", target, folder=tmp_path)
    assert code == 2
    assert "app.py:4: ValueError: '127.0.0.1:9000' has no scheme; write http://127.0.0.1:9000" in line


def test_a_file_that_exits_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys\n\nsys.exit(4)\n")
    line, code = said_and_code("run", "app.py", folder=tmp_path)
    assert "app.py:3" in line
    assert code == 2


def test_an_error_of_several_lines_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise RuntimeError('two\\nlines')\n")
    line, code = said_and_code("run", "app.py", folder=tmp_path)
    assert "app.py:1: RuntimeError: two" in line
    assert code == 2


MODULES = {
    "no such module": ("no_such_module", "no_such_module: there is no such module"),
    "a name that is not there": ("app:other", "app: 'other' is not there"),
    "a name of something else": ("app:hello", "'hello' is a function, not a Proxy"),
    "a name in a file that is not there": ("app.py:other", "app.py: 'other' is not there"),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_bad_module_or_name_is_one_line_and_code_2(case: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(GOOD_APP)
    target, words = MODULES[case]
    line, code = said_and_code("run", target, folder=tmp_path)
    assert words in line
    assert code == 2


@pytest.mark.parametrize("target", ["", ":proxy", ".", ".app"])
def test_what_can_be_no_module_is_said_without_naming_importlib(target: str) -> None:
    line, code = said_and_code("run", target)
    assert "importlib" not in line
    assert code == 2


@pytest.mark.parametrize("target", ["app.py", "app.py:proxy", "app", "app:proxy"])
def test_each_way_to_name_a_proxy_runs_it(target: str, tmp_path: Path, start: Callable[..., Program]) -> None:
    (tmp_path / "app.py").write_text(GOOD_APP)
    program = start("run", target, "--listen", AT, folder=tmp_path)
    with program.dial() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"hello")


# -------------------------------------------------------------------------------------------------- dead origins


def test_a_dead_origin_is_told_in_one_line_and_coulee_runs(start: Callable[..., Program]) -> None:
    program = start(AT, "--to", DEAD)
    assert program.line("is down") == ("! 127.0.0.1:9 is down (connection refused); requests will fail until it is up")
    with program.dial() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").readline().startswith(b"HTTP/1.1 502 ")
    program.process.send_signal(signal.SIGTERM)
    assert program.ended(2.0) == 0
    assert len(program.said) == 2


def test_one_dead_origin_of_two_is_told_and_how_many_are_left(start: Callable[..., Program], taken: int) -> None:
    program = start(AT, "--to", DEAD, "--to", f"http://127.0.0.1:{taken}")
    assert program.line("is down").endswith("(connection refused); 1 of 2 endpoints left")


# ------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_coulee_within_a_second(
    number: signal.Signals, backend: str, start: Callable[..., Program]
) -> None:
    program = start(AT, "--to", DEAD, "--backend", backend)
    with program.dial() as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 502 ")
        program.process.send_signal(number)
        began = time.monotonic()
        assert idle.recv(1) == b"", "an idle connection is closed, not reset"
        idle.close()
        assert program.ended(5.0) == 0
    assert time.monotonic() - began < 1.0


@pytest.fixture
def slow_origin() -> Generator[tuple[int, threading.Event, threading.Event], None, None]:
    """A port, an event that tells that a request has come, and one that lets it be answered."""
    asked, answer = threading.Event(), threading.Event()

    def serve() -> None:
        while True:
            try:
                conn, _ = server.accept()
            except OSError:
                return
            with conn, contextlib.suppress(ConnectionError):
                if conn.recv(65536):
                    asked.set()
                    answer.wait(WITHIN_S)
                    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked, answer
        answer.set()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(WITHIN_S)


def refuses(port: int) -> bool:
    """Whether nobody listens there any more; waits until it is so."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_running_request_is_finished_before_the_end(
    backend: str, start: Callable[..., Program], slow_origin: tuple[int, threading.Event, threading.Event]
) -> None:
    port, asked, answer = slow_origin
    program = start(AT, "--to", f"http://127.0.0.1:{port}", "--grace", "20", "--backend", backend)
    with program.dial() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.wait(WITHIN_S)
        program.process.send_signal(signal.SIGTERM)
        assert refuses(program.port())
        assert program.process.poll() is None
        answer.set()
        got = client.makefile("rb").read()
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in got
    assert got.endswith(b"\r\n\r\ndone")
    assert program.ended(2.0) == 0


@pytest.mark.parametrize("how", ["the grace period is over", "a second signal"])
def test_a_request_that_does_not_end_is_cut(
    how: str, start: Callable[..., Program], slow_origin: tuple[int, threading.Event, threading.Event]
) -> None:
    port, asked, _ = slow_origin
    grace_s = "0.3" if how == "the grace period is over" else "60"
    program = start(AT, "--to", f"http://127.0.0.1:{port}", "--grace", grace_s)
    with program.dial() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert asked.wait(WITHIN_S)
        program.process.send_signal(signal.SIGINT)
        if how == "a second signal":
            assert refuses(program.port())
            program.process.send_signal(signal.SIGINT)
        assert program.ended(3.0) == 0


def test_the_codec_can_be_chosen() -> None:
    from coulee.core import Proxy
    from coulee.lb import Cluster
    from coulee.server.cli import _choose_codec

    proxy = Proxy(Cluster("http://127.0.0.1:9"))
    _choose_codec(proxy, None)
    before = proxy.config.http1_codec
    _choose_codec(proxy, "h11")
    assert (before, proxy.config.http1_codec) == ("own", "h11")


def test_what_to_try_instead_has_every_origin_and_is_said_where_another_port_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line, code = said_and_code(f"127.0.0.1:{port}", "--to", DEAD, "--to", "http://127.0.0.1:7")
    assert code == 3
    assert line.endswith(f"Try: coulee 127.0.0.1:{port + 1} --to {DEAD} --to http://127.0.0.1:7")
    line, code = said_and_code("192.0.2.1:8000", "--to", DEAD)
    assert code == 3
    assert "Try:" not in line


# ------------------------------------------------------------------------------------------ balancing and checks


def serving(*args: str) -> Cluster:
    """What a command line would run, without running it."""
    made: list[Proxy] = []

    def take(make: Callable[[], Proxy], *_: object, **__: object) -> None:
        made.append(make())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_run", take)
        done = CliRunner().invoke(cli.main, [AT, *args])
    assert done.exit_code == 0, done.output
    [proxy] = made
    assert isinstance(proxy.balancer, Cluster)
    return proxy.balancer


@pytest.mark.parametrize("name", POLICIES)
def test_each_policy_can_be_named(name: str) -> None:
    assert type(serving("--to", DEAD, "--balance", name).policy) is type(policy_named(name))


@pytest.mark.parametrize(
    ("word", "probe"),
    [
        ("/health", Http(path="/health")),
        ("/health?full=1", Http(path="/health?full=1")),
        ("tcp", Tcp()),
        ("tls", TlsHello()),
        ("grpc", Grpc()),
    ],
)
def test_each_check_can_be_asked_for(word: str, probe: Probe) -> None:
    assert serving("--to", DEAD, "--health", word).health == HealthCheck(probe)


def test_without_a_word_endpoints_take_turns_and_nobody_checks_them() -> None:
    cluster = serving("--to", DEAD, "--to", "http://127.0.0.1:7")
    assert isinstance(cluster.policy, RoundRobin)
    assert cluster.health is None
    assert [each.name for each in cluster.members] == ["127.0.0.1:9", "127.0.0.1:7"]


def test_an_origin_that_fails_its_checks_is_told_and_asked_no_more(start: Callable[..., Program]) -> None:
    program = start(AT, "--to", DEAD, "--health", "/health")
    assert "! 127.0.0.1:9 is unhealthy: upstream_refused: " in program.line("unhealthy")
    with program.dial() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert b"no_healthy_endpoint" in answer.partition(b"\r\n\r\n")[2]
