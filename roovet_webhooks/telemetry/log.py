"""The log: one structured event for each thing that happens, by its name in `tables`.

An application that has configured structlog gets the events through it. Any other gets them on the standard
logger ``roovet_webhooks``, the fields as ``key=value`` in the message and as a mapping in ``record.roovet``.
Where the application's own logging raises, that logger gets a record that begins with ``log.failed``.
"""

from __future__ import annotations

import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import structlog

from roovet_webhooks.telemetry.catalog import BOUND, EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from contextvars import ContextVar

    from roovet_webhooks.telemetry.catalog import Level

LOGGER_NAME = "roovet_webhooks"
LEVELS: Mapping[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def _as_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    name = event.pop("event")
    error = event.pop("exc_info", None)
    # A line is read by a person: the delivery's id says the same as its key, in half as many characters.
    left_out: set[str] = {"key"} if "delivery" in event else set()
    message = " ".join([name, *(f"{key}={value!r}" for key, value in event.items() if key not in left_out)])
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
_enabled = logging.getLogger(LOGGER_NAME).isEnabledFor


def log_event(event: str, cause: BaseException | None = None, /, **fields: object) -> None:
    """Log an event. Never raises.

    Args:
        event: Its name in `EVENTS`, which has the level too.
        cause: What was raised, for the traceback.
        fields: Its fields, as `EVENTS` has them.
    """
    try:
        level = EVENTS[event].level
        # Asked each time: an application may configure structlog after it has imported us.
        if structlog.is_configured():
            logger = _configured.bind()
        elif _enabled(LEVELS[level]):
            logger = _standard
        else:
            # Most applications do not listen to what went well: leaving here is a quarter of a delivery's cost.
            return
        if cause is not None:
            fields["exc_info"] = cause
        getattr(logger, level)(event, **fields)
    except Exception:
        # A full disk or a processor that raises must not change what becomes of a delivery. The standard
        # library's handlers never raise.
        logging.getLogger(LOGGER_NAME).exception("log.failed event=%r", event)


def is_enabled(event: str) -> bool:
    """Say whether anybody listens to events of this one's level, where it can be known: what is told may cost more."""
    level = LEVELS[EVENTS[event].level]
    if not structlog.is_configured():
        return _enabled(level)
    try:
        logger = _configured.bind()
        # Asked of the class: not every one knows, and some take whatever is called for the name of a level to log at.
        asked: Callable[[object, int], bool] | None = getattr(type(logger), "is_enabled_for", None)
        return asked is None or asked(logger, level)
    except Exception:  # noqa: BLE001 - `log_event` logs it
        return True


# The variables that structlog keeps for these names. It hands them out in the tokens of whoever binds them; setting
# them is all that binding does, and looking them up each time is half of its cost.
CONTEXT: Sequence[tuple[str, ContextVar[Any]]] = [
    (name, token.var)
    for name, token in copy_context().run(structlog.contextvars.bind_contextvars, **dict.fromkeys(BOUND)).items()
]
