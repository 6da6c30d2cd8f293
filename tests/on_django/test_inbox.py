"""The Django inbox as a part of a project: its databases, threads, settings and tests. The rest is in `inbox`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from asgiref.sync import sync_to_async
from django.core.checks import run_checks
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import AsyncClient, Client, TestCase, override_settings
from django.urls import path as url
from support import NOW, PATH, SECRET, headers_of, payload, request_of
from support.django_databases import KINDS, Entry, Shop, added, database, migrate, settings_of
from support.services import url_of
from support.worker import nothing, receiver_on

from roovet_webhooks import ConfigurationError, Event, InboxUnavailable, Tenant, WebhookReceiver
from roovet_webhooks.django import (
    DjangoInbox,
    checks,
    database as databases,
    dialects,
    dispatch_view,
    queries,
    views as adapter,
)
from roovet_webhooks.django.claims import Claims, inserted
from roovet_webhooks.django.fields import NAME_CHARACTERS, TENANT_CHARACTERS
from roovet_webhooks.django.tables import tables
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.backlog import Backlog
from roovet_webhooks.inbox.maintenance import Expiry, Lease
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper


@pytest.fixture(scope="module", params=KINDS)
def alias(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def shop(alias: str) -> Iterator[Shop]:
    yield from _opened(alias)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Shop]:
    # Not under the name of its kind, which a fixture of the module may have at the time.
    with database("sqlite", tmp_path, name="on_sqlite") as alias:
        yield from _opened(alias)


def _opened(alias: str) -> Iterator[Shop]:
    made = Shop(alias)
    made.receiver.on("*", name="book")(lambda _event: made.write("book"))
    yield made
    made.inbox.close()
    with connections[alias].cursor() as cursor:
        for table in ("roovet_webhooks_delivery", "roovet_webhooks_handled", "roovet_webhooks_worker", "till_entry"):
            cursor.execute(f"DELETE FROM {table}")  # noqa: S608 - a name from here


@pytest.fixture(autouse=True)
def _mounts_of_its_own() -> Iterator[None]:
    before = adapter.mounted[:]
    adapter.mounted.clear()
    yield
    adapter.mounted[:] = before


def in_thread(work: Callable[[], object]) -> None:
    """Do something in a thread of its own, and raise what it raises."""
    raised: list[BaseException] = []

    def carried() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=carried)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


@contextmanager
def changed(alias: str, **settings: object) -> Iterator[None]:
    """Change the settings of a database for a while."""
    now = connections.settings[alias]
    before = {name: now[name] for name in settings}
    now.update(settings)
    connections[alias].close()
    try:
        yield
    finally:
        connections[alias].close()
        now.update(before)


# The tables


def test_the_models_are_as_the_migrations_say() -> None:
    call_command("makemigrations", "roovet_webhooks", check=True, dry_run=True, verbosity=0)


def test_a_project_that_has_not_migrated_is_told_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with settings_of("sqlite", tmp_path) as settings, added("empty", settings) as alias:
        shop = Shop(alias)
        shop.receiver.on("*")(lambda _event: None)
        with pytest.raises(InboxUnavailable, match=r"no such table: .*migrations been applied \(manage.py migrate\)"):
            shop.inbox.open()
        assert shop.receiver.receive(request_of()).status == 503
        assert "manage.py migrate" in caplog.text
        with pytest.raises(InboxUnavailable, match="migrate"):
            shop.inbox.find(Query())
        assert shop.inbox._database.read(lambda: None) is None
        migrate(alias)
        shop.inbox.open()
        assert shop.deliver() == "stored"
        assert shop.inbox.health().schema == migrations_of_the_inbox()[-1]


def migrations_of_the_inbox() -> list[str]:
    return sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "roovet_webhooks")


@pytest.mark.parametrize("kind", KINDS)
def test_an_inbox_of_the_first_migration_is_upgraded_and_still_serves_its_code(kind: str, tmp_path: Path) -> None:
    with settings_of(kind, tmp_path) as settings, added("first", settings) as alias:
        call_command("migrate", "roovet_webhooks", "0001", database=alias, verbosity=0)
        shop = Shop(alias)
        shop.receiver.on("*", name="book")(lambda _event: None)

        def store_as_the_first_did() -> None:
            delivery = shop.receiver.open(request_of())
            values = changes.recorded(delivery, delivery.raw, "") | changes.stored(0, received_at=0, now=0, settle=0)
            row = inserted(delivery.identity, {**values, "has_body": True})
            row.pop("handlers")
            columns, holes = ", ".join(map(connections[alias].ops.quote_name, row)), ", ".join(["%s"] * len(row))
            with connections[alias].cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO roovet_webhooks_delivery ({columns}) VALUES ({holes})",  # noqa: S608 - names of columns
                    list(row.values()),
                )

        store_as_the_first_did()
        migrate(alias)
        store_as_the_first_did()
        shop.inbox.store(shop.receiver.open(request_of()), claim=False, handlers=["book"])
        claimed = shop.inbox.claim("default", limit=10)
        assert [one.claim.handlers for one in claimed] == [None, None, ("book",)]
        shop.inbox.heartbeat("me", [Served("default", ("book",), ("*",))])
        assert [(worker.owner, worker.handlers) for worker in shop.inbox.workers()] == [("me", ("book",))]


def test_a_database_that_the_settings_do_not_have() -> None:
    with pytest.raises(ConfigurationError, match=r"settings\.DATABASES has no 'nowhere'"):
        DjangoInbox("nowhere").open()


NOT_SET_UP = """
from roovet_webhooks import ConfigurationError
from roovet_webhooks.django import DjangoInbox
from django.conf import settings

