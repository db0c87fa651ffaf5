"""What the interop tests share: coulee as a child process, real and raw origins to put behind it, curl and raw sockets
to put before it.

Rules: nothing listens beyond loopback and no port is chosen by hand (port 0, and look); a child is known by its process
id and ended by it; nothing waits without a deadline; data of large bodies is made as it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.interop.fleet import whole_lines

HOST = "127.0.0.1"
WITHIN_S = 15.0  # for anything that should happen at once, on a machine that may be busy
BLOCK = 256 * 1024
PORTS_TRIED = 5

Value = TypeVar("Value")


def until(look: Callable[[], Value | None], what: str, within_s: float = WITHIN_S) -> Value:
    """The first value that `look` gives that is neither None nor False."""
    deadline = time.monotonic() + within_s
    while True:
        value = look()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ children


class Coulee:
    """The program, running."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, listen: str) -> None:
        self.process = process
        self.folder = folder
        self.listen = listen
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def said(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "stderr").read_text()

    @property
    def lines(self) -> list[str]:
        """The access lines so far; one that is being written is none yet."""
        return whole_lines(self.folder / "stdout")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The access lines of the JSON log."""
        return [json.loads(line) for line in self.lines]

    def line(self, word: str) -> str:
        """The access line that has `word` in it."""
        return until(lambda: next((line for line in self.lines if word in line), None), f"an access line with {word}")

    def record(self, target: str) -> dict[str, Any]:
        """The record of the request for `target`."""
        found: dict[str, Any] = json.loads(self.line(f'"target": "{target}"'))
        return found

    def wait_ready(self) -> None:
        """Until it says that it listens."""
        found = until(self._listening, "coulee listens")
        if not self.listen.startswith("unix:"):
            self.port = int(found.rpartition(":")[2])

    def _listening(self) -> str | None:
        match = re.search(r"listening on (\S+)", self.said)
        if match is None and self.process.poll() is not None:
            pytest.fail(f"coulee ended with code {self.process.returncode}: {self.said}")
        return match and match[1]

    def memory_kib(self, name: str) -> int:
        """`VmRSS` or `VmHWM` of the process."""
        return memory_of(self.process.pid, name)

    def end(self) -> int:
        """Ask it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def memory_of(pid: int, name: str) -> int:
    """`VmRSS` or `VmHWM` of a process, in KiB. Linux only."""
    match = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


@pytest.fixture(scope="session")
def memory_kib() -> Callable[[int, str], int]:
    """Tells `VmRSS` or `VmHWM` of a process."""
    return memory_of


