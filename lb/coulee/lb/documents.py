"""Documents that name endpoints: one meaning, whether they come from a file, over HTTP or from a function.

Rules:

- There are two shapes. The one of Prometheus (`http_sd` and `file_sd`):

      [{"targets": ["10.0.0.1:80"], "labels": {"weight": "3", "zone": "eu", "priority": "1", "version": "2"}}]

  where the labels `weight`, `zone` and `priority` are ours and the others become labels of the endpoint; and a plain
  one, which as TOML reads

      [[endpoints]]
      url = "http://10.0.0.1:80"
      weight = 3
      zone = "eu"
      priority = 1
      labels = { version = "2" }

- A target may be a URL. One without a scheme is an address, and the cluster's transport says how it is reached.
- What is wrong is one `DiscoveryError` with its place, as `endpoints.json: [3].targets[1]: ...`, or with its line,
  where one is known. Whatever the bytes or values are, nothing else is raised.
- An address stands in a document once: with two, nobody could say which weight is meant.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from reprlib import Repr
from typing import Any, Final, NoReturn, cast

from coulee.core.peer import PoolKey
from coulee.lb.endpoint import Endpoint, peer_from_url

ENDPOINTS_MAX: Final = 100_000
"""In one document, or from one source."""

DOCUMENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Far above what so many endpoints take."""

_QUOTED_MAX: Final = 80
"""Characters of a value that an error shows."""

_repr: Final = Repr()  # of what is nested as deep as can be, too
_repr.maxstring = _QUOTED_MAX
_FIELDS: Final = ("url", "weight", "zone", "priority", "labels")
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_TOML_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)$")
_TOML_HEADER: Final = re.compile(rb"[ \t]*\[\[[ \t]*endpoints[ \t]*\]\]")


class DiscoveryError(ValueError):
    """Why a source gave no endpoints: one line that says where it is wrong, and what."""


# ------------------------------------------------------------------------------------------------------------- bytes


