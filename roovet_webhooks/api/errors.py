"""Everything that can go wrong with a call.

::

    ApiError
    ├── ApiStatusError               Roovet answered with an error; status, type, code, param as in its body
    │   ├── InvalidRequest ... 400
    │   ├── Unauthenticated .. 401
    │   ├── InsufficientScope  403   names the scope that the endpoint needs
    │   ├── NotFound ......... 404
    │   ├── Conflict ......... 409
    │   ├── RateLimited ...... 429   also before a request is sent, when the wait would be too long
    │   └── ServerError ...... 5xx
    ├── ApiConnectionError           no answer
    │   └── ApiTimeout
    └── UndecodableAnswer            an answer in no documented form

    InvalidApiKey                    a `ConfigurationError`
    NotThereYet                      a `RetryLater`: what an event is about cannot be found yet
    NotFetchable                     a `ConfigurationError`: the API has no endpoint for it

No error holds the key, a header of the request or a body.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING

from roovet_webhooks.errors import ConfigurationError, RetryLater

if TYPE_CHECKING:
    from collections.abc import Callable

    from roovet_webhooks.api.documented import ErrorDetail


class InvalidApiKey(ConfigurationError):
    """The API key is missing, blank, a webhook secret, or no text that can be a key."""

    code = "invalid_api_key"


class NotFetchable(ConfigurationError):
    """The API has no endpoint for what an event is about."""

    code = "not_fetchable"


class NotThereYet(RetryLater):
    """What an event is about is not among the recent rows, or not yet.

    It is a `RetryLater`: a handler that lets it pass is tried again later, and that counts as no failure.

    Attributes:
        resource: Id that was looked for.
    """

    code = "not_there_yet"

    def __init__(self, resource: str) -> None:
        super().__init__(reason=f"{resource} is not there yet")
        self.resource = resource


class ApiError(Exception):
    """A call failed.

    Attributes:
        endpoint: Name of the endpoint, such as ``wallet.transfer``.
        retryable: Whether the same call may succeed later and is safe to repeat. The client has repeated it already.
        retry_after: Seconds that Roovet asked to wait, or ``None``.
        idempotency_key: The ``Idempotency-Key`` that was sent. After a failure that leaves open whether a write acted,
            repeat the call with this key.
    """

    endpoint: str = ""
    retryable: bool = False
    retry_after: float | None = None
    idempotency_key: str | None = None

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        """Pickle by state."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined] # typeshed has none


class ApiStatusError(ApiError):
    """Roovet answered with an error.

    Attributes:
        status: HTTP status.
        type: ``type`` of the error body, such as ``insufficient_scope``.
        code: ``code`` of the error body: the status as text.
        message: ``message`` of the error body.
        param: ``param`` of the error body: what is at fault, or ``None``.
        request_id: Id of the request, for support, or ``None`` where the answer has none.
    """

    def __init__(self, detail: ErrorDetail, *, status: int, request_id: str | None = None) -> None:
        param = f" (param {detail.param})" if detail.param is not None else ""
        named = f" [request {request_id}]" if request_id is not None else ""
        super().__init__(f"{status} {detail.type}: {detail.message}{param}{named}")
        self.status: int = status
        self.type: str = detail.type
        self.code: str = detail.code
        self.message: str = detail.message
        self.param: str | None = detail.param
        self.request_id: str | None = request_id


class InvalidRequest(ApiStatusError):
    """400: a parameter or the body does not pass Roovet's validation; ``param`` names it."""


class Unauthenticated(ApiStatusError):
    """401: the key is missing or invalid."""


class InsufficientScope(ApiStatusError):
    """403: the key lacks a scope.

    Attributes:
        scope: The scope that the endpoint needs.
    """

    scope: str = ""


class NotFound(ApiStatusError):
    """404: Roovet knows no such endpoint or resource."""


class Conflict(ApiStatusError):
    """409: the ``Idempotency-Key`` was used for something else, or the state of things does not allow it."""


class RateLimited(ApiStatusError):
    """429: the key has no request left; ``retry_after`` says for how many seconds."""


class ServerError(ApiStatusError):
    """5xx: Roovet failed. Whether a write acted is unknown."""


class ApiConnectionError(ApiError):
    """No answer came: no connection, or it broke. Whether a write acted is unknown, unless ``sent`` is false.

    Attributes:
        sent: Whether the request may have reached Roovet.
    """

    sent: bool = True


class ApiTimeout(ApiConnectionError):
    """No answer came in time."""


class UndecodableAnswer(ApiError):
    """The answer is a redirect, is not JSON or does not fit the type of the endpoint. A write has acted.

    Attributes:
        status: HTTP status.
        request_id: Id of the request, or ``None``.
    """

    def __init__(self, message: str, *, status: int, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


BY_STATUS: dict[int, type[ApiStatusError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: InsufficientScope,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}
"""The class for each documented status. Every 5xx is a `ServerError`, any other an `ApiStatusError`."""
