"""Every error this package raises on purpose, in one tree.

::

    WebhookError
    ├── ConfigurationError ........ 503  the application is not set up
    │   ├── InvalidSecretError           a signing secret that cannot be one
    │   ├── EventTypeConflictError       two event classes claim one event name
    │   ├── LateRegistrationError        a handler registered after the first dispatch
    │   ├── CommittedByHandler           a handler has committed its delivery's transaction itself
    │   └── MissingExtraError            an optional dependency is absent (also an ImportError)
    ├── RequestError                     the request is refused before its MAC is checked
    │   ├── MethodNotAllowed ...... 405
    │   ├── UnsupportedMediaType .. 415
    │   ├── PayloadTooLarge ....... 413
    │   ├── BodyTimeout ........... 408
    │   ├── LengthRequired ........ 411
    │   ├── IncompleteBody ........ 400  the body ended before its declared length
    │   └── BodyAlreadyRead ....... 500  the application consumed the body first
    ├── VerificationError ......... 400  nobody proved that Roovet sent this
    │   ├── MissingSignature
    │   ├── MalformedSignature
    │   │   └── DuplicateHeader          a header of the signature stands more than once
    │   ├── SignatureMismatch
    │   ├── UnknownTenant
    │   └── TimestampError               carries the skew, in seconds
    │       ├── StaleTimestamp
    │       ├── FutureTimestamp
    │       └── TimestampHeaderMismatch
    ├── TenantLookupFailed ........ 503  the resolver of tenants raised
    ├── PayloadError .............. 400  signed, but not an event
    │   ├── MalformedPayload
    │   └── InvalidEnvelope              names the field in ``param``
    ├── EventValidationError ...... 500  the handler's own type refused a genuine event
    ├── HandlerFailed ............. 500  a handler raised
    ├── HandlerMissing ............ 503  this process has not all handlers of a recorded delivery
    ├── InboxError ................ 503
    │   ├── InboxUnavailable
    │   ├── InboxFull
    │   ├── DeliveryInFlight
    │   ├── LeaseLost
    │   ├── DeliveryNotFound
    │   └── InvalidTransition
    └── raised by handlers
        ├── RetryLater ............ 503  try this delivery again, it is nobody's fault
        └── DropDelivery                 this delivery needs no handling

Each class is a row of the policy table: ``status`` is what the sender is answered, ``type`` the word in
the error body, ``public_message`` the only sentence a stranger ever reads. The precise ``code``, the
message and the evidence attributes stay inside the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from roovet_webhooks.findings import Diagnosis


_NO_EVIDENCE = frozenset({"closes_connection", "diagnosis"})


class WebhookError(Exception):
    """The root of the tree.

    Attributes:
        code: Stable identifier of the reason, for logs, metrics and tests. Never sent to a stranger.
        status: HTTP status that answers a request ending in this error.
        type: Word of the vendor's error body, ``{"error": {"type": …}}``.
        public_message: Sentence of the vendor's error body; the same for every cause of one ``type``.
        retryable: Whether the same delivery, sent again, may succeed.
        param: Field of the payload that is at fault, or ``None``.
        retry_after: Seconds for a ``Retry-After`` header, or ``None`` for no such header.
        closes_connection: Whether the connection has to end with the answer, because servers may disagree on where
            the request ends.
        diagnosis: Why the signature was refused, as far as a receiver can tell: see `explain`. For hooks and logs
            only; ``None`` where there is nothing to explain.
    """

    code: ClassVar[str] = "webhook_error"
    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    public_message: ClassVar[str] = "The delivery could not be processed."
    retryable: ClassVar[bool] = False
    param: str | None = None
    retry_after: float | None = None
    closes_connection: bool = False
    diagnosis: Diagnosis | None = None

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Pickle by state: the evidence comes back without a second run of ``__init__``."""
        return _rebuild, (self.__class__, self.args, self.__dict__)

    @property
    def evidence(self) -> Mapping[str, object]:
        """What the error knows beyond its message: safe to log, holds no secret, signature or body."""
        return {name: value for name, value in self.__dict__.items() if name not in _NO_EVIDENCE}


def _rebuild(cls: type[WebhookError], args: tuple[object, ...], state: dict[str, object]) -> WebhookError:
    error = cls.__new__(cls, *args)
    vars(error).update(state)
    return error


class ConfigurationError(WebhookError):
    """The application is not set up to receive: no handler, no secret, a contradictory option."""

    code = "configuration_error"
    status = 503
    type = "not_ready"
    public_message = "The receiver is not ready."
    retryable = True
    retry_after: float | None = 60.0


class InvalidSecretError(ConfigurationError):
    """A signing secret is empty, blank, too short, an API key, or not text or bytes."""

    code = "invalid_secret"


