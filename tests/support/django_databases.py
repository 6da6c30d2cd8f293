"""Databases for tests of the Django inbox: made for one test module, migrated, and dropped again."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from functools import cache
from secrets import token_hex
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
from conformance.mounts import configure_django

from roovet_webhooks import WebhookReceiver
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.receiving.bridge import SyncBridge, run
from support import SECRET, clock, request_of
from support.services import url_of

configure_django()
pymysql.install_as_MySQLdb()

from django.core.management import call_command  # noqa: E402 - Django has to be configured before
from django.db import connections, models  # noqa: E402 - Django has to be configured before

from roovet_webhooks.django import DjangoInbox  # noqa: E402 - Django has to be configured before

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from roovet_webhooks import RetryPolicy
    from roovet_webhooks.inbox.protocol import Claimed
    from roovet_webhooks.inbox.records import RecordedDelivery
    from roovet_webhooks.inbox.states import Outcome

KINDS = ["sqlite", "postgresql", "mysql"]


class Entry(models.Model):
    """What a handler writes."""

    id: models.BigAutoField[int, int] = models.BigAutoField(primary_key=True)
    delivery: models.CharField[str, str] = models.CharField(max_length=40)
    handler: models.CharField[str, str] = models.CharField(max_length=40, default="")
    of: models.ForeignKey[Any, Any] = models.ForeignKey("self", models.CASCADE, null=True)

    class Meta:
        app_label = "till"

    def __str__(self) -> str:
        return self.handler


class Shop:
    """A receiver whose inbox is in one database, and a worker of its deliveries in this thread.

    Attributes:
        alias: The database.
        inbox: The inbox.
        receiver: The receiver; handlers are registered on it.
    """

    def __init__(
        self,
        alias: str,
        *,
        retry: RetryPolicy | None = None,
        **options: Any,  # noqa: ANN401 - options of DjangoInbox: numbers, a codec, a clock
    ) -> None:
        self.alias = alias
        self.inbox = DjangoInbox(alias, **{"settle": 0, "remember": 1e9, **options})
        self.receiver = WebhookReceiver(SECRET, inbox=self.inbox, retry=retry, clock=clock)

    def deliver(self, raw: bytes | None = None) -> str:
        """Post a delivery and return what was answered."""
        answer: str = json.loads(self.receiver.receive(request_of(raw)).body)["status"]
        return answer

    def take(self) -> Claimed:
        """Claim the one delivery that is due."""
        [claimed] = self.inbox.claim("default", limit=10)
        return claimed

    def handle(self, claimed: Claimed) -> Outcome | None:
        """Run a delivery's handlers, as a worker does."""
        return run(self.receiver.handle(claimed, bridge=SyncBridge()))

    def work(self) -> Outcome | None:
        """Claim the one delivery that is due and run its handlers."""
        return self.handle(self.take())

    def entries(self) -> list[str]:
        """Return which handlers have written."""
        return list(Entry.objects.using(self.alias).order_by("id").values_list("handler", flat=True))

    def write(self, handler: str = "", **values: object) -> Entry:
        """Write a row."""
        return Entry.objects.using(self.alias).create(handler=handler, **values)

    def record(self) -> RecordedDelivery:
        """Return the record of the one delivery that there is."""
        [found] = self.inbox.find(Query())
        return self.inbox.get(found.number)


def opened_shop(alias: str) -> Generator[Shop]:
    """Yield a shop in a database, and empty its tables afterwards."""
    made = Shop(alias)
    yield made
    made.inbox.close()
    for table in ("delivery", "handled"):
        with connections[alias].cursor() as cursor:
            cursor.execute(f"DELETE FROM roovet_webhooks_{table}")  # noqa: S608 - a name from here
    Entry.objects.using(alias).delete()


def _server(service: str) -> dict[str, Any]:
    parts = urlsplit(url_of(service))
    return {
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
    }


def _on_postgresql(server: dict[str, Any], statement: str) -> None:
    options = {"host": server["HOST"], "port": server["PORT"], "user": server["USER"], "password": server["PASSWORD"]}
    with psycopg.connect(dbname="postgres", autocommit=True, **options) as connection:
        connection.execute(statement.encode())


def _on_mysql(server: dict[str, Any], statement: str) -> None:
    options = {"host": server["HOST"], "user": server["USER"], "password": server["PASSWORD"]}
    connection = pymysql.connect(port=int(server["PORT"]), **options)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def settings_of(kind: str, directory: Path) -> Generator[dict[str, Any]]:
    """Make an empty database and yield what ``settings.DATABASES`` has to say of it."""
    if kind == "sqlite":
        yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "shop.sqlite3")}
        return
    server = _server(kind)
    execute: Callable[[dict[str, Any], str], None] = _on_postgresql if kind == "postgresql" else _on_mysql
    name = f"roovet_django_{os.getpid()}_{token_hex(4)}"
    execute(server, f"CREATE DATABASE {name}")
    try:
        # Before version 5.2 Django's own choice for MySQL lacks some characters.
        options = {"charset": "utf8mb4"} if kind == "mysql" else {}
        yield {"ENGINE": f"django.db.backends.{kind}", "NAME": name, "OPTIONS": options, **server}
    finally:
        # What a killed process leaves of its session may not have ended yet.
        execute(server, f"DROP DATABASE {name}" + " WITH (FORCE)" * (kind == "postgresql"))


@contextmanager
def added(alias: str, settings: dict[str, Any]) -> Generator[str]:
    """Have Django know a database."""
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: settings})[alias]
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]
        del connections.settings[alias]


def migrate(alias: str) -> None:
    """Create the tables of an inbox."""
    call_command("migrate", "roovet_webhooks", database=alias, verbosity=0)


@contextmanager
def database(kind: str, directory: Path, *, name: str | None = None, **options: object) -> Generator[str]:
    """Make a database with the tables of an inbox and of the shop, and yield its alias: the kind, or the name."""
    with settings_of(kind, directory) as settings, added(name or kind, {**settings, **options}) as alias:
        migrate(alias)
        with connections[alias].schema_editor() as editor:
            editor.create_model(Entry)
        yield alias


@contextmanager
def databases(folder: Path, **options: Any) -> Generator[Callable[[str], str]]:  # noqa: ANN401 - settings of Django
    """Yield what makes a database of a kind, once, and returns its alias."""
    with ExitStack() as stack:

        @cache
        def made(kind: str) -> str:
            (folder / kind).mkdir(exist_ok=True)  # it is there when a server was missing before
            return stack.enter_context(database(kind, folder / kind, **options))

        yield made
