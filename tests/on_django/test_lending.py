"""What a handler under Django does with the driver's connection, at any time: no other delivery notices."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from support.django_databases import KINDS, Entry, Shop, databases, opened_shop

from roovet_webhooks import ConfigurationError, Delivery, Event
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INSERT = "INSERT INTO till_entry (delivery, handler) VALUES ('', 'late')"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    # The thread keeps its connection from one delivery to the next.
    with databases(tmp_path_factory.mktemp("databases"), CONN_MAX_AGE=None) as made:
        yield made


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, made: Callable[[str], str]) -> Iterator[Shop]:
    yield from opened_shop(made(request.param))


@pytest.fixture(params=["postgresql", "mysql"])
def on_server(request: pytest.FixtureRequest, made: Callable[[str], str]) -> Iterator[Shop]:
    yield from opened_shop(made(request.param))


@pytest.fixture
def on_mysql(made: Callable[[str], str]) -> Iterator[Shop]:
    yield from opened_shop(made("mysql"))


def driver_of(shop: Shop) -> Any:  # noqa: ANN401 - any driver's
    connections[shop.alias].ensure_connection()
    return connections[shop.alias].connection


def retry_at_once(shop: Shop) -> None:
    number = shop.record().number
    shop.inbox._database.run(lambda now: shop.inbox._claims.rows().filter(id=number).update(available_at=now))


# A commit by hand


COMMITS: dict[str, Callable[[Any], object]] = {
    "commit": lambda driver: driver.commit(),
    "rollback": lambda driver: driver.rollback(),
    "its words": lambda driver: driver.cursor().execute("COMMIT"),
    "behind a comment": lambda driver: driver.cursor().execute("/* done */ ROLLBACK"),
}


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("how", COMMITS)
def test_a_commit_with_the_driver_is_refused_before_it_acts(
    shop: Shop, caplog: pytest.LogCaptureFixture, how: str, *, first: bool, swallowed: bool
) -> None:
    fails = [True]

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        if not fails:
            shop.write("at last")
            return
        driver = driver_of(shop)
        if not first:  # else the transaction has not begun
            shop.write("never")
        with suppress(Exception if swallowed else ZeroDivisionError):
            COMMITS[how](driver)
        with suppress(Exception):
            shop.write("never")

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    record = shop.record()
    assert (record.state, record.failures, record.succeeded) == (State.READY, 1, ())
    assert "the inbox alone commits" in caplog.text
    fails.clear()
    retry_at_once(shop)
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["at last"]


@pytest.mark.parametrize(
    "statement",
    [
        *("CREATE TABLE mine (x INT)", "DROP TABLE till_entry", "TRUNCATE TABLE till_entry", "SET autocommit = 1"),
        *(
            "SET SESSION autocommit=1",
            "SET @@autocommit = 1",
            "LOCK TABLES till_entry WRITE",
            "ALTER TABLE x ADD y INT",
        ),
    ],
)
def test_what_mysql_commits_by_itself_is_refused(on_mysql: Shop, statement: str) -> None:
    @on_mysql.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        on_mysql.write("never")
        with connections[on_mysql.alias].cursor() as cursor:
            cursor.execute(statement)

    on_mysql.deliver()
    assert on_mysql.work() is None
    assert on_mysql.entries() == []
    assert on_mysql.record().state is State.READY


def test_what_mysql_does_not_commit_is_not(on_mysql: Shop) -> None:
    @on_mysql.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        with connections[on_mysql.alias].cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE mine (x INT)")
            cursor.execute("DROP TEMPORARY TABLE mine")
            # Many rows are one statement, with the values in its text.
            cursor.executemany(
                "INSERT INTO till_entry (delivery, handler) VALUES ('', %s)", [["'; COMMIT; '"], ["\\'; COMMIT"]]
            )

    on_mysql.deliver()
    assert on_mysql.work() is Outcome.HANDLED
    assert on_mysql.entries() == ["'; COMMIT; '", "\\'; COMMIT"]


UNSEEN: dict[str, Callable[[Any, str], object]] = {
    "postgresql": lambda driver, words: driver.pgconn.exec_(words.encode()),
    "mysql": lambda driver, words: driver.query(words),
}


@pytest.mark.parametrize("ending", ["raises", "returns", "begins anew"])
def test_a_commit_that_nobody_could_refuse_is_not_done_again(
    on_server: Shop, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    @on_server.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        on_server.write("book")
        execute = partial(UNSEEN[on_server.alias], driver_of(on_server))
        execute("COMMIT")
        if ending == "raises":
            raise ValueError
        if ending == "begins anew":
            execute("BEGIN")
            on_server.write("never")

    on_server.deliver()
    assert on_server.work() is None
    record = on_server.record()
    assert (record.state, record.failures, record.succeeded) == (State.DEAD, 1, ("book",))
    assert on_server.entries() == ["book"]
    assert "CommittedByHandler" in caplog.text
    # It may be replayed: what has succeeded does not run again.
    on_server.inbox.replay(record.number)
    assert on_server.work() is Outcome.HANDLED
    assert on_server.entries() == ["book"]


def test_a_rollback_that_nobody_could_refuse_is_a_failure(on_server: Shop) -> None:
    @on_server.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        on_server.write("never")
        UNSEEN[on_server.alias](driver_of(on_server), "ROLLBACK")

    on_server.deliver()
    assert on_server.work() is None
    record = on_server.record()
    assert (record.state, record.failures, record.succeeded) == (State.READY, 1, ())
    assert on_server.entries() == []


# What a handler changes beyond its transaction


SETTINGS = {
    "sqlite": ("PRAGMA cache_size = 77", "PRAGMA cache_size"),
    "postgresql": ("SET work_mem = '77MB'", "SHOW work_mem"),
    "mysql": ("SET SESSION sort_buffer_size = 77777", "SELECT @@sort_buffer_size"),
}


@pytest.mark.parametrize("raw", [False, True])
def test_what_it_sets_ends_with_it(shop: Shop, *, raw: bool) -> None:
    setting, query = SETTINGS[shop.alias]
    seen: list[object] = []
    before = driver_of(shop)

    def value() -> object:
        with connections[shop.alias].cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        seen.append(value())
        if raw:
            driver_of(shop).cursor().execute(setting)
        else:
            with connections[shop.alias].cursor() as cursor:
                cursor.execute(setting)
        seen.append(value())

    for _ in range(2):
        shop.deliver()
        assert shop.work() is Outcome.HANDLED
        shop.inbox._claims.rows().delete()
    first, changed, second, _ = seen
    assert changed != first
    assert first == second == value()
    # The thread's own is the one from before.
    assert driver_of(shop) is before


# What a handler keeps


class Kept:
    """All that a handler can get hold of beneath Django's connection."""

    def __init__(self, shop: Shop) -> None:
        self.driver = driver_of(shop)
        self.cursor = self.driver.cursor()
        self.cursor.execute("SELECT 1")
        self.djangos = connections[shop.alias].cursor()
        self.djangos.execute("SELECT 1")


