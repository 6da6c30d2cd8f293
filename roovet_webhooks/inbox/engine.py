"""What may run deliveries in place of a worker's own threads: a task queue, to which a relay hands their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from roovet_webhooks.findings import Finding


class Engine(Protocol):
    """A task queue. Its task claims one delivery by its number and runs it, and never retries by itself.

    Attributes:
        name: What it is called.
        shares_transaction: Whether its tasks are kept in the inbox's own database, and made in the transaction that
            marks deliveries as handed over.
        window: How many deliveries may be handed over and not claimed at a time.
        again_after: Seconds after which one that was handed over and not claimed is handed over once more.
    """

    name: str
    shares_transaction: bool
    window: int
    again_after: float

    def attach(self, receiver: Any) -> None:  # noqa: ANN401 - a `WebhookReceiver`, which stands below this module
        """Take a receiver's deliveries; each receiver does so when it is made."""
        ...

    def enqueue(self, connection: Any, endpoint: str, numbers: Sequence[int]) -> None:  # noqa: ANN401 - the store's
        """Make a task for each of some deliveries. One that is made twice does no harm.

        Args:
            connection: The store's, inside its transaction, where the engine shares it; else ``None``.
            endpoint: Whose deliveries.
            numbers: Which.

        Raises:
            Exception: The engine cannot be reached or does not answer in time. Some of the tasks may have been made.
        """
        ...

    def faults(self) -> Iterable[Finding]:
        """Check the engine and its broker, for ``inbox check``; yield what loses tasks or keeps them from running."""
        ...
