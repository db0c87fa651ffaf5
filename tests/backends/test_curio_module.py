"""curio imports also where Python has taken away what it asks for, and what it is lent is taken back."""

from __future__ import annotations

import subprocess
import sys

import pytest

AS_ON_312 = """
import multiprocessing.connection as connection, ssl
for name in ("CHALLENGE", "WELCOME", "FAILURE"):
    if hasattr(connection, name):
        setattr(connection, f"_{name}", getattr(connection, name))
        delattr(connection, name)
if hasattr(ssl, "wrap_socket"):
    del ssl.wrap_socket
"""


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_it_imports_where_the_names_are_gone_and_gives_them_back() -> None:
    pytest.importorskip("coulee.backends.curio", reason="curio is not installed", exc_type=ImportError)
    assert "has no attribute 'CHALLENGE'" in python(f"{AS_ON_312}import curio"), "the shim is no longer needed"
    said = python(f"""{AS_ON_312}
from coulee.backends.curio_module import import_curio
curio = import_curio()
async def main():
    await curio.sleep(0)
    return "it runs"
print(curio.run(main))
print([name for name in ("CHALLENGE", "WELCOME", "FAILURE") if hasattr(connection, name)], hasattr(ssl, "wrap_socket"))
""")
    assert said == "it runs\n[] False\n"


@pytest.mark.parametrize("name", ["trio", "curio"])
def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(name: str) -> None:
    said = python(f"import sys\nsys.modules[{name!r}] = None\nimport coulee.backends.{name}")
    assert said.splitlines()[-1] == f'ImportError: coulee.backends.{name} needs: pip install "coulee[{name}]"'
