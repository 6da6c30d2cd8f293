"""The `Receipt` of a request: what a receiver logs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from roovet_webhooks.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from roovet_webhooks.errors import WebhookError


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
        context: Mapping[str, object],
        *,
        duration: float | None = None,
        error: WebhookError | None = None,
        skew: float | None = None,  # noqa: ARG002 - for the metrics of a receipt that traces
    ) -> None:
        """Tell what became of a verified delivery.

        Args:
            event: The log event.
            context: The fields of `DELIVERY_FIELDS`.
            duration: Seconds from its record to the answer.
            error: Why it was not done.
            skew: Signed time less our clock, seconds, of a delivery that came for the first time: a copy can be
                sent by anyone, at any later time, and says nothing of the clocks.
        """
        fields: dict[str, object] = {} if duration is None else {"duration": round(duration, 6)}
        if error is not None:
            fields.update(code=error.code, reason=str(error))
        log.log_event(event, **fields, **context)

    def opened(self, context: Mapping[str, object], skew: float) -> None:
        """Take note that a verified delivery is in the hand of the application's own view; as `ended`."""

    def refused(self, error: WebhookError) -> None:
        """Take note that the request was refused, or could not be taken."""


UNTRACED = Receipt()
