"""The tables of the API's reference, made from its description: ``{endpoints}`` and ``{assumptions}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sphinx.util.docutils import SphinxDirective

from roovet_webhooks.api.assumed import ASSUMPTIONS
from roovet_webhooks.api.table import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

    from roovet_webhooks.api.table import Endpoint


def endpoint_table() -> str:
    """Return the table of all endpoints, in Markdown."""
    head = "| Endpoint | Scope | Method of the client | Query or body | Answer | |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(_row(endpoint) for endpoint in ENDPOINTS) + "\n"


def _row(endpoint: Endpoint[object]) -> str:
    sent = endpoint.body or endpoint.query
    answer = f"a page of {_name(endpoint.row)}" if endpoint.row else _name(endpoint.answer)
    cells = (
        f"`{endpoint.method} {endpoint.path}`",
        f"`{endpoint.scope}`",
        f"`{endpoint.name}`",
        _name(sent) if sent else "",
        answer,
        "partly assumed" if endpoint.assumptions else "documented",
    )
    return f"| {' | '.join(cells)} |"


def _name(kind: type[object]) -> str:
    return f"{{py:obj}}`{kind.__name__}`"


def assumption_table() -> str:
    """Return the table of all assumptions, with the endpoints that each is about, in Markdown."""
    rows = (
        f"| {sentence} | {', '.join(f'`{one.name}`' for one in ENDPOINTS if topic in one.assumptions) or 'all'} |"
        for topic, sentence in ASSUMPTIONS.items()
    )
    return "| What is assumed | Of |\n|---|---|\n" + "\n".join(rows) + "\n"


class _Table(SphinxDirective):
    make: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the table."""
        return self.parse_text_to_nodes(type(self).make())


class Endpoints(_Table):
    """``{endpoints}``: every endpoint."""

    make = staticmethod(endpoint_table)


class Assumptions(_Table):
    """``{assumptions}``: everything that is assumed."""

    make = staticmethod(assumption_table)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect to the build."""
    app.add_directive("endpoints", Endpoints)
    app.add_directive("assumptions", Assumptions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
