"""What sslyze, which looks for weaknesses of TLS, finds at a listener as it comes; and sessions across workers."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends.tls_ends import ROOT, VERSIONS, asking, issued
from tests.interop.conftest import running
from tests.interop.fleet import HOST, WITHIN_S, fleet

if TYPE_CHECKING:
    from coulee.core.tls import Version

SSLYZE = Path(sys.executable).with_name("sslyze")
NOT_OURS = {"certificate_path_validation", "tls_curves"}
"""Of what Mozilla wants: our authority is in no store; and X448 and P-521, which are as good as the others, cannot be
left out by Python's ssl."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    (folder / "ca.pem").write_bytes(ROOT)
    for name, rsa in (("ecdsa", False), ("rsa", True)):
        now = datetime.now(UTC)
        leaf = issued("a.test", "localhost", rsa=rsa, begins=now, expires=now + timedelta(days=90))
        leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
    return folder


# -------------------------------------------------------------------------------------------------------- sslyze


class TestScan:
    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, folder: Path) -> dict[str, Any]:
        """What sslyze says of each of its subjects."""
        if not SSLYZE.exists():
            pytest.skip("sslyze is not installed (pip install sslyze)")
        keys = [word for name in ("ecdsa", "rsa") for word in ("--tls", str(folder / f"{name}.pem"))]
        with running("--to", f"http://{HOST}:9", *keys) as coulee:
            scans = ["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--compression", "--reneg",
                     "--heartbleed", "--openssl_ccs", "--robot", "--fallback", "--elliptic_curves", "--ems", "--resum",
                     "--early_data", "--certinfo", "--mozilla_config=intermediate"]  # fmt: skip
            command = [str(SSLYZE), *scans, f"--json_out={folder / 'found'}", f"localhost:{coulee.port}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
            [server] = json.loads((folder / "found").read_text())["server_scan_results"]
        results = {name: each["result"] for name, each in server["scan_result"].items() if each["result"] is not None}
        return {**results, "compliance": done.stdout.partition("COMPLIANCE")[2]}

    @pytest.mark.parametrize("version", ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"])
    def test_old_versions(self, found: dict[str, Any], version: str) -> None:
        assert found[f"{version}_cipher_suites"]["accepted_cipher_suites"] == []
        assert found[f"{version}_cipher_suites"]["is_tls_version_supported"] is False

    @pytest.mark.parametrize(("version", "count"), [("tls_1_2", 6), ("tls_1_3", 3)])
    def test_ciphers(self, found: dict[str, Any], version: str, count: int) -> None:
        accepted = [
            each["cipher_suite"]["name"] for each in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        ]
        assert len(accepted) == count
        for name in accepted:
            assert "GCM" in name or "CHACHA20" in name
            assert "ECDHE" in name or version == "tls_1_3"

    @pytest.mark.parametrize(
        ("subject", "said", "is_so"),
        [
            ("tls_compression", "supports_compression", False),
            ("tls_1_3_early_data", "supports_early_data", False),
            ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
            ("tls_fallback_scsv", "supports_fallback_scsv", True),
            ("heartbleed", "is_vulnerable_to_heartbleed", False),
            ("robot", "robot_result", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"),
            ("session_renegotiation", "supports_secure_renegotiation", True),
            ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
            ("session_renegotiation", "client_renegotiations_success_count", 0),
            ("session_resumption", "tls_ticket_resumption_result", "FULLY_SUPPORTED"),
            ("tls_extended_master_secret", "supports_ems_extension", True),
            ("elliptic_curves", "supports_ecdh_key_exchange", True),
        ],
    )
    def test_known_weaknesses(self, found: dict[str, Any], subject: str, said: str, is_so: object) -> None:
        assert found[subject][said] == is_so

    def test_curves(self, found: dict[str, Any]) -> None:
        curves = {each["name"] for each in found["elliptic_curves"]["supported_curves"]}
        assert {"X25519", "secp256r1"} <= curves <= {"X25519", "X448", "secp256r1", "secp384r1", "secp521r1"}

    def test_what_mozilla_recommends(self, found: dict[str, Any]) -> None:
        """Its "intermediate" configuration, by which sslyze judges."""
        said = [line.split() for line in found["compliance"].splitlines()]
        assert {words[1].rstrip(":") for words in said if words[:1] == ["*"]} == NOT_OURS, found["compliance"]


# ------------------------------------------------------------------------------------------------------- workers


@pytest.mark.skipif(sys.platform != "linux", reason="workers share a port by SO_REUSEPORT or by what they inherit")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_one_worker_began_goes_on_with_another(folder: Path, version: Version) -> None:
    """Whose keys are made of a secret that both have inherited."""
    with fleet("--workers", "2", "--tls", str(folder / "ecdsa.pem")) as workers:
        context = asking(version)
        _, first, session = ask(workers.port, context, None)
        by: dict[bool, int] = {True: 0, False: 0}  # whether the same worker has answered
        for _ in range(200):
            reused, pid, _ = ask(workers.port, context, session)
            assert reused, f"{pid} does not know what {first} has begun"
            by[pid == first] += 1
            if all(by.values()):
                break
        assert all(by.values()), f"all came to the same worker: {by}"


def ask(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, int, ssl.SSLSession | None]:
    """Whether the session went on, which process has answered, and a session to come again with."""
    with (
        socket.create_connection((HOST, port), timeout=WITHIN_S) as sock,
        context.wrap_socket(sock, server_hostname="a.test", session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := tls.recv(65536):
            answer += piece
        return bool(tls.session_reused), int(answer.split()[-1]), tls.session
