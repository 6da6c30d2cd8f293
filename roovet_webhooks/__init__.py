"""Verify, type, record and dispatch the webhooks of Roovet.

Names load on first use, so that ``verify`` alone brings in neither a web framework nor a logger.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roovet_webhooks.delivery import Delivery as Delivery
    from roovet_webhooks.errors import (
        BodyAlreadyRead as BodyAlreadyRead,
    )
    from roovet_webhooks.errors import (
        BodyTimeout as BodyTimeout,
    )
    from roovet_webhooks.errors import (
        CommittedByHandler as CommittedByHandler,
    )
    from roovet_webhooks.errors import (
        ConfigurationError as ConfigurationError,
    )
    from roovet_webhooks.errors import (
        DeliveryInFlight as DeliveryInFlight,
    )
    from roovet_webhooks.errors import (
        DeliveryNotFound as DeliveryNotFound,
    )
    from roovet_webhooks.errors import (
        DropDelivery as DropDelivery,
    )
    from roovet_webhooks.errors import (
        DuplicateHeader as DuplicateHeader,
    )
    from roovet_webhooks.errors import (
        EventTypeConflictError as EventTypeConflictError,
    )
    from roovet_webhooks.errors import (
        EventValidationError as EventValidationError,
    )
    from roovet_webhooks.errors import (
        FutureTimestamp as FutureTimestamp,
    )
    from roovet_webhooks.errors import (
        HandlerFailed as HandlerFailed,
    )
    from roovet_webhooks.errors import (
        HandlerMissing as HandlerMissing,
    )
    from roovet_webhooks.errors import (
        InboxError as InboxError,
    )
    from roovet_webhooks.errors import (
        InboxFull as InboxFull,
    )
    from roovet_webhooks.errors import (
        InboxUnavailable as InboxUnavailable,
    )
    from roovet_webhooks.errors import (
        IncompleteBody as IncompleteBody,
    )
    from roovet_webhooks.errors import (
        InvalidEnvelope as InvalidEnvelope,
    )
    from roovet_webhooks.errors import (
        InvalidSecretError as InvalidSecretError,
    )
    from roovet_webhooks.errors import (
        InvalidTransition as InvalidTransition,
    )
    from roovet_webhooks.errors import (
        LateRegistrationError as LateRegistrationError,
    )
    from roovet_webhooks.errors import (
        LeaseLost as LeaseLost,
    )
    from roovet_webhooks.errors import (
        LengthRequired as LengthRequired,
    )
    from roovet_webhooks.errors import (
        MalformedPayload as MalformedPayload,
    )
    from roovet_webhooks.errors import (
        MalformedSignature as MalformedSignature,
    )
    from roovet_webhooks.errors import (
        MethodNotAllowed as MethodNotAllowed,
    )
    from roovet_webhooks.errors import (
        MissingExtraError as MissingExtraError,
    )
    from roovet_webhooks.errors import (
        MissingSignature as MissingSignature,
    )
    from roovet_webhooks.errors import (
        PayloadError as PayloadError,
    )
    from roovet_webhooks.errors import (
        PayloadTooLarge as PayloadTooLarge,
    )
    from roovet_webhooks.errors import (
        RequestError as RequestError,
    )
    from roovet_webhooks.errors import (
        RetryLater as RetryLater,
    )
    from roovet_webhooks.errors import (
        SignatureMismatch as SignatureMismatch,
    )
    from roovet_webhooks.errors import (
        StaleTimestamp as StaleTimestamp,
    )
    from roovet_webhooks.errors import (
        TenantLookupFailed as TenantLookupFailed,
    )
    from roovet_webhooks.errors import (
        TimestampError as TimestampError,
    )
    from roovet_webhooks.errors import (
        TimestampHeaderMismatch as TimestampHeaderMismatch,
    )
    from roovet_webhooks.errors import (
        UnknownTenant as UnknownTenant,
    )
    from roovet_webhooks.errors import (
        UnsupportedMediaType as UnsupportedMediaType,
    )
    from roovet_webhooks.errors import (
        VerificationError as VerificationError,
    )
    from roovet_webhooks.errors import (
        WebhookError as WebhookError,
    )
    from roovet_webhooks.events import Event as Event
    from roovet_webhooks.events import OrderCreated as OrderCreated
    from roovet_webhooks.inbox.memory import MemoryInbox as MemoryInbox
    from roovet_webhooks.keys import Keyring as Keyring
    from roovet_webhooks.keys import Secret as Secret
    from roovet_webhooks.keys import Tenant as Tenant
    from roovet_webhooks.messages import WebhookRequest as WebhookRequest
    from roovet_webhooks.messages import WebhookResponse as WebhookResponse
    from roovet_webhooks.messages import error_response as error_response
    from roovet_webhooks.receiver import WebhookReceiver as WebhookReceiver
    from roovet_webhooks.retry import RetryPolicy as RetryPolicy
    from roovet_webhooks.routing import Router as Router
    from roovet_webhooks.signing import Signer as Signer
    from roovet_webhooks.signing import Verified as Verified
    from roovet_webhooks.signing import Verifier as Verifier
    from roovet_webhooks.signing import construct_event as construct_event
    from roovet_webhooks.signing import sign as sign
    from roovet_webhooks.signing import verify as verify

__version__ = "0.1.0"

# Where a name of the face lives; every other one is an error of the tree.
_HOMES = {
    "Delivery": "delivery",
    "Event": "events",
    "Keyring": "keys",
    "MemoryInbox": "inbox.memory",
    "OrderCreated": "events",
    "RetryPolicy": "retry",
    "Router": "routing",
    "Secret": "keys",
    "Signer": "signing",
    "Tenant": "keys",
    "Verified": "signing",
    "Verifier": "signing",
    "WebhookReceiver": "receiver",
    "WebhookRequest": "messages",
    "WebhookResponse": "messages",
    "construct_event": "signing",
    "error_response": "messages",
    "sign": "signing",
    "verify": "signing",
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
