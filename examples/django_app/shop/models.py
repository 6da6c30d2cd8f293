"""The shop's ledger."""

from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """One line for each delivery that meant something."""

    # The receiver's memory ends with the process. The unique column does not: a delivery that comes back
    # after a restart is booked once all the same.
    delivery: models.CharField[str, str] = models.CharField(max_length=40, unique=True)
    kind: models.CharField[str, str] = models.CharField(max_length=20)
    resource: models.CharField[str, str] = models.CharField(max_length=255)
    amount_cents: models.BigIntegerField[int | None, int | None] = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        """Show what it is about."""
        return f"{self.kind} {self.resource}"
