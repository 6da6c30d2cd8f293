"""The tree of errors: a row of the policy table each, safe to pickle, and silent towards strangers."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from roovet_webhooks import errors
from roovet_webhooks.errors import (
    BodyAlreadyRead,
    BodyTimeout,
    CommittedByHandler,
    ConfigurationError,
    DeliveryInFlight,
    DropDelivery,
    DuplicateHeader,
    EventTypeConflictError,
    EventValidationError,
    FutureTimestamp,
    HandlerFailed,
    HandlerMissing,
    InboxError,
    InboxFull,
    InboxUnavailable,
    IncompleteBody,
    InvalidEnvelope,
    InvalidSecretError,
    InvalidTransition,
    LateRegistrationError,
    LengthRequired,
    MalformedPayload,
    MalformedSignature,
    MethodNotAllowed,
    MissingExtraError,
    MissingSignature,
    PayloadError,
    PayloadTooLarge,
    RequestError,
    RetryLater,
    SignatureMismatch,
    StaleTimestamp,
    TenantLookupFailed,
    TimestampHeaderMismatch,
    UnknownTenant,
    UnsupportedMediaType,
    VerificationError,
    WebhookError,
)
from roovet_webhooks.messages import error_response

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, WebhookError)]

# What a sender is answered, class by class, and whether sending again may help.
POLICY = {
    ConfigurationError: (503, "not_ready", True),
    InvalidSecretError: (503, "not_ready", True),
    CommittedByHandler: (503, "not_ready", True),
    EventTypeConflictError: (503, "not_ready", True),
    LateRegistrationError: (503, "not_ready", True),
    MissingExtraError: (503, "not_ready", True),
    MethodNotAllowed: (405, "method_not_allowed", False),
    UnsupportedMediaType: (415, "unsupported_media_type", False),
    PayloadTooLarge: (413, "payload_too_large", False),
    BodyTimeout: (408, "timeout", True),
    LengthRequired: (411, "length_required", False),
    IncompleteBody: (400, "invalid_request", True),
    BodyAlreadyRead: (500, "internal_error", True),
    VerificationError: (400, "verification_failed", False),
    MissingSignature: (400, "verification_failed", False),
    MalformedSignature: (400, "verification_failed", False),
    DuplicateHeader: (400, "verification_failed", False),
    SignatureMismatch: (400, "verification_failed", False),
    UnknownTenant: (400, "verification_failed", False),
    StaleTimestamp: (400, "verification_failed", False),
    FutureTimestamp: (400, "verification_failed", False),
    TimestampHeaderMismatch: (400, "verification_failed", False),
    TenantLookupFailed: (503, "unavailable", True),
    MalformedPayload: (400, "invalid_payload", False),
    InvalidEnvelope: (400, "invalid_payload", False),
    EventValidationError: (500, "internal_error", True),
    HandlerFailed: (500, "handler_failed", True),
    HandlerMissing: (503, "unavailable", True),
    InboxUnavailable: (503, "unavailable", True),
    InboxFull: (503, "unavailable", True),
    DeliveryInFlight: (503, "in_flight", True),
    RetryLater: (503, "unavailable", True),
}

SAMPLES: list[tuple[WebhookError, dict[str, object]]] = [
    (WebhookError("why"), {}),
    (InvalidSecretError("why"), {}),
    (MissingExtraError("why", extra="flask"), {"extra": "flask"}),
    (MethodNotAllowed("why", method="GET"), {"method": "GET"}),
    (PayloadTooLarge("why", limit=10), {"limit": 10}),
    (BodyTimeout("why", timeout=2.5), {"timeout": 2.5}),
    (IncompleteBody("why", received=3, declared=5), {"received": 3, "declared": 5}),
    (IncompleteBody("why", received=3), {"received": 3, "declared": None}),
    (MissingSignature("why"), {}),
    (MalformedSignature("why", item=2), {"item": 2}),
    (DuplicateHeader("why"), {"item": None}),
    (SignatureMismatch("why", secrets_tried=["a", "b"]), {"secrets_tried": ("a", "b")}),
    (StaleTimestamp("why", skew=-301.0, tolerance=300.0), {"skew": -301.0, "tolerance": 300.0}),
    (FutureTimestamp("why", skew=301.0, tolerance=300.0), {"skew": 301.0, "tolerance": 300.0}),
    (TimestampHeaderMismatch("why", skew=0.0, tolerance=300.0), {"skew": 0.0, "tolerance": 300.0}),
    (InvalidEnvelope("why", param="ts"), {"param": "ts"}),
    (EventValidationError("why", event="a.b", param="$.x"), {"event": "a.b", "param": "$.x"}),
    (HandlerFailed("why", handlers=["m.f"], dead=True), {"handlers": ("m.f",), "dead": True}),
    (
        HandlerMissing("why", handlers=["m.f"], after=5.0),
        {"handlers": ("m.f",), "retry_after": 5.0, "dead": False},
    ),
    (DeliveryInFlight("why"), {}),
    (RetryLater(30, "why"), {"retry_after": 30}),
    (DropDelivery("why"), {}),
]
SAMPLE_NAMES = [f"{number}-{type(error).__name__}" for number, (error, _) in enumerate(SAMPLES)]


def test_the_drawn_tree_has_every_class() -> None:
    tree = errors.__doc__ or ""
    drawn = [line.split("─ ")[1].split()[0] for line in tree.splitlines() if "─ " in line and "raised by" not in line]
    assert sorted(drawn) == sorted(cls.__name__ for cls in CLASSES if cls is not WebhookError)


def test_codes_tell_the_classes_apart() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", POLICY, ids=lambda cls: cls.__name__)
def test_policy(cls: type[WebhookError]) -> None:
    assert (cls.status, cls.type, cls.retryable) == POLICY[cls]


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls.status == 503], ids=lambda cls: cls.__name__)
def test_who_is_asked_to_come_back_is_told_when(cls: type[WebhookError]) -> None:
    # RetryLater learns its time from the handler or from the retry policy.
    assert cls is RetryLater or (cls.retry_after is not None and cls.retry_after > 0)


@pytest.mark.parametrize(
    ("root", "kind"), [(VerificationError, "verification_failed"), (PayloadError, "invalid_payload")]
)
def test_the_answer_is_no_oracle(root: type[WebhookError], kind: str) -> None:
    answers = {(cls.status, cls.type, cls.public_message) for cls in CLASSES if issubclass(cls, root)}
    assert answers == {(400, kind, root.public_message)}


@pytest.mark.parametrize(
    ("error", "evidence"),
    SAMPLES,
    ids=SAMPLE_NAMES,
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_a_pickle_with_its_evidence(
    error: WebhookError, evidence: dict[str, object], protocol: int
) -> None:
    twin = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - made one line above
    assert type(twin) is type(error)
    assert str(twin) == str(error) == "why"
    assert twin.args == error.args
    assert dict(twin.evidence) == dict(error.evidence) == evidence
    assert str(copy.copy(error)) == "why"


@pytest.mark.parametrize(
    ("error", "evidence"),
    SAMPLES,
    ids=SAMPLE_NAMES,
)
def test_the_answer_holds_class_level_words_only(error: WebhookError, evidence: dict[str, object]) -> None:
    response = error_response(error)
    assert json.loads(response.body) == {
        "error": {
            "type": type(error).type,
            "code": str(type(error).status),
            "message": type(error).public_message,
            "param": evidence.get("param"),
        }
    }


def test_a_missing_extra_is_an_import_error_too() -> None:
    assert issubclass(MissingExtraError, ImportError)


def test_families() -> None:
    assert issubclass(LengthRequired, RequestError)
    assert issubclass(InvalidTransition, InboxError)
    assert not issubclass(EventValidationError, VerificationError)


@pytest.mark.parametrize("after", [-1, float("inf"), float("nan"), -0.5])
def test_retry_later_refuses_what_is_no_wait(after: float) -> None:
    with pytest.raises(ValueError, match="RetryLater: after must be"):
        RetryLater(after)


def test_retry_later_may_leave_the_wait_to_the_policy() -> None:
    assert RetryLater().retry_after is None
    assert RetryLater(0).retry_after == 0
