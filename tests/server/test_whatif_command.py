"""`coulee lb simulate`: what it prints, where it writes, its exit codes, and what it says of each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from coulee.server.whatif.command import _Meter, lb

COULEE = str(Path(sys.executable).with_name("coulee"))
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
APP = """
from coulee.core import Proxy
from coulee.core.peer import Balancer
from coulee.lb import Cluster, RandomChoice

cluster = Cluster("http://10.1.0.1:80", "http://10.1.0.2:80", "http://10.1.0.3:80", policy=RandomChoice())
proxy = Proxy(cluster)
other = Proxy(Balancer())
"""
OUTAGE = """\
seed = 3
duration = "20s"
requests_per_s = 50

[[event]]
at = "5s"
endpoint = "10.1.0.2:80"
what = "die"
for = "5s"

[outages]
mean_between = "5s"
mean_duration = "1s"
"""


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Desk:
    """A folder with a program and a scenario, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "outage.toml").write_text(OUTAGE)

    def simulate(self, *args: str) -> Done:
        """Run the command here, with app.py and outage.toml unless others are given."""
        out, err = StringIO(), StringIO()
        path = list(sys.path)
        code: object = None
        try:
            with redirect_stdout(out), redirect_stderr(err):
                lb.main(["simulate", *self._completed(args)], prog_name="coulee lb")
        except SystemExit as end:
            code = end.code
        finally:
            sys.path[:] = path
            sys.modules.pop("app", None)
        assert isinstance(code, int)
        return Done(code, out.getvalue(), err.getvalue())

    def elsewhere(self, *args: str, hash_seed: str = "0") -> Done:
        """Run it in a process of its own."""
        done = subprocess.run(
            [COULEE, "lb", "simulate", *self._completed(args)],
            capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def failure(self, *args: str) -> str:
        """The one line that tells a mistake."""
        done = self.simulate(*args)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout == ""
        return done.stderr.splitlines()[-1]

    def _completed(self, args: tuple[str, ...]) -> list[str]:
        app = [] if args and ".py" in args[0] else ["app.py"]
        return [*app, *args, *([] if "--scenario" in args else ["--scenario", "outage.toml"])]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two programs may be written within the same second
    return Desk(tmp_path)


def test_a_table_is_printed_and_the_picture_is_where_it_is_said_to_be(desk: Desk) -> None:
    done = desk.simulate()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("app.py under outage.toml: 20s, seed 3\n\nendpoint ")
    assert "\n10.1.0.2:80 " in done.stdout
    assert done.stderr == "the picture is in outage.svg\n"
    assert (desk.folder / "outage.svg").read_text().startswith("<svg ")


def test_the_picture_may_be_elsewhere_or_nowhere(desk: Desk) -> None:
    assert desk.simulate("--svg", "x.svg").stderr == "the picture is in x.svg\n"
    assert (desk.folder / "x.svg").exists()
    assert desk.simulate("--no-svg").stderr == ""
    assert not (desk.folder / "outage.svg").exists()


def test_a_terminal_is_told_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        meter = _Meter(3600.0)
        meter(0.505, 1234)
        meter.clear()
    assert capsys.readouterr().err == "\r 50 % of 3600 s, 1,234 requests\r\x1b[K"


def test_equal_seeds_give_equal_bytes_with_any_order_of_hashes(desk: Desk) -> None:
    runs = [desk.elsewhere("--json", "--svg", f"{seed}.svg", hash_seed=seed) for seed in ("0", "1", "42")]
    assert len({done.stdout for done in runs}) == 1
    assert len({(desk.folder / f"{seed}.svg").read_bytes() for seed in ("0", "1", "42")}) == 1
    assert desk.simulate("--json", "--no-svg", "--seed", "4").stdout != runs[0].stdout
    assert json.loads(runs[0].stdout)["seed"] == 3


def test_a_cluster_can_be_named_and_a_single_one_need_not_be(desk: Desk) -> None:
    assert desk.simulate("app.py:cluster", "--no-svg").returncode == 0
    (desk.folder / "app.py").write_text(APP[: APP.index("proxy =")])
    assert desk.simulate("--no-svg").returncode == 0


def test_checks_that_hold_and_checks_that_do_not(desk: Desk) -> None:
    done = desk.simulate("--no-svg", "--check", "errors<100%", "--check", "p99.9<1h", "--check", "ok=0")
    assert done.returncode == 1
    assert done.stdout.startswith("app.py under")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("coulee: ok=0 does not hold: ok are ")
    assert desk.simulate("--no-svg", "--check", "errors<100%").returncode == 0


def test_the_example_of_the_docs_holds_what_is_said_of_it(desk: Desk) -> None:
    done = desk.simulate(str(EXAMPLES / "balanced.py"), "--scenario", str(EXAMPLES / "outage.toml"), "--no-svg",
                         "--check", "errors<0.1%")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_each_mistake_is_told_in_a_line(desk: Desk) -> None:
    folder = desk.folder
    assert desk.failure("--scenario", "none.toml") == "coulee: none.toml: No such file or directory"
    assert desk.failure("--svg", "none/x.svg") == "coulee: none/x.svg: there is no such folder"
    assert desk.simulate("--svg", ".").returncode == 2
    assert desk.failure("app.py:other").startswith("coulee: app.py:other: its balancer is a Balancer, not a Cluster")
    assert desk.failure("app2.py") == "coulee: app2.py: there is no such file"
    assert desk.failure("--svg", "x", "--no-svg").endswith("--svg and --no-svg: give one of them")
    assert desk.failure("--check", "x").endswith("--check: 'x' is no check; write one such as errors<0.1% or p99<300ms")
    (folder / "bad.toml").write_text(OUTAGE.replace("10.1.0.2:80", "a7"))
    assert desk.failure("--scenario", "bad.toml") == (
        "coulee: bad.toml:7: there is no endpoint a7; there are 10.1.0.1:80, 10.1.0.2:80, 10.1.0.3:80"
    )
    (folder / "bad.toml").write_text("sed = 1")
    assert desk.failure("--scenario", "bad.toml") == "coulee: bad.toml:1: there is no sed here; did you mean seed?"
    (folder / "bad.toml").write_bytes(b"\xff")
    assert desk.failure("--scenario", "bad.toml") == "coulee: bad.toml: it is no text in UTF-8"
    (folder / "bad.toml").write_bytes(b"#" * (4 << 20) + b"#")
    assert desk.failure("--scenario", "bad.toml") == "coulee: bad.toml: it is over 4 MiB; that is no scenario"
