"""Keep what each attempt at a delivery came to."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """The history of attempts."""

    dependencies: ClassVar[Any] = [("roovet_webhooks", "0002_handlers")]
    operations: ClassVar[Any] = [migrations.AddField("Delivery", "history", models.BinaryField(null=True))]
