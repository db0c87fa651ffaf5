"""Workers below a supervisor, as real processes: how they start, die, drain and are replaced."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.fleet import COULEE, HOST, WITHIN_S, Fleet, alive, app, fleet, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tests look at processes in Linux's /proc")

DRAINED_S = 0.1
"""How soon behind the last exchange a drain is to be over ..."""
NOISE_S = 0.15
"""... and what two processes that end, and a test that notices, may take on a machine with other things to do."""


class Asking(threading.Thread):
    """A request on its way, in a thread of its own."""

    def __init__(self, running: Fleet, path: str) -> None:
        super().__init__(daemon=True)
        self.sock = socket.create_connection((HOST, running.port), timeout=WITHIN_S)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        self.answer = b""
        self.ended = 0.0
        self.start()

    def run(self) -> None:
        with self.sock, contextlib.suppress(OSError):
            while data := self.sock.recv(65536):
                self.answer += data
                self.ended = time.monotonic()

    def finish(self) -> bytes:
        self.join(WITHIN_S)
        return self.answer


def wait_asked(running: Fleet, asking: Asking) -> None:
    """Until the request is within a worker: its bytes have left the sockets of both sides."""
    local, peer = asking.sock.getsockname()[1], asking.sock.getpeername()[1]

    def taken() -> bool:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, here, there, _, queues, *_, inode = line.split()[:10]
            if (int(here[-4:], 16), int(there[-4:], 16)) == (peer, local):
                return inode != "0" and queues.endswith(":00000000")
        return False

    until(taken, "a worker has the request")


def refuses(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was closing just then
        return False
    return False


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


# ----------------------------------------------------------------------------------------------------- on every backend


def test_workers_serve_and_are_replaced_on_every_backend(backend: str) -> None:
    with fleet("--workers", "2", "--backend", backend) as running:
        assert f"coulee ({backend}, 2 workers) listening on {HOST}:{running.port}" in running.said
        workers = running.workers()
        assert len(workers) == 2
        assert running.get()[1] in workers
        # One that is killed is replaced, and what has come meanwhile is answered.
        kill_all(workers)
        version, pid = running.get()
        assert version == "one"
        assert pid not in workers
        until(lambda: len(running.workers()) == 2, "both are replaced")
        # New code, of the same length and perhaps within the same second.
        workers = running.workers()
        running.app.write_text(app("two"))
        done = running.command("reload")
        assert done.returncode == 0, done.stderr
        new = running.workers()
        assert done.stdout == f"reloaded: 2 new workers (pids {new[0]}, {new[1]})\n"
        until(lambda: {running.get()[0] for _ in range(5)} == {"two"}, "none but the new ones answer")
        until(lambda: not any(map(alive, workers)), "the old ones end")
        # What runs is finished, and who comes then is refused.
        asking = Asking(running, "/slow/0.5")
        wait_asked(running, asking)
        began = time.monotonic()
        running.process.terminate()
        until(lambda: refuses(running.port), "new connections are refused")
        assert time.monotonic() - began < 0.4
        assert running.process.wait(WITHIN_S) == 0
        late_s = time.monotonic() - asking.ended
        assert b"200 OK" in asking.finish()
        assert b"onnection: close" in asking.answer
        assert asking.answer.partition(b"\r\n\r\n")[2].startswith(b"two ")
        print(f"{backend}: the drain ended {late_s * 1000:.0f} ms after the last exchange")
        assert late_s < DRAINED_S + NOISE_S
        assert not any(map(alive, new))


def test_a_worker_whose_loop_hangs_is_killed_and_replaced_on_every_backend(backend: str) -> None:
    with fleet("--workers", "1", "--worker-timeout", "1", "--backend", backend) as running:
        [worker] = running.workers()
        asking = Asking(running, "/hang/60")
        assert asking.finish() == b""
        line = running.wait_said("no sign of life")
        assert line == (
            f"coulee: ! worker {worker} was killed by SIGKILL (no sign of life for 1 s); another one starts at once"
        )
        assert running.get()[1] != worker
        time_alive = running.workers()
        asking = Asking(running, "/slow/2.5")  # longer than the limit: who waits is not who hangs
        until(lambda: b"200 OK" in asking.answer, "an answer")
        assert running.workers() == time_alive
        asking.sock.shutdown(socket.SHUT_RDWR)


# ------------------------------------------------------------------------------------------------------------- starting


def start_fails(folder: Path, *args: str) -> tuple[str, int]:
    """What it says where it cannot start, and its code."""
    done = subprocess.run([COULEE, *args], capture_output=True, text=True, timeout=WITHIN_S, check=False, cwd=folder,
                          env={**os.environ, "XDG_RUNTIME_DIR": str(folder)})  # fmt: skip
    assert "Traceback" not in done.stderr
    assert not list((folder / "coulee").glob("*.sock"))
    return done.stderr, done.returncode


def test_a_program_that_cannot_start_is_one_line_with_its_place_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = 1\ndef f(:\n")
    said, code = start_fails(tmp_path, "run", "app.py", "--listen", f"{HOST}:0", "--workers", "2")
    assert (said, code) == (f"coulee: {tmp_path}/app.py:2: invalid syntax\n", 2)


def test_a_program_that_ends_while_it_starts_is_one_line_and_its_code(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\nos._exit(7)\n")
    said, code = start_fails(tmp_path, "run", "app.py", "--listen", f"{HOST}:0", "--workers", "1")
    assert said.endswith(" ended with code 7 while it started\n")
    assert code == 7


def test_an_address_in_use_is_code_3_and_names_the_holder(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        said, code = start_fails(tmp_path, f"{HOST}:{port}", "--to", "http://127.0.0.1:9", "--workers", "2")
    assert code == 3
    assert said.startswith(f"coulee: cannot listen on {HOST}:{port}: in use by ")
    assert said.endswith(f"Try: coulee {HOST}:{port + 1} --to http://127.0.0.1:9\n")


def test_a_path_that_cannot_be_bound_is_code_3(tmp_path: Path) -> None:
    said, code = start_fails(tmp_path, f"unix:{tmp_path}/none/s", "--to", "http://127.0.0.1:9", "--workers", "1")
    assert code == 3
    assert said == f"coulee: cannot listen on {tmp_path}/none/s: there is no folder {tmp_path}/none: make it first\n"


# --------------------------------------------------------------------------------------------------------------- ending


def test_a_second_signal_ends_it_at_once() -> None:
    with fleet("--workers", "2") as running:
        asking = Asking(running, "/slow/10")
        wait_asked(running, asking)
        running.process.terminate()
        until(lambda: refuses(running.port), "it drains")
        assert running.process.poll() is None
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(WITHIN_S) == 0
        assert time.monotonic() - began < 1.0
        assert b"200 OK" not in asking.finish()


def test_signals_that_come_while_it_ends_change_nothing() -> None:
    with fleet("--workers", "1") as running:
        while running.process.poll() is None:
            running.process.terminate()
            time.sleep(0.0005)
        assert running.process.returncode == 0
        assert "signal" not in running.said


def test_a_service_manager_that_signals_all_processes_of_a_service_hastens_nobody(backend: str) -> None:
    """systemd does (KillMode=control-group)."""
    with fleet("--workers", "2", "--backend", backend) as running:
        asking = Asking(running, "/slow/0.5")
        wait_asked(running, asking)
        for pid in (*running.workers(), running.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert running.process.wait(WITHIN_S) == 0
        assert b"200 OK" in asking.finish()


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced() -> None:
    with fleet("--workers", "1") as running:
        [worker] = running.workers()
        asking = Asking(running, "/slow/0.5")
        wait_asked(running, asking)
        os.kill(worker, signal.SIGTERM)
        assert b"200 OK" in asking.finish()
        running.wait_said(f"! worker {worker} ended with code 0; another one starts at once")
        assert running.get()[1] != worker


def test_a_worker_outlives_signals_that_are_for_the_supervisor() -> None:
    with fleet("--workers", "1") as running:
        [worker] = running.workers()
        for number in (signal.SIGHUP, signal.SIGUSR2):
            os.kill(worker, number)
        assert running.get() == ("one", worker)
        assert alive(worker)


def test_a_drain_is_over_after_the_grace_period() -> None:
    with fleet("--workers", "1", "--grace", "0.5") as running:
        asking = Asking(running, "/slow/10")
        wait_asked(running, asking)
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(WITHIN_S) == 0
        assert 0.5 <= time.monotonic() - began < 1.5
        assert b"200 OK" not in asking.finish()


@contextlib.contextmanager
def on_a_terminal(*args: str) -> Iterator[tuple[Fleet, int]]:
    """coulee in the foreground of a terminal, and the other end of that."""
    master, slave = pty.openpty()
    own = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0); "
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    real = Fleet.__init__

    with pytest.MonkeyPatch.context() as patch:
        popen: Any = subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            return popen([sys.executable, "-c", own, str(slave), *command], pass_fds=[slave], **options)

        patch.setattr("tests.interop.fleet.subprocess.Popen", start)
        stack = contextlib.ExitStack()
        running = stack.enter_context(fleet(*args))
    assert Fleet.__init__ is real
    with stack:
        os.close(slave)
        yield running, master


def test_ctrl_c_in_a_terminal_drains_too() -> None:
    with on_a_terminal("--workers", "2") as (running, terminal):
        asking = Asking(running, "/slow/0.5")
        wait_asked(running, asking)
        os.write(terminal, b"\x03")
        assert running.process.wait(WITHIN_S) == 0
        assert b"200 OK" in asking.finish()
        os.close(terminal)


@pytest.mark.parametrize("args", [("--workers", "1"), ()])
def test_a_terminal_that_is_closed_drains_too(args: tuple[str, ...]) -> None:
    with on_a_terminal(*args) as (running, terminal):
        asking = Asking(running, "/slow/0.5")
        wait_asked(running, asking)
        os.close(terminal)
        assert running.process.wait(WITHIN_S) == 0
        assert b"200 OK" in asking.finish()
        assert "reload" not in running.said


def test_the_workers_of_a_supervisor_that_is_killed_finish_and_end_and_the_address_is_free() -> None:
    with fleet("--workers", "2") as running:
        workers = running.workers()
        asking = Asking(running, "/slow/0.7")
        wait_asked(running, asking)
        running.process.kill()
        until(lambda: refuses(running.port), "nobody listens any more")
        assert not asking.answer
        with socket.create_server((HOST, running.port)):
            assert b"200 OK" in asking.finish()
        until(lambda: not any(map(alive, workers)), "they end")


# --------------------------------------------------------------------------------------------------------------- reload


def test_a_broken_program_leaves_the_old_workers_as_they_were_and_is_told() -> None:
    with fleet("--workers", "2") as running:
        workers = running.workers()
        running.app.write_text("x = (\n")
        running.process.send_signal(signal.SIGHUP)
        why = f"{running.app}:1: '(' was never closed"
        assert running.wait_said("not reloaded") == f"coulee: ! not reloaded: {why}; the workers of before go on"
        done = running.command("reload")
        assert (done.stderr, done.returncode) == (f"coulee: not reloaded: {why}\n", 1)
        assert running.workers() == workers
        assert running.get()[0] == "one"
        # Mended, it is taken.
        running.app.write_text(app("two"))
        running.process.send_signal(signal.SIGHUP)
        running.wait_said("reloaded: 2 new workers")
        until(lambda: running.get()[0] == "two", "a new one answers")


def test_a_keep_alive_connection_of_an_old_worker_gets_its_last_answer() -> None:
    """Its client has no way to know: the request is on its way when the worker is told to drain."""
    with fleet("--workers", "1") as running:
        client = socket.create_connection((HOST, running.port), timeout=WITHIN_S)
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
            asking = Asking(running, "/slow/4")
            wait_asked(running, asking)
            assert running.command("reload").returncode == 0
            assert client.recv(65536) == b"", "an idle one is closed in order"
            assert b"onnection: close" in asking.finish()


def test_new_code_of_the_same_second_and_length_is_new_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take what it has compiled and kept for the same file."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    with fleet("--workers", "1") as running:
        (running.folder / "part.py").write_text("WORD = 'one'\n")
        running.app.write_text(f"import part\n{app('{part.WORD}')}")
        then = time.time() - 100.0
        for version in ("one", "two"):
            (running.folder / "part.py").write_text(f"WORD = '{version}'\n")
            os.utime(running.folder / "part.py", (then, then))
            assert running.command("reload").returncode == 0
            until(lambda: len(running.status()["workers"]) == 1, "the old one ends")
            assert running.get()[0] == version


def test_what_the_program_is_in_a_linked_folder_is_found_anew(tmp_path: Path) -> None:
    """Deployments put a new folder in the place of a link that the program was started in."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "app.py").write_text(app(version))
    link = tmp_path / "current"
    link.symlink_to("one")
    with fleet("--workers", "1") as plain:
        environment = {**plain.environment, "PWD": str(link)}
        command = [COULEE, "run", "app.py", "--listen", f"{HOST}:0", "--workers", "1"]
        with subprocess.Popen(
            command, cwd=link, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stderr is not None
                line = next(line for line in process.stderr if "listening on" in line)
                plain.port = int(line.rpartition(":")[2])
                assert plain.get()[0] == "one"
                link.unlink()
                link.symlink_to("two")
                done = plain.command("reload", "--control", str(plain.folder / "coulee" / f"{process.pid}.sock"))
                assert done.returncode == 0, done.stderr
                until(lambda: plain.get()[0] == "two", "a new one answers")
                # With two of them, one has to say which.
                done = plain.command("reload")
                assert done.returncode == 2
                assert f"{process.pid}.sock" in done.stderr
                assert "coulee run app.py" in done.stderr
            finally:
                process.terminate()


def test_status_tells_of_each_worker() -> None:
    with fleet("--workers", "1") as running:
        [worker] = running.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda: running.workers() not in ([], [worker]), "it is replaced")
        done = running.command("status")
        first, second = done.stdout.splitlines()
        assert first.startswith(f"pid {running.process.pid}: serving at {HOST}:{running.port} for ")
        assert second.startswith(f"  worker {running.workers()[0]}: ready, generation 1, ")
        assert second.endswith(", 1 restart")


