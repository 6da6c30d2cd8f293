"""The server: connections that it drops, ways to it that break, and settings that endanger what it holds."""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
import sqlalchemy
from sqlalchemy import event, text

from inbox.worlds import LEASE, claimed, given, run_in_transaction, state_of, take
from roovet_webhooks import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox.protocol import Stored, Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox, postgresql as store
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from inbox.worlds import PostgreSQLWorld

NEW = Stored(Verdict.NEW)


class Way:
    """A way to a server, which can be blocked, cut and slowed down."""

    def __init__(self, url: str) -> None:
        self.target = sqlalchemy.make_url(url)
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.url = self.target.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.open = True
        self.delay = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.listener.close()
        self.cut()

    def cut(self) -> None:
        """Drop all connections."""
        for pair in self.pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection((self.target.host or "127.0.0.1", self.target.port or 5432))
                self.pairs.append((near, far))
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError, ValueError):
            while True:
                readable, _, _ = select.select([near, far], [], [])
                for end in readable:
                    data = end.recv(65_536)
                    if not data:
                        return
                    time.sleep(self.delay)
                    (far if end is near else near).sendall(data)


@pytest.fixture
def way(postgresql: PostgreSQLWorld) -> Iterator[Way]:
    with Way(postgresql.url()) as way:
        yield way


def terminated(postgresql: PostgreSQLWorld, name: str) -> int:
    """End the server's side of the connections that have a name; return how many they were."""
    ended = postgresql.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name", name=name
    )
    return len(ended)


class TestLostConnections:
    def named(self, postgresql: PostgreSQLWorld, name: str) -> Any:  # noqa: ANN401 - a SQLInbox
        url = sqlalchemy.make_url(postgresql.url()).update_query_dict({"application_name": name})
        return postgresql.process(where=url)

    def test_a_server_that_drops_its_connections(self, postgresql: PostgreSQLWorld) -> None:
        name = f"{postgresql.schema}_dropped"
        inbox = self.named(postgresql, name)
        for _ in range(3):
            # Nobody is refused: the connection fails at once, and the next one works.
            assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW
            assert terminated(postgresql, name)
        assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW

    def test_looking_after_the_connections_were_dropped(self, postgresql: PostgreSQLWorld) -> None:
        name = f"{postgresql.schema}_looking"
        inbox = self.named(postgresql, name)
        given(inbox.store(postgresql.delivery(), claim=False))
        assert terminated(postgresql, name)
        found: list[Any] = []
        for _ in range(2):
            with suppress(InboxUnavailable):
                found = list(inbox.find(Query()))
        assert len(found) == 1

    def test_a_handlers_transaction_that_is_dropped(self, postgresql: PostgreSQLWorld) -> None:
        name = f"{postgresql.schema}_handler"
        inbox = self.named(postgresql, name)
        delivery = postgresql.delivery()
        claim = claimed(inbox, delivery)

        def work(connection: Connection) -> None:
            postgresql.book(connection, "never")
            assert terminated(postgresql, name)

        with pytest.raises((InboxUnavailable, sqlalchemy.exc.OperationalError)):
            run_in_transaction(inbox, claim, work)
        assert postgresql.booked() == []
        with suppress(InboxUnavailable):
            run_in_transaction(inbox, claim, lambda made: postgresql.book(made, "once"))
        if not postgresql.booked():
            run_in_transaction(inbox, claim, lambda made: postgresql.book(made, "once"))
        assert postgresql.booked() == ["once"]
        given(inbox.complete(claim, Outcome.HANDLED))

    def test_a_way_that_is_cut(self, postgresql: PostgreSQLWorld, way: Way) -> None:
        inbox = postgresql.process(where=way.url)
        given(inbox.store(postgresql.delivery(), claim=False))
        way.open = False
        way.cut()
        for operation in (
            lambda: given(inbox.store(postgresql.delivery(), claim=False)),
            lambda: take(inbox),
            inbox.stats,
        ):
            with pytest.raises(InboxUnavailable, match=r"the inbox in PostgreSQL \(127.0.0.1:\d+/\w+\) cannot be used"):
                operation()
        way.open = True
        assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW

    def test_a_server_that_is_not_there_when_it_starts(self, postgresql: PostgreSQLWorld, way: Way) -> None:
        way.open = False
        inbox = postgresql.process(where=way.url)
        with pytest.raises(InboxUnavailable):
            inbox.open()
        way.open = True
        inbox.open()
        assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW

    def test_a_commit_whose_answer_was_lost(self, postgresql: PostgreSQLWorld) -> None:
        # Whoever asks again is told what is so: that it is there.
        inbox = postgresql.process()
        inbox.open()
        inbox._backlog._look_at = float("inf")
        delivery = postgresql.delivery()
        engine, lose = inbox._store._engine, [True]
        fault = sqlalchemy.exc.OperationalError("COMMIT", {}, Exception("the connection was lost"))

        @event.listens_for(engine, "commit")
        def lost(connection: Connection) -> None:
            if lose:
                lose.clear()
                driver: Any = connection.connection.driver_connection
                driver.commit()
                raise fault

        assert given(inbox.store(delivery, claim=False)).verdict in {Verdict.NEW, Verdict.DUPLICATE}
        assert state_of(inbox, delivery) is State.READY

    def test_a_slow_way_is_not_a_lost_one(self, postgresql: PostgreSQLWorld, way: Way) -> None:
        inbox = postgresql.process(where=way.url)
        inbox.open()
        way.delay = 0.02
        answers = [inbox.store(postgresql.delivery(), claim=False) for _ in range(20)]
        assert [given(answer) for answer in answers] == [NEW] * 20


