"""The two ways to send a call: `SyncDriver` blocks, `AsyncDriver` awaits. Neither decides anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import stamina

from roovet_webhooks.api.exchange import Exchange
from roovet_webhooks.api.paging import next_call, rows_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator

    import httpx2

    from roovet_webhooks.api.exchange import Answer, Call, Options, Session
    from roovet_webhooks.api.paging import Row
    from roovet_webhooks.api.resource import Page

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound="Row")
D = TypeVar("D", bound="Driver")


class Driver:
    """What both have.

    Args:
        session: What the calls of a client share.
        options: How they are made.
    """

    def __init__(self, session: Session, options: Options) -> None:
        self.session = session
        self.options = options


class SyncDriver(Driver):
    """Sends calls from a thread."""

    def __init__(
        self, session: Session, options: Options, http: httpx2.Client, sleep: Callable[[float], object]
    ) -> None:
        super().__init__(session, options)
        self.http = http
        self.sleep = sleep

    def with_options(self, options: Options) -> SyncDriver:
        """Return one with other options, on the same connections."""
        return SyncDriver(self.session, options, self.http, self.sleep)

    def send(self, call: Call[T]) -> Answer[T]:
        """Send a call until there is an answer.

        Raises:
            ApiError: It failed.
        """
        exchange = Exchange(self.session, self.options, call)
        return stamina.RetryingCaller(**exchange.retrying)(exchange.retry, self._attempt, exchange)

    def _attempt(self, exchange: Exchange[T]) -> Answer[T]:
        request = exchange.request(self.http)
        while wait := exchange.acquire():
            self.sleep(wait)
        with exchange:
            exchange.response = self.http.send(request, follow_redirects=False)
        return exchange.verdict()

    def run(self, steps: Generator[Call[Any], Any, T]) -> T:
        """Send each call that a generator yields, hand it the value, and return what it returns."""
        value: object = None
        while True:
            try:
                call = steps.send(value)
            except StopIteration as end:
                result: T = end.value
                return result
            value = self.send(call).value


class AsyncDriver(Driver):
    """Sends calls from a task."""

    def __init__(
        self,
        session: Session,
        options: Options,
        http: httpx2.AsyncClient,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        super().__init__(session, options)
        self.http = http
        self.sleep = sleep

    def with_options(self, options: Options) -> AsyncDriver:
        """Return one with other options, on the same connections."""
        return AsyncDriver(self.session, options, self.http, self.sleep)

    async def send(self, call: Call[T]) -> Answer[T]:
        """Send a call until there is an answer.

        Raises:
            ApiError: It failed.
        """
        exchange = Exchange(self.session, self.options, call)
        return await stamina.AsyncRetryingCaller(**exchange.retrying)(exchange.retry, self._attempt, exchange)

    async def _attempt(self, exchange: Exchange[T]) -> Answer[T]:
        request = exchange.request(self.http)
        while wait := exchange.acquire():
            await self.sleep(wait)
        with exchange:
            exchange.response = await self.http.send(request, follow_redirects=False)
        return exchange.verdict()

    async def run(self, steps: Generator[Call[Any], Any, T]) -> T:
        """Send each call that a generator yields, hand it the value, and return what it returns."""
        value: object = None
        while True:
            try:
                call = steps.send(value)
            except StopIteration as end:
                result: T = end.value
                return result
            value = (await self.send(call)).value


class Method(Generic[D, P, T]):
    """A method of a client: what describes a call, and the driver that sends it."""

    def __init__(self, driver: D, describe: Callable[P, Call[T]]) -> None:
        self._driver = driver
        self._describe = describe
        self.__doc__ = describe.__doc__
        self.__wrapped__ = describe  # so that help() and inspect.signature() show its parameters


class Rows(Generic[D, R]):
    """The rows of a list: the call for its first page, and the driver that sends it."""

    def __init__(self, driver: D, call: Call[Page[R]]) -> None:
        self._driver = driver
        self._call = call


class Verb(Method[SyncDriver, P, T]):
    """A method of the client that makes one call."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the call and return its value."""
        return self.raw(*args, **kwargs).value

    def raw(self, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Make the call and return the answer as it came: status, headers, body, and the value."""
        return self._driver.send(self._describe(*args, **kwargs))


class AsyncVerb(Method[AsyncDriver, P, T]):
    """A method of the async client that makes one call."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make the call and return its value."""
        return (await self.raw(*args, **kwargs)).value

    async def raw(self, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        """Make the call and return the answer as it came: status, headers, body, and the value."""
        return await self._driver.send(self._describe(*args, **kwargs))


class Pager(Rows[SyncDriver, R]):
    """The rows of a list. Iterating asks for one page at a time and keeps no other.

    With ``ending_before`` it goes the other way: from the cursor to ever more recent rows.
    """

    def __iter__(self) -> Iterator[R]:
        """Yield each row."""
        for page in self.pages():
            yield from rows_of(self._call, page)

    def pages(self) -> Iterator[Page[R]]:
        """Yield each page."""
        call: Call[Page[R]] | None = self._call
        while call is not None:
            page = self._driver.send(call).value
            yield page
            call = next_call(call, page)


class AsyncPager(Rows[AsyncDriver, R]):
    """The rows of a list, for ``async for``. Iterating asks for one page at a time and keeps no other.

    With ``ending_before`` it goes the other way: from the cursor to ever more recent rows.
    """

    async def __aiter__(self) -> AsyncIterator[R]:
        """Yield each row."""
        async for page in self.pages():
            for row in rows_of(self._call, page):
                yield row

    async def pages(self) -> AsyncIterator[Page[R]]:
        """Yield each page."""
        call: Call[Page[R]] | None = self._call
        while call is not None:
            page = (await self._driver.send(call)).value
            yield page
            call = next_call(call, page)


class Listing(Method[SyncDriver, P, "Page[R]"]):
    """A method of the client that returns a list's rows."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Pager[R]:
        """Return the rows, which are asked for as they are iterated."""
        return Pager(self._driver, self._describe(*args, **kwargs))

    def raw(self, *args: P.args, **kwargs: P.kwargs) -> Answer[Page[R]]:
        """Ask for one page and return the answer as it came."""
        return self._driver.send(self._describe(*args, **kwargs))


class AsyncListing(Method[AsyncDriver, P, "Page[R]"]):
    """A method of the async client that returns a list's rows."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncPager[R]:
        """Return the rows, which are asked for as they are iterated."""
        return AsyncPager(self._driver, self._describe(*args, **kwargs))

    async def raw(self, *args: P.args, **kwargs: P.kwargs) -> Answer[Page[R]]:
        """Ask for one page and return the answer as it came."""
        return await self._driver.send(self._describe(*args, **kwargs))
