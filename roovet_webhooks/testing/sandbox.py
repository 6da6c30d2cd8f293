"""`LocalRoovet`: the sandbox in a test, with a client of its API, and its webhooks sent to your test client.

Nothing listens on a port and nothing waits: what is due is sent when the test says so, and time passes when the test
lets it pass. Needs the extra ``sandbox``.
"""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx2

from roovet_webhooks.api.client import AsyncRoovetClient, RoovetClient
from roovet_webhooks.sandbox import Sandbox, SandboxClock, sandbox_app
from roovet_webhooks.sandbox.api import ApiRequest
from roovet_webhooks.sandbox.outbox import Result
from roovet_webhooks.sandbox.sender import transmission_of
from roovet_webhooks.serving import serving
from roovet_webhooks.testing.fixed import PATH, SECRET, Clock
from roovet_webhooks.testing.signed import SignedRequest, post_with, status_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from roovet_webhooks.api.assumed import Order, PaymentMethod
    from roovet_webhooks.sandbox import Chaos
    from roovet_webhooks.sandbox.outbox import DueMessage
    from roovet_webhooks.testing.signed import ClientLike

_BASE_URL = "http://roovet.localhost"
_RATE_LIMIT = 60


class SandboxTransport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers the requests of a client by a sandbox, without a network.

    Args:
        sandbox: The sandbox.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        return self._answer(request, await request.aread())

    def _answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        url = request.url
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = ApiRequest(request.method, url.path, list(url.params.multi_items()), headers, body)
        answer = self._sandbox.answer(asked, self._sandbox.draw_api_fault())
        return httpx2.Response(
            answer.status, headers={**answer.headers, "Content-Type": "application/json"}, content=answer.body
        )


