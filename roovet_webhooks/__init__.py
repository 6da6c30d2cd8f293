"""Verify, type, record and dispatch the webhooks of Roovet.

Names load on first use, so that ``verify`` alone brings in neither a web framework nor a logger.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from roovet_webhooks._version import __version__ as __version__

if TYPE_CHECKING:
    from roovet_webhooks.delivery import Delivery as Delivery
    from roovet_webhooks.errors import (
        BodyAlreadyRead as BodyAlreadyRead,
        BodyTimeout as BodyTimeout,
        CommittedByHandler as CommittedByHandler,
        ConfigurationError as ConfigurationError,
        DeliveryInFlight as DeliveryInFlight,
        DeliveryNotFound as DeliveryNotFound,
        DropDelivery as DropDelivery,
        DuplicateHeader as DuplicateHeader,
        EventTypeConflictError as EventTypeConflictError,
        EventValidationError as EventValidationError,
        FutureTimestamp as FutureTimestamp,
        HandlerFailed as HandlerFailed,
        HandlerMissing as HandlerMissing,
        InboxError as InboxError,
        InboxFull as InboxFull,
        InboxUnavailable as InboxUnavailable,
        IncompleteBody as IncompleteBody,
        InvalidEnvelope as InvalidEnvelope,
        InvalidSecretError as InvalidSecretError,
        InvalidTransition as InvalidTransition,
        LateRegistrationError as LateRegistrationError,
        LeaseLost as LeaseLost,
        LengthRequired as LengthRequired,
        MalformedPayload as MalformedPayload,
        MalformedSignature as MalformedSignature,
        MethodNotAllowed as MethodNotAllowed,
        MissingExtraError as MissingExtraError,
        MissingSignature as MissingSignature,
        PayloadError as PayloadError,
        PayloadTooLarge as PayloadTooLarge,
        RequestError as RequestError,
        RetryLater as RetryLater,
        SignatureMismatch as SignatureMismatch,
        StaleTimestamp as StaleTimestamp,
        TenantLookupFailed as TenantLookupFailed,
        TimestampError as TimestampError,
        TimestampHeaderMismatch as TimestampHeaderMismatch,
        UnknownTenant as UnknownTenant,
        UnsupportedMediaType as UnsupportedMediaType,
        VerificationError as VerificationError,
        WebhookError as WebhookError,
    )
    from roovet_webhooks.events import Event as Event, OrderCreated as OrderCreated
    from roovet_webhooks.inbox.memory import MemoryInbox as MemoryInbox
    from roovet_webhooks.messages import (
        WebhookRequest as WebhookRequest,
        WebhookResponse as WebhookResponse,
        error_response as error_response,
    )
    from roovet_webhooks.receiving.receiver import WebhookReceiver as WebhookReceiver
    from roovet_webhooks.retry import RetryPolicy as RetryPolicy
    from roovet_webhooks.routing import Router as Router
    from roovet_webhooks.signing.keys import Keyring as Keyring, Secret as Secret, Tenant as Tenant
    from roovet_webhooks.signing.verifier import (
        Signer as Signer,
        Verified as Verified,
        Verifier as Verifier,
        construct_event as construct_event,
        sign as sign,
        verify as verify,
    )

# Where a name of the face lives; every other one is an error of the tree.
_HOMES = {
    "Delivery": "delivery",
    "Event": "events",
    "Keyring": "signing.keys",
    "MemoryInbox": "inbox.memory",
    "OrderCreated": "events",
    "RetryPolicy": "retry",
    "Router": "routing",
    "Secret": "signing.keys",
    "Signer": "signing.verifier",
    "Tenant": "signing.keys",
    "Verified": "signing.verifier",
    "Verifier": "signing.verifier",
    "WebhookReceiver": "receiving.receiver",
    "WebhookRequest": "messages",
    "WebhookResponse": "messages",
    "construct_event": "signing.verifier",
    "error_response": "messages",
    "sign": "signing.verifier",
    "verify": "signing.verifier",
}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return _face()
    if name.startswith("_"):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    try:
        value: object = vars(module)[name]
    except KeyError:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_face()})


def _face() -> list[str]:
    errors = vars(import_module(f"{__name__}.errors"))
    return [*_HOMES, *(name for name, value in errors.items() if isinstance(value, type))]
