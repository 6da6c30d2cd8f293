"""What a receiver tells as it goes: of each request a `Receipt`, of each run of a handler a `HandlerRun`.

Both log. Where the application uses OpenTelemetry, they make spans and feed metrics as well. They are on the path of
every delivery, where a call costs more than what it does: there is one for each thing that is told.
"""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import structlog

from roovet_webhooks.errors import DropDelivery, RetryLater
from roovet_webhooks.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType

    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.telemetry.spans import Process


class Receipt:
    """One request, from its headers to its answer. This one writes the log, and nothing more.

    Attributes:
        traces: Whether there is more to tell than the log says.
    """

    __slots__ = ()

    traces: ClassVar[bool] = False

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End, whatever became of it."""

    def ended(
        self,
        event: str,
        about: Mapping[str, object],
        *,
        duration: float | None = None,
        error: WebhookError | None = None,
        skew: float | None = None,  # noqa: ARG002 - for the metrics of a receipt that traces
    ) -> None:
        """Tell what became of a verified delivery.

        Args:
            event: The log event.
            about: The fields of `ABOUT`.
            duration: Seconds from its record to the answer.
            error: Why it was not done.
            skew: Signed time less our clock, seconds, of a delivery that came for the first time: a copy can be
                sent by anyone, at any later time, and says nothing of the clocks.
        """
        fields: dict[str, object] = {} if duration is None else {"duration": round(duration, 6)}
        if error is not None:
            fields.update(code=error.code, reason=str(error))
        log.log_event(event, **fields, **about)

    def opened(self, about: Mapping[str, object], skew: float) -> None:
        """Take note that a verified delivery is in the hand of the application's own view; as `ended`."""

    def refused(self, error: WebhookError) -> None:
        """Take note that the request was refused, or could not be taken."""


UNTRACED = Receipt()


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
        about: The fields of `ABOUT`.
    """

    __slots__ = ("_bound", "_duration", "_process", "_started", "about", "handler")

    def __init__(self, handler: str, about: Mapping[str, object]) -> None:
        self.handler: str = handler
        self.about: Mapping[str, object] = about

    @property
    def duration(self) -> float:
        """Seconds that it took, once it is over."""
        return round(self._duration, 6)

    @property
    def told(self) -> Mapping[str, object]:
        """What a log event about it says, once it is over: its handler, its duration, and what it was about."""
        return {"handler": self.handler, "duration": self.duration, **self.about}

    def __enter__(self) -> None:
        """Begin."""
        self._bound: list[Token[Any]] = [RUNNING.set(self)]
        if structlog.is_configured():
            for name, variable in log.CONTEXT:
                self._bound.append(variable.set(self.about.get(name, self.handler)))
        otel = _otel() if "opentelemetry" in sys.modules else None
        self._process: Process | None = None if otel is None else otel.Process(self.handler, self.about)
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
