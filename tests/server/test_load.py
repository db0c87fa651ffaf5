"""Finding the proxy to run: in a file or a module, and one line that says where and what to do for each way to fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coulee.core import Proxy
from coulee.lb import Cluster
from coulee.server.load import LoadError, load_balanced, load_proxy

MAKES_ONE = """\
from coulee.core import Proxy
from coulee.lb import Cluster

proxy = Proxy(Cluster("http://127.0.0.1:9000"))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to work in; what loading does to the interpreter is undone."""
    path, modules = list(sys.path), set(sys.modules)
    wrote = sys.dont_write_bytecode
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        sys.dont_write_bytecode = True  # two tests may write the same name within the same second
        sys.path_importer_cache.clear()
        yield tmp_path
    sys.dont_write_bytecode = wrote
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def first_peer(proxy: Proxy) -> str:
    assert isinstance(proxy.balancer, Cluster)
    return proxy.balancer.peers[0].name


def failure(target: str) -> str:
    """The one line that says why a target cannot be loaded."""
    with pytest.raises(LoadError) as caught:
        load_proxy(target)
    line = str(caught.value)
    assert "\n" not in line
    return line


# -------------------------------------------------------------------------------------------------------- found


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app.py:proxy", "lc_app", "lc_app:proxy", "./lc_app.py"])
def test_a_proxy_is_found_in_a_file_or_a_module(target: str) -> None:
    write("lc_app.py", MAKES_ONE)
    assert first_peer(load_proxy(target)) == "127.0.0.1:9000"


def test_a_file_may_be_in_another_folder_and_import_its_neighbours(here: Path) -> None:
    write("sub/lc_neighbour.py", MAKES_ONE)
    write("sub/lc_app.py", "from lc_neighbour import proxy as mine\n")
    assert first_peer(load_proxy("sub/lc_app.py")) == "127.0.0.1:9000"
    assert first_peer(load_proxy(f"{here}/sub/lc_app.py")) == "127.0.0.1:9000"


def test_a_module_may_be_in_a_package() -> None:
    write("lc_package/app.py", MAKES_ONE)
    write("lc_package/__init__.py", "")
    assert first_peer(load_proxy("lc_package.app")) == "127.0.0.1:9000"


def test_the_only_proxy_of_a_file_may_have_any_name() -> None:
    write("lc_app.py", MAKES_ONE.replace("proxy =", "gateway ="))
    assert first_peer(load_proxy("lc_app.py")) == "127.0.0.1:9000"


TWO = MAKES_ONE + 'other = Proxy(Cluster("http://127.0.0.1:9001"))\n'


def test_of_several_the_one_called_proxy_is_taken() -> None:
    write("lc_app.py", TWO)
    assert first_peer(load_proxy("lc_app.py")) == "127.0.0.1:9000"
    assert first_peer(load_proxy("lc_app.py:other")) == "127.0.0.1:9001"


def test_one_proxy_with_two_names_is_one() -> None:
    write("lc_app.py", MAKES_ONE.replace("proxy =", "a = b ="))
    assert first_peer(load_proxy("lc_app.py")) == "127.0.0.1:9000"


# ------------------------------------------------------------------------------------------------------ clusters

CLUSTER = """\
from coulee.core import Proxy
from coulee.lb import Cluster

