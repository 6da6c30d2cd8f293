"""`recording`: what a receiver of yours did during a test, and assertions on it whose failures say what happened."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.events import Event, declared_name

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.receiving.receiver import WebhookReceiver

OPENED = "opened"
_HANDLED = frozenset({"handled", OPENED})
# Answers to deliveries of which no code of the application has heard.
_UNTOUCHED = frozenset({"ignored", "duplicate", "in_flight"})


class Recorded(NamedTuple):
    """A delivery that was verified, and what became of it.

    Attributes:
        delivery: The delivery.
        outcome: The word of the answer: ``handled``, ``ignored``, ``dropped``, ``duplicate``, ``handler_failed``,
            ``unavailable`` (`RetryLater`), ``in_flight``; or ``opened``, when a guard passed it on to a view.
        status: HTTP status of the answer; 0 where the view answers.
    """

    delivery: Delivery
    outcome: str
    status: int

    def __str__(self) -> str:
        """Show what it is about, and what became of it."""
        status = f" ({self.status})" if self.status else ""
        hint = "; its traceback is in the log, as handler.failed" if self.outcome == "handler_failed" else ""
        return f"{self.delivery.event.event} {self.delivery.event.id}: {self.outcome}{status}{hint}"


class Rejection(NamedTuple):
    """A request that was refused.

    Attributes:
        code: The precise reason, such as ``signature_mismatch``.
        status: HTTP status of the answer.
        path: Path of the request.
        reason: The reason in words.
    """

    code: str
    status: int
    path: str
    reason: str

    def __str__(self) -> str:
        """Show why it was refused."""
        return f"{self.code} ({self.status}) at {self.path}: {self.reason}"


class Record:
    """What receivers have done, in the order in which they did it; `recording` makes one.

    Attributes:
        deliveries: All deliveries that were verified, with what became of each.
        rejected: All requests that were refused, with the reason.
    """

    def __init__(self) -> None:
        self.deliveries: list[Recorded] = []
        self.rejected: list[Rejection] = []

    @property
    def handled(self) -> list[Delivery]:
        """The deliveries that were handled, or that a guard passed on to its view."""
        return [recorded.delivery for recorded in self.deliveries if recorded.outcome in _HANDLED]

    def clear(self) -> None:
        """Forget all of it, so that what is asserted next is about what comes next."""
        self.deliveries.clear()
        self.rejected.clear()

    # Assertions

    def assert_handled(self, event: str | type[Event], /, *, times: int | None = None, **fields: object) -> Delivery:
        """Assert that an event was handled, and return its delivery, the first where there are several.

        Args:
            event: The name of the event, or the `Event` class that declares it.
            times: How often, 1 or more; at least once when ``None``.
            **fields: What its payload must hold, as JSON has it.

        Raises:
            AssertionError: It was not; the message says what was handled and rejected instead.
            ValueError: The class declares no event, or ``times`` is not positive.
        """
        __tracebackhide__ = True
        if times is not None and times < 1:
            message = f"times must be 1 or more, not {times}; for none at all there is assert_nothing_handled"
            raise ValueError(message)
        name = _name_of(event)
        found = [d for d in self.handled if d.event.event == name and not _differing(d, fields)]
        if not found or times not in {None, len(found)}:
            subject = "".join(f" {field}={value!r}" for field, value in fields.items())
            fault = f"was handled {len(found)} times, not {times}" if found else "was never handled"
            raise AssertionError(self._failure(f"{name}{subject} {fault}", name, fields))
        return found[0]

    def assert_nothing_handled(self) -> None:
        """Assert that no delivery has reached a handler or a view, not even one that failed.

        Raises:
            AssertionError: One has; the message says which.
        """
        __tracebackhide__ = True
        if any(recorded.outcome not in _UNTOUCHED for recorded in self.deliveries):
            raise AssertionError(self._failure("nothing should have been handled, and something was"))

    def assert_rejected(self, code: str | type[WebhookError] | None = None) -> Rejection:
        """Assert that a request was refused, and return the last refusal of this kind.

        Args:
            code: Why, as a code or as the error class that has it; ``None`` for any reason.

        Raises:
            AssertionError: None was; the message says what was handled and rejected instead.
        """
        __tracebackhide__ = True
        wanted = code if code is None or isinstance(code, str) else code.code
        found = [rejection for rejection in self.rejected if wanted in {None, rejection.code}]
        if not found:
            raise AssertionError(self._failure(f"no request was rejected{f' as {wanted}' if wanted else ''}"))
        return found[-1]

    def _failure(self, fault: str, name: str = "", wanted: dict[str, object] | None = None) -> str:
        accepted = [f"{recorded}{_near_miss(recorded, name, wanted)}" for recorded in self.deliveries]
        lines = [fault, *_listed("accepted", accepted), *_listed("rejected", list(map(str, self.rejected)))]
        if not (self.deliveries or self.rejected):
            lines.append(
                "Nothing has reached a receiver: is yours in use (roovet.use), and is it the one that is mounted where "
                "the client posts to?"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Show what happened."""
        return f"Record(deliveries={[str(r) for r in self.deliveries]}, rejected={[r.code for r in self.rejected]})"

    # What a receiver tells: the methods of `roovet_webhooks.receiving.attempt.Observer`

    def on_answered(self, delivery: Delivery, response: WebhookResponse) -> None:
        """Record a delivery that went to the handlers."""
        content = json.loads(response.body)
        outcome: str = content["status"] if "status" in content else content["error"]["type"]
        self.deliveries.append(Recorded(delivery, outcome, response.status))

    def on_opened(self, delivery: Delivery) -> None:
        """Record a delivery that a guard passes on."""
        self.deliveries.append(Recorded(delivery, OPENED, 0))

    def on_rejected(self, error: WebhookError, request: WebhookRequest) -> None:
        """Record a refusal."""
        self.rejected.append(Rejection(error.code, error.status, request.path, str(error)))


