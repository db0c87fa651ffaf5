"""`coulee replay`: what it shows of a recording, where it stops, and what it says when something is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from coulee.backends.far_end import FarEnd
from coulee.backends.peers import Ask, H11Client, H11Origin, Reply
from coulee.backends.recorder import Recorder
from coulee.backends.recording import Recording
from coulee.backends.replay import Replay
from coulee.backends.simulator import Simulator
from coulee.core import Config, Forward, Limits, Listener, Peer, Proxy, ProxyProtocol, Transport
from coulee.core.proxy_protocol import Header, to_bytes
from coulee.core.seam import Address, Certificate, ListenerTls, Secure, UpstreamTls
from coulee.lb import Cluster
from coulee.server.load import load_proxy
from coulee.server.recording import Records, definition_of
from coulee.server.redaction import Redaction

COULEE = str(Path(sys.executable).with_name("coulee"))
HERE: Address = ("10.0.0.1", 80)
ORIGIN: Address = ("10.1.0.1", 80)
APP = """
from coulee.core import Filter, Peer, Proxy, blocking, respond, sleep
from coulee.lb import Cluster

ANSWER = "here"


class Some(Filter):
    async def request_filter(self, exchange):
        match exchange.request.path:
            case "/here":
                return respond(200, ANSWER)
            case "/slow":
                await sleep(0.5)
            case "/job":
                exchange.tags["sum"] = await blocking(sum, [1, 2])
            case "/set":
                exchange.tags["set"] = await blocking(set, [1])
            case "/bad":
                raise LookupError("a filter's mistake")
            case "/key":
                return respond(200, "yes" if exchange.request.headers.get("authorization") == "s3cret" else "no")


proxy = Proxy(Cluster(Peer(("10.1.0.1", 80))), [Some()])
"""


class Desk:
    """A folder with a program, a recording of it, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self.file = folder / "a.rec"
        self.recorders: list[Recorder] = []

    def record(self, *clients: tuple[str, ...], proxy: Proxy | None = None, fields: Any = (), **options: Any) -> None:
        """Clients, one after the other, each with requests of its own."""
        simulator = Simulator(3)
        simulator.listen(ORIGIN, lambda _: H11Origin(lambda asked: Reply(200, [], [b"for " + asked.target.encode()])))
        options = {"about": {"program": "app.py"}, **options}
        definition = proxy or load_proxy(str(self.folder / "app.py"))
        recorder = Recorder(definition, self.file, **options)
        driver = simulator.run(recorder, [HERE])
        for targets in clients:
            client = H11Client([Ask("GET", target, [("Host", "a"), *fields]) for target in targets])
            simulator.connect(HERE, client)
            simulator.advance(1.0)
        driver.drain(1.0)
        simulator.settle()
        recorder.close()

    def replay(self, *args: str, typed: str = "", hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COULEE, "replay", str(self.file), *args],
            cwd=self.folder, input=typed, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_every_turn_is_shown_and_that_all_went_as_recorded(desk: Desk) -> None:
    desk.record(("/here", "/job"), ("/bad",))
    done = desk.replay()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "0.000000 < time has passed"
    assert lines[1] == "0.000000 > Listen 1 ('10.0.0.1', 80)"
    assert any(re.fullmatch(r"0\.\d{6} < Received 2 \d+ bytes b'GET /here HTTP/1\.1.*", each) for each in lines)
    assert any(re.fullmatch(r"0\.\d{6} > Report ..:..:.. GET /here 200 0ms 4B answered here", each) for each in lines)
    assert any("Run 4 blocking" in each for each in lines)
    assert any("Report filter_error: " in each for each in lines)
    assert re.fullmatch(r"\d+ turns, \d+ operations, all as recorded; the machine has finished", lines[-1])


def test_it_is_the_same_with_any_order_of_hashes(desk: Desk) -> None:
    desk.record(("/here", "/job", "/slow"), ("/bad",), ("/x", "/y"))
    shown = {desk.replay(hash_seed=seed).stdout for seed in ("0", "1", "42")}
    assert len(shown) == 1


