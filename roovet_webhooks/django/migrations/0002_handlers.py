"""Record which handlers a delivery was accepted for, and which a worker has. Rows of older code have NULL there."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """Only adds columns that may be NULL: code of the version before runs on it."""

    dependencies: ClassVar[Any] = [("roovet_webhooks", "0001_initial")]
    operations: ClassVar[Any] = [
        migrations.AddField("Delivery", "handlers", models.TextField(null=True)),
        migrations.AddField("Delivery", "unhandled_since", models.BigIntegerField(null=True)),
        migrations.AddField("Worker", "handlers", models.TextField(null=True)),
        migrations.AddField("Worker", "patterns", models.TextField(null=True)),
    ]
