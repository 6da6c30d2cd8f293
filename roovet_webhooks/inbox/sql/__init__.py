"""A durable inbox in SQLite or PostgreSQL. It needs the extra ``inbox``."""

from __future__ import annotations

from roovet_webhooks.errors import MissingExtraError

try:
    from roovet_webhooks.inbox.sql.inbox import SQLInbox
except ModuleNotFoundError as _missing:
    message = "SQLAlchemy is not installed; run: pip install 'roovet-webhooks[inbox]'"
    raise MissingExtraError(message, extra="inbox") from _missing

__all__ = ["SQLInbox"]
