"""One call without its I/O: how its request looks, what an answer means, and whether it is sent again.

The two clients differ in how they send bytes and how they wait. All the rest is here.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx2
import msgspec

from roovet_webhooks._version import __version__
from roovet_webhooks.api import resource
from roovet_webhooks.api.assumed import ERROR_TYPES, MAX_ID_CHARACTERS, REQUEST_ID_HEADER
from roovet_webhooks.api.documented import AUTHORIZATION, IDEMPOTENCY_HEADER, VERSION_HEADER, ErrorBody, ErrorDetail
from roovet_webhooks.api.errors import (
    BY_STATUS,
    ApiConnectionError,
    ApiError,
    ApiStatusError,
    ApiTimeout,
    InsufficientScope,
    RateLimited,
    ServerError,
    UndecodableAnswer,
)
from roovet_webhooks.api.limiter import RateLimiter, retry_after
from roovet_webhooks.signing.secrecy import forget_variables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from roovet_webhooks.api.key import ApiKey
    from roovet_webhooks.api.table import Endpoint

T = TypeVar("T")
E = TypeVar("E", bound=ApiError)

# The amount is a Decimal, and a number in the JSON.
_encoder = msgspec.json.Encoder(decimal_format="number")
_HEADER_TEXT = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_CHARACTERS}}}")
_RETRIED_STATUSES = frozenset({500, 502, 503, 504})
_TRANSPORTS = ("httpx2.", "httpcore2.", "h11.", "h2.")  # in whose frames the headers stand as they are sent
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_SUCCESS, _REDIRECT, _ERROR, _SERVER_ERROR = 200, 300, 400, 500
_WAIT_INITIAL, _WAIT_MAX, _WAIT_JITTER = 0.25, 8.0, 0.5  # seconds between attempts: 0.25, 0.5, 1, … and up to 0.5 more


@dataclass(frozen=True)
class Options:
    """How calls are made; `RoovetClient.with_options` changes them.

    Attributes:
        timeout: Seconds to wait for a connection, and for each read and write.
        max_attempts: How often a request is sent at most.
        max_wait: Seconds that a call waits at most for the rate limit, each time; if it is longer, it raises
            `RateLimited` at once.
        version: The ``X-Roovet-Version`` that is asked for; ``None`` for no pin.
    """

    timeout: float
    max_attempts: int
    max_wait: float
    version: str | None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not (self.timeout > 0 and self.max_attempts >= 1 and self.max_wait >= 0):
            message = "timeout must be above 0, max_attempts 1 or more, and max_wait 0 or more"
            raise ValueError(message)
        if self.version is not None and not _HEADER_TEXT.fullmatch(self.version):
            message = f"version must be a date such as '2025-11-10', not {self.version!r}"
            raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """A request to an endpoint, checked against the table before it is sent.

    Attributes:
        endpoint: The row of the table.
        query: The query, without what was left out.
        content: The body, or ``None``.
        idempotency_key: Made once, for every attempt; ``None`` for a GET.
    """

    endpoint: Endpoint[T]
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content: bytes | None = field(default=None, repr=False)
    idempotency_key: str | None = None


def make_call(
    endpoint: Endpoint[T], given: Mapping[str, object] | None = None, *, idempotency_key: str | None = None
) -> Call[T]:
    """Put a call together.

    Args:
        endpoint: The row of the table.
        given: The fields of its query or of its body; ``None`` for a field that is left out.
        idempotency_key: One of the caller's; without it one is made where the endpoint takes one.

    Raises:
        ValueError: A field does not fit the type that the table names; the message says which.
    """
    fields = {name: value for name, value in (given or {}).items() if value is not None}
    kind = endpoint.body or endpoint.query
    if kind is not None:
        try:
            msgspec.convert(fields, kind)
        except msgspec.ValidationError as error:
            message = f"{endpoint.name}: {error}"
            raise ValueError(message) from None
    if {"starting_after", "ending_before"} <= fields.keys():
        message = f"{endpoint.name}: give starting_after or ending_before, not both"
        raise ValueError(message)
    if idempotency_key is not None and not _HEADER_TEXT.fullmatch(idempotency_key):
        message = f"idempotency_key must be 1 to {MAX_ID_CHARACTERS} visible ASCII characters"
        raise ValueError(message)
    if endpoint.body is None:
        return Call(endpoint=endpoint, query=fields)
    key = idempotency_key or str(uuid.uuid4())
    return Call(endpoint=endpoint, content=_encoder.encode(fields), idempotency_key=key)


def follow_cursor(call: Call[T], cursor: str) -> Call[T]:
    """Return the call for the page after (or before) another, in the direction of the first."""
    name = "ending_before" if "ending_before" in call.query else "starting_after"
    return replace(call, query={**call.query, name: cursor})


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """An answer as it came, for whoever needs more than its value.

    Attributes:
        status: HTTP status.
        headers: Headers of the answer; names in any case.
        body: The body, byte for byte.
        attempts: How often the request was sent.
        request_id: Id of the request, for support, or ``None``.
        idempotency_key: The ``Idempotency-Key`` that was sent, or ``None``.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    attempts: int
    request_id: str | None
    idempotency_key: str | None
    endpoint: Endpoint[T] = field(repr=False)

    @cached_property
    def value(self) -> T:
        """The body, decoded.

        Raises:
            UndecodableAnswer: It is not JSON, or does not fit the type of the endpoint.
        """
        try:
            return resource.decode(self.body, self.endpoint.answer)
        except (ValueError, RecursionError) as error:
            fault = str(error) if isinstance(error, msgspec.DecodeError) else "nested too deeply"
        message = f"{self.endpoint.name}: the answer does not fit {self.endpoint.answer.__name__}: {fault}"
        failure = UndecodableAnswer(message, status=self.status, request_id=self.request_id)
        failure.endpoint, failure.idempotency_key = self.endpoint.name, self.idempotency_key
        raise failure


