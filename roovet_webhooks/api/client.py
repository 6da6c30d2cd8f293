"""`RoovetClient` and `AsyncRoovetClient`: the API of Roovet, called.

Both have the same methods: ``client.wallet`` is a `Wallet`, ``client.shop`` a `Shop`. `AsyncRoovetClient` awaits them,
and iterates their lists with ``async for``. A client may be shared by threads, or by the tasks of an event loop.
"""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Generic, TypedDict, overload
from urllib.parse import urlsplit

import anyio
import httpx2

from roovet_webhooks.api.documented import BASE_URL, VERSIONS
from roovet_webhooks.api.drivers import AsyncDriver, SyncDriver
from roovet_webhooks.api.exchange import Options, Session
from roovet_webhooks.api.key import ApiKey
from roovet_webhooks.api.limiter import RateLimiter
from roovet_webhooks.api.lookup import look_up
from roovet_webhooks.api.verbs import D, Shop, Wallet
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.signing.secrecy import forgets_secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self, Unpack

    from roovet_webhooks.api.assumed import Order
    from roovet_webhooks.api.documented import Transaction
    from roovet_webhooks.events import Event, OrderCreated

_RECENT = 1000


class CallOptions(TypedDict, total=False):
    """How calls are made; for a client, or by `with_options` for some calls.

    Attributes:
        timeout: Seconds to wait for a connection, and for each read and write. 10.0 by default.
        max_attempts: How often a request is sent at most: 4 by default, 1 for no retries.
        max_wait: Seconds to wait at most, each time, until the key has a request left. 90.0 by default, which is
            always enough; 0.0 raises `RateLimited` at once.
        version: The ``X-Roovet-Version`` that is asked for: the newest documented one by default, ``None`` for no pin.
    """

    timeout: float
    max_attempts: int
    max_wait: float
    version: str | None


_DEFAULTS = Options(timeout=10.0, max_attempts=4, max_wait=90.0, version=VERSIONS[-1])


class _Client(Generic[D]):
    """What both clients have.

    Attributes:
        wallet: The methods of the wallet.
        shop: The methods of the shop.
    """

    _driver: D
    wallet: Wallet[D]
    shop: Shop[D]

    def _use(self, driver: D) -> None:
        self._driver = driver
        self.wallet = Wallet(driver)
        self.shop = Shop(driver)

    def with_options(self, **options: Unpack[CallOptions]) -> Self:
        """Return a client with other options, on the same connections and the same count of requests.

        Example::

            client.with_options(timeout=2.0, max_attempts=1).wallet.balance()
        """
        other = object.__new__(type(self))
        other._use(self._driver.with_options(replace(self._driver.options, **options)))
        return other

    def __repr__(self) -> str:
        """Show where it calls, and nothing of the key."""
        return f"{type(self).__name__}(base_url={self._driver.session.base_url!r})"


class RoovetClient(_Client[SyncDriver]):
    """Calls the API of Roovet from threads.

    Args:
        api_key: The key (``rvpk_…``); without it that in ``ROOVET_API_KEY``.
        base_url: Where the API is: https, or http on this machine.
        transport: A transport of httpx2 in place of the network, for tests.
        sleep: Waits for a number of seconds, for tests; give ``clock`` with it.
        clock: Returns Unix seconds, for tests.
        options: See `CallOptions`.

    Raises:
        InvalidApiKey: There is no key, or it is something else.
        ConfigurationError: The base URL would send the key in the clear.

    Example::

        with RoovetClient() as client:
            print(client.wallet.balance().available_cents)
    """

    @forgets_secret
    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str = BASE_URL,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.time,
        **options: Unpack[CallOptions],
    ) -> None:
        session, trust_env = _open_session(api_key, base_url, clock)
        http = httpx2.Client(transport=transport, trust_env=trust_env)
        self._use(SyncDriver(session, replace(_DEFAULTS, **options), http, sleep))

    @overload
    def fetch(self, event: OrderCreated, *, recent: int = ...) -> Order: ...
    @overload
    def fetch(self, event: Event, *, recent: int = ...) -> Order | Transaction: ...
    def fetch(self, event: Event, *, recent: int = _RECENT) -> Order | Transaction:
        """Return what a thin event is about: an order (``ord_…``), or a transaction (``txn_…``, ``trf_…``).

        The API has no endpoint for one of them, so it is looked for among the recent ones. For a transfer it is the
        transaction that the transfer caused.

        Args:
            event: The event, as a handler gets it.
            recent: How many rows to look through at most; 100 take one request.

        Raises:
            NotThereYet: It is not among them, or not yet. As a `RetryLater` it may leave the handler: the delivery is
                tried again later, which counts as no failure.
            NotFetchable: The API has no list of what the event is about.
            ApiError: A call failed.
        """
        return self._driver.run(look_up(event, recent=recent))

    def close(self) -> None:
        """Close the connections."""
        self._driver.http.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()


class AsyncRoovetClient(_Client[AsyncDriver]):
    """Calls the API of Roovet from coroutines, under asyncio or Trio. Parameters and errors as `RoovetClient`.

    Example::

        async with AsyncRoovetClient() as client:
            print((await client.wallet.balance()).available_cents)
    """

    @forgets_secret
    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str = BASE_URL,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        clock: Callable[[], float] = time.time,
        **options: Unpack[CallOptions],
    ) -> None:
        session, trust_env = _open_session(api_key, base_url, clock)
        http = httpx2.AsyncClient(transport=transport, trust_env=trust_env)
        self._use(AsyncDriver(session, replace(_DEFAULTS, **options), http, sleep))

    @overload
    async def fetch(self, event: OrderCreated, *, recent: int = ...) -> Order: ...
    @overload
    async def fetch(self, event: Event, *, recent: int = ...) -> Order | Transaction: ...
    async def fetch(self, event: Event, *, recent: int = _RECENT) -> Order | Transaction:
        """Return what a thin event is about, as `RoovetClient.fetch`."""
        return await self._driver.run(look_up(event, recent=recent))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._driver.http.aclose()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()


def _open_session(api_key: str | None, base_url: str, clock: Callable[[], float]) -> tuple[Session, bool]:
    """Return what the calls of a client share, and whether proxies of the environment may be used."""
    base_url = base_url.rstrip("/")
    encrypted = _check_base_url(base_url)
    return Session(ApiKey(api_key), base_url, RateLimiter(clock)), encrypted


def _check_base_url(base_url: str) -> bool:
    """Return whether requests are encrypted; they are not on the way to a server on this machine.

    Raises:
        ConfigurationError: The URL is none, or would send the key in the clear to another machine.
    """
    parts = urlsplit(base_url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        message = "base_url must be a scheme, a host and perhaps a path, without user, query and fragment"
        raise ConfigurationError(message)
    if parts.scheme == "https" and parts.hostname:
        return True
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return False
    message = f"base_url must begin with https://, or with http:// and be on this machine, not {base_url!r}"
    raise ConfigurationError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