def _name_of(event: str | type[Event]) -> str:
    name = event if isinstance(event, str) else declared_name(event)
    if name is None:
        message = f"{event!r} does not say which event it is; give the name of the event"
        raise ValueError(message)
    return name


def _differing(delivery: Delivery, wanted: dict[str, object]) -> list[str]:
    payload = json.loads(delivery.raw)
    return [field for field, value in wanted.items() if field not in payload or value != payload[field]]


def _near_miss(recorded: Recorded, name: str, wanted: dict[str, object] | None) -> str:
    """Say which fields kept a delivery from being the wanted one; their values stay out of logs."""
    if wanted is None or recorded.delivery.event.event != name:
        return ""
    differing = _differing(recorded.delivery, wanted)
    return f", but it differs in {', '.join(differing)}" if differing else ""


def _listed(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title}: {len(entries) or 'nothing'}", *(f"    {entry}" for entry in entries)]


@contextmanager
def recording(*receivers: WebhookReceiver) -> Generator[Record]:
    """Record what receivers do, until the end of the block; their secret, clock and inbox stay as they are.

    They may have dispatched before, and several may write one record.

    Args:
        *receivers: The receivers.

    Example:
        >>> from roovet_webhooks import WebhookReceiver
        >>> from roovet_webhooks.testing import NOW, SECRET, signed_request
        >>> receiver = WebhookReceiver(SECRET, clock=lambda: NOW)
        >>> @receiver.on("order.created")
        ... def fulfil(event): ...
        >>> with recording(receiver) as record:
        ...     response = signed_request("order.created", id="ord_1").post(receiver)
        >>> record.assert_handled("order.created", id="ord_1").event.id
        'ord_1'
    """
    record = Record()
    with ExitStack() as stack:
        for receiver in receivers:
            stack.enter_context(receiver.override(observer=record))
        yield record