DEEDS: dict[str, Callable[[Kept], object]] = {
    "execute": lambda kept: kept.driver.cursor().execute(INSERT),
    "commit": lambda kept: kept.driver.commit(),
    "rollback": lambda kept: kept.driver.rollback(),
    "a cursor": lambda kept: kept.cursor.execute(INSERT),
    "Django's cursor": lambda kept: kept.djangos.execute(INSERT),
    "rows": lambda kept: kept.cursor.fetchall(),
    "close": lambda kept: kept.driver.close(),
}
REFUSED = {"execute", "a cursor", "Django's cursor"}


@pytest.mark.parametrize("deed", DEEDS)
def test_after_the_block_it_is_dead(shop: Shop, deed: str) -> None:
    kept: list[Kept] = []
    refusals: list[Exception] = []

    def act() -> None:
        try:
            DEEDS[deed](kept[0])
        except Exception as error:  # noqa: BLE001 - whatever it is
            refusals.append(error)

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("before")
        if not kept:
            kept.append(Kept(shop))
            return
        act()
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
        shop.write("after")

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    shop.inbox._claims.rows().delete()
    # While others are recorded, and while another handler has its transaction.
    with transaction.atomic(using=shop.alias):
        shop.write("another's")
        act()
    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["before", "another's", "before", "after"]
    assert shop.record().succeeded == ("book",)
    if deed in REFUSED:
        assert len(refusals) == 3


def test_another_thread_cannot_end_it_with_what_it_was_given(shop: Shop) -> None:
    refusals: list[Exception] = []

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        driver = driver_of(shop)
        shop.write("never")

        def act() -> None:
            try:
                driver.commit()
            except Exception as error:  # noqa: BLE001 - whatever it is
                refusals.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        thread.join()

    shop.deliver()
    assert shop.work() is None
    assert [str(error)[:23] for error in refusals] == ["the inbox alone commits"]
    assert shop.entries() == []


def test_a_driver_that_a_handler_closes_is_a_failure(shop: Shop) -> None:
    closes = [True]

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("once")
        if closes:
            driver_of(shop).close()

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    closes.clear()
    retry_at_once(shop)
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["once"]


def test_after_the_commit_the_connection_is_an_ordinary_one(shop: Shop) -> None:
    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("book")
        transaction.on_commit(write, using=shop.alias)

    def write() -> None:
        with transaction.atomic(using=shop.alias):
            shop.write("afterwards")
        shop.write("and at once")

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["book", "afterwards", "and at once"]


def test_a_child_has_no_part_in_its_parents_transaction(shop: Shop) -> None:
    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("once")
        pid = os.fork()
        if pid == 0:  # pragma: no cover - in a process that coverage does not see
            status = 1
            try:
                shop.write("never")
            except ConfigurationError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["once"]


def test_inside_of_a_transaction_of_the_applications_it_is_a_part_of_that(shop: Shop) -> None:
    """As in a `TestCase`, whose rollback undoes all."""
    with suppress(KeyError), transaction.atomic(using=shop.alias):
        transaction.get_connection(shop.alias).atomic_blocks[-1]._from_testcase = True

        @shop.receiver.on("*", name="book")
        def book(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction():
                shop.write("book")

        shop.deliver()
        assert shop.work() is Outcome.HANDLED
        assert list(Entry.objects.using(shop.alias).values_list("handler", flat=True)) == ["book"]
        raise KeyError
    assert shop.entries() == []
    assert shop.inbox.find(Query()) == []
