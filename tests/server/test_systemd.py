"""What systemd is told, on every backend, and the sockets that it hands over.

systemd is played by a socket of the test's; where its own tools are installed, they have their say too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from coulee.backends import inherited
from coulee.server import systemd

COULEE = str(Path(sys.executable).with_name("coulee"))
WITHIN_S = 15.0
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
REQUEST = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
DEAD = ("--to", "http://127.0.0.1:9")

# Hands over descriptors as systemd does: from 3 on, with the environment that says so.
LAUNCHER = """
import os, sys
fds, *command = sys.argv[1:]
fds = [int(fd) for fd in fds.split(",") if fd]
for index, fd in enumerate([os.dup(fd) for fd in fds]):
    os.dup2(fd, 100 + index)
for index in range(len(fds)):
    os.dup2(100 + index, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execv(command[0], command)
"""

APP = """
from coulee.core import Proxy, native, respond, sleep
from coulee.lb import Cluster

proxy = Proxy(Cluster("http://127.0.0.1:9"))


@proxy.on("request_filter")
async def answer(exchange):
    if exchange.request.target == "/hang":
        open("pipe").read()  # until the test closes its end
    elif exchange.request.target == "/wait":
        await sleep(1e6)
    return respond(200, "hello")
"""


@pytest.fixture(params=["asyncio", "uvloop", "trio", "curio", "threads"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param != "threads" and find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


class Manager:
    """The place where a service tells of itself."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(WITHIN_S)

    def hears(self) -> str:
        """What it is told next."""
        return self.sock.recv(4096).decode()

    def hears_of(self, word: str) -> str:
        """The next that it is told of this."""
        while word not in (told := self.hears()):
            assert told == "WATCHDOG=1"
        return told

    def is_silent_for(self, seconds: float) -> bool:
        """Whether it is told nothing for so long, but for what was on its way."""
        self.sock.settimeout(seconds)
        try:
            self.hears()
            self.hears()
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(WITHIN_S)
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Generator[Manager, None, None]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.sock.close()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Generator[Start, None, None]:
    """Starts coulee, with sockets that are handed over."""
    running: list[subprocess.Popen[str]] = []
    (tmp_path / "app.py").write_text(APP)
    os.mkfifo(tmp_path / "pipe")

    def begin(
        *args: str, handed: list[socket.socket] | None = None, launcher: list[str] | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        fds = [sock.fileno() for sock in handed or []]
        environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, map(str, sys.path)))}
        if handed is not None:
            launcher = [sys.executable, "-c", LAUNCHER, ",".join(map(str, fds))]
        running.append(
            subprocess.Popen(
                [*(launcher or []), COULEE, *args],
                pass_fds=fds,
                env=environment,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def listening(address: Any = ("127.0.0.1", 0), kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET, kind)
    sock.bind(address)
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def dial(address: Any, target: bytes = b"/") -> socket.socket:
    client = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    client.settimeout(WITHIN_S)
    client.connect(address)
    client.sendall(REQUEST % target)
    return client


def answer(client: socket.socket) -> bytes:
    got = b""
    with client:
        while data := client.recv(65536):
            got += data
    return got


# --------------------------------------------------------------------------------------------------- what is told


@pytest.mark.parametrize("abstract", [False, True])
def test_who_manages_the_service_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"coulee-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(WITHIN_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        systemd.notify("READY=1\nSTATUS=caf\udce9")
        assert manager.recv(100) == b"READY=1\nSTATUS=caf?"


@pytest.mark.parametrize("place", ["", "/no/such/socket", "relative", "/" + "x" * 200, "@", "vsock:2:1234"])
def test_what_cannot_be_told_is_dropped(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    systemd.notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("READY=1")


def test_a_manager_that_does_not_listen_holds_nobody_up(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    for _ in range(2000):
        systemd.notify("WATCHDOG=1")
    assert manager.hears() == "WATCHDOG=1"


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_long_the_watchdog_waits(
    variables: dict[str, str], interval_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval_s() == interval_s


def test_a_service_tells_of_its_life(backend: str, manager: Manager, start: Start) -> None:
    """It is ready when it listens, alive while its loop turns, also while it drains, and says when that begins."""
    service = start("run", "app.py", "--listen", "127.0.0.1:0", "--backend", backend, "--quiet",
                    NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="200000")  # fmt: skip
    ready, status = manager.hears().split("\n")
    assert ready == "READY=1"
    found = re.fullmatch(r"STATUS=listening on 127\.0\.0\.1:(\d+)", status)
    assert found is not None
    address = ("127.0.0.1", int(found[1]))
    assert answer(dial(address)).endswith(b"hello")
    for _ in range(5):
        assert manager.hears() == "WATCHDOG=1"
    waiting = dial(address, b"/wait")
    assert answer(dial(address)).endswith(b"hello"), "so the other has been heard too"
    service.send_signal(signal.SIGTERM)
    assert manager.hears_of("STOPPING") == "STOPPING=1\nSTATUS=draining for at most 30 s"
    for _ in range(3):
        assert manager.hears() == "WATCHDOG=1"
    service.send_signal(signal.SIGTERM)
    assert answer(waiting).startswith(b"HTTP/1.1 503 ")
    assert service.wait(WITHIN_S) == 0


def test_a_loop_that_hangs_is_noticed(backend: str, manager: Manager, start: Start, tmp_path: Path) -> None:
    service = start("run", "app.py", "--listen", "127.0.0.1:0", "--backend", backend, "--quiet",
                    NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="100000")  # fmt: skip
    port = int(manager.hears_of("READY").rpartition(":")[2])
    assert manager.hears() == "WATCHDOG=1"
    client = dial(("127.0.0.1", port), b"/hang")
    with open(tmp_path / "pipe", "w"):  # it hangs, now that this has come back
        assert manager.is_silent_for(0.5)
    assert answer(client).endswith(b"hello")
    assert manager.hears() == "WATCHDOG=1"
    service.terminate()
    assert service.wait(WITHIN_S) == 0


class _Loop:
    """A loop whose timers are rung by hand."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], object]] = []

    def call_later(self, _: float, call: Callable[[], object]) -> None:
        self.timers.append(call)

    def call(self, call: Callable[[], object]) -> None:
        self.timers.append(call)

    def turn(self) -> None:
        self.timers.pop(0)()


class _Driver:
    def __init__(self) -> None:
        self.loop = _Loop()


class _Running:
    """Two workers."""

    addresses = ("/a\n.sock", ("::1", 80))

    def __init__(self) -> None:
        self.drivers = [_Driver(), _Driver()]


def test_all_loops_of_a_service_have_to_turn(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    running = _Running()
    systemd.Service().ready(running)
    assert manager.hears() == "READY=1\nSTATUS=listening on /a .sock, [::1]:80"
    assert manager.hears() == "WATCHDOG=1"
    first, second = (driver.loop for driver in running.drivers)
    manager.sock.settimeout(0.0)
    first.turn()
    first.turn()
    with pytest.raises(BlockingIOError):
        manager.hears()
    second.turn()
    assert manager.hears() == "WATCHDOG=1"


# --------------------------------------------------------------------------------------------- what is handed over


@pytest.mark.parametrize("variables", [{}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, {"LISTEN_FDS": "x"}])
def test_who_is_handed_nothing_has_nothing(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "a", **variables}.items():
        monkeypatch.setenv(name, value)
    assert systemd.activated() == []
    assert "LISTEN_PID" not in os.environ
    assert systemd.listen_at("127.0.0.1:80") == [("127.0.0.1", 80)]
    assert inherited.given(("127.0.0.1", 80)) is None
    with pytest.raises(ValueError, match="handed over no socket"):
        systemd.listen_at("systemd")


def test_what_is_handed_over_is_ours_alone(tmp_path: Path) -> None:
    """In a process of its own, for it is descriptor 3 that is handed over."""
    says = (
        "import os; from coulee.server import systemd\n"
        "for name, sock in systemd.activated():\n"
        "    print(name, sock.fileno(), sock.get_inheritable(), sock.getsockname())\n"
        "print(systemd.activated(), [name for name in os.environ if name.startswith('LISTEN')])"
    )
    with listening() as one, listening(str(tmp_path / "a.sock")) as two:
        fds = [one.fileno(), two.fileno()]
        launcher = [sys.executable, "-c", LAUNCHER, ",".join(map(str, fds)), sys.executable, "-c", says]
        environment = {**os.environ, "LISTEN_FDNAMES": "web:", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        said = subprocess.run(launcher, pass_fds=fds, env=environment, capture_output=True, text=True, check=True)
        assert said.stdout.splitlines() == [
            f"web 3 False {one.getsockname()}",
            f"unknown 4 False {two.getsockname()}",
            "[] []",
        ]


def test_all_that_is_handed_over_is_listened_at(backend: str, start: Start, tmp_path: Path) -> None:
    with listening() as one, listening(str(tmp_path / "a.sock")) as two:
        service = start("run", "app.py", "--listen", "systemd", "--backend", backend, "--quiet", handed=[one, two])
        assert answer(dial(one.getsockname())).endswith(b"hello")
        assert answer(dial(two.getsockname())).endswith(b"hello")
        service.terminate()
        assert service.wait(WITHIN_S) == 0
        assert (tmp_path / "a.sock").exists(), "the path is systemd's"
        waiting = dial(one.getsockname())
        start("run", "app.py", "--listen", "systemd", "--backend", backend, "--quiet", handed=[one, two])
        assert answer(waiting).endswith(b"hello"), "it has waited in the backlog"


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_socket_is_used_where_its_address_is_asked_for(everywhere: bool, start: Start) -> None:
    with listening(("0.0.0.0" if everywhere else "127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        start(f":{port}" if everywhere else f"127.0.0.1:{port}", *DEAD, "--quiet", handed=[sock])
        assert answer(dial(("127.0.0.1", port))).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("listen", "handed", "complaint"),
    [
        ("systemd", "nothing", "systemd has handed over no socket"),
        (
            "127.0.0.1:0",
            "stream",
            r"handed over 127\.0\.0\.1:\d+, where nobody would listen: write 'systemd'",
        ),
        (":1", "stream", "where nobody would listen"),
        ("systemd", "datagram", r"'unknown' \(descriptor 3\) does not listen for streams"),
        ("systemd", "connected", "needs ListenStream=, and Accept=no"),
        ("systemd", "pipe", "is no socket: Socket operation on non-socket"),
    ],
)
def test_what_is_handed_over_wrongly_is_said_in_one_line(
    listen: str, handed: str, complaint: str, start: Start
) -> None:
    with listening() as stream, listening(kind=socket.SOCK_DGRAM) as datagram:
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        pipe: Any = os.fdopen(read)
        given = {"nothing": [], "stream": [stream], "datagram": [datagram], "connected": [ours], "pipe": [pipe]}[handed]
        service = start(listen, *DEAD, handed=given)
        _, said = service.communicate(timeout=WITHIN_S)
        for each in (ours, theirs, pipe):
            each.close()
        os.close(write)
    assert service.returncode == 2
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("Error:")]
    assert re.search(complaint, line)


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_systemd_itself_hands_a_socket_over(start: Start) -> None:
    with listening() as free:
        port = free.getsockname()[1]
    path = os.pathsep.join(filter(None, map(str, sys.path)))
    activate = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=web", "-E", f"PYTHONPATH={path}"]
    process = start("systemd", *DEAD, "--quiet", launcher=activate)
    assert process.stderr is not None
    assert "Listening on" in process.stderr.readline()
    assert answer(dial(("127.0.0.1", port))).startswith(b"HTTP/1.1 502 ")


# --------------------------------------------------------------------------------------------------- the units


def units(folder: Path) -> list[Path]:
    """The units of the documentation, as files, with a program that is there."""
    found: list[Path] = []
    for block in re.findall(r"^```ini\n(.*?)^```", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        name = re.match(r"# /etc/systemd/system/(\S+)\n", block)
        assert name is not None, "a unit says where it is to be"
        path = folder / name[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.replace("/usr/local/bin/coulee", COULEE), encoding="utf-8")
        found.append(path)
    return found


def test_the_commands_of_the_documented_units_are_understood(tmp_path: Path) -> None:
    commands = [
        line.removeprefix("ExecStart=").split()
        for unit in units(tmp_path)
        for line in unit.read_text(encoding="utf-8").splitlines()
        if line.startswith("ExecStart=/")
    ]
    assert len(commands) == 3
    for command in commands:
        said = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False, timeout=WITHIN_S)
        assert said.returncode == 0, said.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_documented_units(tmp_path: Path) -> None:
    files = [str(unit) for unit in units(tmp_path) if unit.suffix in (".service", ".socket")]
    assert len(files) == 2
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    ours = [line for line in said.stderr.splitlines() if "coulee" in line]
    assert (said.returncode, ours) == (0, []), said.stderr
