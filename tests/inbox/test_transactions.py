"""A handler's transaction: its rows and the record of its success, together or not at all."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Integer, String, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from inbox.worlds import claimed, given, record_of, run_in_transaction, state_of
from roovet_webhooks import ConfigurationError, LeaseLost
from roovet_webhooks.inbox.protocol import Verdict
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld, World

LIMIT = 0.15
either_way = pytest.mark.parametrize("swallowed", [False, True], ids=["raised", "swallowed"])
ENTRY = text("INSERT INTO ledger (entry) VALUES ('late')")


class _Base(DeclarativeBase):
    pass


class Line(_Base):
    """A row of the application's, as an ORM sees it."""

    __tablename__ = "line"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    entry: Mapped[str] = mapped_column(String)


def test_rows_and_success_are_there_together(durable: World) -> None:
    inbox = durable.process()
    delivery = durable.delivery()
    claim = claimed(inbox, delivery)
    with inbox.transaction(claim, "book") as connection:
        durable.book(connection, "once")
    assert durable.booked() == ["once"]
    assert record_of(inbox, delivery).succeeded == ("book",)
    given(inbox.complete(claim, Outcome.HANDLED))
    assert state_of(inbox, delivery) is State.DONE


def test_an_error_leaves_neither(durable: World) -> None:
    inbox = durable.process()
    delivery = durable.delivery()
    claim = claimed(inbox, delivery)
    fault = ValueError("the handler's own")

    def work(connection: object) -> None:
        durable.book(connection, "never")
        raise fault from KeyError("its cause")

    with pytest.raises(ValueError, match="the handler's own") as caught:
        run_in_transaction(inbox, claim, work)
    assert caught.value is fault
    assert isinstance(caught.value.__cause__, KeyError)
    assert durable.booked() == []
    assert record_of(inbox, delivery).succeeded == ()
    run_in_transaction(inbox, claim, lambda connection: durable.book(connection, "once"))
    assert durable.booked() == ["once"]


def test_a_second_transaction_of_a_handler_is_undone(durable: World) -> None:
    inbox = durable.process()
    claim = claimed(inbox, durable.delivery())
    run_in_transaction(inbox, claim, lambda connection: durable.book(connection, "first"))
    with pytest.raises(ConfigurationError, match="book has had its transaction"):
        run_in_transaction(inbox, claim, lambda connection: durable.book(connection, "second"))
    run_in_transaction(inbox, claim, lambda connection: durable.book(connection, "of another handler"), handler="mail")
    assert durable.booked() == ["first", "of another handler"]


def test_a_claim_that_is_over_has_no_transaction(durable: World) -> None:
    inbox = durable.process()
    delivery = durable.delivery()
    claim = claimed(inbox, delivery)
    given(inbox.release(claim, retry_in=0))
    runs: list[object] = []
    with pytest.raises(LeaseLost, match=f"claim {claim.fence} of delivery"):
        run_in_transaction(inbox, claim, runs.append)
    assert not runs
    assert record_of(inbox, delivery).succeeded == ()


def test_a_claim_that_is_lost_meanwhile_commits_nothing(database: SQLWorld) -> None:
    # Locks keep every other process away; only the handler itself can do it.
    inbox = database.process()
    delivery = database.delivery()

    def work(connection: Connection) -> None:
        database.book(connection, "never")
        connection.execute(text("UPDATE roovet_delivery SET fence = fence + 1"))

    with pytest.raises(LeaseLost):
        run_in_transaction(inbox, claimed(inbox, delivery), work)
    assert database.booked() == []
    assert record_of(inbox, delivery).succeeded == ()


def test_the_reaper_leaves_a_transaction_alone(database: SQLWorld) -> None:
    inbox, other = database.process(), database.process()
    delivery = database.delivery()
    claim = claimed(inbox, delivery)
    database.elapse(100)
    given(other.reap())
    database.elapse(100)
    with inbox.transaction(claim, "book") as connection:
        database.book(connection, "once")
        reaping = other.reap()
        time.sleep(0.2)
        assert not (reaping.done() and given(reaping))
    if database.locks_rows:
        # The lock was a sign of life: from here on it is watched anew.
        assert given(other.reap()) == []
        database.elapse(100)
    assert len(given(reaping) or given(other.reap())) == 1
    assert record_of(inbox, delivery).succeeded == ("book",)
    assert database.booked() == ["once"]


