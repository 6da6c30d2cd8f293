"""What autodoc makes of this package's docstrings and annotations.

Both name things as the code around them does: by their own name, without the module, or by the package's face. Sphinx
looks in the same module only, and takes a type alias for no class.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
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
    return content if _is_there(target) else None


def _is_there(name: str) -> bool:
    """Say whether the package has something of a name, such as ``CODES`` or ``Verified.secret_name``."""
    return set(name.split(".")) <= _names()


@cache
def _names() -> set[str]:
    """Return every name that a module defines or imports, if for type checkers only, and those of the modules."""
    names: set[str] = set()
    for path in Path(roovet_webhooks.__file__).parent.rglob("*.py"):
        names |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.alias(name=name, asname=other):
                    names.add(other or name)
                case _:
                    pass
    return names


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
