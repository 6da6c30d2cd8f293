"""`WebhookReceiver`: the whole life of a delivery, and the only place that knows all of its steps."""

from __future__ import annotations

import gc
import importlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload
from weakref import WeakSet

from roovet_webhooks import telemetry
from roovet_webhooks._validation import is_count, is_number
from roovet_webhooks.delivery import Dedupe, Delivery, make_delivery
from roovet_webhooks.errors import (
    ConfigurationError,
    DeliveryInFlight,
    HandlerFailed,
    HandlerMissing,
    InboxError,
    RetryLater,
    UnsupportedMediaType,
    VerificationError,
    WebhookError,
)
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox.factory import InboxLike, inbox_of
from roovet_webhooks.inbox.memory import MemoryInbox
from roovet_webhooks.inbox.protocol import Claimed, DurableInbox, Inbox, OnDead, Ordering, Served, Verdict
from roovet_webhooks.inbox.serving import listed, same
from roovet_webhooks.inbox.states import Outcome
from roovet_webhooks.messages import (
    DROPPED,
    DUPLICATE,
    HANDLED,
    IGNORED,
    STORED,
    WebhookRequest,
    WebhookResponse,
    error_response,
)
from roovet_webhooks.receiving.attempt import Attempt, begin_with_users_code, call_hooks, log_context
from roovet_webhooks.receiving.body import BodyReader
from roovet_webhooks.receiving.bridge import EXITS, AsyncBridge, Bridge, SyncBridge, run
from roovet_webhooks.receiving.diagnostics import Diagnostics
from roovet_webhooks.receiving.request_checks import admit
from roovet_webhooks.receiving.tenants import Resolver, Tenants
from roovet_webhooks.receiving.unhandled import UnhandledLog
from roovet_webhooks.retry import RetryPolicy
from roovet_webhooks.routing import AnnotatedRegistrar, OnAny, OnError, OnRejected, Plan, Registrar, Router
from roovet_webhooks.signing.header import check_timestamp, parse_signature
from roovet_webhooks.signing.secrecy import forget_variables, forgets_secret, warn_caller
from roovet_webhooks.signing.verifier import DEFAULT_TOLERANCE, checked_tolerance

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from roovet_webhooks.inbox.engine import Engine
    from roovet_webhooks.receiving.attempt import Observer
    from roovet_webhooks.signing.keys import SecretLike

DEFAULT_MAX_BODY_BYTES = 1_048_576
DEFAULT_BODY_TIMEOUT = 10.0

_ENDPOINT = re.compile(r"[a-z0-9_-]+")
_ANSWERS = {Outcome.HANDLED: HANDLED, Outcome.IGNORED: IGNORED, Outcome.DROPPED: DROPPED}
_ENDED = {outcome: f"delivery.{outcome}" for outcome in Outcome}
_STORED = {
    Verdict.NEW: "delivery.stored",
    Verdict.DUPLICATE: "delivery.duplicate",
    Verdict.IN_FLIGHT: "delivery.in_flight",
    Verdict.TOO_OLD: "delivery.too_old",
}
_UNDONE: Mapping[type[WebhookError], str] = {
    RetryLater: "delivery.retry_later",
    HandlerMissing: "delivery.unhandled",
}
_UNCHANGED: Any = object()

# Those that have been found ready in this process.
_ready_receivers: WeakSet[WebhookReceiver] = WeakSet()
_checking = threading.Lock()

E = TypeVar("E")
F = TypeVar("F", bound=Callable[..., object])