@contextlib.contextmanager
def running(
    *args: str, listen: str = f"{HOST}:0", app: str = "", traceback: bool = False
) -> Generator[Coulee, None, None]:
    """`coulee LISTEN ARGS`, or `coulee run app.py` with `app` as its text, while the block lasts.

    It prints no traceback, unless the test says that it may.
    """
    program = Path(sys.executable).with_name("coulee")
    folder = Path(tempfile.mkdtemp(prefix="coulee-interop-"))
    command = [str(program)]
    if app:
        (folder / "app.py").write_text(app)
        command += ["run", str(folder / "app.py"), "--listen", listen]
    else:
        command += [listen]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen([*command, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
    child = Coulee(process, folder, listen)
    try:
        child.wait_ready()
        yield child
        said = child.said
    finally:
        child.end()
        shutil.rmtree(folder)
    assert traceback or "Traceback" not in said, said


EVERY_BACKEND = ["asyncio", "uvloop", "trio", "curio", "threads"]


def installed(name: str) -> str:
    """The name of a backend, or a skip."""
    if name != "threads" and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(params=EVERY_BACKEND, scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend."""
    return installed(request.param)


@pytest.fixture
def coulee() -> Generator[Callable[..., Coulee], None, None]:
    """Starts coulee with the arguments of `running`, on any backend."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(running(*args, **options))


# ------------------------------------------------------------------------------------------------- clients


@dataclass
class Head:
    """The head of an answer, or of a request."""

    start: str
    fields: list[tuple[str, str]]

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None


def parse_head(data: bytes) -> Head:
    """A head without its empty line."""
    start, *lines = data.decode("latin-1").split("\r\n")
    cut = [line.partition(":") for line in lines if line]
    return Head(start, [(name, value.strip()) for name, _, value in cut])


@dataclass
class Answer:
    """What curl got."""

    code: int
    interims: list[Head]
    head: Head
    body: bytes
    trailers: list[tuple[str, str]]
    errors: str

    @property
    def status(self) -> int:
        return self.head.status

    def get(self, name: str) -> str | None:
        return self.head.get(name)


class Curl:
    """The installed curl."""

    def __init__(self) -> None:
        found = shutil.which("curl")
        if found is None:
            pytest.skip("curl is not installed")
        self.program = found

    def command(self, *args: str) -> list[str]:
        """What to run: never the user's settings, never a proxy, always within a time."""
        return [self.program, "-q", "-sS", "--noproxy", "*", "--max-time", "90", *args]

    def run(self, *args: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """curl's own output, with `data` for it to read."""
        return subprocess.run(self.command(*args), input=data, capture_output=True, check=False, timeout=100)

    def __call__(self, *args: str, data: bytes = b"") -> Answer:
        """One request, and all of what was answered."""
        with tempfile.NamedTemporaryFile() as heads:
            done = self.run("-D", heads.name, *args, data=data)
            blocks = [block for block in heads.read().split(b"\r\n\r\n") if block]
        parsed = [parse_head(block) for block in blocks if block.startswith(b"HTTP/")]
        late = [parse_head(b"\r\n" + block).fields for block in blocks if not block.startswith(b"HTTP/")]
        assert parsed, f"curl {done.returncode}: {done.stderr.decode()}"
        trailers = late[0] if late else []
        body = done.stdout
        if "--head" in args:  # then curl prints the head where the body would be
            assert body.endswith(b"\r\n\r\n")
            body = b""
        return Answer(done.returncode, parsed[:-1], parsed[-1], body, trailers, done.stderr.decode())


@pytest.fixture(scope="session")
def curl() -> Curl:
    """curl, or a skip."""
    return Curl()


class Wire:
    """A raw connection: what curl cannot do."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WITHIN_S)
        self.early = b""

    @classmethod
    def to(cls, port: int) -> Wire:
        return cls(socket.create_connection((HOST, port), timeout=WITHIN_S))

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def more(self) -> bytes:
        """Whatever comes next; b"" at the end."""
        data, self.early = self.early, b""
        return data or self.sock.recv(BLOCK)

    def read_until(self, mark: bytes) -> bytes:
        """Up to a mark, which is taken too; raises EOFError."""
        while mark not in self.early:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self.early)
            self.early += data
        found, _, self.early = self.early.partition(mark)
        return found

    def read(self, count: int) -> bytes:
        """That many bytes; raises EOFError."""
        while len(self.early) < count:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self.early)
            self.early += data
        found, self.early = self.early[:count], self.early[count:]
        return found

    def rest(self) -> bytes:
        """All up to the end."""
        pieces = []
        while data := self.more():
            pieces.append(data)
        return b"".join(pieces)

    def read_head(self) -> Head:
        return parse_head(self.read_until(b"\r\n\r\n"))

    def read_body(self, head: Head) -> tuple[bytes, list[tuple[str, str]]]:
        """A body as its head says, and its trailers."""
        if head.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.read_until(b"\r\n"), 16):
                pieces.append(self.read(size))
                assert self.read(2) == b"\r\n"
            trailers = b""
            while line := self.read_until(b"\r\n"):
                trailers += b"\r\n" + line
            return b"".join(pieces), parse_head(trailers).fields
        length = head.get("content-length")
        if length is None:
            return self.rest() if head.start.startswith("HTTP/") else b"", []
        return self.read(int(length)), []

    def reset(self) -> None:
        """Close so that the other side sees a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def dial() -> Generator[Callable[[int], Wire], None, None]:
    """Opens raw connections to ports of loopback."""
    with contextlib.ExitStack() as stack:

        def open_wire(port: int) -> Wire:
            wire = Wire.to(port)
            stack.callback(wire.close)
            return wire

        yield open_wire


# ------------------------------------------------------------------------------------------------- origins

Script = Callable[[Wire, Head], object]


@dataclass
class Raw:
    """An origin that does exactly what it is told, path by path: `raw.on("/a", script)`.

    A script is called with the connection and the head of a request, and returns True to go on with that connection.
    `heads` are the requests so far, `connections` says how many connections brought at least one. (When it starts
    coulee looks once whether its origins are up; that connection brings none.)
    """

    scripts: dict[str, Script] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.listening = socket.create_server((HOST, 0))
        self.port: int = self.listening.getsockname()[1]
        self.wires: list[Wire] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def on(self, path: str, script: Script) -> None:
        self.scripts[path] = script

    def asked_for(self, path: str) -> Head:
        """The head of the request for a path."""
        return next(head for head in self.heads if head.start.split()[1] == path)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire = Wire(self.listening.accept()[0])
                self.wires.append(wire)
                threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: Wire) -> None:
        with contextlib.suppress(OSError, EOFError):
            first = True
            go_on: object = True
            wire.sock.settimeout(None)
            while go_on is True:
                head = wire.read_head()
                self.connections += first
                first = False
                self.heads.append(head)
                go_on = self.scripts[head.start.split()[1]](wire, head)
        wire.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self.listening.close()
        for wire in self.wires:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
            wire.close()


@pytest.fixture
def raw() -> Generator[Raw, None, None]:
    """An origin that is scripted by the test."""
    origin = Raw()
    yield origin
    origin.close()


class _Handler(BaseHTTPRequestHandler):
    """The paths that every origin of the framing tests has."""

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1  # type: ignore[attr-defined]
        self.number = self.server.connections  # type: ignore[attr-defined]
        self.count = 0

    def answer(self) -> None:
        self.count += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, payload, chunked, close = 200, f"{self.command} {self.path} {body.decode()}".encode(), False, False
        if self.path == "/204":
            status = 204
        elif self.path == "/etag" and self.headers.get("If-None-Match") == '"v1"':
            status = 304
        elif self.path == "/chunked":
            payload = b"chunk by chunk\n" * 1000
            chunked = self.protocol_version == "HTTP/1.1"
            close = not chunked
        elif self.path == "/close":
            payload, close = b"until I close\n" * 1000, True
        self.send_response(status)
        self.send_header("X-Connection", f"{self.number} {self.count}")
        self.send_header("ETag", '"v1"')
        if status == 200 and not chunked and not close:
            self.send_header("Content-Length", str(len(payload)))
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        if status == 200 and self.command != "HEAD":
            step = 1000 if chunked else len(payload)
            for at in range(0, len(payload), step):
                piece = payload[at : at + step]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Handler11(_Handler):
    protocol_version = "HTTP/1.1"


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is nothing to talk about."""


@contextlib.contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Generator[str, None, None]:
    """Python's own server on a thread; gives its URL."""
    server = _Quiet((HOST, 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://{HOST}:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(WITHIN_S)


NGINX_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
{temp_paths}
    client_max_body_size 0;
    keepalive_requests 100000;
    gzip_types text/plain;
    server {{
        listen unix:{folder}/sink.sock;
        return 200;
    }}
    server {{
        listen {host}:{port};
        listen unix:{folder}/nginx.sock;
        root {folder}/files;
        default_type text/plain;
        add_header X-Connection "$connection $connection_requests" always;
        location /chunked {{ gzip on; }}
        location /close {{ gzip on; chunked_transfer_encoding off; }}
        location /file/ {{ }}
        location /big {{ client_max_body_size 1k; try_files /none =404; }}
        location = /204 {{ return 204; }}
        location = /etag {{ etag on; try_files /etag =404; }}
        location = /sink {{ return 200; }}
        location / {{
            add_header X-Body $request_body;
            add_header X-Said "$request_method $request_uri";
            add_header X-Connection "$connection $connection_requests" always;
            proxy_pass http://unix:{folder}/sink.sock;
        }}
    }}
}}
"""


class Nginx:
    """A running nginx. It has the paths of `_Handler`, and says in fields what that says in bodies."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self.unix = f"unix:{folder}/nginx.sock"


@pytest.fixture(scope="session")
def nginx() -> Generator[Nginx, None, None]:
    """nginx with a configuration of our own, or a skip."""
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if program is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    folder = Path(tempfile.mkdtemp(prefix="coulee-nginx-"))
    (folder / "files" / "file").mkdir(parents=True)
    (folder / "files" / "chunked").write_bytes(b"chunk by chunk\n" * 1000)
    (folder / "files" / "close").write_bytes(b"until I close\n" * 1000)
    (folder / "files" / "etag").write_bytes(b"tagged\n")
    folder.chmod(0o755)
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
    temp_paths = "\n".join(
        f"    {module}_temp_path {folder}/{module};"
        for module in ("proxy", "fastcgi", "uwsgi", "scgi")
        if f"--without-http_{module}_module" not in built
    )
    config = folder / "nginx.conf"
    for _ in range(PORTS_TRIED):
        with socket.socket() as probe:  # nginx cannot tell which port it was given
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        config.write_text(NGINX_CONFIG.format(folder=folder, host=HOST, port=port, temp_paths=temp_paths))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-p", str(folder), "-e", "stderr", "-c", str(config)], stdin=subprocess.DEVNULL, stderr=log
            )
        until(lambda: (folder / "nginx.pid").exists() or process.poll() is not None, "nginx starts")  # noqa: B023
        if process.poll() is None:
            break  # or somebody else was given that port a moment later
    try:
        assert process.poll() is None, (folder / "log").read_text()
        yield Nginx(folder, port)
    finally:
        process.terminate()
        process.wait(WITHIN_S)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def nginx_proxy(backend: str, nginx: Nginx) -> Generator[Coulee, None, None]:
    """coulee before nginx, on each backend."""
    with running("--to", nginx.url, "--backend", backend) as child:
        yield child


@pytest.fixture(scope="session")
def python_10_proxy(backend: str) -> Generator[Coulee, None, None]:
    """coulee before Python's http.server as it comes: HTTP/1.0, a connection for each request."""
    with http_server(_Handler) as url, running("--to", url, "--backend", backend) as child:
        yield child


@pytest.fixture(scope="session")
def python_11_proxy(backend: str) -> Generator[Coulee, None, None]:
    """coulee before Python's http.server with HTTP/1.1."""
    with http_server(_Handler11) as url, running("--to", url, "--backend", backend) as child:
        yield child


@pytest.fixture(params=["nginx_proxy", "python_10_proxy", "python_11_proxy"])
def proxy(request: pytest.FixtureRequest, backend: str) -> Coulee:
    """coulee before each kind of real origin, on each backend."""
    found: Coulee = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def raw_proxy(backend: str, raw: Raw) -> Generator[Coulee, None, None]:
    """coulee before a scripted origin, on each backend."""
    with running("--to", raw.url, "--backend", backend) as child:
        yield child


# -------------------------------------------------------------------------------------------- large bodies

_NOISE = random.Random(7).randbytes(BLOCK)


def blocks(size: int) -> Iterator[bytes]:
    """That many bytes, a multiple of `BLOCK`; no two blocks are equal, so that none can be lost, doubled or moved."""
    for number in range(size // BLOCK):
        yield number.to_bytes(8, "big") + _NOISE[8:]


@cache
def digest_of(size: int) -> str:
    """The SHA-256 of `blocks(size)`."""
    sha = hashlib.sha256()
    for block in blocks(size):
        sha.update(block)
    return sha.hexdigest()


@pytest.fixture(scope="session")
def data() -> tuple[Callable[[int], Iterator[bytes]], Callable[[int], str]]:
    """What makes the data of a large body, and what tells its SHA-256."""
    return blocks, digest_of
