"""Create the tables of a `DjangoInbox`."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, models

from roovet_webhooks.django.fields import ExactCharField


class Migration(migrations.Migration):
    """The first migration."""

    initial: ClassVar[Any] = True
    operations: ClassVar[Any] = [
        migrations.CreateModel(
            "Delivery",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("delivery_id", models.CharField("delivery", max_length=36, unique=True)),
                ("endpoint", ExactCharField(max_length=255)),
                ("tenant", ExactCharField(max_length=1000)),
                ("key_ts", models.BigIntegerField()),
                ("key", models.CharField(max_length=64)),
                ("ts", models.BigIntegerField("happened at")),
                ("event", ExactCharField(max_length=255)),
                ("resource", ExactCharField(max_length=255)),
                ("body", models.BinaryField(null=True)),
                ("has_body", models.BooleanField(default=True)),
                ("codec", models.CharField(max_length=20, blank=True)),
                ("secret_name", ExactCharField(max_length=255)),
                ("signed_at", models.BigIntegerField()),
                ("received_at", models.BigIntegerField()),
                ("state", models.CharField(max_length=10)),
                ("outcome", models.CharField(max_length=20, null=True)),
                ("available_at", models.BigIntegerField()),
                ("fence", models.BigIntegerField("attempts")),
                ("failures", models.IntegerField()),
                ("crashes", models.IntegerField()),
                ("round", models.IntegerField()),
                ("owner", ExactCharField(max_length=320, null=True)),
                ("lease_until", models.BigIntegerField(null=True)),
                ("handed_at", models.BigIntegerField(null=True)),
                ("finished_at", models.BigIntegerField(null=True)),
                ("last_error", ExactCharField(max_length=500, null=True)),
            ],
            {
                "verbose_name_plural": "deliveries",
                "ordering": ["-id"],
                "default_permissions": ("view",),
                "permissions": [
                    ("replay_delivery", "Can replay delivery"),
                    ("purge_delivery", "Can purge delivery"),
                    ("view_delivery_body", "Can view the body of a delivery"),
                ],
                "indexes": [
                    models.Index(
                        fields=["state", "endpoint", "crashes", "available_at", "id"], name="roovet_delivery_state"
                    ),
                    models.Index(fields=["resource", "state", "ts", "id"], name="roovet_delivery_resource"),
                    models.Index(fields=["has_body", "state", "finished_at"], name="roovet_delivery_body"),
                    models.Index(fields=["finished_at"], name="roovet_delivery_ended"),
                ],
            },
        ),
        migrations.CreateModel(
            "Handled",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("round", models.IntegerField()),
                ("handler", ExactCharField(max_length=500)),
                ("fence", models.BigIntegerField()),
                (
                    "delivery",
                    models.ForeignKey(
                        "roovet_webhooks.delivery",
                        models.DO_NOTHING,
                        db_constraint=False,
                        db_index=False,
                        related_name="handled",
                    ),
                ),
            ],
            {
                "default_permissions": (),
                "constraints": [
                    models.UniqueConstraint(fields=["delivery", "round", "handler"], name="roovet_handled_once")
                ],
            },
        ),
        migrations.CreateModel(
            "Worker",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("owner", ExactCharField(max_length=320)),
                ("endpoint", ExactCharField(max_length=255)),
                ("seen_at", models.BigIntegerField()),
            ],
            {
                "default_permissions": (),
                "constraints": [models.UniqueConstraint(fields=["owner", "endpoint"], name="roovet_worker_once")],
            },
        ),
        migrations.CreateModel(
            "Turn",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("endpoint", ExactCharField(max_length=255, unique=True)),
            ],
            {"default_permissions": ()},
        ),
    ]
