"""The import graph: who may know whom, and that the pure parts are pure. Tools hold this too; this test explains it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = ("core", "lb", "backends")

IMPURE = (
    "time", "secrets", "uuid", "socket", "select", "selectors", "ssl", "threading", "multiprocessing", "concurrent",
    "subprocess", "signal", "asyncio", "trio", "curio", "os", "pathlib", "shutil", "tempfile", "logging", "http",
    "httpx", "requests", "aiohttp",
)  # fmt: skip
"""No module of `core` or `lb` may import these."""

ALLOWED = {
    "coulee.core": ("coulee.core",),
    "coulee.lb": ("coulee.lb", "coulee.core"),
    "coulee.backends": ("coulee.backends", "coulee.core.seam"),
    "coulee.testing": ("coulee.testing", "coulee.backends", "coulee.core", "coulee.lb"),
    "coulee.discovery": ("coulee.core", "coulee.lb"),
    "coulee.tls": ("coulee.backends", "coulee.core"),
    "coulee.conformance": ("coulee.conformance", "coulee.backends", "coulee.core.seam"),
    "coulee.server": ("coulee.server", "coulee.backends", "coulee.core", "coulee.lb", "coulee.tls"),
    "coulee.__main__": ("coulee.server",),
}
"""What each part may import of coulee."""


def modules() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for root in ROOTS:
        for path in sorted((ROOT / root / "coulee").rglob("*.py")):
            name = ".".join(path.relative_to(ROOT / root).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


def imports_of(path: Path) -> list[str]:
    """Every module that a file names in an import, wherever it stands."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports across and within packages are absolute"
            assert node.module is not None
            names.append(node.module)
            if node.module in ("coulee.core", "coulee.backends", "coulee.lb", "coulee.server"):
                names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_down(name: str, path: Path) -> None:
    part = max((part for part in ALLOWED if name == part or name.startswith(f"{part}.")), key=len)
    allowed = ALLOWED[part]
    for imported in imports_of(path):
        if imported.startswith("coulee"):
            within = any(imported == other or imported.startswith(f"{other}.") for other in allowed)
            assert within, f"{name} imports {imported}; it may import {', '.join(allowed)}"


@pytest.mark.parametrize(
    ("name", "path"), [row for row in modules() if row[0].startswith(("coulee.core", "coulee.lb"))],
    ids=[row[0] for row in modules() if row[0].startswith(("coulee.core", "coulee.lb"))],
)  # fmt: skip
def test_pure_code_has_no_clock_no_sockets_and_no_loop(name: str, path: Path) -> None:
    impure = [imported for imported in imports_of(path) if imported.partition(".")[0] in IMPURE]
    assert not impure, f"{name} imports {impure}"
    source = path.read_text()
    assert "datetime.now" not in source
    tree = ast.parse(source)
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not {"id", "hash", "open"} & set(calls), (
        f"{name} depends on where objects live, on a salted hash, or on files"
    )
    drawn = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random"
    ]
    assert not drawn, f"{name} draws from the module `random`, and not from the Random that it was given"


def test_coulee_is_a_namespace() -> None:
    assert not [root for root in ROOTS if (ROOT / root / "coulee" / "__init__.py").exists()]


@pytest.mark.parametrize(("path", "modules_of"), [("core", "coulee.core"), ("core:lb", "coulee.lb")])
def test_the_pure_parts_run_with_nothing_else_on_the_path(path: str, modules_of: str) -> None:
    """The core needs the standard library and h11, and none of the other roots."""
    roots = [str(ROOT / root) for root in path.split(":")]
    others = [str(ROOT / root) for root in ROOTS]
    script = f"""
import sys
sys.path = {roots!r} + [entry for entry in sys.path if entry not in {others!r}]
import {modules_of}, coulee.core.tunnel
from random import Random
from coulee.core import Balancer, Proxy, Peer
class One(Balancer):
    def choose(self, exchange): return Peer(("10.0.0.1", 80))
proxy = Proxy(One()).fresh(rng=Random(1), listen=[("127.0.0.1", 8000)])
print(proxy.handle(None, 0.0))
ours = [name for name in sys.modules if name.startswith("coulee.")]
others = [name for name in ours if not name.startswith(("coulee.core", "{modules_of}"))]
assert not others, others
loops = [name for name in ("asyncio", "ssl", "selectors", "trio") if name in sys.modules]
assert not loops, loops
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT / "docs"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[Listen(listener=1")


def test_no_file_of_the_packages_is_too_long_to_read() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for _, path in modules()}
    assert not {name: count for name, count in lines.items() if count > 650}
