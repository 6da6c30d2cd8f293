"""The shop's orders."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order that was fulfilled."""

    id: models.CharField[str, str] = models.CharField(primary_key=True, max_length=255)
    items: models.TextField[str, str] = models.TextField()
    total_cents: models.BigIntegerField[int, int] = models.BigIntegerField()

    def __str__(self) -> str:
        """Show its id."""
        return self.id
