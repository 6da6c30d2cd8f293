"""`ApiKey`: the key of a client, which never shows."""

from __future__ import annotations

import os
import re

from roovet_webhooks.api.errors import InvalidApiKey
from roovet_webhooks.signing.secrecy import Unpicklable, forgets_secret

API_KEY_VARIABLE = "ROOVET_API_KEY"
WEBHOOK_SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins, not one

_WHERE = "copy the whole key (rvpk_…) from the API settings at Roovet"
_KEY = re.compile(r"[\x21-\x7e]+")  # what a header can carry


class ApiKey(Unpicklable):
    """One API key. It stays out of a ``repr``, a log, an error and a pickle.

    Args:
        value: The key as Roovet shows it; ``None`` for that in ``ROOVET_API_KEY``.

    Raises:
        InvalidApiKey: There is none, it cannot be one, or it is a webhook secret (``whsec_…``).
    """

    __slots__ = ("_value",)

    _holds = "an API key"

    @forgets_secret
    def __init__(self, value: str | None = None) -> None:
        self._value: str = os.environ.get(API_KEY_VARIABLE, "") if value is None else value
        fault = _fault(self._value)
        if fault is not None:
            message = f"the API key {fault}"
            raise InvalidApiKey(message)

    @property
    def authorization(self) -> str:
        """The value of the ``Authorization`` header."""
        return f"Bearer {self._value}"

    def redact(self, text: str) -> str:
        """Return a text of the server without this key in it."""
        return text.replace(self._value, "[API key]")

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "ApiKey(…)"


def _fault(value: object) -> str | None:
    """Return what is wrong with a key, in words that do not contain it; ``None`` when nothing is."""
    if not isinstance(value, str):
        return f"must be a str, not {type(value).__name__}; {_WHERE}"
    faults = (
        (not value.strip(), f"is empty; set {API_KEY_VARIABLE} or pass it; {_WHERE}"),
        (
            value.strip("\"' ").startswith(WEBHOOK_SECRET_PREFIX),
            f"is a webhook secret ({WEBHOOK_SECRET_PREFIX}…), which verifies deliveries; keep it out of here; {_WHERE}",
        ),
        (value != value.strip(), "begins or ends with white space; remove it"),
        (
            value[:1] in {'"', "'"},
            "is wrapped in quotation marks; remove them",
        ),
        (not _KEY.fullmatch(value), f"has characters that no key has; {_WHERE}"),
    )
    return next((words for wrong, words in faults if wrong), None)
