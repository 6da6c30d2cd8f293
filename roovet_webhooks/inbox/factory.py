"""Whatever a receiver's ``inbox=`` may be, as an inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from roovet_webhooks.inbox.protocol import Inbox

InboxLike: TypeAlias = "str | Engine | Inbox"


def inbox_of(value: InboxLike) -> Inbox:
    """Return the inbox that a URL, a SQLAlchemy engine or an inbox is.

    Raises:
        ConfigurationError: It is none of these, or no inbox can live there.
        MissingExtraError: SQLAlchemy is not installed.
    """
    if not isinstance(value, str) and not hasattr(value, "dialect"):
        if hasattr(value, "durable"):
            return cast("Inbox", cast("object", value))
        message = (
            "inbox= must be a database URL such as 'sqlite:///roovet.db', a SQLAlchemy engine or an inbox, "
            f"not {type(value).__name__}"
        )
        raise ConfigurationError(message)
    from roovet_webhooks.inbox.sql import SQLInbox  # noqa: PLC0415 - an extra, and slow to import

    return SQLInbox(cast("str | Engine", value))