mine = also_mine = Cluster("http://127.0.0.1:9001")
"""


def test_where_balancing_counts_a_cluster_will_do() -> None:
    write("lc_app.py", CLUSTER)
    assert first_peer(load_balanced("lc_app.py")) == "127.0.0.1:9001"
    assert first_peer(load_balanced("lc_app.py:mine")) == "127.0.0.1:9001"
    with pytest.raises(LoadError, match="makes no Proxy"):
        load_proxy("lc_app.py")


def test_a_proxy_counts_more_than_a_cluster_unless_that_is_named() -> None:
    write("lc_app.py", CLUSTER + 'proxy = Proxy(Cluster("http://127.0.0.1:9000"))\n')
    assert first_peer(load_balanced("lc_app.py")) == "127.0.0.1:9000"
    assert first_peer(load_balanced("lc_app.py:proxy")) == "127.0.0.1:9000"
    assert first_peer(load_balanced("lc_app.py:mine")) == "127.0.0.1:9001"


def test_of_several_clusters_one_must_be_named() -> None:
    write("lc_app.py", CLUSTER + 'other = Cluster("http://127.0.0.1:9002")\n')
    assert first_peer(load_balanced("lc_app.py:other")) == "127.0.0.1:9002"
    with pytest.raises(LoadError, match=r"makes several clusters and no Proxy; say which, as lc_app.py:mine$"):
        load_balanced("lc_app.py")
    with pytest.raises(LoadError, match="'none' is not there"):
        load_balanced("lc_app.py:none")


# ---------------------------------------------------------------------------------------------------- not found


def test_a_file_that_is_not_there() -> None:
    assert failure("lc_none.py") == "lc_none.py: there is no such file"
    os.mkdir("lc_folder.py")
    assert failure("lc_folder.py") == "lc_folder.py: there is no such file"


@pytest.mark.parametrize("name", ["lc_none", "lc_package.none", "lc_none.sub"])
def test_a_module_that_is_not_there(name: str) -> None:
    write("lc_package/__init__.py", "")
    assert failure(name) == f"{name}: there is no such module (and a file would be named {name}.py)"


def test_a_file_that_makes_no_proxy() -> None:
    write("lc_app.py", "proxy = None\n")
    assert failure("lc_app.py") == (
        "lc_app.py: makes no Proxy; write `proxy = Proxy(Cluster('http://127.0.0.1:9000'))`"
    )


def test_a_file_that_makes_several_proxies() -> None:
    write("lc_app.py", TWO.replace("proxy =", "one ="))
    assert failure("lc_app.py") == "lc_app.py: makes several proxies (one, other); say which, as lc_app.py:one"


def test_a_name_that_is_not_there() -> None:
    write("lc_app.py", MAKES_ONE)
    assert failure("lc_app.py:app") == "lc_app.py: 'app' is not there"


def test_a_name_that_is_something_else() -> None:
    write("lc_app.py", MAKES_ONE + "def make(): return proxy\n")
    assert failure("lc_app.py:make") == "lc_app.py: 'make' is a function, not a Proxy"
    assert failure("lc_app:Proxy") == "lc_app: 'Proxy' is a type, not a Proxy"


# ------------------------------------------------------------------------------------------------------- broken


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app"])
def test_an_exception_while_loading_is_told_with_its_line(here: Path, target: str) -> None:
    write("lc_app.py", "import sys\n\nundefined_name\n")
    line = failure(target)
    assert line.endswith("lc_app.py:3: NameError: name 'undefined_name' is not defined")


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app"])
def test_the_line_is_the_user_s_own_where_a_library_raised(target: str) -> None:
    write("lc_app.py", "from coulee.lb import Cluster\n\nCluster('127.0.0.1:9000')\n")
    line = failure(target)
    assert line.endswith("lc_app.py:3: ValueError: '127.0.0.1:9000' has no scheme; write http://127.0.0.1:9000")


def test_the_line_is_the_user_s_own_by_an_absolute_path_too(here: Path) -> None:
    write("lc_app.py", "from coulee.lb import Cluster\n\nCluster()\n")
    assert failure(f"{here}/lc_app.py").startswith(f"{here}/lc_app.py:3: ValueError: a cluster needs at least one")


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app"])
def test_a_syntax_error_is_told_with_its_line(target: str) -> None:
    write("lc_app.py", "a = 1\ndef f(:\n")
    assert failure(target).endswith("lc_app.py:2: invalid syntax")


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app"])
def test_a_file_that_is_no_text_is_named(target: str) -> None:
    Path("lc_app.py").write_bytes(b"a = 1\nb = '\0'\n")
    line = failure(target)
    assert "lc_app.py" in line
    assert "null bytes" in line


@pytest.mark.parametrize("target", ["lc_app.py", "lc_app"])
def test_a_missing_import_is_told_where_it_is_asked_for(target: str) -> None:
    write("lc_app.py", "import os\nimport lc_absent\n")
    assert failure(target).endswith("lc_app.py:2: ModuleNotFoundError: No module named 'lc_absent'")


def test_a_missing_import_whose_name_begins_the_module_s_is_not_taken_for_it() -> None:
    write("lc_app_for_production.py", "import lc_app\n")
    line = failure("lc_app_for_production")
    assert line.endswith("lc_app_for_production.py:1: ModuleNotFoundError: No module named 'lc_app'")


def test_an_exception_with_a_text_of_several_lines_is_told_in_one() -> None:
    write("lc_app.py", "raise ValueError('2 errors:\\n  a is missing\\n  b is missing')\n")
    line = failure("lc_app.py")
    assert "lc_app.py:1: ValueError: 2 errors:" in line
    assert "b is missing" in line


def test_a_module_not_found_error_that_names_no_module_is_told_as_it_is() -> None:
    write("lc_app.py", "raise ModuleNotFoundError('install the extra')\n")
    assert failure("lc_app").endswith("lc_app.py:1: ModuleNotFoundError: install the extra")


@pytest.mark.parametrize("target", ["", ":proxy", ".", ".lc_app", "..", "lc_app."])
def test_what_names_neither_a_file_nor_a_module_is_said_so(target: str) -> None:
    write("lc_app.py", MAKES_ONE)
    line = failure(target)
    assert "no such module" in line or "no module" in line
    assert "importlib" not in line


def test_a_file_that_could_not_be_loaded_leaves_no_half_of_a_module() -> None:
    write("lc_app.py", "half = 1\nraise ValueError\n")
    failure("lc_app.py")
    assert "lc_app" not in sys.modules
