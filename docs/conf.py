"""Sphinx's configuration: `make docs`. Nothing is fetched from the network, and every warning is an error."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import Any

project = "coulee"
author = "the coulee authors"
project_copyright = "the coulee authors, Apache-2.0"
release = version_of("coulee")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
myst_heading_anchors = 3
myst_linkify_fuzzy_links = False

default_role = "code"  # what docstrings put between backticks
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
add_module_names = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"coulee {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

_LINE = re.compile(r"(?P<indent> *)(?P<item>[-*] |\d+\. )?")


def literal_blocks(lines: list[str]) -> list[str]:
    """Docstrings are plain prose. An indented block in one is code, which reStructuredText wants announced by `::`."""
    out: list[str] = []
    code = False
    inside_item = False
    for line in lines:
        found = _LINE.match(line)
        assert found is not None
        if line.strip():
            indented = bool(found["indent"])
            if not indented:
                code = False
                inside_item = bool(found["item"])
            elif not code and not inside_item and out and not out[-1].strip():
                out += ["::", ""]
                code = True
        out.append(line)
    return out


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = literal_blocks(lines)


def _signature(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: str | None, result: str | None
) -> Any:
    """Defaults that a dataclass makes anew each time have no source text, and what stands for them does not parse."""
    return (arguments.replace("<factory>", "...") if arguments else arguments), result


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
