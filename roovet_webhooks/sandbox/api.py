"""Answers requests to the API: every check in its order, then what the endpoint does, in one transaction.

No HTTP here: a request comes as its parts and an `Answer` goes back. Routes, scopes, queries and bodies come from the
table of endpoints.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from decimal import Decimal
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import msgspec
from sqlalchemy import delete, insert, select

from roovet_webhooks.api import table
from roovet_webhooks.api.assumed import MAX_ID_CHARACTERS, REQUEST_ID_HEADER, RETRY_AFTER_HEADER, SUCCESS_STATUS
from roovet_webhooks.api.documented import (
    AUTHORIZATION,
    IDEMPOTENCY_HEADER,
    IDEMPOTENCY_WINDOW,
    RATE_LIMIT_HEADER,
    RATE_REMAINING_HEADER,
    RATE_RESET_HEADER,
    VERSION_HEADER,
    VERSIONS,
)
from roovet_webhooks.sandbox import shop, wallet
from roovet_webhooks.sandbox.database import api_key, idempotency
from roovet_webhooks.sandbox.refusal import Refusal, error_body
from roovet_webhooks.sandbox.wallet import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection, Row

    from roovet_webhooks.api.table import Endpoint
    from roovet_webhooks.sandbox.clock import SandboxClock
    from roovet_webhooks.sandbox.database import Database
    from roovet_webhooks.sandbox.rates import RateLimit, RateState

MAX_BODY_BYTES = 65_536

Operation: TypeAlias = "Callable[[Call, Any], msgspec.Struct]"
"""Does what an endpoint is for: of a call and its query or body, checked."""

# What each endpoint of the table does; a test holds that none is missing.
OPERATIONS: Final[Mapping[str, Operation]] = {
    table.BALANCE.name: wallet.balance,
    table.TRANSACTIONS.name: wallet.transactions,
    table.TRANSFER.name: wallet.make_transfer,
    table.PRODUCTS.name: shop.products,
    table.CART.name: shop.save_cart,
    table.CHECKOUT.name: shop.checkout,
    table.ORDERS.name: shop.orders,
}
_ENDPOINTS: Final[Mapping[tuple[str, str], Endpoint[Any]]] = {
    (endpoint.method, endpoint.path): endpoint for endpoint in table.ENDPOINTS
}

_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)
_IDEMPOTENCY_KEY: Final = re.compile(f"[!-~]{{1,{MAX_ID_CHARACTERS}}}")
_AT: Final = re.compile(r"`\$\.([^`\[.]+)")
_UNKNOWN: Final = re.compile(r"(?:unknown|missing required) field `([^`]+)`")


class ApiRequest(NamedTuple):
    """A request to the API.

    Attributes:
        method: HTTP method.
        path: Path, without the query.
        query: Names and values of the query, in their order.
        headers: Headers, by lower-case name.
        body: The body.
    """

    method: str
    path: str
    query: Iterable[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """An answer of the API, JSON.

    Attributes:
        status: HTTP status.
        body: The body.
        headers: Headers beside the content type.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Api:
    """The vendor's API.

    Args:
        database: What it works on.
        clock: The sandbox's clock.
        rates: Counts the requests of each key.
    """

    def __init__(self, database: Database, clock: SandboxClock, rates: RateLimit) -> None:
        self._database = database
        self._clock = clock
        self._rates = rates

    def answer(self, request: ApiRequest, fault: str | None = None) -> Answer:
        """Answer a request.

        Args:
            request: The request.
            fault: What chaos does to it, as `Chaos` names it.
        """
        answer = self._answer(request, fault)
        # X-RateLimit-Reset goes by the clock of the sandbox: so does the Date that a client compares it with.
        headers = {REQUEST_ID_HEADER: f"req_{secrets.token_hex(8)}", "Date": formatdate(self._clock(), usegmt=True)}
        return answer._replace(headers={**answer.headers, **headers})

    def _answer(self, request: ApiRequest, fault: str | None) -> Answer:
        endpoint = _ENDPOINTS.get((request.method, request.path))
        if endpoint is None:
            return Answer(404, error_body(404, f"there is no endpoint {request.method} {request.path}"))
        with self._database.begin() as connection:
            try:
                key = _authenticated(connection, request.headers.get(AUTHORIZATION.lower()))
            except Refusal as refusal:
                return Answer(refusal.status, refusal.body(), {"WWW-Authenticate": "Bearer"})
            rate = self._rates.hit(key.id)
            answer = _disturbed(fault) or self._within_rate(connection, endpoint, request, key, rate)
        if fault == "api_lost_answer":
            answer = Answer(500, error_body(500, "chaos: it was done, and the answer was lost"))
        return answer._replace(headers={**answer.headers, **_rate_headers(rate)})

    def _within_rate(
        self, connection: Connection, endpoint: Endpoint[Any], request: ApiRequest, key: Row[Any], rate: RateState
    ) -> Answer:
        if not rate.allowed:
            wait = max(1, rate.reset - int(self._clock()))
            message = f"more than {rate.limit} requests in a minute"
            return Answer(429, error_body(429, message), {RETRY_AFTER_HEADER: str(wait)})
        call = Call(connection, key.account_id, self._clock.milliseconds())
        try:
            _check_scope(endpoint, key)
            _check_version(request)
            given = _given(endpoint, request)
            return _once(call, endpoint, request, key.id, given)
        except Refusal as refusal:
            return Answer(refusal.status, refusal.body())


