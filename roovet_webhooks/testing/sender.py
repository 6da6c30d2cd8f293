"""`Roovet`: the other side of a test, with a secret and a clock that your receiver shares for its length."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from roovet_webhooks.inbox.memory import MemoryInbox
from roovet_webhooks.testing.fixed import PATH, SECRET, Clock
from roovet_webhooks.testing.records import Record
from roovet_webhooks.testing.signed import post_with, signed_request, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from typing import Self

    from roovet_webhooks.inbox.protocol import Inbox
    from roovet_webhooks.messages import WebhookResponse
    from roovet_webhooks.receiving.receiver import WebhookReceiver
    from roovet_webhooks.receiving.tenants import Resolver
    from roovet_webhooks.signing.keys import SecretLike
    from roovet_webhooks.testing.bodies import EventLike
    from roovet_webhooks.testing.forgeries import Forgery
    from roovet_webhooks.testing.signed import ClientLike, Posts, Receives, SignedRequest

R = TypeVar("R")

_NOT_THERE = frozenset({404, 405})


class Roovet:
    """Roovet, as a test has it. The pytest fixture ``roovet`` is one; elsewhere use it as a context manager.

    Args:
        secret: The signing secret.
        path: Where deliveries go, unless a request says otherwise.
        clock: The clock, for signing and for the receivers in use; one that stands still at `NOW` when ``None``.

    Attributes:
        secret: The signing secret.
        path: Where deliveries go.
        clock: The clock; ``roovet.clock.tick(301)`` lets time pass.
        record: What the receivers in use have done.
        in_use: Whether there is any receiver in use.

    Example:
        >>> from roovet_webhooks import WebhookReceiver
        >>> receiver = WebhookReceiver()
        >>> @receiver.on("order.created")
        ... def fulfil(event): ...
        >>> with Roovet() as roovet:
        ...     record = roovet.use(receiver)
        ...     roovet.post(receiver, "order.created", id="ord_1")
        ...     delivery = record.assert_handled("order.created", id="ord_1")
        WebhookResponse(200, b'{"status":"handled"}')
    """

    def __init__(self, *, secret: str = SECRET, path: str = PATH, clock: Clock | None = None) -> None:
        self.secret: str = secret
        self.path: str = path
        self.clock: Clock = Clock() if clock is None else clock
        self.record: Record = Record()
        self.in_use: bool = False
        self._overrides = ExitStack()

    def use(
        self,
        receiver: WebhookReceiver,
        *,
        secret: SecretLike | Resolver | None = None,
        inbox: Inbox | None = None,
    ) -> Record:
        """Give a receiver this secret, this clock and an empty inbox, and record what it does, until `close`.

        Args:
            receiver: The receiver. It may be mounted before or after, and may have dispatched.
            secret: Another secret, or a resolver of tenants; this one's own when ``None``.
            inbox: Another inbox; one in memory, which lives by this clock, when ``None``. Handlers run inside the
                request whichever it is, since a test has no worker. Where they open ``delivery.transaction()`` give
                a durable one: ``SQLInbox("sqlite:///…", clock=roovet.clock, settle=0)``.

        Returns:
            The record, one for all receivers in use.
        """
        changed = receiver.override(
            secret=self.secret if secret is None else secret,
            clock=self.clock,
            inbox=MemoryInbox(clock=self.clock) if inbox is None else inbox,
            acknowledge="handled",
            observer=self.record,
        )
        self._overrides.enter_context(changed)
        self.in_use = True
        return self.record

    def request(
        self,
        event: EventLike,
        /,
        *,
        secret: SecretLike | None = None,
        timestamp: int | None = None,
        age: int = 0,
        path: str | None = None,
        **fields: object,
    ) -> SignedRequest:
        """Return a delivery, signed now and with this secret unless told otherwise.

        Arguments and errors are those of `roovet_webhooks.testing.signed_request`.
        """
        return signed_request(
            event,
            secret=self.secret if secret is None else secret,
            timestamp=int(self.clock()) if timestamp is None else timestamp,
            age=age,
            path=self.path if path is None else path,
            **fields,
        )

    @overload
    def post(self, client: Receives, event: EventLike, /, **options: Any) -> WebhookResponse: ...  # noqa: ANN401
    @overload
    def post(self, client: Posts[R], event: EventLike, /, **options: Any) -> R: ...  # noqa: ANN401
    @overload
    def post(self, client: Callable[[SignedRequest], R], event: EventLike, /, **options: Any) -> R: ...  # noqa: ANN401

    def post(self, client: object, event: EventLike, /, **options: Any) -> object:
        """Post a delivery with a test client, and return the client's own response.

        Args:
            client: As `SignedRequest.post` takes it; an async client gives something to await.
            event: The event, as `signed_request` takes it.
            **options: Fields of the payload, and the arguments of `request`.
        """
        return post_with(client, self.request(event, **options))

    def tampered(self, forgery: Forgery) -> Tampered:
        """Return a forgery, to be sent with this secret and clock; `FORGERIES` has them all."""
        return Tampered(forgery, self)

    def close(self) -> None:
        """Give the receivers in use back what was theirs."""
        self._overrides.close()
        self.in_use = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show where deliveries go, and when; the secret stays out of logs."""
        return f"Roovet(path={self.path!r}, clock={self.clock!r})"