def test_without_a_supervisor_reload_is_one_line_and_code_4(tmp_path: Path) -> None:
    for args in (["reload"], ["status"], ["reload", "--control", str(tmp_path / "none.sock")]):
        said, code = start_fails(tmp_path, *args)
        assert code == 4
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_without_workers_a_signal_that_needs_them_says_so_and_kills_nobody(
    backend: str, number: signal.Signals
) -> None:
    with fleet("--backend", backend) as running:
        running.process.send_signal(number)
        running.wait_said("--workers 1")
        assert running.get() == ("one", running.process.pid)


# --------------------------------------------------------------------------------------------------------- unix sockets


def test_a_unix_socket_stays_through_deaths_and_reloads_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def get() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WITHIN_S)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return client.makefile("rb").read().rpartition(b"\r\n")[2].split()[0]

    with fleet("--workers", "2", listen=f"unix:{path}") as running:
        assert get() == b"one"
        kill_all(running.workers())
        assert get() == b"one"
        running.app.write_text(app("two"))
        assert running.command("reload").returncode == 0
        until(lambda: get() == b"two", "a new one answers")
        before = running.process.pid
        running.process.send_signal(signal.SIGUSR2)
        assert running.process.wait(WITHIN_S) == 0
        assert get() == b"two"
        [successor] = running.supervisors()
        assert successor != before
        os.kill(successor, signal.SIGTERM)
        until(lambda: not alive(successor), "it ends")
        assert not path.exists()