class LocalRoovet:
    """Roovet in a test: its API, and its webhooks. The pytest fixture ``roovet_sandbox`` is one.

    Args:
        secret: The signing secret of the endpoints.
        path: Where deliveries go, unless `forward` says otherwise.
        clock: The clock, which stands still; one of its own when ``None``.
        rate_limit: Requests a minute for each key.

    Attributes:
        sandbox: The `Sandbox`, for what is not here.
        clock: Its clock.
        client: A `RoovetClient` of it, with every scope. It waits by letting the clock tick.
        async_client: An `AsyncRoovetClient` likewise.

    Example:
        >>> from roovet_webhooks import WebhookReceiver
        >>> receiver = WebhookReceiver("whsec_for_tests_5f2b8c1e9a7d4036b1c2d3e4", clock=Clock())
        >>> @receiver.on("order.created")
        ... def fulfil(event):
        ...     print("fulfil", event.id)
        >>> with LocalRoovet() as roovet:
        ...     roovet.forward(receiver)
        ...     order = roovet.checkout()
        ...     sent = roovet.deliver()
        fulfil ord_1
    """

    def __init__(
        self, *, secret: str = SECRET, path: str = PATH, clock: Clock | None = None, rate_limit: int = _RATE_LIMIT
    ) -> None:
        self.clock: Clock = Clock() if clock is None else clock
        self.sandbox: Sandbox = Sandbox(clock=SandboxClock(self.clock), rate_limit=rate_limit)
        self._secret = secret
        self._path = path
        self._clients: dict[str, tuple[object, str]] = {}
        self._stack = ExitStack()
        self._stack.callback(self.sandbox.close)
        transport = SandboxTransport(self.sandbox)
        self.client: RoovetClient = RoovetClient(
            self.sandbox.api_key, base_url=_BASE_URL, transport=transport, sleep=self.clock.tick, clock=self.clock
        )
        self._stack.callback(self.client.close)

        async def tick(seconds: float) -> None:
            self.clock.tick(seconds)

        self.async_client: AsyncRoovetClient = AsyncRoovetClient(
            self.sandbox.api_key, base_url=_BASE_URL, transport=transport, sleep=tick, clock=self.clock
        )

    def forward(self, client: ClientLike, path: str | None = None) -> None:
        """Send what happens from now on to a test client as well.

        Args:
            client: As `SignedRequest.post` takes it: a test client of your application, or a receiver.
            path: Where it posts to.
        """
        path = self._path if path is None else path
        url = f"http://endpoint-{len(self._clients) + 1}.localhost{path}"
        self.sandbox.register(url, self._secret)
        self._clients[url] = client, path

    def checkout(self, product: str = "prd_5", *, quantity: int = 1, payment_method: PaymentMethod = "card") -> Order:
        """Order something, and return the order; `deliver` sends the event of it.

        Args:
            product: What to order.
            quantity: How many of it.
            payment_method: Who pays for it, ``wallet`` or ``card``.
        """
        cart = self.client.shop.cart({product: quantity})
        return self.client.shop.checkout(cart.id, payment_method)

    def trigger(self, event: str, /, id: str, **fields: object) -> None:  # noqa: A002 - the field of the payload
        """Have an event of any name happen; `deliver` sends it."""
        self.sandbox.trigger(event, id, fields)

    def advance(self, seconds: float) -> None:
        """Let time pass, for the sandbox and for whoever shares its clock."""
        self.clock.tick(seconds)

    def chaos(self, **settings: object) -> Chaos:
        """Have things go wrong from now on; see `Sandbox.set_chaos`. Nothing waits: a delay only changes the order."""
        return self.sandbox.set_chaos(**settings)

    def deliver(self) -> list[int | None]:
        """Send what is due, and return the status of each answer; ``None`` where none came.

        What is to be sent again later is sent by a later call, when `advance` has let the time pass.

        Raises:
            TypeError: A client is async: ``await roovet_sandbox.deliver_async()``.
        """
        steps = self._steps()
        response: object = None
        while True:
            try:
                client, request = steps.send(response)
            except StopIteration as end:
                statuses: list[int | None] = end.value
                return statuses
            response = post_with(client, request)
            if inspect.isawaitable(response):
                if inspect.iscoroutine(response):
                    response.close()
                message = "this client is async: await roovet_sandbox.deliver_async()"
                raise TypeError(message)

    async def deliver_async(self) -> list[int | None]:
        """Do what `deliver` does, with async clients; others may be among them."""
        steps = self._steps()
        response: object = None
        while True:
            try:
                client, request = steps.send(response)
            except StopIteration as end:
                statuses: list[int | None] = end.value
                return statuses
            response = post_with(client, request)
            if inspect.isawaitable(response):
                response = await response

    def _steps(self) -> Generator[tuple[object, SignedRequest], Any, list[int | None]]:
        """Yield what is to be sent to which client, be sent the response, and return the statuses."""
        statuses: list[int | None] = []
        done: set[int] = set()
        while due := self._due(done):
            message = due[0]
            done.add(message.id)
            client, path = self._clients[message.url]
            chaos = self.sandbox.chaos
            fault = chaos.webhook_fault(message.id, message.attempt)
            sent = transmission_of(message, fault, chaos, self.clock())
            lines = tuple((name.encode(), value.encode()) for name, value in sent.headers.items())
            status = None
            # A test client sends whole requests: one that is cut does not arrive.
            for _ in range(0 if sent.cut else sent.copies):
                response = yield client, SignedRequest(sent.body, lines, path)
                status = status_of(response)
            statuses.append(status)
            error = f"chaos: {fault}" if sent.cut or fault == "lost_answer" else None
            self.sandbox.settle(message, Result(status, 0, fault, error))
        return statuses

    def _due(self, done: set[int]) -> list[DueMessage]:
        """Return the messages that are due; those that wait let the others go first."""
        chaos = self.sandbox.chaos
        due = [message for message in self.sandbox.due(without=done) if message.url in self._clients]
        return sorted(due, key=lambda message: chaos.webhook_fault(message.id, message.attempt) in {"delay", "burst"})

    def serve(self) -> str:
        """Serve the sandbox on a free port of this machine until the test ends, and return its URL.

        It then sends by itself what is due, to endpoints that ``roovet_sandbox.sandbox.register`` names.
        """
        return self._stack.enter_context(serving(sandbox_app(self.sandbox), path="", lifespan=True, date_header=False))

    def close(self) -> None:
        """Close the clients, the server if there is one, and the sandbox."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Show the clock; key and secret stay out of logs."""
        return f"LocalRoovet(clock={self.clock!r})"
