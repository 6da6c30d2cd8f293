"""What autodoc makes of this package's docstrings and annotations.

Both name things as the code around them does: by their own name, without the module, or by the package's face. Sphinx
looks in the same module only, and takes a type alias for no class.
"""

from __future__ import annotations

from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING

from sphinx.util.nodes import make_refnode

import roovet_webhooks

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.util.typing import ExtensionMetadata

_FACE = "roovet_webhooks"
_NOT_A_FIELD = {"attribute", "data", "property"}
_COLON, _HIDDEN = ":", "\ue000"


def resolve_by_own_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a reference to the documented object of that name, wherever it is.

    Of several, a name of the face comes first, and a function or class before methods of that name. What is documented
    nowhere, but is there, is no misspelt name, and stays without a link.
    """
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"].removeprefix(f"{_FACE}.")
    home: str | None = getattr(getattr(roovet_webhooks, target, None), "__module__", None)
    if home is not None:
        target = f"{home}.{target}"
    found = env.domains.python_domain.find_obj(env, "", "", target, None, searchmode=1)
    objects = [(name.count("."), name, entry) for name, entry in found if entry.objtype != "module"]
    if objects:
        _, name, entry = min(objects, key=lambda one: one[:2])
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)
    return content if _is_there(node.get("py:module"), target) else None


def _is_there(module: str | None, name: str) -> bool:
    try:
        reduce(getattr, name.split("."), import_module(module or _FACE))
    except AttributeError:
        return False
    return True


def _hide_colons(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    if what in _NOT_A_FIELD:
        lines[:] = [line.replace(_COLON, _HIDDEN) for line in lines]


def _show_colons(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    if what in _NOT_A_FIELD:
        lines[:] = [line.replace(_HIDDEN, _COLON) for line in lines]


def _skip_fields(_app: Sphinx, _what: str, _name: str, value: object, skip: bool, _options: object) -> bool | None:  # noqa: FBT001 - Sphinx calls it so
    """Leave out the fields of a named tuple, which its docstring explains; their own is "Alias for field number 0"."""
    return skip or type(value).__name__ == "_tuplegetter" or None


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect to the build."""
    app.connect("missing-reference", resolve_by_own_name)
    # Between the two comes napoleon, at 500. It takes what stands before a colon in the docstring of a property or an
    # alias for its type; ours are sentences.
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)
    app.connect("autodoc-process-docstring", _show_colons, priority=600)
    app.connect("autodoc-skip-member", _skip_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