class TestEngine:
    def test_the_applications_own(self, postgresql: PostgreSQLWorld) -> None:
        engine = sqlalchemy.create_engine(postgresql.url(), isolation_level="SERIALIZABLE")
        inbox = postgresql.process(where=engine)
        delivery = postgresql.delivery()
        claim = claimed(inbox, delivery)
        levels: list[str] = []

        def work(connection: Connection) -> None:
            postgresql.book(connection, "once")
            levels.append(str(connection.execute(text("SHOW transaction_isolation")).scalar()))
            levels.append(str(connection.execute(text("SHOW synchronous_commit")).scalar()))

        run_in_transaction(inbox, claim, work)
        assert levels == ["read committed", "on"]
        with engine.connect() as connection:
            assert connection.execute(text("SHOW transaction_isolation")).scalar() == "serializable"
        assert postgresql.booked() == ["once"]
        engine.dispose()

    def test_one_that_moves_tables_to_another_schema(self, postgresql: PostgreSQLWorld) -> None:
        engine = sqlalchemy.create_engine(postgresql.url())
        moved = engine.execution_options(schema_translate_map={None: "elsewhere"})
        with pytest.raises(ConfigurationError, match="schema_translate_map: name its schema"):
            postgresql.process(where=moved)
        engine.dispose()

    def test_synchronous_commit_whatever_the_session_says(self, postgresql: PostgreSQLWorld) -> None:
        url = sqlalchemy.make_url(postgresql.url())
        options = f"{url.query['options']} -csynchronous_commit=off"
        inbox = postgresql.process(where=url.update_query_dict({"options": options}))
        seen: list[Any] = []

        def look(connection: Connection, _now: int) -> None:
            seen.append(connection.execute(text("SHOW synchronous_commit")).scalar())

        given(inbox._run(look))
        assert seen == ["on"]

    @pytest.mark.parametrize("own", [False, True])
    def test_many_handlers_leave_a_connection_to_the_accepts(self, postgresql: PostgreSQLWorld, own: bool) -> None:  # noqa: FBT001 - a case
        # An application's engine may have a pool that its handlers use up; one that we make has not.
        engine = sqlalchemy.create_engine(postgresql.url(), pool_size=2, max_overflow=0) if own else None
        options: dict[str, Any] = {} if engine is None else {"where": engine}
        inbox = postgresql.process(**options)
        claims = [claimed(inbox, postgresql.delivery()) for _ in range(2 if own else 24)]
        entered = threading.Semaphore(0)
        go_on = threading.Event()

        def work(connection: Connection) -> None:
            postgresql.book(connection, "one")
            entered.release()
            go_on.wait(60)

        with ThreadPoolExecutor(len(claims)) as pool:
            handlers = [pool.submit(run_in_transaction, inbox, claim, work) for claim in claims]
            try:
                for _ in claims:
                    assert entered.acquire(timeout=20), "a handler has no connection"
                assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW
            finally:
                go_on.set()
            for handler in handlers:
                handler.result(30)
        if engine is not None:
            inbox.close()
            with engine.connect() as connection:  # it is the application's, and stays open
                assert connection.execute(text("SELECT 1")).scalar() == 1
            engine.dispose()

    @pytest.mark.parametrize(
        ("where", "told"),
        [
            ("nonsense", "inbox= must be a database URL such as"),
            ("postgresql+nodriver://x/y", "uses the driver psycopg, not nodriver: write postgresql.psycopg://"),
            ("postgresql+asyncpg://x/y", "uses the driver psycopg, not asyncpg: write postgresql.psycopg://"),
            ("postgres://x/y", "not in 'postgres': write postgresql.psycopg://"),
            ("mysql://x/y", "lives in SQLite or PostgreSQL, not in 'mysql'$"),
            ("sqlite+aiosqlite:///x.db", "uses the driver pysqlite, not aiosqlite: write sqlite.pysqlite://"),
        ],
    )
    def test_one_of_another_kind(self, where: str, told: str) -> None:
        with pytest.raises(ConfigurationError, match=told):
            SQLInbox(where)

    def test_an_engine_of_another_driver(self) -> None:
        engine = sqlalchemy.create_engine("postgresql+pg8000://x/y", module=SimpleNamespace(paramstyle="format"))
        with pytest.raises(ConfigurationError, match="uses the driver psycopg, not pg8000"):
            SQLInbox(engine)

    def test_a_user_without_rights(self, postgresql: PostgreSQLWorld) -> None:
        postgresql.process().open()
        role = f"{postgresql.schema}_reader"
        postgresql.execute(f"CREATE ROLE {role}")
        engine = postgresql.engine()

        @event.listens_for(engine, "connect")
        def _become(driver: Any, _record: object) -> None:  # noqa: ANN401 - psycopg's
            driver.execute(f"GRANT USAGE ON SCHEMA {postgresql.schema} TO {role}")
            driver.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {postgresql.schema} TO {role}")
            driver.execute(f"SET ROLE {role}")
            driver.commit()

        inbox = postgresql.process(where=engine)
        try:
            with pytest.raises(InboxUnavailable, match="cannot be used: permission denied for table roovet_"):
                inbox.open()
            inbox.close()
        finally:
            postgresql.execute(f"DROP OWNED BY {role}")
            postgresql.execute(f"DROP ROLE {role}")

    @pytest.mark.parametrize("password", ["hun@ter2", "hun@ter2/x", "hun@ter/2:x"])
    def test_a_password_that_is_not_escaped_is_refused_and_not_shown(self, password: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            SQLInbox(f"postgresql+psycopg://user:{password}@127.0.0.1/shop")
        assert "ter" not in str(caught.value).replace("after", "")
        assert "write %40" in str(caught.value) or "must be a database URL" in str(caught.value)

    def test_a_driver_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ConfigurationError, match=r"pip install 'roovet-webhooks\[inbox\]'"):
            SQLInbox("postgresql+psycopg://user@127.0.0.1/shop")

    def test_no_password_is_shown(self) -> None:
        inbox = SQLInbox("postgresql+psycopg://user:hunter2@127.0.0.1:1/nothing")
        with pytest.raises(InboxUnavailable) as caught:
            inbox.open()
        for shown in (str(caught.value), repr(inbox)):
            assert "hunter2" not in shown
        assert repr(inbox) == "SQLInbox(PostgreSQL (127.0.0.1:1/nothing))"
        assert inbox.missing() is None  # it cannot be asked
        inbox.close()