@dataclass(frozen=True)
class Session:
    """What the calls of a client share.

    Attributes:
        key: The API key.
        base_url: Where the API is, without a slash at the end.
        limiter: Counts the requests of the key.
    """

    key: ApiKey
    base_url: str
    limiter: RateLimiter = field(repr=False)


class Exchange(Generic[T]):
    """One call under way: as a context manager it is one request, and takes a transport's error for its outcome.

    Args:
        session: What the calls of a client share.
        options: How this one is made.
        call: The call.
    """

    def __init__(self, session: Session, options: Options, call: Call[T]) -> None:
        self._session = session
        self._options = options
        self._call = call
        self._attempts = 0
        self._failure: ApiError | None = None
        self.response: httpx2.Response | None = None

    @property
    def retrying(self) -> dict[str, Any]:
        """How stamina spaces the attempts."""
        return {
            "attempts": self._options.max_attempts,
            "timeout": None,
            "wait_initial": _WAIT_INITIAL,
            "wait_max": _WAIT_MAX,
            "wait_jitter": _WAIT_JITTER,
        }

    def acquire(self) -> float:
        """Return the seconds to wait before the request may be sent; 0.0 for "now".

        Raises:
            RateLimited: The wait would be longer than ``max_wait``.
        """
        wait = self._session.limiter.acquire()
        if wait > self._options.max_wait:
            message = f"no request is left for {wait:.0f} s, and max_wait is {self._options.max_wait:g} s"
            detail = ErrorDetail(type=ERROR_TYPES[429], code="429", message=message)
            failure = RateLimited(detail, status=429)
            failure.retry_after = wait
            raise self._with_call(failure)
        return wait

    def request(self, http: httpx2.Client | httpx2.AsyncClient) -> httpx2.Request:
        """Return the request of the next attempt."""
        call, options = self._call, self._options
        headers = {
            AUTHORIZATION: self._session.key.authorization,
            "Accept": "application/json",
            "User-Agent": f"roovet-webhooks/{__version__}",
        }
        if options.version is not None:
            headers[VERSION_HEADER] = options.version
        if call.content is not None:
            headers["Content-Type"] = "application/json"
        if call.idempotency_key is not None:
            headers[IDEMPOTENCY_HEADER] = call.idempotency_key
        url = self._session.base_url + call.endpoint.path
        query = call.query or None
        return http.build_request(
            call.endpoint.method, url, params=query, content=call.content, headers=headers, timeout=options.timeout
        )

    def __enter__(self) -> None:
        """Begin a request, for which `acquire` returned 0.0."""
        self._attempts += 1
        self.response = self._failure = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End it: give the answer's headers to the limiter, and turn an error of the transport into ours."""
        response = self.response
        if response is None:
            self._session.limiter.release(None, {})
        else:
            self._session.limiter.release(response.status_code, response.headers)
        if isinstance(error, httpx2.HTTPError):
            self._failure = self._broken(error)
            return True
        if error is not None:
            forget_variables(error, libraries=_TRANSPORTS)
        return False

    def verdict(self) -> Answer[T]:
        """Return the answer of a request that ended.

        Raises:
            ApiError: It is none, or an error. Raised here, its traceback and context hold no frame with a request.
        """
        if self._failure is not None:
            raise self._failure
        assert self.response is not None  # noqa: S101 - `__exit__` has seen to it
        response = self.response
        answer = Answer(
            status=response.status_code,
            headers=response.headers,
            body=response.content,
            attempts=self._attempts,
            request_id=self._session.key.redact(response.headers.get(REQUEST_ID_HEADER, "")) or None,
            idempotency_key=self._call.idempotency_key,
            endpoint=self._call.endpoint,
        )
        if not _SUCCESS <= answer.status < _REDIRECT:
            raise self._refusal(answer)
        return answer

    def retry(self, error: Exception) -> bool | float:
        """Return whether the request is sent again, or after how many seconds: stamina's hook."""
        if not isinstance(error, ApiError) or not error.retryable:
            return False
        if isinstance(error, RateLimited):
            return 0.0  # the limiter waits
        return True if error.retry_after is None else min(error.retry_after, self._options.max_wait)

    def _refusal(self, answer: Answer[T]) -> ApiError:
        status, request_id = answer.status, answer.request_id
        if status < _ERROR:
            message = f"{self._call.endpoint.name}: answered with {status}; redirects are not followed with the key"
            return self._with_call(UndecodableAnswer(message, status=status, request_id=request_id))
        try:
            detail = msgspec.json.decode(answer.body, type=ErrorBody).error
        except (ValueError, RecursionError):
            message = "the answer has no error body in the documented form"
            detail = ErrorDetail(type=ERROR_TYPES.get(status, "unknown"), code=str(status), message=message)
        redact = self._session.key.redact
        detail = ErrorDetail(
            type=redact(detail.type),
            code=redact(detail.code),
            message=redact(detail.message),
            param=detail.param and redact(detail.param),
        )
        kind = ServerError if status >= _SERVER_ERROR else BY_STATUS.get(status, ApiStatusError)
        failure = kind(detail, status=status, request_id=request_id)
        failure.retry_after = retry_after(answer.headers)
        failure.retryable = isinstance(failure, RateLimited) or (status in _RETRIED_STATUSES and self._repeatable)
        if isinstance(failure, InsufficientScope):
            failure.scope = self._call.endpoint.scope
        return self._with_call(failure)

    def _broken(self, error: httpx2.HTTPError) -> ApiError:
        name, seconds = self._call.endpoint.name, self._options.timeout
        failure = (
            ApiTimeout(f"{name}: no answer within {seconds:g} s ({type(error).__name__})")
            if isinstance(error, httpx2.TimeoutException)
            else ApiConnectionError(f"{name}: no answer ({type(error).__name__})")
        )
        failure.sent = not isinstance(error, _NEVER_SENT)
        failure.retryable = self._repeatable or not failure.sent
        return self._with_call(failure)

    @property
    def _repeatable(self) -> bool:
        """Whether a request that may have acted can be sent again: it acts once, by its nature or its key."""
        return self._call.endpoint.idempotent

    def _with_call(self, failure: E) -> E:
        failure.endpoint, failure.idempotency_key = self._call.endpoint.name, self._call.idempotency_key
        return failure
