"""The README's code: it runs as it stands there, and its gateway is the one in docs/examples."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADLINE, GATEWAY, BALANCED, FELLOWS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def code_lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith('"""')]


def test_the_gateway_is_the_example_in_about_thirteen_lines() -> None:
    assert code_lines(GATEWAY) == code_lines((ROOT / "docs/examples/gateway.py").read_text())
    assert len(code_lines(GATEWAY)) <= 14


def test_the_cluster_of_the_readme_is_one() -> None:
    names: dict[str, Any] = {}
    exec(BALANCED, names)
    assert [(peer.name, peer.weight) for peer in names["cluster"].peers] == [
        ("127.0.0.1:9000", 3),
        ("127.0.0.1:9001", 1),
    ]


def test_the_tests_of_the_readme_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ModuleType("gateway")
    exec(GATEWAY, gateway.__dict__)
    monkeypatch.setitem(sys.modules, "gateway", gateway)
    names: dict[str, Any] = {}
    exec(FELLOWS, names)
    exec(HEADLINE, names)
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 4
    for name in tests:
        names[name]()
