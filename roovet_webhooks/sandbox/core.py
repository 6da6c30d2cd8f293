"""`Sandbox`: a local Roovet, its API and its sender of webhooks, on one database and one clock."""

from __future__ import annotations

import math
import random
import re
import secrets
import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update

from roovet_webhooks.api.documented import RATE_LIMIT, SCOPES
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.retry import RetryPolicy
from roovet_webhooks.sandbox import books, outbox, seed
from roovet_webhooks.sandbox.api import Api
from roovet_webhooks.sandbox.chaos import CALM, Chaos, make_chaos
from roovet_webhooks.sandbox.clock import SandboxClock
from roovet_webhooks.sandbox.database import Database, account, api_key as keys_of, endpoint, metadata, setting
from roovet_webhooks.sandbox.rates import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from roovet_webhooks.sandbox.api import Answer, ApiRequest
    from roovet_webhooks.sandbox.outbox import DueMessage, Result

RETRIES = RetryPolicy(initial=1.0, factor=2.0, max_delay=300.0, max_attempts=8)
"""When a message is sent again, all assumed: the vendor documents no retries."""

_KEY = re.compile(r"rvpk_[A-Za-z0-9_-]{8,200}")
_JITTER = 0.2  # of each wait
_URL = re.compile(r"https?://[^\s/?#@]+([/?][^\s#]*)?", re.IGNORECASE)


