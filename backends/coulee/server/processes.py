"""The supervisor's process: carries out what the supervisor decides, with fork, signals, links and sockets.

Rules:

- It opens the listening sockets, and closes them when the end begins; whatever becomes of workers, whoever connects
  meanwhile waits in their backlog.
- It imports coulee but never the user's program, and runs no thread and no loop of a backend, so that it can fork at
  any time, and that what a worker loads is loaded afresh.
- `supervise` returns twice: in the supervisor at the end, and in each forked worker at its birth, where nothing of the
  supervisor is left open. So a worker is an ordinary program, which ends like one.
- A terminal's Ctrl-C and a service manager's signal reach the workers too. They drain then, as the supervisor will have
  them do anyway.
- Nothing here waits but the one `select`. A worker's last words are read before its death is told.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from math import isfinite
from typing import Any, Final, cast

from coulee.backends import sockets
from coulee.backends.addresses import describe
from coulee.backends.inherited import given, open_all, take_back
from coulee.core.seam import Address, show_address
from coulee.server import supervisor as decisions
from coulee.server import systemd
from coulee.server.console import clock, escaped
from coulee.server.control import Control
from coulee.server.handover import Predecessor, Successor, predecessor
from coulee.server.hangup import has_terminal
from coulee.server.program import BACKENDS, Failure, Program, cannot_listen
from coulee.server.supervisor import Supervisor, counted
from coulee.server.worker import LINE_AT_ONCE, LINE_DRAIN, Post

BEAT_MAX_S: Final = 5.0  # between two signs of life of a worker
LINE_BYTES_MAX: Final = 64 * 1024  # of what a worker says
HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)

FOR_THE_SUPERVISOR: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # these must not kill a worker


def supervise(program: Program, workers: int, silence_max_s: float) -> int | Post:
    """Run a program in worker processes: the exit code. In a worker: its post. Raises `Failure`."""
    importlib.import_module(BACKENDS[program.backend].module)  # once, and not in each worker
    before = predecessor()
    listening = _opened(program) if before is None else before.sockets
    shell = _Shell(program, workers, silence_max_s, listening, before)
    try:
        code = shell.run()
    except _InWorker as born:
        shell.abandon()
        return born.post
    except BaseException:
        shell.close()
        raise
    shell.close()
    return code


def _opened(program: Program) -> dict[Address, list[socket.socket]]:
    """The listening sockets: those that this process was given, and new ones. Raises `Failure`."""
    found: dict[Address, list[socket.socket]] = {}
    for address in program.listen:
        try:
            found[address] = given(address) or open_all(address, program.edges.options())
        except (OSError, UnicodeError) as error:
            for group in found.values():
                for sock in group:
                    sockets.stop_listening(sock)
            why = describe(error)[1] if isinstance(error, OSError) else str(error)
            raise cannot_listen(address, why, program.command) from error
    for originals in take_back().values():
        for sock in originals:
            sock.close()
    return found


class _InWorker(BaseException):
    """Takes a forked process out of the supervisor's code."""

    def __init__(self, post: Post) -> None:
        self.post = post