ENDINGS: dict[str, Callable[[Connection], object]] = {
    "commit()": lambda connection: connection.commit(),
    "rollback()": lambda connection: connection.rollback(),
    "commit of the transaction": lambda connection: connection.get_transaction().commit(),  # type: ignore[union-attr]
    "COMMIT": lambda connection: connection.execute(text("COMMIT")),
    "commit in lower case": lambda connection: connection.exec_driver_sql("\n commit;"),
    "END": lambda connection: connection.exec_driver_sql("END TRANSACTION"),
    "ROLLBACK": lambda connection: connection.execute(text("ROLLBACK")),
    "BEGIN": lambda connection: connection.execute(text("BEGIN")),
}


@either_way
@pytest.mark.parametrize("ending", ENDINGS)
def test_nobody_but_the_inbox_commits(database: SQLWorld, ending: str, swallowed: bool) -> None:  # noqa: FBT001 - a case
    inbox = database.process()
    delivery = database.delivery()
    claim = claimed(inbox, delivery)

    def work(connection: Connection) -> None:
        database.book(connection, "before")
        with suppress(ConfigurationError if swallowed else ZeroDivisionError):
            ENDINGS[ending](connection)
        for _ in range(2):
            with suppress(SQLAlchemyError):
                connection.execute(ENTRY)

    with pytest.raises(ConfigurationError, match="the inbox alone commits or rolls back"):
        run_in_transaction(inbox, claim, work)
    assert database.booked() == []
    assert record_of(inbox, delivery).succeeded == ()
    # Others go on as if nothing had been.
    run_in_transaction(inbox, claim, lambda connection: database.book(connection, "at last"))
    assert database.booked() == ["at last"]


def test_savepoints_are_the_handlers_own(database: SQLWorld) -> None:
    inbox = database.process()
    claim = claimed(inbox, database.delivery())
    with inbox.transaction(claim, "book") as connection:
        database.book(connection, "kept")
        with connection.begin_nested() as savepoint:
            database.book(connection, "undone")
            savepoint.rollback()
        with connection.begin_nested():
            database.book(connection, "kept too")
        connection.exec_driver_sql("SAVEPOINT mine")
        database.book(connection, "undone too")
        connection.exec_driver_sql("ROLLBACK TO mine")
        connection.exec_driver_sql("RELEASE mine")
    assert database.booked() == ["kept", "kept too"]


class TestOpenResults:
    """A handler reads some rows of a result, leaves it open, and maybe keeps it."""

    ROWS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n"

    # One that is streamed and dropped has psycopg warn of it.
    @pytest.mark.parametrize(("streamed", "kept"), [(False, False), (False, True), (True, True)])
    def test_they_keep_nobody_from_anything(self, database: SQLWorld, streamed: bool, kept: bool) -> None:  # noqa: FBT001 - cases
        inbox, elsewhere = database.process(), database.process()
        delivery = database.delivery()
        claim = claimed(inbox, delivery)
        results: list[Any] = []

        def work(connection: Connection) -> None:
            database.book(connection, "once")
            result = connection.execute(text(self.ROWS), execution_options={"stream_results": streamed})
            assert result.fetchone() == (1,)
            if kept:
                results.append(result)

        run_in_transaction(inbox, claim, work)
        assert database.booked() == ["once"]
        assert record_of(inbox, delivery).succeeded == ("book",)
        given(inbox.complete(claim, Outcome.HANDLED))
        # Each writes after the other, who may still be looking at what was there before.
        for process in (elsewhere, inbox, elsewhere, inbox):
            later = database.delivery()
            run_in_transaction(process, claimed(process, later), lambda made: database.book(made, "later"))
            assert record_of(elsewhere, later).succeeded == ("book",)
        for result in results:
            with suppress(SQLAlchemyError):
                result.fetchall()
            result.close()
        assert given(inbox.store(delivery, claim=True)).verdict is Verdict.DUPLICATE
        assert database.booked() == ["later"] * 4 + ["once"]