def test_one_exchange_is_shown_from_its_head_to_its_record(desk: Desk) -> None:
    desk.record(("/here", "/slow", "/job"), ("/x",))
    done = desk.replay("--exchange", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert " < Received 2 " in lines[0]
    assert "GET /slow HTTP/1.1" in lines[0]
    assert any("> Connect" in line for line in lines), "its upstream connection too"
    assert "> Report" in lines[-1]
    assert "/slow 200" in lines[-1]
    assert not any("/here" in line or "/job" in line or "/x" in line for line in lines)


def test_an_exchange_that_is_not_there_is_said_so(desk: Desk) -> None:
    desk.record(("/here", "/here"))
    done = desk.replay("--exchange", "3")
    assert done.returncode == 2
    assert done.stderr == f"coulee: {desk.file} has 2 exchanges, as far as a replay comes, and no number 3\n"


def test_until_stops_there_and_says_what_is_under_way(desk: Desk) -> None:
    desk.record(("/slow",))
    done = desk.replay("--until", "0.3", "--quiet")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "at 0.3 s:"
    assert "  1 connection" in lines
    assert re.fullmatch(r"  GET /slow of 10\.0\.0\.9:\d+, since 0\.\d{6} s, not sent on yet", lines[-1])


def test_whole_shows_all_bytes(desk: Desk) -> None:
    desk.record(("/here",))
    assert "\\r\\n\\r\\nhere'" not in desk.replay().stdout
    assert "\\r\\n\\r\\nhere'" in desk.replay("--whole").stdout


def test_a_changed_program_goes_another_way_and_the_turn_is_named(desk: Desk) -> None:
    desk.record(("/here",))
    (desk.folder / "app.py").write_text(APP.replace('"here"', '"there"'))
    done = desk.replay("--quiet")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"turn \d+, at 0\.\d{6} s, goes another way: operation 1 was Send 2, and is the same "
                        "with another content", lines[0])  # fmt: skip
    assert lines[1].startswith("  the program has changed, or a filter asks a clock")


def test_a_program_that_has_moved_is_named(desk: Desk) -> None:
    desk.record(("/here",))
    (desk.folder / "app.py").rename(desk.folder / "moved.py")
    done = desk.replay("--quiet")
    assert (done.returncode, done.stderr) == (2, "coulee: app.py: there is no such file\n")
    assert desk.replay("moved.py", "--quiet").returncode == 0


def test_hidden_bytes_replay_as_long_as_nobody_looks(desk: Desk) -> None:
    hides: dict[str, Any] = {"redactor": Redaction(["credentials"]).redactor, "fields": [("Authorization", "s3cret")]}
    desk.record(("/x",), **hides)
    assert b"s3cret" not in desk.file.read_bytes()
    assert desk.replay("--quiet").returncode == 0
    desk.record(("/key",), **hides)
    done = desk.replay("--quiet")
    assert done.returncode == 1
    assert "  hidden in this recording: credentials; who looks at that decides otherwise" in done.stdout.splitlines()


def test_another_version_of_coulee_is_a_possible_reason(desk: Desk) -> None:
    desk.record(("/here",), about={"program": "app.py", "coulee": "0.0.1"})
    (desk.folder / "app.py").write_text(APP.replace('"here"', '"there"'))
    assert "  recorded with coulee 0.0.1, and this is " in desk.replay("--quiet").stdout


def test_pickles_are_read_for_who_trusts_them(desk: Desk) -> None:
    desk.record(("/set",))
    done = desk.replay("--quiet")
    assert done.returncode == 2
    assert "pickled" in done.stderr
    assert "--trust" in done.stderr
    assert desk.replay("--quiet", "--trust").returncode == 0


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (("--exchange", "2"), "GET /bad"),
        (("--until", "0.1"), "GET /bad"),
    ],
)
def test_the_debugger_stops_before_the_turn(desk: Desk, args: tuple[str, ...], where: str) -> None:
    desk.record(("/here",), ("/bad",))
    done = desk.replay(*args, "--pdb", typed="p turn.completion\np machine.counters.requests\nc\n")
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r"\(Pdb\) (.*)", done.stdout)
    assert said[1] == "1", "the first has been served"
    if "--exchange" in args:
        assert where in said[0]


def test_the_debugger_opens_where_a_replay_goes_another_way(desk: Desk) -> None:
    desk.record(("/here",))
    (desk.folder / "app.py").write_text(APP.replace('"here"', '"there"'))
    done = desk.replay("--quiet", "--pdb", typed="p step.difference\nq\n")
    assert done.returncode == 1
    assert "(Pdb) 'operation 1 was Send 2" in done.stdout