class _Link:
    """What a worker says, line by line."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._early = b""

    def lines(self) -> list[dict[str, Any]]:
        """All that has come. Nonsense, which a program that writes to any descriptor may say, is passed over."""
        with suppress(OSError):
            while data := self.sock.recv(LINE_BYTES_MAX):
                self._early = (self._early + data)[-LINE_BYTES_MAX:]
        *lines, self._early = self._early.split(b"\n")
        said: list[dict[str, Any]] = []
        for line in lines:
            with suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    said.append(cast("dict[str, Any]", message))
        return said


class _Shell:
    """The process itself."""

    def __init__(
        self,
        program: Program,
        workers: int,
        silence_max_s: float,
        listening: dict[Address, list[socket.socket]],
        before: Predecessor | None,
    ) -> None:
        self.program = program
        self.listening = listening
        self.before = before
        self.folder = start_folder()
        watchdog_s = systemd.watchdog_interval_s() or 0.0
        self.supervisor = Supervisor(workers=workers, grace_s=program.grace_s, pid=os.getpid(),
                                     silence_max_s=silence_max_s, watchdog_s=watchdog_s)  # fmt: skip
        self.beat_s = min([BEAT_MAX_S, *(limit / 4 for limit in (silence_max_s, watchdog_s) if limit)])
        self.selector = selectors.DefaultSelector()
        self.control = Control(self.selector, self._asked)
        self.links: dict[int, _Link] = {}  # by the number of the worker
        self.pids: dict[int, int] = {}
        self.successor: Successor | None = None
        self.code: int | None = None
        self.ear, self.waker = socket.socketpair()
        for sock in (self.ear, self.waker):
            sock.setblocking(False)
        self.selector.register(self.ear, selectors.EVENT_READ, self._signalled)
        self.had_terminal = has_terminal()
        self.handlers = self._hear_signals()

    def run(self) -> int:
        """To the end; the exit code."""
        try:
            self.control.open()
        except OSError as error:
            self._say(f"! there is no control socket, so `coulee reload` will not work (SIGHUP does): {error}")
        gc.collect()
        gc.freeze()  # what is here is never rubbish; so its pages stay shared with the workers
        self.supervisor.begin(time.monotonic())
        while True:
            self._carry_out()
            if self.code is not None:
                return self.code
            wait_s = self.supervisor.deadline - time.monotonic()
            for key, _ in self.selector.select(max(0.0, wait_s) if isfinite(wait_s) else None):
                key.data()
            self._reap()
            self.supervisor.tick(time.monotonic())  # last, so that no silence counts that was our own

    def close(self) -> None:
        """Leave nothing behind. What is signalled from here on is too late: Python would let it end us in its way."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        self.control.close()
        self._stop_listening()
        self._forget_all()

    def abandon(self) -> None:
        """In a worker: have nothing of the supervisor, and be a process like any other."""
        for number, handler in self.handlers.items():
            signal.signal(number, signal.SIG_IGN if number in FOR_THE_SUPERVISOR else handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        self.control.abandon()
        self._forget_all()
        if self.before is not None:
            self.before.leave()

    def _forget_all(self) -> None:
        signal.set_wakeup_fd(-1)  # before what it names is closed
        for link in self.links.values():
            link.sock.close()
        self.ear.close()
        self.waker.close()
        self.selector.close()
        if self.successor is not None:
            self.successor.abandon()

    # -- what is to be done

    def _carry_out(self) -> None:
        supervisor = self.supervisor
        while supervisor.actions:
            actions, supervisor.actions = supervisor.actions, []
            for action in actions:
                match action:
                    case decisions.Start():
                        self._fork(action)
                    case decisions.Drain():
                        self._tell(action.worker, LINE_AT_ONCE if action.at_once else LINE_DRAIN)
                    case decisions.Kill():
                        self._kill(action.worker)
                    case decisions.Say():
                        self._say(action.text)
                    case decisions.Notify():
                        systemd.notify(action.state)
                    case decisions.Answer():
                        self.control.answer(action.asker, {"ok": action.ok, "text": action.text})
                    case decisions.Listening():
                        self._listens()
                    case decisions.Succeed():
                        self._start_successor()
                    case decisions.EndSuccessor():
                        self._end_successor()
                    case decisions.Leave():
                        self.control.close()
                        self._stop_listening()
                    case decisions.End():
                        if action.error:
                            raise Failure(action.error, action.code)
                        self.code = action.code

    def _fork(self, action: decisions.Start) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal for the worker must not be written to our ear, which it shares until `abandon`.
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
            ours.close()
            theirs.close()
            self.supervisor.cannot(action.worker, describe(error)[1])
            self.supervisor.died(action.worker, "could not be forked", 1, time.monotonic())
            return
        if not pid:
            ours.close()
            raise _InWorker(Post(theirs, list(self.listening.items()), self.folder, action.looks, self.beat_s))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        theirs.close()
        link = _Link(ours)
        self.links[action.worker], self.pids[action.worker] = link, pid
        self.selector.register(ours, selectors.EVENT_READ, partial(self._said, action.worker))
        self.supervisor.started(action.worker, pid)

    def _tell(self, worker: int, line: bytes) -> None:
        link = self.links.get(worker)
        if link is not None:
            with suppress(OSError):  # it has just died
                link.sock.send(line)

    def _kill(self, worker: int) -> None:
        pid = self.pids.get(worker)
        if pid is not None:  # and it is not reaped, so the number is still its own
            os.kill(pid, signal.SIGKILL)

    def _say(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(f"coulee: {escaped(text)}\n")
            sys.stderr.flush()

    def _listens(self) -> None:
        for group in self.listening.values():
            name = show_address(sockets.plain(group[0].getsockname()))
            workers = counted(self.supervisor.count, "worker")
            with suppress(OSError):
                sys.stderr.write(f"coulee ({self.program.backend}, {workers}) listening on {name}\n")
                sys.stderr.flush()
        if self.before is not None:
            self.before.tell_ready()

    def _stop_listening(self) -> None:
        """Whoever comes now is refused, once the workers have stopped too. Not where a successor listens on."""
        handed_over = self.supervisor.successor == "ready" or (self.before is not None and not self.supervisor.serves)
        for group in self.listening.values():
            for sock in group:
                if handed_over:
                    sock.close()
                else:
                    sockets.stop_listening(sock)
        self.listening.clear()

    # -- what happens

    def _signalled(self) -> None:
        now = time.monotonic()
        with suppress(OSError):
            for number in self.ear.recv(4096):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._stop(now)
                elif number == signal.SIGUSR2:
                    self.supervisor.upgrade(now)
                elif number == signal.SIGHUP and self.had_terminal and not has_terminal():
                    self._stop(now)  # nobody wants a reload: the terminal was closed
                elif number == signal.SIGHUP:
                    self.supervisor.reload(None, now)

    def _stop(self, now: float) -> None:
        if not self.supervisor.stops and self.program.form == "short":
            with suppress(OSError):
                sys.stdout.write(f"{clock(time.time())} draining for at most {self.program.grace_s:g} s\n")
                sys.stdout.flush()
        self.supervisor.stop(now)

    def _said(self, worker: int) -> None:
        link = self.links.get(worker)
        if link is None:
            return
        for message in link.lines():
            now = time.monotonic()
            self.supervisor.beat(worker, now)
            if "ready" in message:
                self.supervisor.ready(worker, now)
            elif "cannot" in message:
                self.supervisor.cannot(worker, str(message["cannot"]))

    def _reap(self) -> None:
        for worker, pid in list(self.pids.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._said(worker)
                del self.pids[worker]
                link = self.links.pop(worker)
                self.selector.unregister(link.sock)
                link.sock.close()
                code = os.waitstatus_to_exitcode(status)
                how = f"ended with code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
                self.supervisor.died(worker, how, code, time.monotonic())

    def _asked(self, asker: int, request: dict[str, Any]) -> None:
        now = time.monotonic()
        if request.get("do") == "reload":
            self.supervisor.reload(asker, now)
        elif request.get("do") == "status":
            listening = [show_address(sockets.plain(group[0].getsockname())) for group in self.listening.values()]
            here = {"listen": listening, "command": self.program.command, "backend": self.program.backend}
            self.control.answer(asker, {"ok": True, **here, **self.supervisor.status(now)})
        else:
            self.control.answer(asker, {"ok": False, "text": 'what is known is {"do": "reload"} and {"do": "status"}'})

    # -- the successor

    def _start_successor(self) -> None:
        try:
            self.successor = Successor(self.listening, self.folder)
        except OSError as error:
            self.supervisor.succeeded(0, describe(error)[1], time.monotonic())
            return
        self._say(f"pid {self.successor.pid} starts, to take over")
        self.selector.register(self.successor, selectors.EVENT_READ, self._successor_said)

    def _successor_said(self) -> None:
        successor = self.successor
        if successor is not None:
            self.successor = None
            self.selector.unregister(successor)
            self.supervisor.succeeded(successor.pid, successor.outcome(), time.monotonic())

    def _end_successor(self) -> None:
        successor = self.successor
        if successor is not None:
            self.successor = None
            self.selector.unregister(successor)
            successor.end()

    # -- signals

    def _hear_signals(self) -> dict[signal.Signals, Any]:
        """What handled them before. All that happens in a handler is a byte to our ear."""
        before: dict[signal.Signals, Any] = {}
        for number in HEARD:
            handler = signal.getsignal(number)
            if number == signal.SIGHUP and handler == signal.SIG_IGN:
                continue  # nohup
            before[number] = signal.signal(number, _nothing)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        return before


def start_folder() -> str:
    """The working folder by the name it was entered by, so that what stands there later is found: links are moved when
    a new version is put in place."""
    here = os.getcwd()
    named = os.environ.get("PWD", "")
    with suppress(OSError):
        if named and os.path.samefile(named, here):
            return named
    return here


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _nothing(*_: object) -> None:
    """A handler must be there for `set_wakeup_fd` to be told."""
