"""Create the ledger."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """The first migration."""

    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            "Entry",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("delivery", models.CharField(max_length=40)),
                ("kind", models.CharField(max_length=20)),
                ("resource", models.CharField(max_length=255)),
                ("amount_cents", models.BigIntegerField(null=True)),
            ],
        ),
    ]
