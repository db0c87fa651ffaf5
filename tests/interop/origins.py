"""Origins that can be killed, stopped, and started again: nginx, and one of our own that can be made slow, or fail.

Rules: each is one process, known by its id and ended by it. Its port is its own also while it is dead, when whoever
connects is refused: a socket of ours is bound to it and does not listen. Each answers a request with its name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.fleet import HOST, WITHIN_S, until

_NGINX_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
{temp_paths}
    keepalive_requests 1000000;
    server {{
        listen {host}:{port};
        location = /health {{ return 200; }}
        location / {{ return 200 "{name}"; }}
    }}
}}
"""


class Origin:
    """One origin; `start` starts it, the first time too."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so does who listens, or could not
        self.held.bind((HOST, 0))
        self.port: int = self.held.getsockname()[1]
        self.at = f"{HOST}:{self.port}"
        self.url = f"http://{self.at}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Until it listens."""
        with (self.folder / "stderr").open("ab") as errors:
            self.process = process = subprocess.Popen(
                self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

        def listens() -> bool:
            assert process.poll() is None, (self.folder / "stderr").read_text()
            with socket.socket() as probe:
                return probe.connect_ex((HOST, self.port)) == 0

        until(listens, f"{self.name} listens")

    def _send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a machine that loses its power, but that its kernel still refuses connections."""
        self._send(signal.SIGKILL)
        self._bury()

    def stop(self) -> None:
        """It hangs: connections are taken, and nothing is answered."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        self.held.close()

    def _bury(self) -> None:
        process, self.process = self.process, None
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.wait(WITHIN_S)
        process.stdin.close()
        process.stdout.close()


class NginxOrigin(Origin):
    """nginx, or a skip."""

    def __init__(self, name: str, folder: Path) -> None:
        path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
        found = shutil.which("nginx", path=path)
        if found is None:
            pytest.skip("nginx is not installed (Debian: nginx-light)")
        super().__init__(name, folder)
        self.program = found
        built = subprocess.run([found, "-V"], capture_output=True, text=True, check=False).stderr
        temp_paths = "\n".join(
            f"    {module}_temp_path {self.folder}/{module};"
            for module in ("proxy", "fastcgi", "uwsgi", "scgi")
            if f"--without-http_{module}_module" not in built
        )
        (self.folder / "nginx.conf").write_text(
            _NGINX_CONFIG.format(folder=self.folder, temp_paths=temp_paths, host=HOST, port=self.port, name=name)
        )

    def command(self) -> list[str]:
        return [self.program, "-p", str(self.folder), "-e", "stderr", "-c", str(self.folder / "nginx.conf")]


class Obedient(Origin):
    """One of our own: see `obedient.py`."""

    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("obedient.py")), str(self.port), self.name]

    def obey(self, **what: float) -> int:
        """Be so from now on. How many requests it has had, apart from checks."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())
