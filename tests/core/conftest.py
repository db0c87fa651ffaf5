"""What the tests of the core share: `make_world`, which puts a machine into a world that is played by hand."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.core.world import World

_NAME = "tests_core_world"  # tests cannot import one another by plain name, so world.py is loaded by its path


@pytest.fixture
def make_world() -> Callable[..., World]:
    """`make_world(machine)`: see `world.py`."""
    module = sys.modules.get(_NAME)
    if module is None:
        spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("world.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_NAME] = module
        spec.loader.exec_module(module)
    world: Callable[..., World] = module.World
    return world
