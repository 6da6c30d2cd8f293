"""The tables of a `DjangoInbox`. What is written to them, and when, stands in `roovet_webhooks.inbox.changes`.

They have neither partial indexes nor long keys, so that every database that Django supports can hold them. Times are
epoch milliseconds, UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models

from roovet_webhooks.delivery import Identity
from roovet_webhooks.django.fields import NAME_CHARACTERS, TENANT_CHARACTERS, ExactCharField
from roovet_webhooks.inbox.protocol import ERROR_CHARACTERS

if TYPE_CHECKING:
    Text = models.CharField[str, str]
    MaybeText = models.CharField[str | None, str | None]
    MaybeLongText = models.TextField[str | None, str | None]
    Number = models.BigIntegerField[int, int]
    MaybeNumber = models.BigIntegerField[int | None, int | None]


class Delivery(models.Model):
    """A recorded delivery, or the tombstone of one."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    # `id_of` the identity: one short key for what may be long, that no collation can confuse.
    delivery_id: Text = models.CharField("delivery", max_length=36, unique=True)
    endpoint: Text = ExactCharField(max_length=NAME_CHARACTERS)
    tenant: Text = ExactCharField(max_length=TENANT_CHARACTERS)
    key_ts: Number = models.BigIntegerField()
    key: Text = models.CharField(max_length=64)
    ts: Number = models.BigIntegerField("happened at")
    event: Text = ExactCharField(max_length=NAME_CHARACTERS)
    resource: Text = ExactCharField(max_length=NAME_CHARACTERS)
    body: models.BinaryField[bytes | None, bytes | memoryview | None] = models.BinaryField(null=True)
    has_body: models.BooleanField[bool, bool] = models.BooleanField(default=True)
    codec: Text = models.CharField(max_length=20, blank=True)
    secret_name: Text = ExactCharField(max_length=NAME_CHARACTERS)
    signed_at: Number = models.BigIntegerField()
    received_at: Number = models.BigIntegerField()
    state: Text = models.CharField(max_length=10)
    outcome: MaybeText = models.CharField(max_length=20, null=True)  # noqa: DJ001 - NULL until it has ended
    available_at: Number = models.BigIntegerField()
    fence: Number = models.BigIntegerField("attempts")
    failures: models.IntegerField[int, int] = models.IntegerField()
    crashes: models.IntegerField[int, int] = models.IntegerField()
    round: models.IntegerField[int, int] = models.IntegerField()
    owner: MaybeText = ExactCharField(max_length=320, null=True)
    lease_until: MaybeNumber = models.BigIntegerField(null=True)
    handed_at: MaybeNumber = models.BigIntegerField(null=True)
    finished_at: MaybeNumber = models.BigIntegerField(null=True)
    last_error: MaybeText = ExactCharField(max_length=ERROR_CHARACTERS, null=True)
    # JSON: names of the handlers that were registered for it when it was accepted. NULL means whatever is registered.
    handlers: MaybeLongText = models.TextField(null=True)  # noqa: DJ001 - no names are not unknown names
    unhandled_since: MaybeNumber = models.BigIntegerField(null=True)
    history: models.BinaryField[bytes | None, bytes | memoryview | None] = models.BinaryField(null=True)

    class Meta:
        """One row an identity; each index serves one kind of look at the table."""

        verbose_name_plural = "deliveries"
        ordering: ClassVar[Any] = ["-id"]
        default_permissions: Any = ("view",)
        permissions: ClassVar[Any] = [
            ("replay_delivery", "Can replay delivery"),
            ("purge_delivery", "Can purge delivery"),
            ("view_delivery_body", "Can view the body of a delivery"),
        ]
        indexes: ClassVar[Any] = [
            # Claims, suspects, the reaper, and all counts.
            models.Index(fields=["state", "endpoint", "crashes", "available_at", "id"], name="roovet_delivery_state"),
            # What stands before a delivery of the same resource; an operator's search.
            models.Index(fields=["resource", "state", "ts", "id"], name="roovet_delivery_resource"),
            # Bodies to erase, and tombstones to remove.
            models.Index(fields=["has_body", "state", "finished_at"], name="roovet_delivery_body"),
            models.Index(fields=["finished_at"], name="roovet_delivery_ended"),
        ]

    def __str__(self) -> str:
        """Show which it is."""
        return self.delivery_id

    @property
    def identity(self) -> Identity:
        """What makes it this delivery and no other."""
        return Identity(self.endpoint, self.tenant, self.key_ts, bytes.fromhex(self.key))


class Handled(models.Model):
    """That a handler has succeeded in a round of a delivery."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    delivery: models.ForeignKey[Any, Any] = models.ForeignKey(
        # No constraint in the database: it would lock the delivery for every row here.
        Delivery,
        models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="handled",
    )
    round: models.IntegerField[int, int] = models.IntegerField()
    handler: Text = ExactCharField(max_length=500)
    fence: Number = models.BigIntegerField()

    class Meta:
        """One row a success."""

        default_permissions: Any = ()
        constraints: ClassVar[Any] = [
            models.UniqueConstraint(fields=["delivery", "round", "handler"], name="roovet_handled_once")
        ]

    def __str__(self) -> str:
        """Show which handler."""
        return self.handler


class Worker(models.Model):
    """When a worker of an endpoint was last heard of."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    owner: Text = ExactCharField(max_length=320)
    endpoint: Text = ExactCharField(max_length=NAME_CHARACTERS)
    seen_at: Number = models.BigIntegerField()
    # JSON: what it serves. NULL when it has not said so.
    handlers: MaybeLongText = models.TextField(null=True)  # noqa: DJ001 - no names are not unknown names
    patterns: MaybeLongText = models.TextField(null=True)  # noqa: DJ001 - as above

    class Meta:
        """One row a worker and endpoint."""

        default_permissions: Any = ()
        constraints: ClassVar[Any] = [models.UniqueConstraint(fields=["owner", "endpoint"], name="roovet_worker_once")]

    def __str__(self) -> str:
        """Show which worker."""
        return self.owner


class Turn(models.Model):
    """A row to lock: who claims from an ordered endpoint does so in turn."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    endpoint: Text = ExactCharField(max_length=NAME_CHARACTERS, unique=True)

    class Meta:
        """One row an endpoint."""

        default_permissions: Any = ()

    def __str__(self) -> str:
        """Show which endpoint."""
        return self.endpoint
