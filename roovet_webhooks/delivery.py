"""`Delivery`: one verified message, with what is known about how it came."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import msgspec

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.events import Event

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from roovet_webhooks.signing.verifier import Verified

T = TypeVar("T")

Dedupe: TypeAlias = Callable[[Event], str | bytes]
"""Makes the key of a delivery from its event, where identical bytes are not what makes two of them one."""

DEFAULT_TENANT = "default"


class Scope(Protocol):
    """What `Delivery.transaction` asks of whoever runs a handler."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Open the handler's transaction."""
        ...

    async def in_transaction(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in the handler's transaction, in a thread."""
        ...


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What makes two deliveries the same one.

    The tenant is part of it because thin bodies can be guessed: without it, tenant A could sign tenant B's
    next body first. ``ts`` stands before the key because neighbours in time are then neighbours in an index.

    Attributes:
        endpoint: The receiver.
        tenant: Whose keyring verified it.
        ts: Unix seconds of the event; 0 where ``dedupe`` made the key, which then decides alone.
        key: SHA-256 of the raw body, or of what ``dedupe`` returned; 32 bytes.
    """

    endpoint: str
    tenant: str
    ts: int
    key: bytes


def id_of(identity: Identity) -> str:
    """Return the id of the delivery that has this identity, ``dlv_`` and 32 hex digits."""
    endpoint, tenant, ts, key = msgspec.structs.astuple(identity)
    # Lengths first, so that no two identities write the same text.
    text = f"{len(endpoint)}:{endpoint}{len(tenant)}:{tenant}{ts}:".encode() + key
    return f"dlv_{sha256(text).hexdigest()[:32]}"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that Roovet signed: verified, with its envelope read.

    Attributes:
        identity: What makes it this delivery and no other.
        event: The envelope; ``event.extra`` has the other fields.
        raw: The body, byte for byte as it was signed.
        secret_name: Name of the secret that verified it.
        signed_at: When it was signed, Unix seconds.
        received_at: When it arrived, Unix seconds by the receiver's clock.
        attempt: Which run of its handlers this is, counted from 1.
        scope: The running handler's way to the inbox's transaction; `transaction` and `in_transaction` use it.
    """

    identity: Identity
    event: Event
    raw: bytes
    secret_name: str
    signed_at: int
    received_at: float
    attempt: int = 1
    scope: Scope | None = None

    @property
    def id(self) -> str:
        """Stable id of the delivery, the same for every copy of it: an idempotency key for your effects."""
        return id_of(self.identity)

    @property
    def key(self) -> str:
        """The identity's key in hex: SHA-256 of the body unless ``dedupe`` says otherwise."""
        return self.identity.key.hex()

    @property
    def endpoint(self) -> str:
        """Name of the receiver that took it."""
        return self.identity.endpoint

    @property
    def tenant(self) -> str:
        """Whose keyring verified it; ``default`` without a resolver."""
        return self.identity.tenant

    def transaction(self) -> AbstractContextManager[Any]:
        """Open a transaction of the inbox's database for a handler: what is written in it happens once.

        The handler's rows, the record of its success and the check that its claim still holds are committed together
        when the block ends, so through crashes and redelivery they are there once. Do slow work first and open the
        transaction last: it may last 2 seconds on SQLite, which has one writer, and 30 on PostgreSQL. Never commit or
        roll back in it; to undo, raise. A handler has one transaction for each delivery. What it was given ends
        with the block: afterwards the connection, its cursors and its results raise an error.

        Returns:
            A context manager whose value is the connection: SQLAlchemy's, or under Django its database wrapper.

        Raises:
            ConfigurationError: No handler is running, or the inbox is not a durable one, or this is a coroutine:
                use `in_transaction` there.
            LeaseLost: Another process has taken the delivery over; nothing is changed.
            CommittedByHandler: The handler has committed in a way that could not be refused; it is not run again.

        Example::

            @router.on("transfer.settled")
            def book(event, delivery):
                with delivery.transaction() as connection:
                    connection.execute(insert(ledger).values(transfer=event.id))
        """
        return self._scope().transaction()

    async def in_transaction(self, function: Callable[..., T], *arguments: object) -> T:
        """Call ``function(connection, *arguments)`` in a transaction, in a thread: for coroutine handlers.

        Returns:
            What the function returns, once it has been committed.

        Raises:
            ConfigurationError: As `transaction`.
            LeaseLost: As `transaction`.
        """
        return await self._scope().in_transaction(function, *arguments)

    def _scope(self) -> Scope:
        if self.scope is None:
            message = (
                "a delivery has a transaction only in a handler that runs from a durable inbox: "
                "WebhookReceiver(inbox='sqlite:///roovet.db')"
            )
            raise ConfigurationError(message)
        return self.scope

    def numbered(self, attempt: int) -> Delivery:
        """Return the delivery as the given attempt sees it."""
        return self if attempt == self.attempt else msgspec.structs.replace(self, attempt=attempt)

    def within(self, scope: Scope | None) -> Delivery:
        """Return the delivery as a handler gets it that may open a transaction."""
        return self if scope is None else msgspec.structs.replace(self, scope=scope)

    def __repr__(self) -> str:
        """Show what it is about; the body stays out of logs."""
        subject = f"event={self.event.event!r}, resource={self.event.id!r}"
        return f"Delivery(id={self.id!r}, {subject}, attempt={self.attempt})"

    __str__ = __repr__

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show the same where rich prints variables: msgspec's own shows every field, the body too."""
        return [("id", self.id), ("event", self.event.event), ("resource", self.event.id), ("attempt", self.attempt)]


def make_delivery(  # noqa: PLR0913 - what a receiver knows when a delivery is verified
    raw: bytes,
    event: Event,
    proof: Verified,
    *,
    endpoint: str,
    tenant: str,
    received_at: float,
    dedupe: Dedupe | None = None,
) -> Delivery:
    """Put together what verification, parsing and the receiver know.

    Raises:
        ConfigurationError: ``dedupe`` raised, or returned something that is no text and no bytes.
    """
    if dedupe is None:
        identity = Identity(endpoint, tenant, event.ts, sha256(raw).digest())
    else:
        try:
            key = dedupe(event)
        except Exception as error:
            message = f"dedupe raised {type(error).__name__} for {event.event!r}"
            raise ConfigurationError(message) from error
        if isinstance(key, str):
            key = key.encode("utf-8", "surrogatepass")
        if not isinstance(key, bytes) or not key:  # pyright: ignore[reportUnnecessaryIsInstance] - the user's function
            message = f"dedupe must return a non-empty str or bytes for {event.event!r}, not {type(key).__name__}"
            raise ConfigurationError(message)
        identity = Identity(endpoint, tenant, 0, sha256(key).digest())
    return Delivery(
        identity=identity,
        event=event,
        raw=raw,
        secret_name=proof.secret_name,
        signed_at=proof.timestamp,
        received_at=received_at,
    )
