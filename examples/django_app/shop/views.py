"""What the shop shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import JsonResponse

from shop.models import Entry

if TYPE_CHECKING:
    from django.http import HttpRequest


def ledger(_request: HttpRequest) -> JsonResponse:
    """Show the ledger, oldest line first."""
    lines = Entry.objects.order_by("pk").values("delivery", "kind", "resource", "amount_cents")
    return JsonResponse(list(lines), safe=False)
