"""nginx's ring, asked key by key: which of some servers a real nginx chooses with `hash $arg_k consistent`.

    python -m tests.differential.nginx_ring      # asks the installed nginx, and writes nginx_ring.txt

No server needs to be there. nginx says in a field which one it chose, and that it could not connect does not matter:
it tries one alone, and never holds a failure against it. Unix sockets are in a folder that does not exist.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_letters
from typing import Final

TABLE: Final = Path(__file__).with_name("nginx_ring.txt")
WITHIN_S: Final = 15.0
AT_ONCE: Final = 100

SERVERS: Final = (
    ("127.0.0.1:9001", 1),
    ("127.0.0.1:9002", 2),
    ("127.0.0.2:9001", 3),
    ("127.0.0.10:80", 5),
    ("127.0.0.100:65535", 1),
    ("[::1]:9001", 2),
    ("[::1]:9002", 1),
    ("unix:/nowhere/a.sock", 1),
    ("unix:/nowhere/b.sock", 4),
    ("unix:/nowhere/c:80", 2),
)
"""As `server` lines have them, with their weights: IPv4, IPv6, Unix sockets."""

KEYS: Final = tuple(f"/images/{number}.png" if number % 2 else f"user-{number}" for number in range(10_000))

_CONFIG: Final = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
{temp_paths}
    keepalive_requests 1000000;
    upstream ring {{
        hash $arg_k consistent;
{servers}
    }}
    server {{
        listen unix:{folder}/nginx.sock;
        location / {{
            proxy_pass http://ring;
            proxy_next_upstream off;
            add_header X-Chosen $upstream_addr always;
        }}
    }}
}}
"""


def find_nginx() -> str | None:
    """The installed nginx, which packages put outside an ordinary user's PATH."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


def version_of(program: str) -> str:
    """Such as `nginx/1.22.1`."""
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition(" ")[2]


def ask(program: str, servers: Sequence[tuple[str, int]], keys: Sequence[str]) -> list[str]:
    """The server that nginx chooses for each key; keys are what may stand in a query as it is."""
    with running(program, servers) as sock, sock.makefile("rb") as answers:
        chosen: list[str] = []
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            sock.sendall(b"".join(b"GET /?k=%s HTTP/1.1\r\nHost: a\r\n\r\n" % key.encode() for key in some))
            for _ in some:
                fields = dict(line.split(b": ", 1) for line in iter(answers.readline, b"\r\n") if b": " in line)
                answers.read(int(fields[b"Content-Length"]))
                chosen.append(fields[b"X-Chosen"].decode().strip())
    return chosen


@contextmanager
def running(program: str, servers: Sequence[tuple[str, int]]) -> Iterator[socket.socket]:
    """A connection to an nginx that has these servers, while the block lasts."""
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    with tempfile.TemporaryDirectory(prefix="coulee-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        temp_paths = "\n".join(
            f"    {module}_temp_path {folder}/{module};"
            for module in ("proxy", "fastcgi", "uwsgi", "scgi")
            if f"--without-http_{module}_module" not in built
        )
        lines = "\n".join(f"        server {server} weight={weight} max_fails=0;" for server, weight in servers)
        config = folder / "nginx.conf"
        config.write_text(_CONFIG.format(folder=folder, temp_paths=temp_paths, servers=lines))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "-p", name, "-e", "stderr", "-c", str(config)],
                                       stdin=subprocess.DEVNULL, stderr=log)  # fmt: skip
        try:
            deadline = time.monotonic() + WITHIN_S
            while not (folder / "nginx.pid").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "nginx does not start"
                time.sleep(0.01)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(WITHIN_S)
                sock.connect(str(folder / "nginx.sock"))
                yield sock
        finally:
            process.terminate()
            process.wait(WITHIN_S)


def write_table() -> None:
    """One letter a key, a hundred to the line, below who asked and for what."""
    program = find_nginx()
    assert program is not None, "nginx is not installed (Debian: nginx-light)"
    letter = {server: ascii_letters[at] for at, (server, _) in enumerate(SERVERS)}
    letters = "".join(letter[server] for server in ask(program, SERVERS, KEYS))
    lines = [version_of(program), *(f"{letter[server]} {server} weight={weight}" for server, weight in SERVERS), ""]
    lines += [letters[start : start + 100] for start in range(0, len(letters), 100)]
    TABLE.write_text("\n".join(lines) + "\n")


def read_table() -> list[str]:
    """The server that it chose for each of `KEYS`."""
    head, _, letters = TABLE.read_text().partition("\n\n")
    server = {line[0]: line.split()[1] for line in head.splitlines()[1:]}
    return [server[letter] for letter in letters.replace("\n", "")]


if __name__ == "__main__":
    write_table()
