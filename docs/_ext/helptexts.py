"""The help of commands, which is plain text for a terminal, as a page needs it: options and examples in code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

_OPTION = re.compile(r"(?<![\w`-])--[a-z][a-z-]*|\bdlv_…")  # an id would else be taken for a link
_EXAMPLE = "Example: "
_BAR = "| "  # what sphinx-click puts before lines that are to stay lines


def _described(_app: Sphinx, _context: object, lines: list[str]) -> None:
    made: list[str] = []
    in_example = False
    for line in lines:
        bare = line.removeprefix(_BAR)
        begins = bare.startswith(_EXAMPLE)
        if begins and not in_example:
            made += ["Example:", "", ".. code-block:: shell", ""]
        in_example = begins or (in_example and bool(bare))
        made.append(f"   {bare.removeprefix(_EXAMPLE)}" if in_example else _OPTION.sub(r"``\g<0>``", line))
    lines[:] = made


def _told_options(_app: Sphinx, _context: object, lines: list[str]) -> None:
    lines[:] = [line if line.startswith(".. option::") else _OPTION.sub(r"``\g<0>``", line) for line in lines]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect to the build, after sphinx-click, whose events these are."""
    app.setup_extension("sphinx_click")
    app.connect("sphinx-click-process-description", _described)
    app.connect("sphinx-click-process-options", _told_options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
