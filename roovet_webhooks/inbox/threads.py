"""Starting a thread where the system may grant none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks.errors import InboxUnavailable

if TYPE_CHECKING:
    from threading import Thread


def started(thread: Thread) -> Thread:
    """Start a thread and return it. The caller remembers it only then.

    Args:
        thread: Not started yet.

    Raises:
        InboxUnavailable: The system grants no more threads, for now.
    """
    try:
        thread.start()
    except RuntimeError as error:
        message = f"no thread can be started: {error}"
        raise InboxUnavailable(message) from error
    return thread
