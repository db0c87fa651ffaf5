"""The suite as its users have it: a file of theirs, collected by pytest in a folder of its own, finds the bugs of a
backend and names them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coulee.conformance import Suite

THEIRS = Path(__file__).with_name("somebodys_backend.py")

BLOCKED = "a_send_that_is_not_taken_is_blocked_and_later_sent"
HALF_CLOSE = "a_half_close_behind_what_is_blocked"
HELD = "a_hold_in_the_turn_of_a_read_holds_at_once_and_loses_nothing"
RESET = "a_peer_that_resets_is_heard"
ABORT = "an_abort_is_a_reset_to_the_peer"
EXHAUSTED = "accepting_waits_until_there_are_descriptors_again"
CREDIT = "nobody_is_accepted_without_a_credit"
ALARM = "an_alarm_that_is_brought_forward_rings_then"
JOB = "native_jobs"
NAME = "the_last_of_many_addresses_is_reached"

BUGS: list[tuple[str, set[str], str]] = [
    ("loses what it keeps", {BLOCKED, HALF_CLOSE}, "this did not come about"),
    ("half-closes before what it keeps", {HALF_CLOSE}, "this did not come about"),
    ("reads while it is held", {HELD}, "backend, law 8: a second read on"),
    ("aborts as it closes", {ABORT}, "this did not come about"),
    ("has bytes behind a reset", {RESET}, "backend, law 2: received() on 2 after lost()"),
    ("spins where it cannot accept", {EXHAUSTED}, "it goes round and round"),
    ("accepts without a credit", {CREDIT, EXHAUSTED}, "this did not come about"),
    ("does not bring an alarm forward", {ALARM}, "this did not come about"),
    ("loses the job that fails", {JOB}, "this did not come about"),
    ("tries one address of a name", {NAME}, "this did not come about"),
]
"""A bug, the tests that find it, and what they say."""

TESTS = set[str]().union(*(names for _, names, _ in BUGS))


def run(folder: Path, *options: str, bug: str = "") -> str:
    """What pytest says in a folder with nothing in it but a file of somebody's."""
    shutil.copy(THEIRS, folder / "test_my_backend.py")
    roots = [os.path.abspath(root) for root in os.environ.get("PYTHONPATH", "").split(os.pathsep) if root]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *options],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "BUG": bug},
    )  # fmt: skip
    return done.stdout + done.stderr


def names_in(text: str) -> set[str]:
    """Of the tests of their class."""
    return set(re.findall(r"test_my_backend\.py::TestMyBackend::test_(\w+)", text))


ALL = {name.removeprefix("test_") for name in dir(Suite) if name.startswith("test_")}


def test_a_backend_that_keeps_the_laws_passes_all_of_it(tmp_path: Path) -> None:
    said = run(tmp_path, "-vv")
    assert names_in(said) == ALL, said
    assert not re.search(r"\d (failed|error)", said), said


@pytest.mark.parametrize(("bug", "found_by", "text"), BUGS, ids=[bug for bug, _, _ in BUGS])
def test_a_bug_is_found_by_name(tmp_path: Path, bug: str, found_by: set[str], text: str) -> None:
    """And by none of the tests that are there for the other bugs."""
    said = run(tmp_path, *(f"test_my_backend.py::TestMyBackend::test_{name}" for name in sorted(TESTS)), bug=bug)
    assert names_in(said.rpartition("short test summary")[2]) == found_by, said
    assert f"{len(found_by)} failed" in said
    assert "error" not in said.splitlines()[-1], "a test that fails says so once"
    assert text in said


def test_a_failed_assertion_says_what_it_saw(tmp_path: Path) -> None:
    """As in a test file of their own, though it is in a package that is installed."""
    said = run(tmp_path, "-k", NAME, bug="tries one address of a name")
    assert "where" in said
    assert "<built-in function monotonic>" in said


def test_without_pytest_one_line_says_how_to_get_it() -> None:
    script = """
import sys
sys.modules['pytest'] = None
try:
    import coulee.conformance
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == 'coulee.conformance needs: pip install "coulee[test]"\n'