class EventTypeConflictError(ConfigurationError):
    """Two event classes claim the same event name, or a class is registered under another name."""

    code = "event_type_conflict"


class LateRegistrationError(ConfigurationError):
    """A handler was registered after the first delivery had been dispatched."""

    code = "late_registration"


class CommittedByHandler(ConfigurationError):
    """A handler has committed its delivery's transaction itself, unrefused: it is not run again."""

    code = "committed_by_handler"


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    code = "missing_extra"

    def __init__(self, message: str, *, extra: str) -> None:
        super().__init__(message)
        self.extra = extra


class RequestError(WebhookError):
    """The request was refused for its form, before anything of its body was trusted."""

    code = "request_error"
    status = 400
    type = "invalid_request"
    public_message = "The request is not an acceptable webhook delivery."


class MethodNotAllowed(RequestError):
    """The method is not POST."""

    code = "method_not_allowed"
    status = 405
    type = "method_not_allowed"
    public_message = "Deliveries are sent with POST."

    def __init__(self, message: str, *, method: str) -> None:
        super().__init__(message)
        self.method = method


class UnsupportedMediaType(RequestError):
    """The body is not declared as plain, uncompressed UTF-8 JSON."""

    code = "unsupported_media_type"
    status = 415
    type = "unsupported_media_type"
    public_message = "Deliveries are sent as application/json, in UTF-8, without a content encoding."


class PayloadTooLarge(RequestError):
    """The body is larger than ``limit`` bytes, declared or counted."""

    code = "payload_too_large"
    status = 413
    type = "payload_too_large"
    public_message = "The body is too large."

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class BodyTimeout(RequestError):
    """The body did not arrive within ``timeout`` seconds."""

    code = "body_timeout"
    status = 408
    type = "timeout"
    public_message = "The body did not arrive in time."
    retryable = True

    def __init__(self, message: str, *, timeout: float) -> None:
        super().__init__(message)
        self.timeout = timeout


class LengthRequired(RequestError):
    """The server gives neither a usable Content-Length nor a stream with an end."""

    code = "length_required"
    status = 411
    type = "length_required"
    public_message = "A valid Content-Length is required."


class IncompleteBody(RequestError):
    """The body ended, or the connection closed, before the declared length had arrived."""

    code = "incomplete_body"
    public_message = "The body is incomplete."
    retryable = True

    def __init__(self, message: str, *, received: int, declared: int | None = None) -> None:
        super().__init__(message)
        self.received = received
        self.declared = declared


class BodyAlreadyRead(RequestError):
    """The application consumed the body before the receiver could, and kept no raw copy of it."""

    code = "body_already_read"
    status = 500
    type = "internal_error"
    public_message = "The delivery could not be read."
    retryable = True


class VerificationError(WebhookError):
    """Nobody proved that Roovet sent this delivery. The answer never says which proof was missing."""

    code = "verification_failed"
    status = 400
    type = "verification_failed"
    public_message = "The delivery could not be verified."


class MissingSignature(VerificationError):
    """There is no ``X-Roovet-Signature`` header, or it is empty."""

    code = "missing_signature"