# ------------------------------------------------------------------------------------------------------------ hand-over


def test_a_new_program_takes_over_and_a_second_one_too() -> None:
    with fleet("--workers", "2") as running:
        workers = running.workers()
        asking = Asking(running, "/slow/4")
        wait_asked(running, asking)
        running.app.write_text(app("two"))
        running.process.send_signal(signal.SIGUSR2)
        running.wait_said("has taken over")
        until(lambda: {running.get()[0] for _ in range(5)} == {"two"}, "none but the new ones answer")
        assert not asking.answer
        assert b"200 OK" in asking.finish(), "what the old one has begun, it finishes"
        assert asking.answer.partition(b"\r\n\r\n")[2].startswith(b"one ")
        assert running.process.wait(WITHIN_S) == 0
        assert not any(map(alive, workers))
        [second] = running.supervisors()
        running.app.write_text(app("six"))
        os.kill(second, signal.SIGUSR2)
        until(lambda: not alive(second), "the second ends")
        assert running.get()[0] == "six"
        [third] = running.supervisors()
        assert running.workers(pid=third)
        os.kill(third, signal.SIGTERM)
        until(lambda: not alive(third), "the third ends")
        assert refuses(running.port)


def test_a_new_program_that_fails_changes_nothing() -> None:
    with fleet("--workers", "1") as running:
        workers = running.workers()
        running.app.write_text("x = (\n")
        running.process.send_signal(signal.SIGUSR2)
        line = running.wait_said("cannot take over")
        assert line == (
            f"coulee: ! the new program cannot take over: it ended with code 2; pid {running.process.pid} goes on"
        )
        assert f"coulee: {running.app}:1: '(' was never closed" in running.said
        assert running.workers() == workers
        assert running.get() == ("one", workers[0])
        assert running.supervisors() == [running.process.pid]