class TestSessions:
    @pytest.fixture(autouse=True)
    def _table(self, database: SQLWorld) -> None:
        _Base.metadata.create_all(database.engine())

    def lines(self, database: SQLWorld) -> list[str]:
        return [entry for (entry,) in database.query("SELECT entry FROM line ORDER BY id")]

    def test_a_session_joins(self, database: SQLWorld) -> None:
        inbox = database.process()
        delivery = database.delivery()
        with inbox.transaction(claimed(inbox, delivery), "book") as connection:
            with Session(bind=connection) as session:
                session.add(Line(entry="a"))
                session.commit()
                session.add(Line(entry="b"))
                session.flush()
                assert [line.entry for line in session.query(Line).order_by(Line.id)] == ["a", "b"]
                session.commit()
            assert self.lines(database) == []
        assert self.lines(database) == ["a", "b"]
        assert record_of(inbox, delivery).succeeded == ("book",)

    def test_a_session_that_ends_well_undoes_nothing(self, database: SQLWorld) -> None:
        inbox = database.process()
        with inbox.transaction(claimed(inbox, database.delivery()), "book") as connection:
            session = Session(bind=connection)
            with session.begin():
                session.add(Line(entry="a"))
            session.close()
        assert self.lines(database) == ["a"]

    def test_what_a_session_does_is_undone_with_the_rest(self, database: SQLWorld) -> None:
        inbox = database.process()

        def work(connection: Connection) -> None:
            with Session(bind=connection) as session:
                session.add(Line(entry="a"))
                session.commit()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_in_transaction(inbox, claimed(inbox, database.delivery()), work)
        assert self.lines(database) == []

    def test_a_rollback_of_a_session_is_refused(self, database: SQLWorld) -> None:
        inbox = database.process()
        delivery = database.delivery()

        def work(connection: Connection) -> None:
            session = Session(bind=connection)
            session.add(Line(entry="a"))
            session.flush()
            session.rollback()

        with pytest.raises(ConfigurationError, match="the inbox alone commits or rolls back"):
            run_in_transaction(inbox, claimed(inbox, delivery), work)
        assert self.lines(database) == []
        assert record_of(inbox, delivery).succeeded == ()

    def test_a_session_with_savepoints_may_roll_back(self, database: SQLWorld) -> None:
        inbox = database.process()
        with inbox.transaction(claimed(inbox, database.delivery()), "book") as connection:
            session = Session(bind=connection, join_transaction_mode="create_savepoint")
            session.add(Line(entry="a"))
            session.rollback()
            session.add(Line(entry="b"))
            session.commit()
            session.close()
        assert self.lines(database) == ["b"]


class TestEndedByTheDatabase:
    """A statement may end a transaction by itself; what the handler writes then would be outside of any."""

    @pytest.mark.parametrize("more", [False, True])
    def test_on_conflict_rollback(self, sqlite: SQLWorld, more: bool) -> None:  # noqa: FBT001 - a case
        sqlite.execute("CREATE TABLE line (entry TEXT UNIQUE)")
        inbox = sqlite.process()
        delivery = sqlite.delivery()

        def work(connection: Connection) -> None:
            connection.execute(text("INSERT INTO line VALUES ('a')"))
            with suppress(DBAPIError):
                connection.execute(text("INSERT OR ROLLBACK INTO line VALUES ('a')"))
            if more:
                connection.execute(ENTRY)

        with pytest.raises(ConfigurationError, match="is over before its end"):
            run_in_transaction(inbox, claimed(inbox, delivery), work)
        assert sqlite.booked() == []
        assert sqlite.query("SELECT * FROM line") == []
        assert record_of(inbox, delivery).succeeded == ()

    def test_an_error_in_postgresql_that_the_handler_catches(self, postgresql: SQLWorld) -> None:
        inbox = postgresql.process()
        delivery = postgresql.delivery()

        def work(connection: Connection) -> None:
            postgresql.book(connection, "never")
            with suppress(DBAPIError):
                connection.execute(text("SELECT 1 / 0"))

        with pytest.raises(DBAPIError):
            run_in_transaction(inbox, claimed(inbox, delivery), work)
        assert postgresql.booked() == []
        assert record_of(inbox, delivery).succeeded == ()

    def test_an_error_of_the_handlers_sql_is_its_own(self, database: SQLWorld) -> None:
        # Not a fault of the store: OperationalError on SQLite would look like one.
        inbox = database.process()
        claim = claimed(inbox, database.delivery())
        with pytest.raises(DBAPIError, match="no_such_table"):
            run_in_transaction(inbox, claim, lambda connection: connection.execute(text("SELECT * FROM no_such_table")))


