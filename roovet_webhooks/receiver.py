"""`WebhookReceiver`: the whole life of a delivery, and the only place that knows all of its steps."""

from __future__ import annotations

import importlib
import os
import re
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from roovet_webhooks import telemetry
from roovet_webhooks.admission import admit
from roovet_webhooks.bridge import AsyncBridge, Bridge, SyncBridge, run
from roovet_webhooks.delivery import DEFAULT_TENANT, Dedupe, Delivery, make_delivery
from roovet_webhooks.dispatch import attempt, begin_with_users_code, call_hooks, context, forget_variables
from roovet_webhooks.errors import (
    ConfigurationError,
    DeliveryInFlight,
    RetryLater,
    TenantLookupFailed,
    UnknownTenant,
    UnsupportedMediaType,
    VerificationError,
    WebhookError,
)
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox.memory import MemoryInbox
from roovet_webhooks.inbox.protocol import Inbox, Outcome, Verdict
from roovet_webhooks.intake import Intake
from roovet_webhooks.keys import SecretLike, Tenant, forgets_secret
from roovet_webhooks.messages import (
    DROPPED,
    DUPLICATE,
    HANDLED,
    IGNORED,
    WebhookRequest,
    WebhookResponse,
    error_response,
)
from roovet_webhooks.refusal import Diagnostics
from roovet_webhooks.retry import RetryPolicy
from roovet_webhooks.routing import Plan, Router
from roovet_webhooks.signature import check_timestamp, parse_signature
from roovet_webhooks.signing import DEFAULT_TOLERANCE, Verifier, checked_tolerance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Sequence

    from roovet_webhooks.dispatch import Observer

Resolver: TypeAlias = "Callable[[WebhookRequest], Tenant | Awaitable[Tenant | None] | None]"
"""Says whose secrets count for a request; ``None`` where nobody's do."""

SECRET_VARIABLE = "ROOVET_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable, not a secret
DEFAULT_MAX_BODY_BYTES = 1_048_576
DEFAULT_BODY_TIMEOUT = 10.0

_ENDPOINT = re.compile(r"[a-z0-9_-]+")
_ANSWERS = {Outcome.HANDLED: HANDLED, Outcome.IGNORED: IGNORED, Outcome.DROPPED: DROPPED}
_TOLD = {outcome: f"delivery.{outcome}" for outcome in Outcome}
_UNCHANGED: Any = object()

F = TypeVar("F", bound=Callable[..., object])


