"""docs/conformance.md: its program is one that runs, and it has every test of the suite under the law that it holds."""

from __future__ import annotations

import re
from pathlib import Path

from coulee import conformance
from coulee.conformance import Chapter, Suite

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "conformance.md").read_text(encoding="utf-8")
LAWS = PAGE.partition("## Which test holds which law")[2]


def plain(text: str) -> str:
    return text.strip("`. ")


def test_its_program_is_the_one_that_runs() -> None:
    assert (DOCS / "examples/test_my_loop.py").read_text(encoding="utf-8") in PAGE


def test_its_laws_are_those_of_the_seam() -> None:
    seam = re.findall(r"^(\d)\. \*\*(.+?)\*\*", (DOCS / "seam.md").read_text(encoding="utf-8"), re.MULTILINE)
    here = re.findall(r"^### (\d)\. (.+)$", LAWS, re.MULTILINE)
    assert [(number, plain(title)) for number, title in seam] == [(number, plain(title)) for number, title in here]
    assert len(here) == 8


def test_it_names_every_test_and_no_other_by_chapter() -> None:
    named: dict[str, set[str]] = {}
    for chapter, names in re.findall(r"^- \*\*(\w+):\*\* ((?:.+\n(?:  )?)+?)(?=^-|^$|\Z)", LAWS + "\n", re.MULTILINE):
        named.setdefault(chapter, set()).update(re.findall(r"`(\w+)`", names))
    there = {
        chapter.__name__: {name.removeprefix("test_") for name in vars(chapter) if name.startswith("test_")}
        for chapter in chapters()
    }
    assert named == there


def test_it_names_every_chapter_and_what_volume_does() -> None:
    listed = re.search(r"inherits them one by one: (.+?)\. The last", PAGE, re.DOTALL)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == [chapter.__name__ for chapter in chapters()]
    assert f"({conformance.Volume.one_after_another:,} connections)" in PAGE
    assert f"`at_once` ({conformance.Volume.at_once:,})" in PAGE
    assert f"({conformance.Volume.body_bytes // 2**20} MiB each way)" in PAGE


def chapters() -> list[type[Chapter]]:
    """In the order of the suite."""
    return [base for base in Suite.__bases__ if issubclass(base, Chapter)]