def test_an_exception_is_told_and_can_be_looked_at(desk: Desk) -> None:
    (desk.folder / "app.py").write_text(APP + BREAKS)
    with pytest.raises(ZeroDivisionError):
        desk.record(("/x",))
    done = desk.replay("--quiet")
    assert done.returncode == 0
    assert "the proxy raises ZeroDivisionError: a bug, as it did when it was recorded" in done.stdout
    done = desk.replay("--quiet", "--pdb", typed="p why\nq\n")
    assert "(Pdb) 'a bug'" in done.stdout


BREAKS = """

class Broken(Proxy):
    def fresh(self, **given):
        return Broken(self.balancer, **given)

    def accepted(self, completion, listener):
        why = "a bug"
        raise ZeroDivisionError(why)


proxy = Broken(Cluster(Peer(("10.1.0.1", 80))))
"""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("nonsense"), "this is no recording of coulee's"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_what_is_no_recording_is_one_line(desk: Desk, make: Callable[[Path], object], says: str) -> None:
    make(desk.file)
    done = desk.replay()
    assert done.returncode == 2
    assert done.stderr == f"coulee: {desk.file}: {says}\n"


def test_a_recording_that_does_not_say_of_what_it_is(desk: Desk) -> None:
    desk.record(("/here",), about={})
    done = desk.replay()
    assert done.returncode == 2
    assert done.stderr == "coulee: this recording does not say of what it is: coulee replay FILE app.py\n"
    assert desk.replay("app.py", "--quiet").returncode == 0


def test_origins_and_the_configuration_of_then_come_with_the_file(desk: Desk) -> None:
    config = Config(limits=Limits(fields_max=3), trailers=("x-sum",))
    proxy = Proxy(Cluster(Peer(ORIGIN)), config=config)
    desk.record(
        ("/x",), proxy=proxy, about={"origins": ["http://10.1.0.1"]}, fields=[("A", "1"), ("B", "2"), ("C", "3")]
    )
    assert definition_of(Recording(desk.file).header, None).config == config
    done = desk.replay()
    assert done.returncode == 0, done.stdout
    assert " 431 " in done.stdout


def test_where_clients_may_go_by_connect_comes_with_the_file(desk: Desk) -> None:
    forward = Forward(hosts=("*.a.test", "10.0.0.0/8"), ports=(443, 8443))
    desk.record(("/here",), proxy=Proxy(Cluster(Peer(ORIGIN)), config=Config(forward=forward)))
    found = definition_of(Recording(desk.file).header, str(desk.folder / "app.py")).config.forward
    assert found is not None
    assert found == forward
    assert found.allows("x.a.test", 8443)
    assert b" object at 0x" not in desk.file.read_bytes()


def test_settings_of_a_later_version_are_left_out(desk: Desk) -> None:
    desk.record(("/here",), proxy=Proxy(Cluster(Peer(ORIGIN)), config=Config(forward=Forward(hosts=("a.test",)))))
    whole = desk.file.read_bytes()
    desk.file.write_bytes(whole.replace(b'"hosts"', b'"tomorrow": 1, "hosts"', 1))
    forward = definition_of(Recording(desk.file).header, str(desk.folder / "app.py")).config.forward
    assert forward == Forward(hosts=("a.test",))


PEM = b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
SECRET = b"this is the secret"


class Source:
    """Certificates that stay."""

    name = "a test"
    interval_s = inf
    stamp = None

    def __init__(self, mark: str) -> None:
        self.certificates = [Certificate(b"", SECRET, ("a.test",), "ecdsa", 0.0, 4e9, mark, "a.pem")]

    def look(self, stamp: object) -> None:
        """There is nothing new."""


TLS_APP = """
from coulee.core import Listener, ListenerTls, Proxy
from tests.server.test_replaying import HERE, Source, nobody
from coulee.lb import Cluster

proxy = Proxy(Cluster("http://10.1.0.1"), listen=[Listener(HERE, ListenerTls(Source("renewed"), choose=nobody))])
"""


def nobody(name: str) -> None:
    """Leaves the choice to the sources."""


