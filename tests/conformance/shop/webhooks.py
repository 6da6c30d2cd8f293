"""What autodiscovery imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks import Router

if TYPE_CHECKING:
    from roovet_webhooks import Event

router = Router()


@router.on("order.created")
def created(_event: Event) -> None:
    """Do nothing: that it is registered is what is looked at."""