def test_a_stop_while_the_new_program_starts_ends_both() -> None:
    with fleet("--workers", "1") as running:
        running.app.write_text("import time\ntime.sleep(60)\n")
        running.process.send_signal(signal.SIGUSR2)
        successor = int(running.wait_said("to take over").split()[2])
        until(lambda: successor in running.supervisors(), "it is under way")
        running.process.terminate()
        assert running.process.wait(WITHIN_S) == 0
        until(lambda: not alive(successor), "it ends too")
        assert refuses(running.port)


# -------------------------------------------------------------------------------------------------------------- systemd


class Manager:
    """The socket of a service manager, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(WITHIN_S)

    def next(self) -> str:
        """What it is told next, signs of life apart."""
        while True:
            told = self.sock.recv(4096).decode()
            if told != "WATCHDOG=1":
                return told


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with contextlib.closing(manager.sock), fleet("--workers", "2") as running:
        assert manager.next() == "READY=1\nSTATUS=2 workers, generation 1"
        for _ in range(20):  # two seconds of it: the beats of workers keep it going
            assert manager.sock.recv(4096) == b"WATCHDOG=1"
        assert running.command("reload").returncode == 0
        assert manager.next().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert manager.next() == "READY=1\nSTATUS=2 workers, generation 2"
        running.process.send_signal(signal.SIGUSR2)
        assert manager.next().startswith("RELOADING=1\n")
        told = {manager.next(), manager.next()}
        running.process.wait(WITHIN_S)
        [successor] = running.supervisors()
        assert told == {"READY=1\nSTATUS=2 workers, generation 1", f"MAINPID={successor}\nREADY=1"}
        os.kill(successor, signal.SIGTERM)
        assert manager.next() == "STOPPING=1"
        until(lambda: not alive(successor), "it ends")


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_sockets_that_systemd_hands_over_are_used_and_handed_on_and_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"

    class Activated(subprocess.Popen[Any]):
        def __init__(self, command: list[str], **options: Any) -> None:
            environment = [f"--setenv={name}={value}" for name, value in options["env"].items()]
            super().__init__(["systemd-socket-activate", f"--listen={path}", *environment, *command], **options)
            until(path.exists, "it listens")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # it starts what it is to start when somebody comes

    monkeypatch.setattr("tests.interop.fleet.subprocess.Popen", Activated)
    with fleet("--workers", "2", listen="systemd") as running:
        assert len(running.workers()) == 2
        running.process.send_signal(signal.SIGUSR2)
        assert running.process.wait(WITHIN_S) == 0
        [successor] = running.supervisors()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WITHIN_S)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        os.kill(successor, signal.SIGTERM)
        until(lambda: not alive(successor), "it ends")
        assert path.exists(), "it is systemd's"


def test_the_watchdog_is_not_told_when_all_workers_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    monkeypatch.setenv("WATCHDOG_USEC", "800000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with contextlib.closing(manager.sock), fleet("--workers", "1", "--worker-timeout", "0") as running:
        manager.next()
        Asking(running, "/hang/60")
        manager.sock.settimeout(1.5)

        def silent() -> bool:
            try:
                manager.sock.recv(4096)
            except TimeoutError:
                return True
            return False

        until(silent, "the watchdog hears nothing")


# -------------------------------------------------------------------------------------------------------- what they say


def test_the_lines_of_all_workers_are_whole() -> None:
    """In a pipe, where lines shorter than 4 KiB are never mixed."""
    reading, writing = os.pipe()
    found: list[str] = []

    def read() -> None:
        with open(reading) as lines:
            found.extend(lines)

    reader = threading.Thread(target=read)
    reader.start()
    long = "x" * 3000
    with fleet("--workers", "2", "--log", "json", stdout=writing) as running:
        os.close(writing)

        def ask() -> None:
            for number in range(100):
                running.get(f"/{threading.current_thread().name}/{number}/{long}")

        threads = [threading.Thread(target=ask, name=f"t{number}") for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN_S)
        running.process.terminate()
        assert running.process.wait(WITHIN_S) == 0
    reader.join(WITHIN_S)
    targets = sorted(json.loads(line)["target"] for line in found)
    assert targets == sorted(f"/t{thread}/{number}/{long}" for thread in range(6) for number in range(100))
