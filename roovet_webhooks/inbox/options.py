"""What durable inboxes have in common when they are made: checks of their options, and their names."""

from __future__ import annotations

import os
import socket
from secrets import token_hex
from typing import TYPE_CHECKING

from roovet_webhooks._validation import is_count, is_number
from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_numbers(
    *, seconds: Mapping[str, float], settle: float, counts: Mapping[str, int], min_free_disk: int
) -> None:
    """Check the numbers that an inbox is given.

    Raises:
        ConfigurationError: One is out of its range; the message has them all.
    """
    wrong = [
        f"{name} ({value!r} s)"
        for name, value in seconds.items()
        if not (is_number(value) and 0 < value < float("inf"))
    ]
    wrong += [] if is_number(settle) and 0 <= settle <= 1 else [f"settle ({settle!r} s, at most 1)"]
    wrong += [f"{name} ({value!r})" for name, value in counts.items() if not (is_count(value) and value > 0)]
    wrong += [] if is_count(min_free_disk) and min_free_disk >= 0 else [f"min_free_disk ({min_free_disk!r} bytes)"]
    if wrong:
        message = f"an inbox needs positive numbers for {', '.join(wrong)}"
        raise ConfigurationError(message)


def new_owner() -> str:
    """Return a name for this process that no other inbox has."""
    return f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
