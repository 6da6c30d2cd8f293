"""Links from a page to files of the repository, which a code host follows, lead to the pages about them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

ABOUT = {
    "README.md": "readme.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "examples": "readme.md#examples",
}
"""What is linked to, from the root of the repository, and the page about it."""


def _lead_to_pages(_app: Sphinx, page: str, text: list[str]) -> None:
    up = "../" * page.count("/")
    for target, about in ABOUT.items():
        text[0] = re.sub(rf"\]\({re.escape(f'../{up}{target}')}(?=[#)])", f"]({up}{about}", text[0])


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect to the build."""
    app.connect("source-read", _lead_to_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