class MalformedSignature(VerificationError):
    """The signature header does not follow the grammar; ``item`` is the 1-based place of the fault."""

    code = "malformed_signature"

    def __init__(self, message: str, *, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item


class DuplicateHeader(MalformedSignature):
    """``X-Roovet-Signature`` or ``X-Roovet-Timestamp`` stands more than once, so that it could be read in two ways."""

    code = "duplicate_header"


class SignatureMismatch(VerificationError):
    """No accepted secret produces any of the given digests over this body."""

    code = "signature_mismatch"

    def __init__(self, message: str, *, secrets_tried: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.secrets_tried: tuple[str, ...] = tuple(secrets_tried)


class UnknownTenant(VerificationError):
    """The resolver knows no tenant for this request."""

    code = "unknown_tenant"


class TimestampError(VerificationError):
    """The signed timestamp is not acceptable.

    Attributes:
        skew: Seconds by which the signed timestamp lies after our clock; negative when it is in the past.
        tolerance: Seconds that would have been accepted, in both directions.
    """

    code = "timestamp_error"

    def __init__(self, message: str, *, skew: float, tolerance: float) -> None:
        super().__init__(message)
        self.skew = skew
        self.tolerance = tolerance


class StaleTimestamp(TimestampError):
    """The delivery was signed too long ago: a late retry, a replay, or a clock that runs ahead."""

    code = "stale"


class FutureTimestamp(TimestampError):
    """The delivery was signed in the future: a clock that runs behind, or a forgery kept for later."""

    code = "future"


class TimestampHeaderMismatch(TimestampError):
    """``X-Roovet-Timestamp`` is present and differs from the signed ``t``."""

    code = "timestamp_header_mismatch"


class TenantLookupFailed(WebhookError):
    """The resolver of tenants raised; whether the delivery is genuine is unknown, so ask for it again."""

    code = "tenant_lookup_failed"
    status = 503
    type = "unavailable"
    public_message = "The receiver is temporarily unavailable."
    retryable = True
    retry_after: float | None = 10.0


class PayloadError(WebhookError):
    """The delivery is genuine, but its body is not an event."""

    code = "invalid_payload"
    status = 400
    type = "invalid_payload"
    public_message = "The body is not a valid event."


class MalformedPayload(PayloadError):
    """The body is not a UTF-8 JSON object."""

    code = "malformed_payload"


class InvalidEnvelope(PayloadError):
    """A field that every event has is missing or wrong; ``param`` names it."""

    code = "invalid_envelope"

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param: str | None = param


class EventValidationError(WebhookError):
    """A genuine event does not fit the type its handler asked for.

    That is the application's failure, never the sender's: the delivery is kept for a retry.

    Attributes:
        event: Name of the event.
        param: JSON path of the field at fault, such as ``$.amount_cents``, or ``None``.
    """

    code = "event_validation_error"
    retryable = True

    def __init__(self, message: str, *, event: str, param: str | None = None) -> None:
        super().__init__(message)
        self.event = event
        self.param = param


class HandlerFailed(WebhookError):
    """One or more handlers raised; ``handlers`` names them, and ``dead`` says whether no attempt is left."""

    code = "handler_failed"
    status = 500
    type = "handler_failed"
    retryable = True

    def __init__(self, message: str, *, handlers: Sequence[str], dead: bool = False) -> None:
        super().__init__(message)
        self.handlers: tuple[str, ...] = tuple(handlers)
        self.dead: bool = dead


class HandlerMissing(WebhookError):
    """A handler that was registered when the delivery was accepted is not registered in this process.

    ``handlers`` names those that are missing, and ``dead`` says whether the delivery waited too long for them.
    """

    code = "handler_missing"
    status = 503
    type = "unavailable"
    public_message = "The receiver is temporarily unavailable."
    retryable = True
    retry_after: float | None = 10.0

    def __init__(self, message: str, *, handlers: Sequence[str], after: float | None) -> None:
        super().__init__(message)
        self.handlers: tuple[str, ...] = tuple(handlers)
        self.retry_after = after
        self.dead: bool = after is None


class InboxError(WebhookError):
    """The record of deliveries could not do what was asked."""

    code = "inbox_error"
    status = 503
    type = "unavailable"
    public_message = "The receiver is temporarily unavailable."
    retryable = True
    retry_after: float | None = 10.0


class InboxUnavailable(InboxError):
    """The store is down, locked or out of disk."""

    code = "inbox_unavailable"


class InboxFull(InboxError):
    """The store holds as many open deliveries as it may."""

    code = "inbox_full"


class DeliveryInFlight(InboxError):
    """The same delivery is being handled right now."""

    code = "delivery_in_flight"
    type = "in_flight"
    public_message = "The same delivery is being handled."
    retry_after: float | None = 2.0


class LeaseLost(InboxError):
    """The claim is no longer ours: its fence has moved on. Nothing was changed."""

    code = "lease_lost"


class DeliveryNotFound(InboxError):
    """The inbox has no such delivery."""

    code = "delivery_not_found"


class InvalidTransition(InboxError):
    """The state machine has no such step from where the delivery is."""

    code = "invalid_transition"


class RetryLater(WebhookError):
    """Raised by a handler: this delivery cannot be handled yet; try again, it counts as no failure.

    Args:
        after: Seconds to wait; ``None`` leaves it to the receiver's retry policy.
        reason: For the log.

    Example:
        >>> raise RetryLater(after=30, reason="the order is still being imported")
        Traceback (most recent call last):
        ...
        roovet_webhooks.errors.RetryLater: the order is still being imported
    """

    code = "retry_later"
    status = 503
    type = "unavailable"
    public_message = "The receiver is temporarily unavailable."
    retryable = True

    def __init__(self, after: float | None = None, reason: str = "a handler asked for a later retry") -> None:
        if after is not None and not 0 <= after < float("inf"):
            message = f"RetryLater: after must be a number of seconds, 0 or more, not {after!r}"
            raise ValueError(message)
        super().__init__(reason)
        self.retry_after = after


class DropDelivery(WebhookError):
    """Raised by a handler: this delivery needs no handling, now or later. It ends as done.

    Args:
        reason: For the log and the record.
    """

    code = "dropped"
    status = 200
    type = "dropped"

    def __init__(self, reason: str = "a handler dropped the delivery") -> None:
        super().__init__(reason)