class WebhookReceiver(Router):
    """Receives deliveries: verifies, records and dispatches them. It is a `Router` as well.

    Args:
        secret: The signing secret or secrets (a text, a `Secret`, a list of these, a `Keyring`), or a
            resolver ``request -> Tenant | None``, sync or async. ``None`` takes the framework's setting where
            there is one, else the environment's ``ROOVET_WEBHOOK_SECRET`` (commas separate several).
        router: Handlers registered elsewhere; they come before this receiver's own.
        endpoint: Name of this receiver, part of the identity of its deliveries: ``[a-z0-9_-]+``.
        tolerance: Seconds of clock difference and delay accepted, in both directions.
        accept_truncated: Whether a digest of the leftmost 128 bits is taken as well (RFC 2104, section 5).
        max_body_bytes: Cap on the body, in bytes.
        body_timeout: Seconds within which the body has to arrive.
        inbox: The record of deliveries; a `MemoryInbox` of its own when ``None``.
        acknowledge: ``"handled"`` answers when the handlers have run. It is what an inbox in memory does.
        retry: How long a sender is asked to wait when a handler does not say.
        dedupe: Makes the key of a delivery from its event, where identical bytes are not what makes two
            deliveries the same one.
        handlers: Names of modules to import before the first delivery, because they register handlers.
        debug: Whether the reason is searched for, as `explain` does, when a digest does not agree. It goes to the log
            and to ``error.diagnosis`` for `on_rejected` hooks, and never into an answer. For development: a
            stranger can make each search cost as much CPU time as hundreds of deliveries, and it warns of that.
        clock: Unix seconds.

    Raises:
        ConfigurationError: An option cannot be what it is given for.
        InvalidSecretError: A secret cannot be one.

    Example:
        >>> receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728")
        >>> @receiver.on("order.created")
        ... def fulfil(event):
        ...     print("fulfil", event.id)
    """

    @forgets_secret
    def __init__(  # noqa: PLR0913 - the options of a receiver, all but one by keyword
        self,
        secret: SecretLike | Resolver | None = None,
        *,
        router: Router | None = None,
        endpoint: str = "default",
        tolerance: float = DEFAULT_TOLERANCE,
        accept_truncated: bool = False,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        body_timeout: float = DEFAULT_BODY_TIMEOUT,
        inbox: Inbox | None = None,
        acknowledge: Literal["handled"] | None = None,
        retry: RetryPolicy | None = None,
        dedupe: Dedupe | None = None,
        handlers: Sequence[str] = (),
        debug: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._tolerance = checked_tolerance(tolerance)
        self._accept_truncated = accept_truncated
        self._resolver: Resolver | None = None
        self._verifier: Verifier | None = None
        self._default_secret: Callable[[], SecretLike | None] = _secret_of_environment
        # Before anything else can fail, so that no later traceback finds the secret in this frame.
        self._use_secret(secret)
        del secret
        self.endpoint = endpoint
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._inbox: Inbox = MemoryInbox() if inbox is None else inbox
        self._retry = retry or RetryPolicy()
        self._dedupe = dedupe
        self._modules = (handlers,) if isinstance(handlers, str) else tuple(handlers)
        self._diagnostics = Diagnostics(endpoint, self._tolerance, accept_truncated, debug)
        self._clock = clock
        self._plan: Plan | None = None
        self._observers: tuple[Observer, ...] = ()
        self._check_options(acknowledge)
        if router is not None:
            self.include(router)
        if debug:
            message = (
                f"the receiver {endpoint!r} has debug=True: it searches for the reason of each signature that does not "
                "hold, so that a stranger can keep it busy; leave it out in production"
            )
            warnings.warn(message, stacklevel=3)

    def _check_options(self, acknowledge: object) -> None:
        faults: list[str] = []
        if not _ENDPOINT.fullmatch(self.endpoint):
            faults.append(f"endpoint must be a name of a-z, 0-9, _ and -, not {self.endpoint!r}")
        if not self._max_body_bytes > 0:
            faults.append(f"max_body_bytes must be a number of bytes above 0, not {self._max_body_bytes!r}")
        if not self._body_timeout > 0:
            faults.append(f"body_timeout must be a number of seconds above 0, not {self._body_timeout!r}")
        if isinstance(self._inbox, str):
            faults.append("this version keeps deliveries in memory only: leave inbox= out")
        if acknowledge not in {None, "handled"}:
            faults.append(
                f"acknowledge={acknowledge!r} would answer before the handlers have run, and an inbox in memory "
                "would lose what was acknowledged; leave it out"
            )
        if faults:
            raise ConfigurationError("; ".join(faults))

    # Secrets

    def _use_secret(self, secret: SecretLike | Resolver | None) -> None:
        self._resolver = self._verifier = None
        if callable(secret):
            self._resolver = secret
        elif secret is not None:
            self._verifier = self._make_verifier(secret)

    def _make_verifier(self, secret: SecretLike) -> Verifier:
        return Verifier(secret, tolerance=self._tolerance, accept_truncated=self._accept_truncated)

    def default_secret(self, source: Callable[[], SecretLike | None]) -> None:
        """Name where a secret comes from when none was given: what a framework's adapter calls at mount.

        The environment is asked after it.
        """
        self._default_secret = lambda: source() or _secret_of_environment()

    def require_secret(self) -> None:
        """Check that there is a secret, or a resolver.

        Raises:
            ConfigurationError: There is none.
            InvalidSecretError: The one in the settings or the environment cannot be one.
        """
        if self._resolver is None:
            self._static_verifier()

    def _static_verifier(self) -> Verifier:
        if self._verifier is None:
            secret = self._default_secret()
            if not secret:
                message = (
                    f"the receiver {self.endpoint!r} has no signing secret: pass WebhookReceiver(secret=…), or set "
                    f"{SECRET_VARIABLE} in the environment (under Django, in the settings)"
                )
                raise ConfigurationError(message)
            self._verifier = self._make_verifier(secret)
        return self._verifier

    async def _tenant(self, request: WebhookRequest, bridge: Bridge) -> tuple[str, Verifier]:
        if self._resolver is None:
            return DEFAULT_TENANT, self._static_verifier()
        try:
            tenant = cast("Tenant | None", await bridge.call(self._resolver, request))
        except Exception as error:
            message = f"the resolver of tenants raised {type(error).__name__}"
            raise TenantLookupFailed(message) from error
        if tenant is None:
            message = "the resolver knows no tenant for this request"
            raise UnknownTenant(message)
        if not isinstance(tenant, Tenant):
            message = f"the resolver of tenants must return a Tenant or None, not {type(tenant).__name__}"
            raise TenantLookupFailed(message)
        return tenant.name, self._make_verifier(tenant.keyring)

    # Readiness

    def check(self) -> None:
        """Check that this receiver can do its work: what a server does before it starts.

        Imports the modules named in ``handlers``.

        Raises:
            ConfigurationError: There is no handler, no secret, or the handlers contradict each other.
        """
        self._ready()
        self.require_secret()

    def _ready(self) -> None:
        if self._plan is not None:
            return
        for module in self._modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                message = f"handlers={module!r} cannot be imported: {error}"
                raise ConfigurationError(message) from error
        if not self.plan():
            message = (
                f"the receiver {self.endpoint!r} has no handler, so every delivery would be lost: register one, or "
                "import the module that does (WebhookReceiver(handlers=['shop.webhooks']))"
            )
            raise ConfigurationError(message)

    # The life of a delivery

    def receive(self, request: WebhookRequest) -> WebhookResponse:
        """Take a request through the whole life of a delivery, in a sync server.

        Args:
            request: What came; its body is read here, once.

        Returns:
            The answer, in every case: whatever a stranger sends, nothing is raised.
        """
        return run(self._receive(request, SyncBridge()))

    async def receive_async(self, request: WebhookRequest, *, bridge: AsyncBridge | None = None) -> WebhookResponse:
        """Do what `receive` does, in an async server.

        Args:
            request: What came; its body may be async.
            bridge: How sync handlers are called; in anyio's worker threads when ``None``.
        """
        return await self._receive(request, bridge or AsyncBridge())

    def open(self, request: WebhookRequest) -> Delivery:
        """Verify a request and return its delivery; nothing is recorded and no handler runs.

        Raises:
            WebhookError: It is refused; `error_response` makes the answer of it. It has been logged.
        """
        return run(self._open_or_tell(request, SyncBridge()))

    async def open_async(self, request: WebhookRequest, *, bridge: AsyncBridge | None = None) -> Delivery:
        """Do what `open` does, in an async server."""
        return await self._open_or_tell(request, bridge or AsyncBridge())

    async def _receive(self, request: WebhookRequest, bridge: Bridge) -> WebhookResponse:
        try:
            self._ready()
            delivery = await self._open(request, bridge)
            if self._plan is None:
                # Not earlier: a stranger's request must not end the time of registration.
                self.freeze(self.endpoint)
                self._plan = self.plan()
            response = await bridge.finish(self._process(delivery, self._plan, bridge))
        except WebhookError as error:
            await self._tell(error, request, bridge)
            return error_response(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not show a stranger a debug page
            forget_variables(error)
            telemetry.error("receiver.error", error, endpoint=self.endpoint)
            return error_response(WebhookError())
        for observer in self._observers:
            observer.on_answered(delivery, response)
        return response

    async def _open_or_tell(self, request: WebhookRequest, bridge: Bridge) -> Delivery:
        try:
            delivery = await self._open(request, bridge)
        except WebhookError as error:
            await self._tell(error, request, bridge)
            raise
        for observer in self._observers:
            observer.on_opened(delivery)
        return delivery

    async def _open(self, request: WebhookRequest, bridge: Bridge) -> Delivery:
        now = self._clock()
        raw, keys = b"", None
        try:
            head = admit(request, max_body_bytes=self._max_body_bytes)
            signature = parse_signature(head.signature, accept_truncated=self._accept_truncated)
            check_timestamp(signature, now, self._tolerance, head.timestamp)
            tenant, verifier = await self._tenant(request, bridge)
            keys = verifier.keyring
            intake = Intake(verifier.begin(signature, now=now), self._max_body_bytes)
            await bridge.read(request.body, intake.take, self._body_timeout)
            raw = intake.body(request, head.length)
            proof = intake.verification.finish()
        except (VerificationError, UnsupportedMediaType) as error:
            error.diagnosis = await self._diagnostics.of(error, request, bridge, now, raw, keys)
            raise
        return make_delivery(
            raw,
            parse_envelope(raw),
            proof,
            endpoint=self.endpoint,
            tenant=tenant,
            received_at=now,
            dedupe=self._dedupe,
        )

    async def _process(self, delivery: Delivery, plan: Plan, bridge: Bridge) -> WebhookResponse:
        inbox = self._inbox
        started = time.perf_counter()
        stored = await bridge.wait(inbox, inbox.store, delivery, claim=True)
        if stored.claim is None:
            if stored.verdict is Verdict.IN_FLIGHT:
                message = "the same delivery is being handled right now"
                telemetry.warning("delivery.in_flight", **context(delivery))
                return error_response(DeliveryInFlight(message))
            telemetry.info("delivery.duplicate", **context(delivery))
            return DUPLICATE
        delivery = delivery.numbered(stored.claim.attempt)
        try:
            outcome = await attempt(plan, delivery, stored.claim, inbox=inbox, bridge=bridge, retry=self._retry)
        except WebhookError as error:
            told = "delivery.retry_later" if isinstance(error, RetryLater) else "delivery.failed"
            telemetry.warning(told, code=error.code, reason=str(error), **context(delivery))
            return error_response(error)
        telemetry.info(_TOLD[outcome], duration=round(time.perf_counter() - started, 6), **context(delivery))
        return _ANSWERS[outcome]

    async def _tell(self, error: WebhookError, request: WebhookRequest, bridge: Bridge) -> None:
        """Log a refusal with its reason, and call the hooks: the one place where the reason is told."""
        told: dict[str, object] = {
            "code": error.code,
            "reason": str(error),
            "status": error.status,
            "evidence": dict(error.evidence),
            "findings": [] if error.diagnosis is None else list(error.diagnosis.codes),
            "endpoint": self.endpoint,
            "path": request.path[:200],
        }
        if error.status < 500:  # noqa: PLR2004 - a client error
            telemetry.warning("delivery.rejected", **told)
        else:
            if error.__cause__ is not None:
                begin_with_users_code(error.__cause__)
            telemetry.error("receiver.not_ready", error.__cause__, **told)
        hooks = self.rejected_hooks() if self._plan is None else self._plan.rejected_hooks
        await call_hooks(hooks, bridge, error, request)
        for observer in self._observers:
            observer.on_rejected(error, request)

    # Tests

    @contextmanager
    def override(
        self,
        *,
        secret: SecretLike | Resolver | None = _UNCHANGED,
        clock: Callable[[], float] = _UNCHANGED,
        inbox: Inbox = _UNCHANGED,
        observer: Observer | None = None,
    ) -> Generator[WebhookReceiver]:
        """Replace parts of this receiver for the length of a test, for every thread.

        Args:
            secret: As the constructor takes it; ``None`` for none.
            clock: As the constructor takes it.
            inbox: As the constructor takes it.
            observer: Is told what becomes of each request, beside those that are told already. It may come
                after the first dispatch, where a hook may not; see `roovet_webhooks.testing.recording`.
        """
        before = self._resolver, self._verifier, self._clock, self._inbox, self._observers
        try:
            if secret is not _UNCHANGED:
                self._use_secret(secret)
            if clock is not _UNCHANGED:
                self._clock = clock
            if inbox is not _UNCHANGED:
                self._inbox = inbox
            if observer is not None and observer not in self._observers:
                self._observers = (*self._observers, observer)
            yield self
        finally:
            self._resolver, self._verifier, self._clock, self._inbox, self._observers = before

    def __repr__(self) -> str:
        """Show which receiver it is."""
        return f"WebhookReceiver(endpoint={self.endpoint!r})"


def _secret_of_environment() -> SecretLike | None:
    value = os.environ.get(SECRET_VARIABLE, "")
    secrets = [part for part in value.split(",") if part]
    if len(secrets) == 1:
        return secrets[0]
    return secrets or value or None