def parse_json(data: bytes, place: str) -> Any:
    """The values of a JSON text. Raises `DiscoveryError`."""
    text = _text_of(data, place)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise DiscoveryError(f"{place}:{error.lineno}: no JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise DiscoveryError(f"{place}: no JSON: {_why(error)}") from None


def parse_toml(data: bytes, place: str) -> Any:
    """The values of a TOML text. Raises `DiscoveryError`."""
    text = _text_of(data, place)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = _why(error)
        found = _TOML_LINE.search(why)
        where = f"{place}:{found[1]}" if found else place
        raise DiscoveryError(f"{where}: no TOML: {_TOML_LINE.sub('', why)}") from None


def toml_lines(data: bytes) -> list[int]:
    """The lines on which the `[[endpoints]]` of a TOML text stand."""
    return [number for number, line in enumerate(data.split(b"\n"), 1) if _TOML_HEADER.match(line)]


def _text_of(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DiscoveryError(f"{place}:{line}: no UTF-8: {error.reason}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _why(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


# ------------------------------------------------------------------------------------------------------------ values


def read_document(
    document: object, place: str, *, lines: Sequence[int] = (), sockets: bool = True
) -> Iterator[Endpoint]:
    """The endpoints of a document, one by one. Raises `DiscoveryError` at the first thing that is wrong.

    `lines` are those on which the endpoints of a TOML text stand. Without `sockets` a `unix:` path is refused: whoever
    writes the document is not to reach into this machine.
    """
    reader = _Reader(place, sockets)
    if isinstance(document, list):
        return reader.groups(cast("list[object]", document))
    if isinstance(document, dict):
        return reader.tables(cast("dict[object, object]", document), lines)
    raise reader.error("", f"{_quoted(document)} is neither a list of target groups nor a table with `endpoints`")


class _Reader:
    """One reading of one document."""

    def __init__(self, place: str, sockets: bool) -> None:
        self.place = place
        self.sockets = sockets
        self.seen: dict[PoolKey, str] = {}  # with where it stood

    # -- the shape of Prometheus

    def groups(self, document: list[object]) -> Iterator[Endpoint]:
        for index, group in enumerate(document):
            at = f"[{index}]"
            if not isinstance(group, dict):
                raise self.error(at, f'{_quoted(group)} is no target group; write {{"targets": [...]}}')
            fields = cast("dict[object, object]", group)
            self.check_fields(at, fields, ("targets", "labels"))
            targets = fields.get("targets")
            if not isinstance(targets, list):
                raise self.error(at, "`targets` is missing, or no list")
            settings = self.settings_of_labels(f"{at}.labels", self.labels(f"{at}.labels", fields.get("labels", {})))
            for number, target in enumerate(cast("list[object]", targets)):
                spot = f"{at}.targets[{number}]"
                yield self.endpoint(spot, self.text(spot, target), settings, bare=True)

    def settings_of_labels(self, at: str, labels: dict[str, str]) -> dict[str, Any]:
        """What is ours is taken out of the labels."""
        settings: dict[str, Any] = {}
        for name in ("weight", "priority"):
            if name in labels:
                digits = labels.pop(name)
                if not _DIGITS.fullmatch(digits):
                    raise self.error(f"{at}.{name}", f"{_quoted(digits)} is no whole number from 0 on")
                settings[name] = int(digits)
        if "zone" in labels:
            settings["zone"] = labels.pop("zone")
        settings["labels"] = labels
        return settings

    # -- the plain shape

    def tables(self, document: dict[object, object], lines: Sequence[int]) -> Iterator[Endpoint]:
        self.check_fields("", document, ("endpoints",))
        items = document.get("endpoints")
        if not isinstance(items, list):
            raise self.error("", "`endpoints` is missing, or no list")
        tables = cast("list[object]", items)
        file = self.place
        for index, table in enumerate(tables):
            at = f"endpoints[{index}]"
            if len(lines) == len(tables):
                self.place = f"{file}:{lines[index]}"
            if isinstance(table, str):
                yield self.endpoint(at, table, {})
                continue
            if not isinstance(table, dict):
                raise self.error(at, f"{_quoted(table)} is no endpoint; write a URL, or a table with `url`")
            fields = cast("dict[object, object]", table)
            self.check_fields(at, fields, _FIELDS)
            if "url" not in fields:
                raise self.error(at, "`url` is missing")
            yield self.endpoint(at, self.text(f"{at}.url", fields["url"]), self.settings_of_table(at, fields))

    def settings_of_table(self, at: str, fields: Mapping[object, object]) -> dict[str, Any]:
        settings: dict[str, Any] = {"labels": self.labels(f"{at}.labels", fields.get("labels", {}))}
        for name in ("weight", "priority"):
            if name in fields:
                number = fields[name]
                if type(number) is not int:  # nor a bool, which is an int too
                    raise self.error(f"{at}.{name}", f"{_quoted(number)} is no whole number")
                settings[name] = number
        if "zone" in fields:
            settings["zone"] = self.text(f"{at}.zone", fields["zone"])
        return settings

    # -- both

    def endpoint(self, at: str, url: str, settings: Mapping[str, Any], *, bare: bool = False) -> Endpoint:
        """`bare`: it may be an address alone, which leaves it to the cluster's transport how it is reached."""
        bare = bare and "://" not in url and not url.startswith("unix:")
        if not self.sockets and url.startswith("unix:"):
            raise self.error(at, "a Unix socket is of this machine, and the document is not")
        try:
            endpoint = Endpoint(peer_from_url(f"http://{url}") if bare else url, **settings)
        except ValueError as error:
            raise self.error(at, _shortened(str(error))) from None
        before = self.seen.get(endpoint.key)
        if before is not None:
            raise self.error(at, f"{_shortened(endpoint.name)} stands at {before} already")
        if len(self.seen) == ENDPOINTS_MAX:
            raise self.error(at, f"there are more than {ENDPOINTS_MAX} endpoints")
        self.seen[endpoint.key] = at
        return endpoint

    def labels(self, at: str, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            raise self.error(at, f"{_quoted(value)} is no table of labels")
        table = cast("dict[object, object]", value)
        return {self.text(at, name): self.text(f"{at}.{_shortened(str(name))}", text) for name, text in table.items()}

    def text(self, at: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(at, f"{_quoted(value)} is no text")
        return value

    def check_fields(self, at: str, table: Mapping[object, object], known: Sequence[str]) -> None:
        for name in table:
            if name not in known:
                raise self.error(at, f"there is no field {_quoted(name)}; there are {', '.join(known)}")

    def error(self, at: str, text: str) -> DiscoveryError:
        return DiscoveryError(f"{self.place}: {at}: {text}" if at else f"{self.place}: {text}")


def _quoted(value: object) -> str:
    try:
        return _shortened(_repr.repr(value))
    except ValueError:  # of an integer with more digits than Python shows
        return f"a {type(value).__name__}"


def _shortened(text: str) -> str:
    return text if len(text) <= _QUOTED_MAX else f"{text[:_QUOTED_MAX]}..."