def test_tables_that_were_dropped(postgresql: PostgreSQLWorld) -> None:
    inbox = postgresql.process()
    inbox.open()
    postgresql.execute("ALTER TABLE roovet_delivery RENAME TO elsewhere")
    for answer in [inbox.store(postgresql.delivery(), claim=claim) for claim in (False, True)]:
        with pytest.raises(InboxUnavailable, match="the store refused an operation: UndefinedTable"):
            given(answer)
    postgresql.execute("ALTER TABLE elsewhere RENAME TO roovet_delivery")
    assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW


class TestSettings:
    @pytest.mark.parametrize(
        ("off", "told"),
        [
            (["fsync"], "the server runs with fsync off: a power cut can lose what was acknowledged"),
            (["fsync", "full_page_writes"], "the server runs with fsync and full_page_writes off"),
        ],
    )
    def test_a_server_that_does_not_sync(self, postgresql: PostgreSQLWorld, off: list[str], told: str) -> None:
        # Nobody turns it off for a test: the question is answered as such a server would.
        inbox = postgresql.process()

        @event.listens_for(inbox._store._engine, "before_cursor_execute", retval=True)
        def answer(
            _connection: object, _cursor: object, statement: str, parameters: object, _context: object, _many: object
        ) -> tuple[str, object]:
            asked = statement.removeprefix("SHOW ")
            return (f"SELECT '{'off' if asked in off else 'on'}'" if asked != statement else statement), parameters

        assert told in (inbox.fault() or "")

    def test_the_servers_clock_counts(self, postgresql: PostgreSQLWorld) -> None:
        inbox = postgresql.process(clock=None)
        inbox.open()
        [(theirs,)] = postgresql.query("SELECT extract(epoch FROM clock_timestamp())")
        assert abs(inbox.health().clock - float(theirs)) < 10


