"""The code on the page about embedding is that of the programs."""

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).parent


def test_excerpts_are_from_the_programs() -> None:
    page = (HERE.parent / "embedding.md").read_text()
    programs = [(HERE / f"{name}.py").read_text() for name in ("select_driver", "twisted_proxy")]
    excerpts: list[str] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(excerpts) == 9
    for excerpt in excerpts:
        shown = (excerpt, textwrap.indent(excerpt, "    "))
        assert any(each in program for each in shown for program in programs), excerpt


def test_the_page_has_the_programs_whole() -> None:
    page = (HERE.parent / "embedding.md").read_text()
    for name in ("twisted_proxy", "select_driver", "blocking_calls"):
        assert f"```{{literalinclude}} examples/{name}.py\n" in page
        assert (HERE / f"{name}.py").exists()
