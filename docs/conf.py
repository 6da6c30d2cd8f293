"""How Sphinx builds these pages. Nothing is fetched: a build needs no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

from roovet_webhooks import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "roovet-webhooks"
project_copyright = author = "the authors of roovet-webhooks"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "endpoints",
    "helptexts",
    "repository",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
default_role = "py:obj"  # what stands between backticks in a docstring is a name

html_theme = "furo"
html_title = f"roovet-webhooks {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

myst_heading_anchors = 4  # the anchors that code hosts make, so that one link serves both

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False  # "Returns:" is a sentence, and a colon in it makes no type of its beginning

nitpicky = True
nitpick_ignore_regex = [
    # Names of other projects: their inventories would have to be fetched, and a build needs no network.
    (r"py:.*", rf"({'|'.join(sys.stdlib_module_names)})\..+"),
    (
        r"py:.*",
        r"(anyio|cryptography|django|flask|httpx2|msgspec|opentelemetry|pydantic|sqlalchemy|starlette|structlog)\..+",
    ),
    # Parts of an annotation that Sphinx takes for names.
    (r"py:.*", r".*\[.*|P\.args|P\.kwargs"),
]


def setup(app: Sphinx) -> None:
    """Show Mermaid blocks as text, because drawing them needs a script. Code hosts draw them."""
    app.add_lexer("mermaid", TextLexer)
