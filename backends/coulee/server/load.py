"""Finds the proxy that `coulee run` is given, or the cluster of `coulee lb`: in a file, or as `module:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from coulee.core import Proxy
from coulee.lb import Cluster


class LoadError(Exception):
    """What is wrong, where, and what to do: one line."""


def load_proxy(target: str) -> Proxy:
    """The `Proxy` in `app.py`, `app.py:name`, `module` or `module:name`. Raises `LoadError`."""
    module, place, name = _load(target)
    return _proxy_in(module, name, place)


def load_balanced(target: str) -> Proxy:
    """The same; but what is named may be a `Cluster` too, and where there is no `Proxy` a single one need not be named:
    then it is in a `Proxy` without filters. Raises `LoadError`."""
    module, place, name = _load(target)
    if name:
        found = getattr(module, name, None)
        return Proxy(found) if isinstance(found, Cluster) else _proxy_in(module, name, place)
    clusters = {key: value for key, value in vars(module).items() if isinstance(value, Cluster)}
    if clusters and not any(isinstance(value, Proxy) for value in vars(module).values()):
        first = next(iter(clusters))
        if any(other is not clusters[first] for other in clusters.values()):
            raise LoadError(f"{place}: makes several clusters and no Proxy; say which, as {place}:{first}")
        return Proxy(clusters[first])
    return _proxy_in(module, name, place)


def _load(target: str) -> tuple[ModuleType, str, str]:
    """The module of a target, and the two parts of its name."""
    place, _, name = target.partition(":")
    if place.endswith(".py"):
        module = _from_file(Path(place))
    elif all(part.isidentifier() for part in place.split(".")):
        sys.path.insert(0, "")
        module = _imported(place)
    else:
        raise LoadError(f"{target!r} names no module: write app.py, app.py:name, module or module:name")
    return module, place, name


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise LoadError(_where(error, path)) from error
    return module


def _imported(name: str) -> ModuleType:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None  # a package around it is missing
    except Exception as error:
        raise LoadError(_where(error, None)) from error
    if spec is None:
        raise LoadError(f"{name}: there is no such module (and a file would be named {name}.py)")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise LoadError(_where(error, Path(spec.origin) if spec.origin else None)) from error


def _where(error: BaseException, path: Path | None) -> str:
    """`app.py:3: NameError: ...`: the last line of the user's own code that the error passed, as one line."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or path}:{error.lineno or 1}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if path is not None and Path(frame.filename).resolve() == path.resolve()]
    frame = (ours or frames)[-1]
    return f"{frame.filename}:{frame.lineno}: {type(error).__name__}: {' '.join(str(error).split())}"


def _proxy_in(module: ModuleType, name: str, place: str) -> Proxy:
    if name:
        found = getattr(module, name, None)
        if not isinstance(found, Proxy):
            what = "is not there" if found is None else f"is a {type(found).__name__}, not a Proxy"
            raise LoadError(f"{place}: {name!r} {what}")
        return found
    proxies = {key: value for key, value in vars(module).items() if isinstance(value, Proxy)}
    if "proxy" in proxies:
        return proxies["proxy"]
    if not proxies:
        raise LoadError(f"{place}: makes no Proxy; write `proxy = Proxy(Cluster('http://127.0.0.1:9000'))`")
    first = next(iter(proxies))
    if any(other is not proxies[first] for other in proxies.values()):
        raise LoadError(f"{place}: makes several proxies ({', '.join(proxies)}); say which, as {place}:{first}")
    return proxies[first]
