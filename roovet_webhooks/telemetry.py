"""What the package tells of itself: one structured log event for each thing that happens.

An application that has configured structlog gets the events through it. Any other gets them on the standard
logger ``roovet_webhooks``, the fields as ``key=value`` in the message and as a mapping in ``record.roovet``.
No event ever holds a secret, a signature, a body or a header.

Names: ``delivery.handled``, ``.ignored``, ``.dropped``, ``.duplicate``, ``.in_flight``, ``.retry_later``,
``.failed``, ``.rejected``; ``handler.failed``, ``.dropped``, ``.retry_later``; ``hook.failed``;
``receiver.not_ready``, ``.error``; ``log.failed``, where the application's own logging raised.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

LOGGER_NAME = "roovet_webhooks"


def _as_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    name = event.pop("event")
    error = event.pop("exc_info", None)
    message = " ".join([name, *(f"{key}={value!r}" for key, value in event.items())])
    # %-formatting happens only with arguments, and there are none: a % in a value stays what it is.
    return (message,), {"extra": {"roovet": dict(event)}, "exc_info": error}


_standard: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger(LOGGER_NAME),
    processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _as_record],
    wrapper_class=structlog.stdlib.BoundLogger,
    context_class=dict,
    cache_logger_on_first_use=True,
)
_configured: structlog.stdlib.BoundLogger = structlog.get_logger(LOGGER_NAME)


def _log() -> structlog.stdlib.BoundLogger:
    # Asked each time: an application may configure structlog after it has imported us.
    return _configured if structlog.is_configured() else _standard


def _tell(level: str, event: str, fields: dict[str, object]) -> None:
    try:
        getattr(_log(), level)(event, **fields)
    except Exception:
        # A full disk or a processor that raises must not change what becomes of a delivery. The standard
        # library's handlers never raise.
        logging.getLogger(LOGGER_NAME).exception("log.failed event=%r", event)


def info(event: str, /, **fields: object) -> None:
    """Tell what went as it should. Like the others, it never raises."""
    _tell("info", event, fields)


def warning(event: str, /, **fields: object) -> None:
    """Tell what was refused, or will have to be done again."""
    _tell("warning", event, fields)


def error(event: str, /, cause: BaseException | None = None, **fields: object) -> None:
    """Tell what the application has to mend; ``cause`` adds its traceback."""
    _tell("error", event, fields if cause is None else {**fields, "exc_info": cause})
