"""nginx twice: the origin of every run, and the proxy to compare with.

Rules: one process without a master, so that one process id holds all its CPU time; everything it writes stays in the
folder of the run; the proxy has 64 KiB buffers and never spools to disk, since nginx's defaults make it a weak rival.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.certificate import CIPHERS, Certificate
from tests.benchmarks.processes import HOST, BenchError
from tests.benchmarks.scenarios import ANSWER_FIELDS, ENDLESS_BYTES, FILES, SCENARIOS

_BESIDE_PATH = ("/usr/sbin", "/usr/local/sbin")  # where packages put it, outside an ordinary user's PATH
_TEMP_MODULES = ("proxy", "fastcgi", "uwsgi", "scgi")
_FOR_EVER = 1_000_000_000
_KEPT = 64  # idle connections to the origin
_KEPT_HTTP2 = 512  # more than there are streams at once, each of which has one
_CONNECTIONS = 12_000  # the idle ones, each with one upstream where the peer is the blind relay

_CONFIG = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/{name}-temp-body;
    client_body_buffer_size 128k;
{temp_paths}
    sendfile on;
    tcp_nopush on;
    open_file_cache max=8;
    keepalive_requests {for_ever};
    keepalive_timeout 600s;
    default_type application/octet-stream;
{body}
}}
"""

_ORIGIN = """\
    server {{
        listen {host}:{port};
        root {folder}/files;
        location = /small {{
            default_type text/plain;
{fields}
            return 200 "{small}";
        }}
        location = /post {{  # read whole before it is answered
            proxy_pass http://unix:{folder}/sink.sock;
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }}
    }}
{http2}
    server {{
        listen unix:{folder}/sink.sock;
        default_type text/plain;
        location /bench.Echo/ {{
            default_type application/grpc;
            return 200 "{small}";
        }}
        location / {{ return 200 "{small}"; }}
    }}
"""

_HTTP2_ORIGIN = """\
    server {{
        listen {host}:{port} http2;
        location = /small {{
            default_type text/plain;
{fields}
            return 200 "{small}";
        }}
        location = /bench.Echo/Unary {{  # read whole before it is answered
            proxy_pass http://unix:{folder}/sink.sock;
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
            add_trailer Grpc-Status 0;
        }}
    }}
"""

_PROXY = """\
    upstream origin {{
        server {host}:{origin};
        keepalive {kept};
        keepalive_requests {for_ever};
        keepalive_timeout 600s;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffer_size 64k;
    proxy_buffers 8 64k;
    proxy_busy_buffers_size 128k;
    proxy_max_temp_file_size 0;
    server {{
        listen {host}:{port}{tls};
        location / {{ {way} }}
    }}
"""

_TLS = """ ssl{http2};
        ssl_certificate {certificate.chain};
        ssl_certificate_key {certificate.key};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_prefer_server_ciphers on;
        ssl_ciphers {ciphers}"""


_UPGRADING = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


class Nginx:
    """The installed nginx: what it is, and the commands that run it."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_BESIDE_PATH)))
        if found is None:
            raise BenchError("nginx is not installed, and it is the origin of every run (Debian: nginx-light)")
        self._program = found
        self._folder = folder
        self._build = subprocess.run([found, "-V"], capture_output=True, text=True, check=False).stderr
        self.version = self._build.partition("\n")[0].rpartition(": ")[2]

    def origin(self, port: int, http2_port: int | None = None) -> Sequence[str]:
        """The command of an origin that serves every scenario on `port`, and on the other one, where it is given, those
        of HTTP/2 to origins, without TLS."""
        files = self._folder / "files"
        files.mkdir()
        for name in FILES:
            (files / name).write_bytes(b"0123456789abcdef" * (SCENARIOS[name].size // 16))
        with (files / "endless").open("wb") as endless:
            endless.truncate(ENDLESS_BYTES)
        small = "x" * SCENARIOS["small"].size
        fields = "\n".join(f'            add_header {name} "{value}";' for name, value in ANSWER_FIELDS)
        http2 = ""
        if http2_port is not None:
            http2 = _HTTP2_ORIGIN.format(host=HOST, port=http2_port, folder=self._folder, small=small, fields=fields)
        return self._command(
            "origin",
            _ORIGIN.format(host=HOST, port=port, folder=self._folder, small=small, fields=fields, http2=http2),
        )

    def proxy(
        self,
        port: int,
        origin: int,
        certificate: Certificate | None,
        *,
        http2: bool = False,
        to_http2: bool = False,
        upgrades: bool = False,
    ) -> Sequence[str]:
        """The command of a proxy on `port` in front of `origin`; with a certificate it speaks TLS, and by it HTTP/2
        where that is asked for; to the origin it speaks HTTP/1.1, or HTTP/2 without TLS. One that passes `upgrades` on
        does so with all requests."""
        tls, name = "", "nginx"
        if certificate is not None:
            tls = _TLS.format(certificate=certificate, ciphers=CIPHERS, http2=" http2" if http2 else "")
            name = f"nginx-{'http2' if http2 else 'tls'}{'-h2c' if to_http2 else ''}"
        way = "grpc_pass grpc://origin; grpc_buffer_size 64k;" if to_http2 else "proxy_pass http://origin;"
        if upgrades:
            way = f"{_UPGRADING} {way}"
            name = "nginx-upgrading"
        kept = _KEPT_HTTP2 if http2 else _KEPT
        body = _PROXY.format(host=HOST, port=port, origin=origin, for_ever=_FOR_EVER, tls=tls, way=way, kept=kept)
        return self._command(name, body)

    def _command(self, name: str, body: str) -> Sequence[str]:
        temp_paths = "\n".join(
            f"    {module}_temp_path {self._folder}/{name}-temp-{module};"
            for module in _TEMP_MODULES
            if f"--without-http_{module}_module" not in self._build
        )
        config = self._folder / f"{name}.conf"
        config.write_text(
            _CONFIG.format(
                folder=self._folder,
                name=name,
                temp_paths=temp_paths,
                for_ever=_FOR_EVER,
                connections=_CONNECTIONS,
                body=body,
            )
        )
        return [self._program, "-p", str(self._folder), "-e", "stderr", "-c", str(config)]
