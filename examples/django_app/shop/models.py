"""The shop's ledger."""

from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """One line for each delivery that meant something."""

    # Where it comes from. That it is there once is the inbox's business.
    delivery: models.CharField[str, str] = models.CharField(max_length=40)
    kind: models.CharField[str, str] = models.CharField(max_length=20)
    resource: models.CharField[str, str] = models.CharField(max_length=255)
    amount_cents: models.BigIntegerField[int | None, int | None] = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        """Show what it is about."""
        return f"{self.kind} {self.resource}"
