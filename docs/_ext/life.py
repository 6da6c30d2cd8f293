"""The life of a delivery as a table: what is asked of it, in which order, and what each answer but yes is.

`WebhookReceiver` takes these steps in code; the pictures and tables of the documentation are drawn from here. A test
holds the two together: it produces every ending of every step, and a request that is wrong in two ways, for any two
of the steps, ends at the earlier one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from roovet_webhooks.errors import (
    BodyAlreadyRead,
    BodyTimeout,
    ConfigurationError,
    DeliveryInFlight,
    DuplicateHeader,
    FutureTimestamp,
    HandlerFailed,
    InboxFull,
    InboxUnavailable,
    IncompleteBody,
    InvalidEnvelope,
    LeaseLost,
    LengthRequired,
    MalformedPayload,
    MalformedSignature,
    MethodNotAllowed,
    MissingSignature,
    PayloadTooLarge,
    RetryLater,
    SignatureMismatch,
    StaleTimestamp,
    TenantLookupFailed,
    TimestampHeaderMismatch,
    UnknownTenant,
    UnsupportedMediaType,
    WebhookError,
)
from roovet_webhooks.messages import DROPPED, DUPLICATE, HANDLED, IGNORED, STORED, WebhookResponse


class Phase(StrEnum):
    """How much of a request is trusted."""

    HEAD = "nothing of the body is read"
    BODY = "the body is counted and fed to the MAC, not looked into"
    DELIVERY = "Roovet signed it"


class Step(NamedTuple):
    """One question of the life of a delivery.

    Attributes:
        holds: What has to hold for the delivery to go on.
        phase: How much of the request is trusted when it is asked.
        refusals: The errors that end the delivery here; a class stands for those below it as well.
        endings: The answers that end it here and are no refusal.
    """

    holds: str
    phase: Phase
    refusals: tuple[type[WebhookError], ...] = ()
    endings: tuple[WebhookResponse, ...] = ()


LIFE: tuple[Step, ...] = (
    Step("the receiver has a handler", Phase.HEAD, (ConfigurationError,)),
    Step("the method is POST", Phase.HEAD, (MethodNotAllowed,)),
    Step("the body is declared as plain JSON in UTF-8", Phase.HEAD, (UnsupportedMediaType,)),
    Step("a declared length is valid", Phase.HEAD, (LengthRequired,)),
    Step("a declared length is within the cap", Phase.HEAD, (PayloadTooLarge,)),
    Step(
        "there is one signature, of the right form", Phase.HEAD, (MissingSignature, DuplicateHeader, MalformedSignature)
    ),
    Step(
        "its time is within the tolerance, and nothing contradicts it",
        Phase.HEAD,
        (StaleTimestamp, FutureTimestamp, TimestampHeaderMismatch),
    ),
    Step(
        "there is a secret, and the tenant is known",
        Phase.HEAD,
        (ConfigurationError, UnknownTenant, TenantLookupFailed),
    ),
    Step(
        "the body comes whole, in time and within the cap",
        Phase.BODY,
        (PayloadTooLarge, BodyTimeout, IncompleteBody, BodyAlreadyRead),
    ),
    Step("a digest agrees under an active secret", Phase.BODY, (SignatureMismatch,)),
    Step("the body is an event", Phase.DELIVERY, (MalformedPayload, InvalidEnvelope)),
    Step("dedupe, if there is one, gives it a key", Phase.DELIVERY, (ConfigurationError,)),
    Step("the inbox takes it", Phase.DELIVERY, (InboxUnavailable, InboxFull)),
    Step("it is not being handled right now", Phase.DELIVERY, (DeliveryInFlight,)),
    Step("it was not done before", Phase.DELIVERY, (), (DUPLICATE,)),
    Step("its handlers are to run before the answer", Phase.DELIVERY, (), (STORED,)),
    Step(
        "its handlers succeed",
        Phase.DELIVERY,
        (HandlerFailed, RetryLater, LeaseLost),
        (HANDLED, IGNORED, DROPPED),
    ),
)
"""The steps, cheapest first: nothing of a body is parsed, recorded or logged before its signature has been checked."""
