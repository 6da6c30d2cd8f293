"""Directives that draw tables of the package, whenever the pages are built; no picture is kept.

``{life-of-a-delivery}`` draws `life.LIFE`, and ``{states-of-a-delivery}`` the steps of
`roovet_webhooks.inbox.states`. What stands inside is the caption.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import life
from pictures.flow import draw_life
from pictures.machine import draw_machine
from roovet_webhooks.inbox import states

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


def life_of_a_delivery() -> str:
    """Draw the steps of a receiver."""
    return draw_life(life.LIFE, name="life-of-a-delivery", title="The life of a delivery")


def states_of_a_delivery() -> str:
    """Draw the steps of an inbox."""
    return draw_machine(
        list(states.State),
        [(source, step, target) for (source, step), target in states.STEPS.items()],
        name="states-of-a-delivery",
        title="The states of a recorded delivery",
    )


class Picture(SphinxDirective):
    """A picture with a caption, in HTML; elsewhere the caption alone, since a table beside it says the same."""

    has_content = True
    draw: ClassVar[Callable[[], str]]

    def run(self) -> list[nodes.Node]:
        """Return the figure."""
        for module in (life, states):
            # A page that was built before is built anew when its table has changed.
            self.env.note_dependency(str(module.__file__))
        frame = f'<div class="picture-frame">{type(self).draw()}</div>'
        figure = nodes.figure("", nodes.raw("", frame, format="html"))
        words, faults = self.parse_inline(" ".join(self.content), lineno=self.lineno)
        figure += nodes.caption("", "", *words)
        return [figure, *faults]


class LifeOfADelivery(Picture):
    """``{life-of-a-delivery}``."""

    draw = staticmethod(life_of_a_delivery)


class StatesOfADelivery(Picture):
    """``{states-of-a-delivery}``."""

    draw = staticmethod(states_of_a_delivery)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("life-of-a-delivery", LifeOfADelivery)
    app.add_directive("states-of-a-delivery", StatesOfADelivery)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
