"""Starting a thread where the system may grant none, and noticing what threads are made of."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from roovet_webhooks.errors import InboxUnavailable

if TYPE_CHECKING:
    from threading import Thread


def kind_of_threads() -> object:
    """Return what stands for the threads and locks that are made now: another object once gevent has patched them.

    A server that loads the application before it patches leaves us with locks and queues of the old kind. Waiting on
    one stops all greenlets of its process, also the one that is waited for; so they are made anew.
    """
    return threading.Lock


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