class Sandbox:
    """A local Roovet. Safe to share between threads.

    Args:
        path: A file that keeps everything through a restart; in memory when ``None``.
        clock: Its clock, which can be advanced.
        chaos: What goes wrong.
        retry: When a message that was not acknowledged is sent again; ``None`` for never, since the vendor
            promises no retries.
        rate_limit: Requests a minute for each key.
        api_key: The key that is there from the beginning; a new one when ``None``.

    Raises:
        ConfigurationError: The API key cannot be one.

    Attributes:
        clock: Its clock.
        chaos: What goes wrong; may be set at any time.
        retry: When messages are sent again.
        database: Where it keeps everything.
        on_sent: Called after each attempt to deliver a message, with its result and the seconds until the next
            attempt, ``None`` when there is none.
        api_key: A key with every scope, made when the sandbox was new.

    Example:
        >>> sandbox = Sandbox()
        >>> sandbox.api_key.startswith("rvpk_test_")
        True
        >>> sandbox.trigger("order.created", "ord_1")
        1
    """

    def __init__(  # noqa: PLR0913 - the options of a sandbox, all but one by keyword
        self,
        path: Path | None = None,
        *,
        clock: SandboxClock | None = None,
        chaos: Chaos = CALM,
        retry: RetryPolicy | None = RETRIES,
        rate_limit: int = RATE_LIMIT,
        api_key: str | None = None,
    ) -> None:
        if api_key is not None and not _KEY.fullmatch(api_key):
            message = "an API key of the sandbox is rvpk_ and at least 8 letters, digits, - or _"
            raise ConfigurationError(message)
        self.clock: SandboxClock = SandboxClock() if clock is None else clock
        self.retry: RetryPolicy | None = retry
        self.database: Database = Database(path)
        self.chaos: Chaos = chaos
        self._rates = RateLimit(self.clock, rate_limit)
        self._api = Api(self.database, self.clock, self._rates)
        self.on_sent: Callable[[DueMessage, Result, float | None], None] | None = None
        self._requests = 0
        self._counting = threading.Lock()
        with self.database.begin() as connection:
            self._restore_clock(connection)
            if connection.execute(select(account.c.id).limit(1)).first() is None:
                seed.plant(connection, self.clock.milliseconds())
            keys = list(connection.execute(select(keys_of.c.key).order_by(keys_of.c.id)).scalars())
            if api_key not in keys and (api_key is not None or not keys):
                keys.insert(0, _add_key(connection, SCOPES, seed.OWNER, api_key))
            self.api_key: str = keys[0] if api_key is None else api_key

    def answer(self, request: ApiRequest, fault: str | None = None) -> Answer:
        """Answer a request to the API; see `Api.answer`."""
        return self._api.answer(request, fault)

    # Chaos and time

    def set_chaos(self, **settings: object) -> Chaos:
        """Have things go wrong from now on; without arguments nothing does.

        Args:
            **settings: Fields of `Chaos`; ``all`` is the probability of every fault that is not named.

        Raises:
            ConfigurationError: A name is unknown, or a value is no probability.
        """
        self.chaos = make_chaos(settings)
        return self.chaos

    def draw_api_fault(self) -> str | None:
        """Return the fault of the next request to the API, if any."""
        with self._counting:
            self._requests += 1
            return self.chaos.api_fault(self._requests)

    def advance(self, seconds: float) -> None:
        """Let time pass: what falls due meanwhile is sent, and limits and cursors of time go on.

        Raises:
            ValueError: The time is negative, or no finite number.
        """
        self.clock.advance(seconds)
        with self.database.begin() as connection:
            connection.execute(delete(setting).where(setting.c.name == "clock"))
            connection.execute(insert(setting).values(name="clock", value=repr(self.clock.offset)))

    def _restore_clock(self, connection: Connection) -> None:
        kept = connection.execute(select(setting.c.value).where(setting.c.name == "clock")).scalar()
        if kept is not None and self.clock.offset == 0:
            self.clock.advance(float(kept))

    # Keys and endpoints

    def create_key(self, scopes: Sequence[str] = SCOPES, *, user_id: str = seed.OWNER) -> str:
        """Return a new API key.

        Args:
            scopes: What it may do.
            user_id: Whose wallet and orders it is for; a new user when there is none of this id.

        Raises:
            ConfigurationError: There is no such scope.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown:
            message = f"there is no scope {', '.join(unknown)}; there are {', '.join(SCOPES)}"
            raise ConfigurationError(message)
        with self.database.begin() as connection:
            return _add_key(connection, scopes, user_id)

    def register(self, url: str, secret: str | None = None) -> str:
        """Send what happens from now on to an endpoint as well, and return its signing secret.

        Args:
            url: Where it listens, http or https.
            secret: Its signing secret; a new one when ``None``.

        Raises:
            ConfigurationError: It is no URL that can be posted to.
        """
        if not _URL.fullmatch(url):
            message = f"an endpoint is an http or https URL such as http://127.0.0.1:8000/webhooks/roovet, not {url!r}"
            raise ConfigurationError(message)
        secret = new_secret() if secret is None else secret
        with self.database.begin() as connection:
            found = connection.execute(select(endpoint.c.id).where(endpoint.c.url == url)).scalar()
            if found is None:
                connection.execute(insert(endpoint).values(url=url, secret=secret))
            else:
                connection.execute(update(endpoint).where(endpoint.c.id == found).values(secret=secret))
        return secret

    def rotate(self, url: str, *, overlap: float = 86_400.0) -> str:
        """Give an endpoint a new signing secret, and return it.

        Args:
            url: The endpoint.
            overlap: Seconds for which deliveries are signed with the old secret as well.

        Raises:
            ConfigurationError: No such endpoint is registered.
        """
        secret = new_secret()
        with self.database.begin() as connection:
            expires = self.clock.milliseconds() + int(overlap * 1000)
            changed = connection.execute(
                update(endpoint)
                .where(endpoint.c.url == url)
                .values(old_secret=endpoint.c.secret, old_secret_expires=expires, secret=secret)
            )
            if not changed.rowcount:
                message = f"no endpoint {url} is registered"
                raise ConfigurationError(message)
        return secret

    def unregister(self, url: str) -> bool:
        """Send nothing more to an endpoint, and return whether it was registered."""
        with self.database.begin() as connection:
            return bool(connection.execute(delete(endpoint).where(endpoint.c.url == url)).rowcount)

    def endpoints(self) -> list[str]:
        """Return the URLs of the registered endpoints; their secrets are shown once, when they are made."""
        with self.database.begin() as connection:
            return list(connection.execute(select(endpoint.c.url).order_by(endpoint.c.id)).scalars())

    # Events

    def trigger(self, event: str, resource: str, fields: dict[str, object] | None = None) -> int:
        """Send an event of any name to every endpoint, and return its number.

        Args:
            event: Its name, such as ``order.created``.
            resource: The id of what it is about.
            fields: More than the three documented fields.
        """
        with self.database.begin() as connection:
            return outbox.record_event(connection, event, resource, now=self.clock.milliseconds(), fields=fields)

    def resend(self, number: int) -> None:
        """Send an event once more, as the same bytes, to every endpoint.

        Raises:
            LookupError: There is no such event.
        """
        with self.database.begin() as connection:
            if not outbox.resend_event(connection, number, self.clock.milliseconds()):
                message = f"there is no event {number}"
                raise LookupError(message)

    def due(self, *, limit: int = 100, without: Collection[int] = ()) -> list[DueMessage]:
        """Return messages that are due, the oldest first.

        Args:
            limit: How many at most.
            without: Numbers of messages that are being sent.
        """
        with self.database.look() as connection:
            return outbox.due_messages(connection, self.clock.milliseconds(), limit=limit, without=without)

    def next_due(self) -> float:
        """Return when the next message is due, Unix milliseconds; infinity when none is pending."""
        with self.database.look() as connection:
            found = outbox.next_due(connection)
        return math.inf if found is None else found

    def settle(self, due: DueMessage, result: Result) -> None:
        """Write down what came of an attempt, and when the next one is."""
        delay = None
        if self.retry is not None and not result.delivered:
            delay = self.retry.after_failure(failures=due.attempt, crashes=0)
        if delay is not None:
            delay *= 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - jitter
        with self.database.begin() as connection:
            outbox.settle(connection, due.id, result, now=self.clock.milliseconds(), delay=delay)
        if self.on_sent is not None:
            self.on_sent(due, result, delay)

    def deliveries(self, *, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """Return what was sent and is to be sent, the newest first, each with its attempts.

        Args:
            limit: How many at most.
            before: Only messages with a lower number.
        """
        with self.database.begin() as connection:
            return outbox.delivery_log(connection, limit=limit, before=before)

    def delivery_states(self) -> dict[str, int]:
        """Return how many messages are pending, delivered and failed."""
        with self.database.begin() as connection:
            return outbox.states(connection)

    # State

    def check_books(self) -> dict[str, int]:
        """Return the balance of each account, in cents, when the books are in balance.

        Raises:
            RuntimeError: Money was made or lost.
        """
        with self.database.begin() as connection:
            wrong = books.imbalances(connection)
            now = self.clock.milliseconds()
            accounts = connection.execute(select(account.c.user_id, account.c.id)).all()
            balances = {row.user_id: books.wallet_state(connection, row.id, now).balance_cents for row in accounts}
        if wrong or sum(balances.values()):
            message = f"the books do not balance: movements {wrong}, accounts {balances}"
            raise RuntimeError(message)
        return balances

    def reset(self) -> None:
        """Begin anew: users, shop, wallets and orders as in a new sandbox. Keys, endpoints and the clock stay."""
        with self.database.begin() as connection:
            keys = connection.execute(
                select(keys_of.c.key, keys_of.c.scopes, account.c.user_id).select_from(keys_of.join(account))
            ).all()
            for table in reversed(metadata.sorted_tables):
                if table.name not in {"endpoint", "setting"}:
                    connection.execute(delete(table))
            seed.plant(connection, self.clock.milliseconds())
            for key, scopes, user_id in keys:
                _add_key(connection, scopes.split(), user_id, key)
        self._rates.forget()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __repr__(self) -> str:
        """Show the clock; keys and secrets stay out of logs."""
        return f"Sandbox({self.clock!r})"


def new_secret() -> str:
    """Return a new signing secret."""
    return f"whsec_{secrets.token_urlsafe(24)}"


def _add_key(connection: Connection, scopes: Sequence[str], user_id: str, key: str | None = None) -> str:
    key = f"rvpk_test_{secrets.token_hex(16)}" if key is None else key
    owner = books.account_of(connection, user_id)
    connection.execute(insert(keys_of).values(key=key, account_id=owner, scopes=" ".join(scopes)))
    return key