class Tampered:
    """One forgery of a delivery, to be refused. The parametrised pytest fixture ``tampered`` is each in turn.

    Args:
        forgery: The forgery.
        roovet: Whose delivery is forged.
    """

    def __init__(self, forgery: Forgery, roovet: Roovet) -> None:
        self.forgery: Forgery = forgery
        self._roovet = roovet

    def request(self, event: EventLike = "order.created", /, **options: Any) -> SignedRequest:  # noqa: ANN401
        """Return the forged request; arguments as `Forgery.request`."""
        roovet = self._roovet
        genuine: dict[str, Any] = {"secret": roovet.secret, "timestamp": int(roovet.clock()), "path": roovet.path}
        return self.forgery.request(event, **{**genuine, **options})

    def assert_refused(self, client: ClientLike, event: EventLike = "order.created", /, **options: Any) -> None:  # noqa: ANN401
        """Assert that an endpoint refuses it, and for what it is.

        A receiver in use (`Roovet.use`) must have refused it itself, with a code of this forgery, and handled nothing.
        Where none is in use, as with a server in another process, the genuine delivery is sent after it and must be
        accepted: an endpoint that refuses everything proves nothing.

        Args:
            client: As `SignedRequest.post` takes it, not async.
            event: The event that is forged, as `signed_request` takes it, but no raw bytes.
            **options: Fields of the payload, and the arguments of `Forgery.request`.

        Raises:
            AssertionError: It is not refused, or nothing shows that it was refused for what it is.
            TypeError: The client is async: ``await tampered.assert_refused_async(client)``.
        """
        __tracebackhide__ = True
        steps = self._steps(event, options)
        request = next(steps)
        while True:
            response: Any = post_with(client, request)
            if inspect.isawaitable(response):
                if inspect.iscoroutine(response):
                    response.close()
                message = "this client is async: await tampered.assert_refused_async(client)"
                raise TypeError(message)
            try:
                request = steps.send(response)
            except StopIteration:
                return

    async def assert_refused_async(
        self,
        client: ClientLike,
        event: EventLike = "order.created",
        /,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Do what `assert_refused` does, with an async client."""
        __tracebackhide__ = True
        steps = self._steps(event, options)
        request = next(steps)
        while True:
            answer: Awaitable[object] = post_with(client, request)
            try:
                request = steps.send(await answer)
            except StopIteration:
                return

    def _steps(self, event: EventLike, options: dict[str, Any]) -> Generator[SignedRequest, object, None]:
        """Yield what is to be sent, be sent what it was answered, and raise where that is not as it must be."""
        __tracebackhide__ = True
        record = self._roovet.record
        before = len(record.deliveries), len(record.rejected)
        response = yield self.request(event, **options)
        self._check_refused(status_of(response), options.get("path", self._roovet.path))
        if self._roovet.in_use:
            self._check_record(record.deliveries[before[0] :], record.rejected[before[1] :])
            return
        response = yield self._roovet.request(event, **options)
        status = status_of(response)
        if not 200 <= status < 300:  # noqa: PLR2004 - the class of success
            self._fail(
                f"was refused, but the genuine delivery was answered {status} as well, so that this proves nothing: "
                "do both sides have the same secret and time? (roovet.use(receiver) sees to that)"
            )

    def _check_refused(self, status: int, path: str) -> None:
        __tracebackhide__ = True
        if 200 <= status < 300:  # noqa: PLR2004 - the class of success
            self._fail(f"got in: it was answered {status}")
        if status in _NOT_THERE:
            self._fail(f"was answered {status}: nothing takes a POST at {path}, so that this proves nothing")
        if not 400 <= status < 500:  # noqa: PLR2004 - the class of refusals
            self._fail(f"was answered {status}, which refuses nothing")

    def _check_record(self, deliveries: list[Any], rejected: list[Any]) -> None:
        __tracebackhide__ = True
        if deliveries:
            self._fail(f"was refused, and all the same there is {deliveries[0]}")
        if not rejected:
            self._fail("was refused, but not by the receiver that is in use: is it another one that is mounted there?")
        if rejected[-1].code not in self.forgery.codes:
            wanted = " or ".join(sorted(self.forgery.codes))
            self._fail(f"was refused for another reason, so that this proves nothing: {rejected[-1]}; not {wanted}")

    def _fail(self, fault: str) -> NoReturn:
        __tracebackhide__ = True
        message = f"the forgery {self.forgery.name!r} {fault}\n{self.forgery.summary}"
        raise AssertionError(message)

    def __repr__(self) -> str:
        """Show which forgery it is."""
        return f"Tampered({self.forgery.name!r})"