class WebhookReceiver:
    """Receives deliveries: verifies, records and dispatches them.

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
        inbox: The record of deliveries: the URL of a database (``sqlite:///roovet.db``,
            ``postgresql+psycopg://…``), a SQLAlchemy engine, or an inbox; a `MemoryInbox` of its own when ``None``.
        acknowledge: ``"stored"`` answers when the delivery is on disk, and a worker runs the handlers: what a durable
            inbox does unless told otherwise. ``"handled"`` answers when the handlers have run: what an inbox in
            memory does.
        retry: When a delivery in a durable inbox is tried again, and when no more; in memory, how long a sender is
            asked to wait when a handler does not say.
        ordering: ``"resource"`` has workers run the deliveries of one resource one after the other, by ``ts``.
        on_dead: With an ordering, whether a dead delivery holds back the later ones of its resource (``"block"``).
        engine: A task queue that runs the deliveries, on many machines if need be; workers then hand them to it.
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
        inbox: InboxLike | None = None,
        acknowledge: Literal["stored", "handled"] | None = None,
        retry: RetryPolicy | None = None,
        ordering: Ordering = None,
        on_dead: OnDead = "skip",
        engine: Engine | None = None,
        dedupe: Dedupe | None = None,
        handlers: Sequence[str] = (),
        debug: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._router = Router()
        self._tolerance = checked_tolerance(tolerance)
        self._accept_truncated = accept_truncated
        # Before anything else can fail, so that no later traceback finds the secret in this frame.
        self._tenants: Tenants = Tenants(
            secret, endpoint=endpoint, tolerance=tolerance, accept_truncated=accept_truncated
        )
        del secret
        self.endpoint = endpoint
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self.retry: RetryPolicy = RetryPolicy() if retry is None else retry
        self.ordering: Ordering = ordering
        self.on_dead: OnDead = on_dead
        self._wanted = acknowledge
        self.engine: Engine | None = engine
        self._use_inbox(inbox)
        self._dedupe = dedupe
        self._modules = (handlers,) if isinstance(handlers, str) else tuple(handlers)
        self._diagnostics = Diagnostics(endpoint, self._tolerance, accept_truncated, debug)
        self._clock: Callable[[], float] = clock
        self._plan: Plan | None = None
        self._unhandled = UnhandledLog()
        self._inbox_fault: str | None = None
        self._observers: tuple[Observer, ...] = ()
        self._check_options()
        if engine is not None:
            engine.attach(self)
        if router is not None:
            self.include(router)
        if debug:
            message = (
                f"the receiver {endpoint!r} has debug=True: it searches for the reason of each signature that does not "
                "hold, so that a stranger can keep it busy; leave it out in production"
            )
            warn_caller(message)

    @property
    def durable_inbox(self) -> DurableInbox:
        """The inbox, for callers that know that it is durable: workers, engines and the command line."""
        return cast("DurableInbox", self.inbox)

    def _use_inbox(self, inbox: InboxLike | None) -> None:
        self.inbox: Inbox = MemoryInbox() if inbox is None else inbox_of(inbox)
        self._acknowledge = (self._wanted or "stored") if self.inbox.durable else "handled"
        if self.inbox.durable:
            self.durable_inbox.attach(self.endpoint, self.retry)

    def _check_options(self) -> None:
        faults: list[str] = []
        if not (isinstance(cast("object", self.endpoint), str) and _ENDPOINT.fullmatch(self.endpoint)):
            faults.append(f"endpoint must be a name of a-z, 0-9, _ and -, not {self.endpoint!r}")
        if not (is_count(self._max_body_bytes) and self._max_body_bytes > 0):
            faults.append(f"max_body_bytes must be a number of bytes above 0, not {self._max_body_bytes!r}")
        if not (is_number(self._body_timeout) and self._body_timeout > 0):
            faults.append(f"body_timeout must be a number of seconds above 0, not {self._body_timeout!r}")
        faults += self._faults_of_running()
        if faults:
            raise ConfigurationError("; ".join(faults))

    def _faults_of_running(self) -> list[str]:
        """Return what is wrong about when, and by whom, handlers are to be run."""
        faults: list[str] = []
        if self._wanted not in {None, "stored", "handled"}:
            faults.append(f"acknowledge must be 'stored' or 'handled', not {self._wanted!r}")
        if self._wanted == "stored" and not self.inbox.durable:
            faults.append(
                "acknowledge='stored' would answer before the handlers have run, and an inbox in memory would lose "
                "what was acknowledged; give it a durable one: inbox='sqlite:///roovet.db'"
            )
        if not isinstance(cast("object", self.retry), RetryPolicy):
            faults.append(f"retry must be a RetryPolicy, not {self.retry!r}")
        if self.engine is not None and self._acknowledge != "stored":
            faults.append("engine= runs what is stored, and so needs a durable inbox and acknowledge='stored'")
        if self.engine is not None and not hasattr(self.engine, "enqueue"):
            faults.append(f"engine must be one, such as CeleryEngine(app), not {type(self.engine).__name__}")
        return faults + self._faults_of_ordering()

    def _faults_of_ordering(self) -> list[str]:
        faults: list[str] = []
        if self.ordering not in {None, "resource"}:
            faults.append(f"ordering must be None or 'resource', not {self.ordering!r}")
        if self.on_dead not in {"skip", "block"}:
            faults.append(f"on_dead must be 'skip' or 'block', not {self.on_dead!r}")
        if self.on_dead == "block" and self.ordering is None:
            faults.append("on_dead='block' holds back nothing without ordering='resource'")
        if self.ordering is not None and self._acknowledge != "stored":
            faults.append("ordering= is kept by workers, and so needs a durable inbox and acknowledge='stored'")
        return faults

    # Handlers

    @overload
    def on(self, event: type[E], /, *, name: str | None = ...) -> Registrar[E]: ...
    @overload
    def on(self, event: str, /, *, type: type[E], name: str | None = ...) -> Registrar[E]: ...
    @overload
    def on(self, event: str, /, *, name: str | None = ...) -> AnnotatedRegistrar: ...

    def on(
        self,
        event: Any,
        /,
        *,
        type: Any = None,  # noqa: A002 - as `Router.on` has it
        name: str | None = None,
    ) -> Any:
        """Register a handler for an event; see `Router.on`."""
        return self._router.on(event, type=type, name=name)

    def fallback(self, function: OnAny) -> OnAny:
        """Register the handler for events that no other handler wants; see `Router.fallback`."""
        return self._router.fallback(function)

    def on_error(self, function: OnError) -> OnError:
        """Register a hook ``(error, delivery)``, called for each handler that fails; see `Router.on_error`."""
        return self._router.on_error(function)

    def on_rejected(self, function: OnRejected) -> OnRejected:
        """Register a hook ``(error, request)``, called for each refused request; see `Router.on_rejected`."""
        return self._router.on_rejected(function)

    def include(self, router: Router) -> None:
        """Take in a router's handlers and hooks, at this place in the order; see `Router.include`."""
        self._router.include(router)

    # Secrets

    def default_secret(self, source: Callable[[], SecretLike | None]) -> None:
        """Name where a secret comes from when none was given: what a framework's adapter calls at mount.

        The environment is asked after it.
        """
        self._tenants.ask_first(source)

    def require_secret(self) -> None:
        """Check that there is a secret, or a resolver.

        Raises:
            ConfigurationError: There is none.
            InvalidSecretError: The one in the settings or the environment cannot be one.
        """
        self._tenants.require()

    # Readiness

    def check(self, *, connect: bool = True) -> None:
        """Check that this receiver can do its work: what a server does before it starts.

        Imports the modules named in ``handlers``.

        Args:
            connect: Whether to open a durable inbox as well.

        Raises:
            ConfigurationError: There is no handler, no secret, or the handlers contradict each other.
        """
        self._ready()
        self._refuse_twin()
        self.require_secret()
        if names := self._tenants.examples():
            telemetry.log_event("receiver.example_secret", secret=", ".join(names), endpoint=self.endpoint)
        if connect:
            self._open_inbox()

    def check_handlers(self) -> None:
        """Check that this receiver can handle what it has recorded: what a worker does, which needs no secret.

        Raises:
            ConfigurationError: There is no handler, or they contradict each other, or the inbox can never be used.
        """
        self._ready()
        self._refuse_twin()
        self._open_inbox()

    def served(self) -> Served:
        """Return what this receiver serves: what a worker records beside its heartbeat."""
        plan = self._plan or self._router.plan()
        return Served(self.endpoint, plan.names, plan.patterns)

    def _refuse_twin(self) -> None:
        """Refuse another receiver of this endpoint and store, in this process, that serves something else.

        Each would take the other's deliveries. One with the same handlers does what this one would.

        Raises:
            ConfigurationError: There is one.
        """
        if self._location is None:
            return
        if self._find_twin() is not None:
            gc.collect()  # one that nobody uses any more, as a reloaded application leaves behind, is none
        if (twin := self._find_twin()) is not None:
            mine, theirs = self.served(), twin.served()
            message = (
                f"two receivers of the endpoint {self.endpoint!r} share {self._location}, and each would take the "
                f"other's deliveries: one handles {listed(mine.patterns)}, the other {listed(theirs.patterns)}; "
                "give each its own: WebhookReceiver(endpoint='…')"
            )
            raise ConfigurationError(message)
        with _checking:
            _ready_receivers.add(self)

    def _find_twin(self) -> WebhookReceiver | None:
        with _checking:
            others = [one for one in _ready_receivers if one is not self and one.endpoint == self.endpoint]
        location, served = self._location, self.served()
        return next((one for one in others if one._location == location and not same(one.served(), served)), None)

    @property
    def _location(self) -> str | None:
        """Where deliveries are recorded; ``None`` in memory, or if the inbox has no database that is configured."""
        try:
            return self.durable_inbox.location if self.inbox.durable else None
        except ConfigurationError:
            return None

    def _open_inbox(self) -> None:
        """Open a durable inbox, so that one that can never be used is found now.

        One that is down for the moment is no reason not to start: deliveries are answered 503 until it is back.
        """
        if self.inbox.durable:
            try:
                self.durable_inbox.open()
            except InboxError as error:
                # Once an outage: a server and a worker look several times while they start.
                if self._inbox_fault != str(error):
                    telemetry.log_event("inbox.unavailable", code=error.code, reason=str(error), endpoint=self.endpoint)
                self._inbox_fault = str(error)
            else:
                self._inbox_fault = None

    def _ready(self) -> None:
        if self._plan is not None:
            return
        for module in self._modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                message = f"handlers={module!r} cannot be imported: {error}"
                raise ConfigurationError(message) from error
        if not self._router.plan():
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

        Raises:
            TypeError: It is no `WebhookRequest`.
        """
        return run(self._receive(_checked(request), SyncBridge()))

    async def receive_async(self, request: WebhookRequest, *, bridge: AsyncBridge | None = None) -> WebhookResponse:
        """Do what `receive` does, in an async server.

        Args:
            request: What came; its body may be async.
            bridge: How sync handlers are called; in anyio's worker threads when ``None``.
        """
        return await self._receive(_checked(request), bridge or AsyncBridge())

    def open(self, request: WebhookRequest) -> Delivery:
        """Verify a request and return its delivery; nothing is recorded and no handler runs.

        Raises:
            WebhookError: It is refused; `error_response` makes the answer of it. It has been logged.
            TypeError: It is no `WebhookRequest`.
        """
        return run(self._open_or_tell(_checked(request), SyncBridge()))

    async def open_async(self, request: WebhookRequest, *, bridge: AsyncBridge | None = None) -> Delivery:
        """Do what `open` does, in an async server."""
        return await self._open_or_tell(_checked(request), bridge or AsyncBridge())

    async def _receive(self, request: WebhookRequest, bridge: Bridge) -> WebhookResponse:
        with telemetry.open_receipt(self.endpoint) as receipt:
            try:
                self._ready()
                delivery = await self._open(request, bridge)
                # Not earlier: a stranger's request must not end the time of registration.
                plan = self._fixed_plan()
                if self._acknowledge == "stored":
                    response = await self._store(delivery, plan, bridge, receipt)
                else:
                    response = await bridge.finish(self._process(delivery, plan, bridge, receipt))
            except WebhookError as error:
                receipt.refused(error)
                await self._report(error, request, bridge)
                return error_response(error)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not show a stranger a debug page
                forget_variables(error)
                telemetry.log_event("receiver.error", error, endpoint=self.endpoint)
                fault = WebhookError()
                receipt.refused(fault)
                return error_response(fault)
            except BaseException as error:
                # Cancelled, or the process is told to stop: whoever logs that sees our frames too.
                forget_variables(error)
                raise
        for observer in self._observers:
            observer.on_answered(delivery, response)
        return response

    async def _open_or_tell(self, request: WebhookRequest, bridge: Bridge) -> Delivery:
        with telemetry.open_receipt(self.endpoint) as receipt:
            try:
                delivery = await self._open(request, bridge)
            except WebhookError as error:
                receipt.refused(error)
                await self._report(error, request, bridge)
                raise
            except BaseException as error:
                forget_variables(error)
                raise
            if receipt.traces:
                receipt.opened(log_context(delivery), delivery.signed_at - delivery.received_at)
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
            tenant, verifier = await self._tenants.resolve(request, bridge)
            keys = verifier.keyring
            body = BodyReader(verifier.begin(signature, now=now), self._max_body_bytes)
            await bridge.read(request.body, body.take, self._body_timeout)
            raw = body.body(request, head.length)
            proof = body.verification.finish()
        except (VerificationError, UnsupportedMediaType) as error:
            error.diagnosis = await self._diagnostics.diagnose(error, request, bridge, now, raw, keys)
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

    def _fixed_plan(self) -> Plan:
        if self._plan is None:
            self._router.freeze(self.endpoint)
            self._plan = self._router.plan()
        return self._plan

    async def _store(
        self, delivery: Delivery, plan: Plan, bridge: Bridge, receipt: telemetry.Receipt
    ) -> WebhookResponse:
        """Record a delivery for a worker. A request that goes away meanwhile does not undo it."""
        expected = plan.expected(delivery.event.event)
        stored = await bridge.wait(self.inbox, self.inbox.store, delivery, claim=False, handlers=expected)
        return self._answer_stored(stored.verdict, delivery, receipt)

    def _answer_stored(self, verdict: Verdict, delivery: Delivery, receipt: telemetry.Receipt) -> WebhookResponse:
        """Tell what became of a delivery whose handlers do not run now, and return the answer."""
        event = _STORED[verdict]
        if verdict is Verdict.NEW and not (receipt.traces or telemetry.is_enabled(event)):
            # The record says that it was stored, and the worker tells how it ends: few listen to this.
            return STORED
        error = None
        if verdict is Verdict.IN_FLIGHT:
            message = "the same delivery is being handled right now"
            error = DeliveryInFlight(message)
        skew = delivery.signed_at - delivery.received_at if verdict is Verdict.NEW else None
        receipt.ended(event, log_context(delivery), error=error, skew=skew)
        if error is not None:
            return error_response(error)
        return DUPLICATE if verdict is Verdict.DUPLICATE else STORED

    async def _process(
        self, delivery: Delivery, plan: Plan, bridge: Bridge, receipt: telemetry.Receipt
    ) -> WebhookResponse:
        expected = plan.expected(delivery.event.event)
        stored = await bridge.wait(self.inbox, self.inbox.store, delivery, claim=True, handlers=expected)
        if stored.claim is None:
            return self._answer_stored(stored.verdict, delivery, receipt)
        claimed = Claimed(delivery.numbered(stored.claim.attempt), stored.claim)
        try:
            outcome = await self._attempt(claimed, plan, bridge, receipt)
        except WebhookError as error:
            return error_response(error)
        return _ANSWERS[outcome]

    async def handle(self, claimed: Claimed, *, bridge: Bridge) -> Outcome | None:
        """Run the handlers of a delivery that was claimed from the durable inbox: what a worker does.

        Args:
            claimed: The delivery and its claim; the claim is settled here in every case.
            bridge: How handlers are called.

        Returns:
            How the delivery ended, or ``None`` when it did not end well. That has been logged.
        """
        try:
            return await self._attempt(claimed, self._fixed_plan(), bridge, telemetry.UNTRACED)
        except WebhookError:
            return None

    async def _attempt(self, claimed: Claimed, plan: Plan, bridge: Bridge, receipt: telemetry.Receipt) -> Outcome:
        """Make an attempt and tell what became of it.

        Raises:
            WebhookError: As `Attempt.make`.
        """
        delivery = claimed.delivery
        context = log_context(delivery)
        skew = delivery.signed_at - delivery.received_at if delivery.attempt == 1 else None
        started, now = time.perf_counter(), self._clock()
        attempt = Attempt(
            plan,
            claimed,
            context=context,
            inbox=self.inbox,
            bridge=bridge,
            retry=self.retry,
            now=now,
            unhandled=self._unhandled,
        )
        failure: WebhookError | None = None
        try:
            outcome = await attempt.make()
        except WebhookError as error:
            failure = error
            raise
        except EXITS:
            failure = attempt.failure
            raise
        finally:
            if failure is not None:
                dead = isinstance(failure, (HandlerFailed, HandlerMissing)) and failure.dead
                end = "delivery.dead" if dead else _UNDONE.get(type(failure), "delivery.failed")
                receipt.ended(end, context, duration=time.perf_counter() - started, error=failure, skew=skew)
        receipt.ended(_ENDED[outcome], context, duration=time.perf_counter() - started, skew=skew)
        return outcome

    async def _report(self, error: WebhookError, request: WebhookRequest, bridge: Bridge) -> None:
        """Log a refusal with its reason, and call the hooks: the one place where the reason is told."""
        forget_variables(error)
        error.closes_connection = request.has_two_lengths
        fields: dict[str, object] = {
            "code": error.code,
            "reason": str(error),
            "status": error.status,
            "evidence": dict(error.evidence),
            "findings": [] if error.diagnosis is None else list(error.diagnosis.codes),
            "endpoint": self.endpoint,
            "path": request.path[:200],
        }
        if error.status < 500:  # noqa: PLR2004 - a client error
            telemetry.log_event("delivery.rejected", **fields)
        else:
            if error.__cause__ is not None:
                begin_with_users_code(error.__cause__)
            telemetry.log_event("receiver.not_ready", error.__cause__, **fields)
        hooks = self._router.rejected_hooks() if self._plan is None else self._plan.rejected_hooks
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
        inbox: InboxLike = _UNCHANGED,
        acknowledge: Literal["stored", "handled"] | None = _UNCHANGED,
        observer: Observer | None = None,
    ) -> Generator[WebhookReceiver]:
        """Replace parts of this receiver for the length of a test, for every thread.

        Args:
            secret: As the constructor takes it; ``None`` for none.
            clock: As the constructor takes it.
            inbox: As the constructor takes it.
            acknowledge: As the constructor takes it; counts only together with ``inbox``.
            observer: Is told what becomes of each request, beside those that are told already. It may come
                after the first dispatch, where a hook may not; see `roovet_webhooks.testing.recording`.
        """
        before = self._tenants, self._clock, self.inbox, self._wanted, self._acknowledge, self._observers
        # Not a variable of this frame, through which goes whatever the test raises.
        given = [] if secret is _UNCHANGED else [secret]
        del secret
        try:
            if given:
                self._tenants = self._tenants.with_secret(given.pop())
            if clock is not _UNCHANGED:
                self._clock = clock
            if acknowledge is not _UNCHANGED:
                self._wanted = acknowledge
            if inbox is not _UNCHANGED:
                self._use_inbox(inbox)
            if observer is not None and observer not in self._observers:
                self._observers = (*self._observers, observer)
            yield self
        finally:
            self._tenants, self._clock, self.inbox, self._wanted, self._acknowledge, self._observers = before

    def __repr__(self) -> str:
        """Show which receiver it is."""
        return f"WebhookReceiver(endpoint={self.endpoint!r})"


def _checked(request: WebhookRequest) -> WebhookRequest:
    if not isinstance(cast("object", request), WebhookRequest):
        message = (
            f"a receiver takes a WebhookRequest, not {type(request).__name__}: WebhookRequest(method, path, headers, "
            "body); or mount it with the adapter of your framework"
        )
        raise TypeError(message)
    return request