def test_a_program_is_replayed_with_the_certificates_that_it_had(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Listener(("10.0.0.1", 444), ListenerTls(Source("as it was")))
    proxy = Proxy(Cluster("http://10.1.0.1"), listen=[Listener(HERE, ListenerTls(Source("as it was"))), there])
    (desk.folder / "app.py").write_text(TLS_APP)
    simulator = Simulator(1)
    simulator.listen(ORIGIN, lambda _: H11Origin(lambda asked: Reply(200)))
    recorder = Recorder(proxy, desk.file, about={"program": str(desk.folder / "app.py")})
    driver = simulator.run(recorder)
    client = H11Client([Ask("GET", "/", [("Host", "a.test")])])
    client.layer = simulator.layer(UpstreamTls("a.test", "a.test", verify=False))
    simulator.connect(HERE, client)
    simulator.advance(1.0)
    driver.drain(1.0)
    simulator.settle()
    recorder.close()
    assert client.answers[0].status == 200
    definition = definition_of(Recording(desk.file).header, None)
    replay = Replay(Recording(desk.file), definition)
    assert [step.difference for step in map(replay.step, replay.recording) if step.difference] == []
    first, second = definition.listen_at
    assert first.tls is not None
    assert first.tls.choose is not None, "the program's function is asked as it was then"
    assert second.tls is not None
    assert second.tls.choose is None
    assert second.address == ("10.0.0.1", 444)


@pytest.mark.parametrize(
    "transport",
    [
        Transport(),
        Transport(proxy_protocol=2),
        Transport(tls=UpstreamTls(verify=False), proxy_protocol=1),
        Transport(tls=UpstreamTls(verify=False, alpn=("x", "http/1.1"))),
        Transport(tls=UpstreamTls("", "b.test", ("c.test",), ca=PEM, certificate=Source("x").certificates[0])),
    ],
)
def test_how_origins_are_reached_comes_with_the_file(desk: Desk, transport: Transport) -> None:
    proxy = Proxy(Cluster("https://10.1.0.1", transport=transport))
    simulator = Simulator(1)
    with Records(str(desk.file), about={"origins": ["https://10.1.0.1"]}).around(proxy, False) as machine:
        driver = simulator.run(machine, [HERE])
        simulator.listen(("10.1.0.1", 443), lambda _: FarEnd())
        simulator.connect(HERE, H11Client([Ask()]))
        simulator.advance(20.0)
        driver.drain(1.0)
        simulator.settle()
    assert SECRET not in desk.file.read_bytes()
    definition = definition_of(Recording(desk.file).header, None)
    cluster = definition.balancer
    assert isinstance(cluster, Cluster)
    if transport.tls is not None:
        assert cluster.transport.tls is not None
        assert cluster.transport.tls.alpn == transport.tls.alpn, "it decides what is spoken"
    replay = Replay(Recording(desk.file), definition)
    said = list(map(replay.step, replay.recording))
    assert [step.difference for step in said if step.difference] == []
    assert any(isinstance(each, Secure) for step in said for each in step.operations)


def test_an_exchange_of_a_client_that_a_balancer_speaks_for(desk: Desk) -> None:
    simulator = Simulator(3)
    simulator.listen(ORIGIN, lambda _: H11Origin(lambda asked: Reply(200)))
    recorder = Recorder(load_proxy(str(desk.folder / "app.py")), desk.file, about={"program": "app.py"})
    driver = simulator.run(recorder, [Listener(HERE, proxy_protocol=ProxyProtocol(("10.0.0.7",)))])
    for port in (1, 2, 3):
        client = H11Client([Ask("GET", f"/{port}", [("Host", "a")])])
        client.prelude = to_bytes(Header(("192.0.2.1", port), HERE, 1))
        simulator.connect(HERE, client, ("10.0.0.7", 40_000 + port))
    simulator.advance(1.0)
    driver.drain(1.0)
    simulator.settle()
    recorder.close()
    for number in (1, 2, 3):
        done = desk.replay("--exchange", str(number))
        assert done.returncode == 0, done.stdout + done.stderr
        [target] = set(re.findall(r"GET (/\d) HTTP", done.stdout))
        assert f"Report ..:..:.. GET {target} 200" in re.sub(r"\d\d:\d\d:\d\d", "..:..:..", done.stdout)


TUNNEL = """
from coulee.core import Tunnel

proxy = Tunnel(("10.1.0.1", 80))
"""


def test_a_tunnel_is_an_exchange_too(desk: Desk) -> None:
    (desk.folder / "app.py").write_text(TUNNEL)
    desk.record(("/a",), ("/b",))
    whole = desk.replay().stdout
    assert len(re.findall(r"Report \S+ TUNNEL - \d+ms \d+B up \d+B down 10\.1\.0\.1", whole)) == 2
    done = desk.replay("--exchange", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GET /b HTTP/1.1" in done.stdout
    assert "GET /a HTTP/1.1" not in done.stdout
    assert "TUNNEL" in done.stdout.splitlines()[-1]
