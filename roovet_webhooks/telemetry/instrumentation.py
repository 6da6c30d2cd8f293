"""Instruments what a receiver does: a `Receipt` for each request, a `HandlerRun` for each run of a handler.

Both log. If the application uses OpenTelemetry, they make spans and feed metrics too. They are on the path of every
delivery, where a call costs more than what it does, so each reports with one call.
"""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import structlog

from roovet_webhooks.errors import DropDelivery, RetryLater
from roovet_webhooks.telemetry import log
from roovet_webhooks.telemetry.receipt import UNTRACED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType

    from roovet_webhooks.telemetry.receipt import Receipt
    from roovet_webhooks.telemetry.spans import Process


def open_receipt(endpoint: str) -> Receipt:
    """Return the receipt of a request.

    Args:
        endpoint: Name of the receiver.
    """
    otel = _otel() if "opentelemetry" in sys.modules else None
    return UNTRACED if otel is None else cast("Receipt", otel.TracedReceipt(endpoint))


class HandlerRun:
    """One run of one handler: the application's log lines say what it is about, and its time is taken.

    Attributes:
        handler: Name of the handler.
        context: The fields of `DELIVERY_FIELDS`.
    """

    __slots__ = ("_bound", "_duration", "_process", "_started", "context", "handler")

    def __init__(self, handler: str, context: Mapping[str, object]) -> None:
        self.handler: str = handler
        self.context: Mapping[str, object] = context

    @property
    def duration(self) -> float:
        """Seconds that it took, once it is over."""
        return round(self._duration, 6)

    @property
    def fields(self) -> Mapping[str, object]:
        """What a log event about it says, once it is over: its handler, its duration, and what it was about."""
        return {"handler": self.handler, "duration": self.duration, **self.context}

    def __enter__(self) -> None:
        """Begin."""
        self._bound: list[Token[Any]] = [RUNNING.set(self)]
        if structlog.is_configured():
            for name, variable in log.CONTEXT:
                self._bound.append(variable.set(self.context.get(name, self.handler)))
        otel = _otel() if "opentelemetry" in sys.modules else None
        self._process: Process | None = None if otel is None else otel.Process(self.handler, self.context)
        self._started = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; what the handler raised goes on its way."""
        self._duration = perf_counter() - self._started
        if self._process is not None:
            self._process.end(_outcome(error), error, self._duration)
        try:
            for token in self._bound:
                token.var.reset(token)
        except ValueError:
            # A coroutine that is thrown away may end in another context than it began in: nobody logs from there.
            pass


RUNNING: ContextVar[HandlerRun | None] = ContextVar("roovet_webhooks_handler_run", default=None)
"""The run of which the current code is a part."""


def _outcome(error: BaseException | None) -> str:
    """Say what became of a run, in the words of the log events about handlers."""
    if error is None:
        return "handled"
    if isinstance(error, DropDelivery):
        return "dropped"
    if isinstance(error, RetryLater):
        return "retry_later"
    return "failed" if isinstance(error, Exception) else "interrupted"


@functools.cache
def _otel() -> Any:  # noqa: ANN401 - a module that type checkers know and the application may not have
    """Return our module for OpenTelemetry, or ``None``.

    Asked for once the application has imported OpenTelemetry itself: until then nothing is set up that could
    receive a span, so there is nothing to tell and nothing to pay for.
    """
    try:
        from roovet_webhooks.telemetry import spans as otel  # noqa: PLC0415 - only where the application has it
    except ImportError:
        # Some other part of OpenTelemetry is installed, without its API.
        return None
    except Exception as error:  # noqa: BLE001 - an API older than the extra asks for must not stop a delivery
        log.log_event("otel.failed", error)
        return None
    return otel