def test_a_wait_for_a_row_has_an_end(postgresql: PostgreSQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAIT", 0.2)
    inbox = postgresql.process()
    claim = claimed(inbox, postgresql.delivery())
    with postgresql.engine().begin() as other:
        other.execute(text("SELECT 1 FROM roovet_delivery FOR UPDATE"))
        operations: list[Callable[[], object]] = [
            lambda: given(inbox.complete(claim, Outcome.HANDLED)),
            lambda: given(inbox.succeed(claim, "book")),
            lambda: run_in_transaction(inbox, claim, lambda _made: None),
        ]
        for operation in operations:
            with pytest.raises(InboxUnavailable, match="canceling statement due to lock timeout"):
                operation()
    given(inbox.complete(claim, Outcome.HANDLED))


def test_a_transaction_that_has_failed_is_not_taken_for_committed(postgresql: PostgreSQLWorld) -> None:
    engine = sqlalchemy.create_engine(postgresql.url())
    with engine.connect() as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(InboxUnavailable, match=r"had ended, or failed, before \(INERROR\)"):
            store._check_open(connection)
    engine.dispose()


def test_a_claim_that_somebody_is_settling_is_not_reaped(postgresql: PostgreSQLWorld) -> None:
    inbox, other = postgresql.process(), postgresql.process()
    claimed(inbox, postgresql.delivery())
    assert given(other.reap()) == []
    postgresql.elapse(LEASE + 1)
    assert given(other.reap()) == []  # seen for the first time
    postgresql.elapse(LEASE + 1)
    engine = sqlalchemy.create_engine(postgresql.url())
    with engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM roovet_delivery FOR UPDATE"))
        assert given(other.reap()) == []
    engine.dispose()
    given(other.reap())
    postgresql.elapse(LEASE + 1)
    assert len(given(other.reap())) == 1


def test_a_handler_that_begins_another_transaction_has_committed_nothing(postgresql: PostgreSQLWorld) -> None:
    inbox = postgresql.process()

    def work(connection: Connection) -> None:
        postgresql.book(connection, "lost")
        proxies: list[Any] = [connection.connection, connection.connection]
        driver = proxies[1].driver_connection
        for statement in (b"ROLLBACK", b"BEGIN"):
            driver.pgconn.exec_(statement)
        postgresql.book(connection, "elsewhere")

    with pytest.raises(ConfigurationError, match="is over before its end"):
        run_in_transaction(inbox, claimed(inbox, postgresql.delivery()), work)
    assert postgresql.booked() == []