def _disturbed(fault: str | None) -> Answer | None:
    """Return the answer of a fault that keeps the API from doing anything."""
    if fault == "api_rate_limited":
        return Answer(429, error_body(429, "chaos: too many requests"), {RETRY_AFTER_HEADER: "1"})
    if fault in {"api_error", "api_timeout"}:
        return Answer(500, error_body(500, "chaos: nothing was done"))
    return None


def _authenticated(connection: Connection, header: str | None) -> Row[Any]:
    """Return the key of a request (vendor document, "Authentication & Scopes")."""
    if header is None:
        raise Refusal(401, f"send {AUTHORIZATION}: Bearer <API_KEY>", AUTHORIZATION)
    scheme, _, key = header.partition(" ")
    found = connection.execute(select(api_key).where(api_key.c.key == key.strip())).first()
    if scheme.lower() != "bearer" or found is None:
        hint = "; this is a webhook signing secret, not an API key" if key.startswith("whsec_") else ""
        raise Refusal(401, f"the API key is unknown{hint}", AUTHORIZATION)
    return found


def _check_scope(endpoint: Endpoint[Any], key: Row[Any]) -> None:
    if endpoint.scope not in key.scopes.split():
        raise Refusal(403, f"Missing scope: {endpoint.scope}", "scope")


def _check_version(request: ApiRequest) -> None:
    version = request.headers.get(VERSION_HEADER.lower(), "").strip()
    if version and version not in VERSIONS:
        raise Refusal(400, f"there is no version {version}; there are {' and '.join(VERSIONS)}", VERSION_HEADER)


def _rate_headers(rate: RateState) -> dict[str, str]:
    return {
        RATE_LIMIT_HEADER: str(rate.limit),
        RATE_REMAINING_HEADER: str(rate.remaining),
        RATE_RESET_HEADER: str(rate.reset),
    }


def _given(endpoint: Endpoint[Any], request: ApiRequest) -> Any:  # noqa: ANN401 - of the type that the table says
    """Return the query or the body of a request, checked."""
    try:
        if endpoint.query is not None:
            known = {name: value for name, value in request.query if name in endpoint.query.__struct_encode_fields__}
            return msgspec.convert(known, endpoint.query, strict=False)
        if endpoint.body is not None:
            return _body(endpoint.body, request)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    return None


def _body(kind: type[msgspec.Struct], request: ApiRequest) -> msgspec.Struct:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(400, "send the body as JSON, with Content-Type: application/json", "Content-Type")
    if len(request.body) > MAX_BODY_BYTES:
        raise Refusal(400, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        content: object = _DECODER.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    # A number in quotes would do for the decoder, and is no number.
    fields = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    for field in msgspec.structs.fields(kind):
        if _is_decimal(field.type) and isinstance(fields.get(field.encode_name), str):
            raise Refusal(400, f"{field.encode_name} is a number, without quotes", field.encode_name)
    return msgspec.convert(content, kind)


def _is_decimal(kind: object) -> bool:
    return Decimal in (kind, getattr(kind, "__origin__", None))


def _invalid(error: msgspec.ValidationError) -> Refusal:
    found = _UNKNOWN.search(str(error)) or _AT.search(str(error))
    return Refusal(400, str(error), found and found[1])


def _once(call: Call, endpoint: Endpoint[Any], request: ApiRequest, key_id: int, given: Any) -> Answer:  # noqa: ANN401 - as _given
    """Do what is asked, or give the answer that the same request got (vendor document, "Idempotency")."""
    name = request.headers.get(IDEMPOTENCY_HEADER.lower())
    if name is None or not endpoint.takes_idempotency_key:
        return _done(call, endpoint, given)
    if not _IDEMPOTENCY_KEY.fullmatch(name):
        message = f"{IDEMPOTENCY_HEADER} has 1 to {MAX_ID_CHARACTERS} visible ASCII characters"
        raise Refusal(400, message, IDEMPOTENCY_HEADER)
    connection = call.connection
    connection.execute(delete(idempotency).where(idempotency.c.created_at <= call.now - int(IDEMPOTENCY_WINDOW * 1000)))
    mine = select(idempotency).where(idempotency.c.api_key_id == key_id, idempotency.c.key == name)
    before = connection.execute(mine).first()
    fingerprint = hashlib.sha256(f"{endpoint.name}\n".encode() + request.body).digest()
    if before is not None:
        if before.fingerprint != fingerprint:
            raise Refusal(409, f"this {IDEMPOTENCY_HEADER} was sent with another request", IDEMPOTENCY_HEADER)
        return Answer(before.status, before.body)
    try:
        answer = _done(call, endpoint, given)
    except Refusal as refusal:
        answer = Answer(refusal.status, refusal.body())
    connection.execute(
        insert(idempotency).values(
            api_key_id=key_id,
            key=name,
            fingerprint=fingerprint,
            status=answer.status,
            body=answer.body,
            created_at=call.now,
        )
    )
    return answer


def _done(call: Call, endpoint: Endpoint[Any], given: Any) -> Answer:  # noqa: ANN401 - as _given
    # A refusal takes back what was written before it, and nothing else of the transaction.
    with call.connection.begin_nested():
        return Answer(SUCCESS_STATUS, msgspec.json.encode(OPERATIONS[endpoint.name](call, given)))
