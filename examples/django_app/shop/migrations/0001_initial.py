"""Create the orders."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first migration."""

    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            "Order",
            [
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("items", models.TextField()),
                ("total_cents", models.BigIntegerField()),
            ],
        ),
    ]