inbox = DjangoInbox()
{set_up}
try:
    inbox.open()
except ConfigurationError as error:
    print(error)
"""


SET_UP = """
import django
settings.configure(DATABASES={'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}})
django.setup()
"""


@pytest.mark.parametrize(
    ("set_up", "told"),
    [
        ("", "a process that has not set Django up"),
        ("settings.configure()", "a process that has not set Django up"),
        (SET_UP, "INSTALLED_APPS += ['roovet_webhooks.django']"),
    ],
)
def test_it_may_be_made_before_django_is_set_up_and_says_what_is_missing(set_up: str, told: str) -> None:
    code = NOT_SET_UP.format(set_up=set_up)
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert told in ran.stdout, ran.stderr


class _Unready(ModuleType):
    """Models that cannot be imported yet."""

    error: Exception

    def __getattr__(self, name: str) -> object:
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [(AppRegistryNotReady(), "not set Django up"), (RuntimeError(), "INSTALLED_APPS")],
)
def test_models_that_cannot_be_imported_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    with monkeypatch.context() as patch:
        unready = _Unready("models")
        unready.error = error
        patch.setitem(sys.modules, "roovet_webhooks.django.models", unready)
        with pytest.raises(ConfigurationError, match=told):
            tables.__wrapped__()
    assert tables.__wrapped__() == tables()


def test_settings_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __getitem__(self, alias: str) -> object:
            raise ImproperlyConfigured

    monkeypatch.setattr(databases, "connections", Nothing())
    with pytest.raises(ConfigurationError, match="not set Django up"):
        DjangoInbox().find(Query())


def test_without_the_application_an_inbox_is_refused_at_mount() -> None:
    receiver = WebhookReceiver(SECRET, inbox=DjangoInbox())
    with override_settings(INSTALLED_APPS=[]), pytest.raises(ConfigurationError, match="tables"):
        dispatch_view(receiver)


# Names


def use_resolver(shop: Shop, resolver: Callable[[object], Tenant]) -> None:
    shop.receiver._tenants = shop.receiver._tenants.with_secret(resolver)


@pytest.mark.parametrize("other", ["ACME", "acme ", "acmé"])
def test_tenants_and_resources_are_what_they_are_called(shop: Shop, other: str) -> None:
    """MySQL's own collation would take each of these for ``acme``."""
    names = iter(["acme", other])
    use_resolver(shop, lambda _request: Tenant(next(names), SECRET))
    raw = payload()
    assert [shop.deliver(raw), shop.deliver(raw)] == ["stored", "stored"]
    for name in ("acme", other):
        [record] = shop.inbox.find(Query(tenant=name))
        assert record.identity.tenant == name
        assert shop.inbox.number_of(record.id) == record.number
    assert len(shop.inbox.claim("default", limit=10, ordering="resource")) == 2


@pytest.mark.parametrize("name", ["t" * TENANT_CHARACTERS, "\N{ROLLING ON THE FLOOR LAUGHING}" * TENANT_CHARACTERS])
def test_names_as_long_as_they_may_be(shop: Shop, name: str) -> None:
    use_resolver(shop, lambda _request: Tenant(name, SECRET))
    resource = "\N{ROLLING ON THE FLOOR LAUGHING}" * NAME_CHARACTERS
    raw = payload(resource, id=resource)
    assert [shop.deliver(raw), shop.deliver(raw)] == ["stored", "duplicate"]
    [claimed] = shop.inbox.claim("default", limit=1, ordering="resource")
    assert (claimed.delivery.tenant, claimed.delivery.event.event, claimed.delivery.event.id) == (
        name,
        resource,
        resource,
    )


def test_names_that_are_too_long_are_refused(on_sqlite: Shop, caplog: pytest.LogCaptureFixture) -> None:
    use_resolver(on_sqlite, lambda _request: Tenant("t" * (TENANT_CHARACTERS + 1), SECRET))
    assert on_sqlite.receiver.receive(request_of()).status == 503
    assert "up to 1000 can be stored" in caplog.text
    with pytest.raises(ConfigurationError, match="up to 255 characters"):
        on_sqlite.inbox.attach("e" * (NAME_CHARACTERS + 1), on_sqlite.receiver.retry)


def test_an_error_may_have_any_characters(shop: Shop) -> None:
    shop.deliver()
    claimed = shop.take()
    shop.inbox.bury(claimed.claim, "\0 \ud800 \N{ROLLING ON THE FLOOR LAUGHING}" + 1000 * "x", Outcome.FAILED)
    told = shop.record().last_error
    assert told is not None
    assert told.startswith("\N{REPLACEMENT CHARACTER} ? \N{ROLLING ON THE FLOOR LAUGHING}xx")
    assert len(told) == 500


# Transactions of the application's


def test_an_inbox_inside_of_a_transaction_is_refused(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic(using=shop.alias):
        assert shop.receiver.receive(request_of()).status == 503
        assert "mount dispatch_view" in caplog.text
    assert shop.inbox.find(Query()) == []


def test_an_operator_may_have_a_transaction_around_a_replay(shop: Shop) -> None:
    shop.deliver()
    shop.work()
    number = shop.record().number

    def replay_and_roll_back() -> None:
        with transaction.atomic(using=shop.alias):
            shop.inbox.replay(number, confirmed=True)
            assert shop.record().state is State.READY
            raise KeyError

    with pytest.raises(KeyError):
        replay_and_roll_back()
    assert shop.record().state is State.DONE
    with transaction.atomic(using=shop.alias):
        shop.inbox.purge(number)
    assert shop.inbox.body(number) is None


def test_a_database_without_autocommit_is_refused(on_sqlite: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with changed(on_sqlite.alias, AUTOCOMMIT=False):
        assert on_sqlite.receiver.receive(request_of()).status == 503
        assert "AUTOCOMMIT off" in caplog.text


def test_a_database_without_transactions_is_refused(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections[on_sqlite.alias].features, "supports_transactions", False)
    with pytest.raises(ConfigurationError, match="has no transactions"):
        on_sqlite.inbox.open()


def mounted(receiver: WebhookReceiver, *, asgi: bool) -> override_settings:
    """Return settings under which a receiver is the site."""
    urls = ModuleType("urls_of_a_test")
    view: Any = dispatch_view(receiver, asynchronous=True) if asgi else dispatch_view(receiver)
    vars(urls)["urlpatterns"] = [url(PATH.removeprefix("/"), view)]
    return override_settings(ROOT_URLCONF=urls)


@pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])
def test_a_view_stores_outside_of_atomic_requests(shop: Shop, *, asgi: bool) -> None:
    raw = payload()
    headers = headers_of(raw)
    options: dict[str, Any] = {"data": raw, "content_type": headers.pop("Content-Type"), "headers": headers}
    with changed(shop.alias, ATOMIC_REQUESTS=True), mounted(shop.receiver, asgi=asgi):
        for status in ("stored", "duplicate"):
            answer = asyncio.run(_posted(shop.alias, options)) if asgi else Client().post(PATH, **options)
            assert (answer.status_code, answer.json()) == (200, {"status": status})
    assert shop.work() is Outcome.HANDLED


async def _posted(alias: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - the response of a test client
    try:
        return await AsyncClient().post(PATH, **options)
    finally:
        await sync_to_async(_close)(alias)


def _close(alias: str) -> None:
    connections[alias].close()


def test_handled_at_once(shop: Shop) -> None:
    shop.receiver._acknowledge = "handled"
    raw = payload()
    assert [shop.deliver(raw), shop.deliver(raw)] == ["handled", "duplicate"]
    assert shop.entries() == ["book"]


def test_a_router_has_no_say_in_where_an_inbox_is(shop: Shop) -> None:
    class Elsewhere:
        def db_for_read(self, *_arguments: object, **_hints: object) -> str:
            return "nowhere"

        db_for_write = db_for_read

        def allow_migrate(self, *_arguments: object, **_hints: object) -> bool:
            return False

    with override_settings(DATABASE_ROUTERS=[Elsewhere()]):
        assert shop.deliver() == "stored"
        shop.inbox.atomic = False
        claimed = shop.take()
        with shop.inbox.transaction(claimed.claim, "book"):
            pass
        shop.inbox.succeed(claimed.claim, "book")
        shop.inbox.succeed(claimed.claim, "mail")
        assert shop.record().succeeded == ("book", "mail")
        shop.inbox.heartbeat("me", [Served("default")])
        assert shop.inbox.stats()[0].workers == 1
        shop.inbox.prune()


class TestInATestCase(TestCase):
    """The test case of Django, with its transaction around each test, and the database in memory."""

    databases: ClassVar = {"default"}  # type: ignore[misc]  # Django's own annotation is wider

    @classmethod
    def setUpClass(cls) -> None:
        call_command("migrate", "roovet_webhooks", verbosity=0)
        with connection.schema_editor() as editor:
            editor.create_model(Entry)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        with connection.schema_editor() as editor:
            editor.delete_model(Entry)

    def test_all_of_it_works(self) -> None:
        shop = Shop("default")
        told: list[str] = []

        @shop.receiver.on("*", name="book")
        def book(_event: Event) -> None:
            shop.write("book")
            transaction.on_commit(lambda: told.append("committed"))

        raw = payload()
        assert [shop.deliver(raw), shop.deliver(raw)] == ["stored", "duplicate"]
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            assert shop.work() is Outcome.HANDLED
        # Nothing of ours is among what a test counts.
        assert len(callbacks) == 1
        assert told == ["committed"]
        assert shop.entries() == ["book"]
        shop.inbox.replay(shop.record().number, confirmed=True)
        assert shop.work() is Outcome.HANDLED
        assert shop.entries() == ["book", "book"]
        shop.inbox.prune()
        shop.inbox.close()

    def test_nothing_is_left_of_it(self) -> None:
        assert tables().delivery.objects.count() == 0
        assert Entry.objects.count() == 0


# Databases that do not do their work


def test_a_locked_database_is_answered_503_and_recovers(on_sqlite: Shop) -> None:
    with changed(on_sqlite.alias, OPTIONS={"timeout": 0.1}):
        on_sqlite.deliver()
        claimed = on_sqlite.take()
        with closing(sqlite3.connect(connections.settings[on_sqlite.alias]["NAME"], isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert on_sqlite.receiver.receive(request_of()).status == 503
            with pytest.raises(InboxUnavailable, match="database is locked"):
                on_sqlite.inbox.complete(claimed.claim, Outcome.HANDLED)
            # A handler whose transaction cannot begin has failed.
            assert on_sqlite.handle(claimed) is None
            other.execute("ROLLBACK")
        assert on_sqlite.handle(claimed) is Outcome.HANDLED
        assert on_sqlite.entries() == ["book"]
        assert on_sqlite.deliver() == "stored"


def test_threads_take_turns_on_sqlite(on_sqlite: Shop) -> None:
    with changed(on_sqlite.alias, OPTIONS={"timeout": 0.0}):  # whoever has to wait fails at once
        on_sqlite.deliver()  # it makes the file for the turns
        statuses: list[int] = []

        def deliver() -> None:
            statuses.extend(on_sqlite.receiver.receive(request_of()).status for _ in range(20))

        threads = [threading.Thread(target=deliver) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 80
        assert len(on_sqlite.inbox.find(Query(limit=1000))) == 81


def test_a_handler_takes_the_lock_with_its_first_query_whatever_the_settings_say(on_sqlite: Shop) -> None:
    def deliver(_event: Event) -> None:
        in_thread(lambda: answers.append(on_sqlite.deliver()))
        on_sqlite.write("after it")
        modes.append(getattr(connections[on_sqlite.alias], "transaction_mode", None))

    answers: list[str] = []
    modes: list[str | None] = []
    on_sqlite.receiver.on("order.created", name="deliver")(deliver)
    options = {"transaction_mode": "IMMEDIATE"} if dialects.KNOWS_MODES else {}
    with changed(on_sqlite.alias, OPTIONS=options):
        on_sqlite.deliver()
        assert on_sqlite.work() is Outcome.HANDLED
    assert answers == ["stored"]
    # The application's own transactions begin as the settings have it.
    assert modes == [options.get("transaction_mode")]


def test_a_turn_that_does_not_come(on_sqlite: Shop) -> None:
    inbox = DjangoInbox(on_sqlite.alias, timeout=0.05)
    on_sqlite.deliver()
    write_lock = inbox._database._write_lock(connections[on_sqlite.alias])
    assert write_lock is not None
    write_lock._wait = 0.05
    with write_lock.held(), pytest.raises(InboxUnavailable, match="a transaction has kept the inbox"):
        in_thread(lambda: inbox.heartbeat("me", [Served("default")]))


def test_a_read_only_database_is_answered_503(on_sqlite: Shop, caplog: pytest.LogCaptureFixture) -> None:
    on_sqlite.deliver()
    name = connections.settings[on_sqlite.alias]["NAME"]
    with changed(on_sqlite.alias, NAME=f"file:{name}?mode=ro"):
        assert on_sqlite.receiver.receive(request_of()).status == 503
        assert "readonly database" in caplog.text
    assert on_sqlite.deliver() == "stored"


def test_little_disk(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=999))
    assert on_sqlite.receiver.receive(request_of()).status == 503
    assert on_sqlite.inbox.health().full == "the disk has 999 bytes left, and min_free_disk is 67108864"


def test_the_disk_of_a_server_or_of_the_memory_is_not_looked_at(alias: str) -> None:
    free = dialects.dialect_of(connections[alias]).free_disk(connections[alias])
    assert (free is None) == (alias != "sqlite")
    assert dialects.dialect_of(connection).free_disk(connection) is None


def test_a_connection_that_the_server_has_forgotten_is_replaced_at_once(shop: Shop) -> None:
    if shop.alias == "sqlite":
        pytest.skip("SQLite has no server")
    with changed(shop.alias, CONN_MAX_AGE=None):
        assert shop.deliver() == "stored"
        _end_session(connections[shop.alias])
        assert shop.deliver() == "stored"
        claimed = shop.inbox.claim("default", limit=1)[0]
        _end_session(connections[shop.alias])
        # A handler's transaction has a connection of its own.
        assert shop.handle(claimed) is Outcome.HANDLED
        assert shop.entries() == ["book"]


def _end_session(one: BaseDatabaseWrapper) -> None:
    """End the session of a connection, from another one."""
    other = one.copy()
    try:
        with one.cursor() as cursor, other.cursor() as outside:
            cursor.execute("SELECT pg_backend_pid()" if one.vendor == "postgresql" else "SELECT connection_id()")
            number = cursor.fetchone()[0]
            outside.execute(
                f"SELECT pg_terminate_backend({number})" if one.vendor == "postgresql" else f"KILL {number}"
            )
    finally:
        other.close()


def test_a_database_that_is_down() -> None:
    settings = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "x"}
    with added("down", settings) as alias:
        shop = Shop(alias)
        shop.receiver.on("*")(lambda _event: None)
        assert shop.receiver.receive(request_of()).status == 503
        with pytest.raises(InboxUnavailable):
            shop.inbox.open()
        with pytest.raises(InboxUnavailable):
            shop.inbox.start_maintenance()
        shop.receiver.check_handlers()  # it will be back


def test_who_records_at_the_same_moment_finds_the_other_s(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = payload()
    shop.deliver(raw)
    known = Claims.known
    blind = iter([True, False])

    def at_first_nothing(claims: Claims, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        return None if next(blind) else known(claims, *arguments, **options)

    monkeypatch.setattr(Claims, "known", at_first_nothing)
    assert shop.deliver(raw) == "duplicate"


class TestTries:
    """What is tried again."""

    @staticmethod
    def tried(alias: str, *errors: DatabaseError | None) -> int:
        """Carry out work that fails so, and return how often it was tried."""
        left = list(errors)
        tries = []

        def work(_now: int) -> None:
            tries.append(1)
            if (error := left.pop(0)) is not None:
                raise error

        try:
            databases.Database(alias, 1.0, None).run(work)
        except InboxUnavailable:
            return -len(tries)
        return len(tries)

    def test_a_row_that_somebody_else_was_first_to_insert(self, alias: str) -> None:
        assert self.tried(alias, IntegrityError(), None) == 2
        assert self.tried(alias, IntegrityError(), IntegrityError(), IntegrityError()) == -3

    def test_a_transaction_that_gave_way_to_another(self, alias: str) -> None:
        error = OperationalError(1213, "Deadlock found")
        error.__cause__ = SimpleNamespaceError(sqlstate="40P01")
        assert self.tried(alias, error, None) == 2

    def test_not_what_would_fail_again(self, alias: str) -> None:
        assert self.tried(alias, OperationalError(), None) == -1

    def test_not_what_has_taken_long(self, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(databases, "_AT_ONCE", -1)
        assert self.tried(alias, IntegrityError(), None) == -1


class SimpleNamespaceError(Exception):
    """An error of a driver's."""

    def __init__(self, **values: object) -> None:
        super().__init__()
        vars(self).update(values)


def test_another_database_that_django_supports_is_taken_as_it_is(
    on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(connections[on_sqlite.alias]), "vendor", "another")
    assert type(on_sqlite.inbox._database.dialect) is dialects.Dialect
    assert on_sqlite.deliver() == "stored"
    assert on_sqlite.work() is Outcome.HANDLED
    assert on_sqlite.inbox.fault() is None
    assert on_sqlite.inbox.health().full is None


# Threads and processes


@pytest.mark.parametrize("age", [0, 60])
def test_a_thread_is_left_without_a_connection_where_the_settings_keep_none(shop: Shop, age: int) -> None:
    with changed(shop.alias, CONN_MAX_AGE=age):
        found: list[bool] = []

        def look() -> None:
            found.append(connections[shop.alias].connection is not None)

        def work() -> None:
            try:
                for step in (
                    partial(shop.deliver, payload()),
                    shop.work,
                    partial(shop.inbox.find, Query()),
                    _raising(shop),
                ):
                    step()
                    look()
            finally:
                connections[shop.alias].close()

        in_thread(work)
        assert found == [bool(age)] * 4


def _raising(shop: Shop) -> Callable[[], None]:
    def work() -> None:
        with pytest.raises(InboxUnavailable):
            shop.inbox._database.read(lambda: Entry.objects.using(shop.alias).extra(where=["nonsense"]).first())

    return work


def test_a_connection_that_somebody_else_has_opened_stays_open(shop: Shop) -> None:
    with changed(shop.alias, CONN_MAX_AGE=0):
        connections[shop.alias].ensure_connection()
        shop.deliver()
        assert connections[shop.alias].connection is not None


def test_the_keeper_keeps_no_connection_while_it_sleeps(shop: Shop) -> None:
    with changed(shop.alias, CONN_MAX_AGE=None):
        shop.deliver()
        claimed = shop.take()
        maintenance = shop.inbox._here().maintenance
        kept = maintenance._kept
        found: list[object] = []

        def work() -> None:
            with shop.inbox.renewing(claimed.claim):
                maintenance.renew()
                found.append(connections[shop.alias].connection)
            for step in (kept.reap_now, kept.prune):
                step()
                found.append(connections[shop.alias].connection)

        in_thread(work)
        assert found == [None] * 3


def test_the_keeper_outlives_a_database_that_is_away(on_sqlite: Shop, caplog: pytest.LogCaptureFixture) -> None:
    maintenance = on_sqlite.inbox._here().maintenance
    name = connections.settings[on_sqlite.alias]["NAME"]
    with changed(on_sqlite.alias, NAME=f"{name}/nowhere"):
        in_thread(lambda: maintenance._try("reap", maintenance._kept.reap_now))
    assert "inbox.maintenance_failed" in caplog.text
    in_thread(lambda: maintenance._try("reap", maintenance._kept.reap_now))


def test_what_a_handler_uses_of_other_databases_is_closed_as_well(on_sqlite: Shop, tmp_path: Path) -> None:
    with added("other", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "other.sqlite3")}):
        found: list[object] = []

        @on_sqlite.receiver.on("order.created", name="other")
        def use(_event: Event) -> None:
            with connections["other"].cursor() as cursor:
                cursor.execute("SELECT 1")

        def work() -> None:
            on_sqlite.work()
            found.append(connections["other"].connection)

        on_sqlite.deliver()
        in_thread(work)
        assert found == [None]


def test_async_bridges_use_it_from_their_threads(on_sqlite: Shop) -> None:
    raw = payload()

    async def deliver() -> list[int]:
        return [(await on_sqlite.receiver.receive_async(request_of(raw))).status for _ in range(2)]

    assert asyncio.run(deliver()) == [200, 200]
    assert asyncio.run(on_sqlite.receiver.handle(on_sqlite.take(), bridge=AsyncBridge())) is Outcome.HANDLED


FORKED = """
import os, sys
sys.path.insert(0, {tests!r})
from support.django_databases import *
from django.db import connections
from pathlib import Path

with database({kind!r}, Path({folder!r}), CONN_MAX_AGE=None) as alias:
    shop = Shop(alias)
    shop.receiver.on("*", name="book")(lambda _event: shop.write("book"))
    assert shop.deliver() == "stored"
    claimed = shop.take()
    with shop.inbox.renewing(claimed.claim):
        owner, thread = shop.inbox.owner, shop.inbox._here().maintenance._thread
        child = os.fork()
        if not child:
            assert shop.deliver() == "stored"
            assert shop.inbox.owner != owner
            with shop.inbox.renewing(shop.take().claim):
                assert shop.inbox._here().maintenance._thread is not thread
            shop.inbox.close()
            connections[alias].close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert shop.handle(claimed) == "handled"
    assert len(shop.inbox.find(Query())) == 2
    shop.inbox.close()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_leaves_parent_and_child_with_connections_of_their_own(kind: str, tmp_path: Path) -> None:
    if kind != "sqlite":
        url_of(kind)  # without a server, it is this test that is skipped
    tests = str(Path(__file__).parents[1])
    code = FORKED.format(tests=tests, kind=kind, folder=str(tmp_path))
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_what_was_open_before_a_fork_is_kept_unused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited: list[Any] = []
    monkeypatch.setattr(databases, "inherited", inherited)
    with changed(shop.alias, CONN_MAX_AGE=None):
        shop.deliver()
        before = connections[shop.alias].connection
        databases._forget_inherited()
        assert before in inherited
        assert shop.deliver() == "stored"
        assert connections[shop.alias].connection is not before
    for raw in inherited:
        raw.close()


def test_a_process_that_was_forked_has_a_name_and_a_keeper_of_its_own(on_sqlite: Shop) -> None:
    inbox = on_sqlite.inbox
    before = inbox._process
    inbox._process = before._replace(pid=0)
    inbox.close()  # of another process: left alone
    assert inbox.owner != before.owner
    assert inbox._here().maintenance is not before.maintenance
    before.maintenance.close()


def test_an_inbox_that_was_closed_can_be_used_again(on_sqlite: Shop) -> None:
    on_sqlite.inbox.start_maintenance()
    thread = on_sqlite.inbox._here().maintenance._thread
    assert thread is not None
    on_sqlite.inbox.close()
    assert not thread.is_alive()
    on_sqlite.inbox.start_maintenance()
    again = on_sqlite.inbox._here().maintenance._thread
    assert again is not None
    assert again.is_alive()


def test_a_database_that_does_not_tell_what_it_inserted(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connections[on_sqlite.alias].features), "can_return_rows_from_bulk_insert", False)
    on_sqlite.receiver._acknowledge = "handled"
    assert on_sqlite.deliver() == "handled"


def test_a_fork_of_a_process_without_settings_has_nothing_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited: list[Any] = []
    monkeypatch.setattr(databases, "inherited", inherited)
    monkeypatch.setattr(databases, "_aliases", set())
    connection.ensure_connection()
    databases._forget_inherited()
    assert inherited == []


def test_an_engine_s_tasks_are_made_in_the_transaction_that_hands_over(shop: Shop) -> None:
    shop.deliver()
    seen: list[tuple[bool, list[int]]] = []

    def make_tasks(one: BaseDatabaseWrapper, numbers: Any) -> None:  # noqa: ANN401 - a sequence
        seen.append((one is connections[shop.alias] and one.in_atomic_block, list(numbers)))

    numbers = shop.inbox.enqueue("default", limit=10, again_after=60, with_each=make_tasks)
    assert seen == [(True, list(numbers))]
    assert shop.inbox.enqueue("default", limit=10, again_after=60, with_each=make_tasks) == []
    assert len(seen) == 1


def test_a_row_that_has_changed_since_it_was_picked_is_not_claimed(shop: Shop) -> None:
    shop.deliver()
    picked = list(shop.inbox._claims.rows())
    assert len(shop.inbox._claims.take(picked, 0)) == 1
    [row] = shop.inbox._claims.rows()
    stale = [row]
    row.fence -= 1
    assert shop.inbox._claims.take(stale, 0) == []


@pytest.mark.parametrize(("of", "waits"), [("failed", True), ("purged", False), ("too_old", False)])
def test_what_will_not_run_by_itself_holds_nothing_back(shop: Shop, of: str, *, waits: bool) -> None:
    for_short = Shop(shop.alias, remember=60)
    for_short.receiver.on("*", name="book")(lambda _event: None)
    (for_short if of == "too_old" else shop).deliver(payload(id="ord_1", ts=NOW - 100))
    if of != "too_old":
        shop.inbox.bury(shop.take().claim, "x", Outcome.FAILED)
    [dead] = shop.inbox.find(Query(states=frozenset({State.DEAD})))
    if of == "purged":
        shop.inbox.purge(dead.number)
    shop.deliver(payload(id="ord_1"))
    [later] = shop.inbox.find(Query(states=frozenset({State.READY})))
    blocking: Any = {"ordering": "resource", "on_dead": "block"}
    handed = shop.inbox.enqueue("default", limit=10, again_after=60, **blocking)
    assert handed == [] if waits else [later.number]
    assert (shop.inbox.claim_number(later.number, **blocking) is None) is waits
    assert shop.inbox.claim("default", limit=10, **blocking) == []


def test_a_claim_that_is_renewed_while_the_reaper_looks_is_not_freed(shop: Shop) -> None:
    shop.deliver()
    claim = shop.take().claim
    claims = shop.inbox._claims
    [row] = claims.rows()
    assert row.lease_until is not None
    seen = Lease(row.id, row.fence, row.lease_until)
    assert queries.renew(claims, [claim], row.lease_until) == {row.id}
    assert queries.free(claims, [Expiry(seen, changes.expired(1, now=0, retry_in=0), dead=False)]) == []
    assert shop.record().state is State.CLAIMED


def test_it_tells_that_nobody_works(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    moment = 1000.0
    shop.inbox._backlog = Backlog(10, 0, clock=lambda: moment)
    shop.deliver()

    def told_a_minute_later() -> bool:
        nonlocal moment
        moment += 60
        caplog.clear()
        shop.deliver()
        return "inbox.no_worker" in caplog.text

    assert told_a_minute_later()
    shop.inbox.heartbeat("somebody", [Served("default")])
    assert not told_a_minute_later()


# Settings


class TestFaults:
    """What is said about settings, and what is to be done."""

    @staticmethod
    def found(alias: str) -> set[str]:
        return {fault.code.removeprefix("roovet_webhooks.") for fault in DjangoInbox(alias).faults()}

    @pytest.mark.parametrize(
        ("commands", "codes"),
        [
            ("PRAGMA synchronous=EXTRA", set()),
            ("PRAGMA synchronous=FULL", {"W001"}),
            ("PRAGMA synchronous=OFF", {"W001"}),
            ("PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=FULL", set()),
            ("PRAGMA journal_mode=PERSIST; PRAGMA synchronous=NORMAL", {"W001"}),
            ("PRAGMA journal_mode=OFF; PRAGMA synchronous=EXTRA", {"W001"}),
            ("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", set()),
            ("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", {"W001"}),
        ],
    )
    def test_durability_of_sqlite(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: str, codes: set[str]
    ) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
        settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "x.sqlite3")}
        with added("one", settings) as alias, connections[alias].cursor() as cursor:
            for command in commands.split(";"):
                cursor.execute(command)
            assert self.found(alias) == codes

    @pytest.mark.parametrize(
        ("version", "loses"),
        [
            ((3, 40, 1), True),
            ((3, 44, 5), True),
            ((3, 44, 6), False),
            ((3, 45, 9), True),
            ((3, 50, 7), False),
            ((3, 51, 2), True),
            ((3, 51, 3), False),
            ((3, 53, 0), False),
        ],
    )
    def test_a_write_ahead_log_needs_a_mended_sqlite(
        self,
        monkeypatch: pytest.MonkeyPatch,
        version: tuple[int, int, int],
        loses: bool,  # noqa: FBT001 - a case
    ) -> None:
        monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
        assert [fault.code for fault in dialects._journal("wal")] == ["roovet_webhooks.W002"] * loses
        assert dialects._journal("delete") == ()

    def test_a_network_file_system(self, monkeypatch: pytest.MonkeyPatch, on_sqlite: Shop) -> None:
        monkeypatch.setattr(dialects, "network_file_system", lambda _path: "nfs")
        assert any("network file system (nfs)" in fault.message for fault in on_sqlite.inbox.faults())
        assert dialects._place(None) == ()

    @pytest.mark.parametrize(
        ("mode", "knows", "codes"),
        [
            (None, True, ["W003"]),
            ("deferred", True, ["W003"]),
            ("IMMEDIATE", True, []),
            ("exclusive", True, []),
            (None, False, []),
        ],
    )
    def test_deferred_transactions_of_sqlite(
        self,
        monkeypatch: pytest.MonkeyPatch,
        on_sqlite: Shop,
        *,
        mode: str | None,
        knows: bool,
        codes: list[str],
    ) -> None:
        monkeypatch.setattr(dialects, "KNOWS_MODES", knows)
        with changed(on_sqlite.alias, OPTIONS={} if mode is None else {"transaction_mode": mode}):
            advice = on_sqlite.inbox.advice()
            assert [fault.code for fault in advice] == [f"roovet_webhooks.{code}" for code in codes]

    @pytest.mark.parametrize(("knows", "hint"), [(True, "OPTIONS['init_command']"), (False, "connection_created")])
    def test_the_hint_is_one_that_this_django_understands(
        self,
        monkeypatch: pytest.MonkeyPatch,
        on_sqlite: Shop,
        *,
        knows: bool,
        hint: str,
    ) -> None:
        monkeypatch.setattr(dialects, "KNOWS_MODES", knows)
        [fault] = on_sqlite.inbox.faults()
        assert hint in fault.remedy
        assert fault.message in str(on_sqlite.inbox.fault())

    def test_servers_as_they_are_installed(self, shop: Shop) -> None:
        if shop.alias == "sqlite":
            pytest.skip("SQLite has no server")
        assert shop.inbox.faults() == () if shop.alias == "postgresql" else shop.inbox.faults() == []

    def test_a_postgresql_that_does_not_sync(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = {"SHOW fsync": "off", "SHOW full_page_writes": "on"}
        monkeypatch.setattr(dialects, "_shown", lambda _connection, query: settings[query])
        [fault] = dialects._PostgreSQL().faults(connection)
        assert (fault.code, "fsync=off" in fault.message) == ("roovet_webhooks.W004", True)

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({}, []),
            ({"innodb_flush_log_at_trx_commit": 2}, ["innodb_flush_log_at_trx_commit=2"]),
            ({"innodb_doublewrite": "OFF"}, ["innodb_doublewrite=0"]),
            ({"log_bin": 1, "sync_binlog": 0}, ["sync_binlog=0"]),
            ({"log_bin": 1, "sync_binlog": 1}, []),
            ({"character_set_client": "utf8mb3"}, ["character set utf8mb3"]),
        ],
    )
    def test_a_mysql_that_does_not_sync_or_knows_few_characters(
        self, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], told: list[str]
    ) -> None:
        settings = {
            "innodb_flush_log_at_trx_commit": 1,
            "innodb_doublewrite": "ON",
            "log_bin": 0,
            "sync_binlog": 0,
            "character_set_client": "utf8mb4",
            **changed,
        }
        monkeypatch.setattr(
            dialects, "_shown", lambda _connection, query: settings[query.rpartition("@")[2].removeprefix("GLOBAL.")]
        )
        found = dialects._MySQL().faults(connection)
        assert [name for name in told if not any(name in fault.message for fault in found)] == []
        assert len(found) == len(told)

    def test_postgresql_commits_durably_whatever_the_session_says(self, shop: Shop) -> None:
        if shop.alias != "postgresql":
            pytest.skip("PostgreSQL alone has the setting")
        seen: list[str] = []

        @shop.receiver.on("order.created", name="look")
        def look(_event: Event) -> None:
            with connections[shop.alias].cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                seen.append(cursor.fetchone()[0])

        with changed(shop.alias, OPTIONS={"options": "-c synchronous_commit=off"}, CONN_MAX_AGE=None):
            shop.deliver()
            shop.work()
            with connections[shop.alias].cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                seen.append(cursor.fetchone()[0])
        assert seen == ["on", "off"]


# There is nothing to be done about it where the setting is not known.
DEFERRED = ["roovet_webhooks.W003"] if dialects.KNOWS_MODES else []


class TestChecks:
    """What ``manage.py check`` says."""

    def test_settings_are_checked_without_a_look_at_the_database(self, tmp_path: Path) -> None:
        path = tmp_path / "not_there" / "x.sqlite3"
        with added("one", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}) as alias:
            receiver = WebhookReceiver(SECRET, inbox=DjangoInbox(alias))
            receiver.on("*")(lambda _event: None)
            with mounted(receiver, asgi=False):
                assert [warning.id for warning in run_checks()] == DEFERRED
                [error] = [one for one in run_checks(databases=[alias]) if one.id == "roovet_webhooks.E002"]
                assert "unable to open database file" in error.msg

    def test_a_database_is_looked_at_when_it_is_named(self, on_sqlite: Shop) -> None:
        with mounted(on_sqlite.receiver, asgi=False):
            assert [warning.id for warning in run_checks()] == DEFERRED
            ids = sorted(str(warning.id) for warning in run_checks(databases=[on_sqlite.alias]))
            assert ids == ["roovet_webhooks.W001", *DEFERRED]

    def test_a_database_that_the_settings_do_not_have_is_an_error(self) -> None:
        receiver = WebhookReceiver(SECRET, inbox=DjangoInbox("nowhere"))
        receiver.on("*")(lambda _event: None)
        with mounted(receiver, asgi=False):
            assert [error.id for error in run_checks()] == ["roovet_webhooks.E002"]

    def test_other_inboxes_are_opened_as_before(self, tmp_path: Path) -> None:
        receiver = WebhookReceiver(SECRET, inbox=f"sqlite:///{tmp_path}/roovet.db")
        receiver.on("*")(lambda _event: None)
        with mounted(receiver, asgi=False):
            assert run_checks(databases=["default"]) == []
        assert (tmp_path / "roovet.db").exists()
        receiver.inbox.close()  # type: ignore[attr-defined]  # a SQLInbox


def test_the_checks_find_workers_without_a_handler(on_sqlite: Shop) -> None:
    on_sqlite.receiver.on("transfer.settled", name="transfer")(lambda _event: None)

    def found() -> list[tuple[str | None, str]]:
        errors = run_checks(databases=[on_sqlite.alias])
        return [
            (error.id, error.msg) for error in errors if error.id in {"roovet_webhooks.E010", "roovet_webhooks.W010"}
        ]

    with mounted(on_sqlite.receiver, asgi=False):
        assert found() == []
        on_sqlite.inbox.heartbeat("old", [Served("default", ("fulfil",), ("order.created",))])
        lacking = "handlers of default: this application has the handler book, transfer, and no worker has it"
        assert found() == [("roovet_webhooks.E010", lacking)]
        on_sqlite.inbox.heartbeat("new", [on_sqlite.receiver.served()])
        ((code, message),) = found()
        assert code == "roovet_webhooks.W010"
        assert "old alone has the handler fulfil for the event order.created" in message


def test_it_says_where_it_is() -> None:
    assert repr(DjangoInbox("shop")) == "DjangoInbox(using='shop')"
    row = tables().delivery(delivery_id="dlv_1")
    assert [
        str(one)
        for one in (row, tables().handled(handler="book"), tables().worker(owner="me"), tables().turn(endpoint="x"))
    ] == [
        "dlv_1",
        "book",
        "me",
        "x",
    ]


def test_the_clock_that_it_is_given_is_its_clock(shop: Shop) -> None:
    inbox = DjangoInbox(shop.alias, clock=lambda: 1000.0)
    assert inbox.health().clock == 1000.0
    assert abs(DjangoInbox(shop.alias).health().clock - time.time()) < 60


def test_a_receiver_whose_database_is_gone_hinders_no_other(tmp_path: Path) -> None:
    """A test of an application or a reload leaves such a receiver behind."""
    with database("sqlite", tmp_path, name="gone") as alias:
        gone = Shop(alias)
        gone.receiver.on("order.created")(lambda _event: None)
        gone.receiver.check()
        gone.inbox.close()
    other = receiver_on(tmp_path)
    other.on("transfer.settled")(nothing)
    other.check()
    cast("Any", other.inbox).close()
    with pytest.raises(ConfigurationError, match="has no 'gone'"):
        gone.receiver.check()


def test_nothing_is_pruned_where_nothing_was_stored(on_sqlite: Shop) -> None:
    purged = on_sqlite.inbox.prune()
    assert (purged.bodies, purged.tombstones) == (0, 0)


def test_the_check_of_handlers_waits_for_the_tables(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def workers() -> list[object]:
        message = "no such table"
        raise InboxUnavailable(message)

    monkeypatch.setattr(checks, "receivers", list)
    monkeypatch.setattr(on_sqlite.inbox, "workers", workers)
    assert list(checks._mismatches(on_sqlite.inbox)) == []
