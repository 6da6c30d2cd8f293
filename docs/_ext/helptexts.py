"""The help of commands, which is plain text for a terminal, as a page needs it: options and examples in code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

_OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]*")
_EXAMPLE = "Example: "
_BAR = "| "  # what sphinx-click puts before lines that are to stay lines


def _described(_app: Sphinx, _context: object, lines: list[str]) -> None:
    made: list[str] = []
    in_example = False
    for line in lines:
        bare = line.removeprefix(_BAR)
        if bare.startswith(_EXAMPLE):
            in_example = True
            made += ["Example:", "", ".. code-block:: shell", "", f"   {bare.removeprefix(_EXAMPLE)}"]
        elif in_example and bare:
            made.append(f"   {bare}")
        else:
            in_example = False
            made.append(_OPTION.sub(r"``\g<0>``", line))
    lines[:] = made


def _told_options(_app: Sphinx, _context: object, lines: list[str]) -> None:
    lines[:] = [line if line.startswith(".. option::") else _OPTION.sub(r"``\g<0>``", line) for line in lines]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect to the build, after sphinx-click, whose events these are."""
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-description", _described)
    app.connect("sphinx-click-process-options", _told_options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