SLOW = {
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT sum(i) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


def _sleep(_connection: Connection) -> None:
    time.sleep(3 * LIMIT)


def _select_for_ever(connection: Connection) -> None:
    connection.execute(text(SLOW[connection.dialect.name]))


def _write_for_ever(connection: Connection) -> None:
    connection.execute(text(f"INSERT INTO ledger (entry) {SLOW[connection.dialect.name]}"))


def _leave_a_result_open(connection: Connection) -> None:
    result = connection.execute(text("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"))
    result.fetchone()
    time.sleep(3 * LIMIT)
    result.close()


def _many_statements(connection: Connection) -> None:
    for number in range(1_000_000):
        connection.execute(text(f"SELECT {number}")).all()


def _many_writes(connection: Connection) -> None:
    refusals = 0
    while refusals < 100:
        try:
            connection.execute(ENTRY)
        except DBAPIError:
            refusals += 1


class TestTooLong:
    """Whatever the handler does, its time is over, nothing of it stays, and others write meanwhile."""

    @either_way
    @pytest.mark.parametrize(
        "spend",
        [_sleep, _select_for_ever, _write_for_ever, _leave_a_result_open, _many_statements, _many_writes],
        ids=lambda spend: spend.__name__.strip("_"),
    )
    def test_it_is_rolled_back(
        self,
        database: SQLWorld,
        spend: Callable[[Connection], None],
        swallowed: bool,  # noqa: FBT001 - a case
    ) -> None:
        inbox = database.process()
        inbox._store.limit = LIMIT
        delivery = database.delivery()
        claim = claimed(inbox, delivery)

        def work(connection: Connection) -> None:
            database.book(connection, "early")
            with suppress(SQLAlchemyError if swallowed else ZeroDivisionError):
                spend(connection)
            for _ in range(3):
                with suppress(SQLAlchemyError):
                    connection.execute(ENTRY)

        with pytest.raises(ConfigurationError, match=r"open for more than 0.15 s, and was rolled back: do slow work"):
            run_in_transaction(inbox, claim, work)
        assert database.booked() == []
        assert record_of(inbox, delivery).succeeded == ()
        inbox._store.limit = 30
        run_in_transaction(inbox, claim, lambda connection: database.book(connection, "at last"))
        assert database.booked() == ["at last"]

    def test_a_result_that_outlives_the_time_keeps_no_lock(self, sqlite: SQLWorld) -> None:
        # What ends the long statement ends a rollback too, for as long as another result is open.
        inbox, elsewhere = sqlite.process(), sqlite.process()
        inbox._store.limit = LIMIT
        claim = claimed(inbox, sqlite.delivery())
        kept: list[Any] = []

        def work(connection: Connection) -> None:
            sqlite.book(connection, "early")
            kept.append(connection.execute(text("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")))
            kept[0].fetchone()
            _select_for_ever(connection)

        with pytest.raises(ConfigurationError, match="open for more than"):
            run_in_transaction(inbox, claim, work)
        for process in (elsewhere, inbox):
            assert given(process.store(sqlite.delivery(), claim=False)).verdict is Verdict.NEW
        assert sqlite.booked() == []

    def test_a_result_that_outlives_a_failure_keeps_no_lock(self, sqlite: SQLWorld) -> None:
        inbox, elsewhere = sqlite.process(), sqlite.process()
        claim = claimed(inbox, sqlite.delivery())
        kept: list[Any] = []

        def work(connection: Connection) -> None:
            sqlite.book(connection, "never")
            kept.append(connection.execute(text("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")))
            kept[0].fetchone()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run_in_transaction(inbox, claim, work)
        for process in (elsewhere, inbox):
            assert given(process.store(sqlite.delivery(), claim=False)).verdict is Verdict.NEW
        assert sqlite.booked() == []

    def test_a_statement_of_the_driver_writes_nothing_either(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        inbox._store.limit = LIMIT
        refused: list[str] = []

        def work(connection: Connection) -> None:
            driver: Any = connection.connection.driver_connection
            write = "INSERT INTO ledger (entry) VALUES ('late')"
            driver.execute(write)
            time.sleep(3 * LIMIT)
            for statement in (write, "DELETE FROM ledger", "CREATE TABLE x (y)"):
                try:
                    driver.execute(statement)
                except sqlite3.ProgrammingError as error:
                    refused.append(str(error))

        with pytest.raises(ConfigurationError, match="open for more than"):
            run_in_transaction(inbox, claimed(inbox, sqlite.delivery()), work)
        assert len(refused) == 3
        assert all("open for more than 0.15 s, and was rolled back" in message for message in refused)
        assert sqlite.booked() == []

    def test_others_write_while_the_handler_still_sleeps(self, sqlite: SQLWorld) -> None:
        inbox, elsewhere = sqlite.process(), sqlite.process()
        inbox._store.limit = LIMIT
        claim = claimed(inbox, sqlite.delivery())
        begun, awake = threading.Event(), threading.Event()

        def work(connection: Connection) -> None:
            begun.set()
            with suppress(DBAPIError):  # on a busy machine its time is over before the first statement
                sqlite.book(connection, "early")
            awake.wait(60)
            sqlite.book(connection, "late")

        with ThreadPoolExecutor() as pool:
            handler = pool.submit(run_in_transaction, inbox, claim, work)
            try:
                assert begun.wait(30)
                inbox._store.limit = 60  # of the others
                for process in (inbox, elsewhere):
                    given(process.store(sqlite.delivery(), claim=False))
                    other = claimed(process, sqlite.delivery())
                    run_in_transaction(inbox, other, lambda connection: sqlite.book(connection, "another's"))
                assert not handler.done()
            finally:
                awake.set()
            assert isinstance(handler.exception(30), ConfigurationError)
        assert sqlite.booked() == ["another's"] * 2
        given(inbox.complete(claim, Outcome.HANDLED))

    def test_a_handler_that_commits_after_its_time(self, database: SQLWorld) -> None:
        inbox = database.process()
        inbox._store.limit = LIMIT

        def work(connection: Connection) -> None:
            database.book(connection, "early")
            time.sleep(2 * LIMIT)
            connection.commit()

        with pytest.raises(ConfigurationError, match="open for more than"):
            run_in_transaction(inbox, claimed(inbox, database.delivery()), work)
        assert database.booked() == []

    def test_a_handler_that_closes_the_connection(self, database: SQLWorld) -> None:
        inbox = database.process()
        inbox._store.limit = LIMIT

        def work(connection: Connection) -> None:
            database.book(connection, "early")
            connection.invalidate()
            time.sleep(2 * LIMIT)

        with pytest.raises(ConfigurationError, match="open for more than"):
            run_in_transaction(inbox, claimed(inbox, database.delivery()), work)
        assert database.booked() == []

    def test_the_interpreter_is_never_stopped(self, sqlite: SQLWorld) -> None:
        # Python that SQLite calls back, in two threads that share a connection, once stopped the whole process.
        inbox = sqlite.process()
        inbox._store.limit = 0.01
        claim = claimed(inbox, sqlite.delivery())
        for _ in range(30):
            with pytest.raises(ConfigurationError):
                run_in_transaction(inbox, claim, _many_statements)
        inbox._store.limit = LIMIT
        ticks = [time.monotonic()]
        stop = threading.Event()

        def tick() -> None:
            while not stop.wait(0.01):
                ticks.append(time.monotonic())

        with ThreadPoolExecutor() as pool:
            pool.submit(tick)
            with pytest.raises(ConfigurationError):
                run_in_transaction(inbox, claim, _select_for_ever)
            stop.set()
        # Far more than a scheduler needs, and far less than the statement.
        assert max(after - before for before, after in pairwise(ticks)) < 5

    def test_a_result_that_outlives_the_commit_keeps_no_lock(
        self, sqlite: SQLWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roovet_webhooks.inbox.sql.sqlite.WAIT", 50)  # longer than a busy machine takes
        inbox = sqlite.process()
        kept: list[object] = []

        def work(connection: Connection) -> None:
            sqlite.book(connection, "never")
            kept.append(connection.execute(text("SELECT 1 UNION ALL SELECT 2")))
            connection.commit()

        with pytest.raises(ConfigurationError, match="the inbox alone commits"):
            run_in_transaction(inbox, claimed(inbox, sqlite.delivery()), work)
        started = time.monotonic()
        given(inbox.store(sqlite.delivery(), claim=False))
        assert time.monotonic() - started < 25, "the file was locked by a connection that is closed in name only"
        assert sqlite.booked() == []
