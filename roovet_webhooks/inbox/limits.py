"""How long a handler may keep a transaction open, and what ends it when it does not."""

from __future__ import annotations

from typing import Any, Protocol

from roovet_webhooks.errors import CommittedByHandler, ConfigurationError

# SQLite has one writer, and everybody waits for it.
SQLITE_SECONDS = 2.0
SERVER_SECONDS = 30.0


class Limit(Protocol):
    """The bound on one transaction."""

    def check(self) -> None:
        """Check before a statement that the transaction goes on.

        Raises:
            ConfigurationError: It took too long, or something ended it other than the inbox.
        """
        ...

    def watch(self, cursor: Any, /) -> None:  # noqa: ANN401 - the driver's own
        """Take note of a cursor, whose result may have to be closed before anything can be undone."""
        ...

    def check_whole(self) -> None:
        """Check at the end that the transaction is the one that was opened; errors as `check`."""
        ...

    def exceeded(self) -> ConfigurationError | None:
        """Return the error for what ended it, its time or a refusal: what the handler saw of its end says nothing."""
        ...

    def undo(self) -> None:
        """Undo what was written, and refuse whatever is tried from now on."""
        ...

    def check_committed(self) -> None:
        """Check after the commit that it is this transaction that was committed; errors as `check`."""
        ...

    def was_committed(self) -> bool:
        """Return whether what was to be undone has been committed, by something that the inbox could not refuse."""
        ...


def too_long(seconds: float) -> ConfigurationError:
    """Return the error for a transaction that was open for more than so many seconds."""
    return ConfigurationError(
        f"the handler kept its transaction open for more than {seconds:g} s, and was rolled back: do slow work "
        "first, and open the transaction last"
    )


OVER = (
    "the handler's transaction is over before its end: SQL of its own ended it, or the database did after an error "
    "that the handler caught; only the inbox commits it, and lets no error pass"
)
REFUSED = (
    "the inbox alone commits or rolls back a delivery's transaction, with the record of the handler's success: leave "
    "commit() and rollback() out; to undo, raise"
)


def over() -> ConfigurationError:
    """Return the error for a transaction that has ended before its end."""
    return ConfigurationError(OVER)


def refused() -> ConfigurationError:
    """Return the error for a commit or rollback by a handler."""
    return ConfigurationError(REFUSED)


def committed_by(handler: str) -> CommittedByHandler:
    """Return the error for a commit by a handler that nobody could refuse.

    Args:
        handler: Name of the handler.
    """
    return CommittedByHandler(
        f"{handler} has committed its transaction itself, with the record of its success: it is not run again, and "
        "what it wrote afterwards is lost"
    )
