"""How the databases find rows: by an index that holds little more than what is looked for, whatever they know
of the data.

A plan that reads the backlog is right and slow: no other test would tell.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from inbox.worlds import DAY, ENDPOINT, claimed, given, number_of, take
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import schema
from roovet_webhooks.inbox.states import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbox.worlds import PostgreSQLWorld, SQLiteWorld

# What may be read of the deliveries. SEARCH is a part of an index, SCAN all of it.
READ = {
    "SEARCH INTEGER PRIMARY KEY (rowid=?)",
    "SEARCH sqlite_autoindex_roovet_delivery_1 (endpoint=? AND tenant=? AND key_ts=? AND key=?)",
    "SEARCH roovet_delivery_ready (endpoint=? AND available_at<?)",
    "SEARCH roovet_delivery_suspect (endpoint=? AND available_at<?)",
    "SEARCH roovet_delivery_resource (endpoint=? AND tenant=? AND resource=? AND ts<?)",
    "SEARCH roovet_delivery_claimed (endpoint=? AND tenant=? AND resource=?)",
    "SEARCH roovet_delivery_body (finished_at<?)",
    "SEARCH roovet_delivery_ended (finished_at<?)",
    # By the reaper: of what is claimed there is little.
    "SCAN roovet_delivery_claimed",
    # For the statistics, from the first entry on, and all of the few.
    "SEARCH roovet_delivery_ready (endpoint=?)",
    "SEARCH roovet_delivery_suspect (endpoint=?)",
    "SEARCH roovet_delivery_unhandled (endpoint=?)",
    # To see whether there is room, no further than the limit.
    "SCAN roovet_delivery_ready",
}
READS = re.compile(r"(SEARCH|SCAN) (?:roovet_delivery|claimed|earlier)\b(?: USING (?:COVERING )?(?:INDEX )?(.*))?")
# What only an operator asks for reads all deliveries, or the newest of them.
BY_OPERATORS = re.compile(r'GROUP BY|ORDER BY roovet_delivery.id DESC|"key" \nFROM roovet_delivery$')


def everything(world: SQLiteWorld, inbox: Any) -> None:  # noqa: ANN401 - a SQLInbox
    """Do all that an inbox does."""
    known = world.delivery()
    for claim in (False, False, True):
        given(inbox.store(known, claim=claim))
    ended = world.delivery()
    given(inbox.complete(claimed(inbox, ended), Outcome.HANDLED))
    number = number_of(inbox, ended)
    given(inbox.replay(number, confirmed=True))
    assert given(inbox.enqueue(ENDPOINT, limit=5, again_after=60))
    assert given(inbox.enqueue(ENDPOINT, limit=5, again_after=60, ordering="resource")) == []
    replayed = given(inbox.claim_number(number, ordering="resource"))
    assert replayed is not None
    with inbox.transaction(replayed.claim, "book"):
        pass
    given(inbox.succeed(replayed.claim, "tell"))
    given(inbox.fail(replayed.claim, "it failed", retry_in=1))
    given(inbox.store(world.delivery(), claim=False))
    world.elapse(5)
    (first,), (second,) = take(inbox, limit=1), take(inbox, limit=1, ordering="resource")
    assert inbox.renew([first.claim, second.claim]) == {first.claim.number, second.claim.number}
    assert len(world.reap(inbox)) == 3
    world.elapse(60)
    assert given(inbox.count_crashed(ENDPOINT)) == 3
    assert take(inbox, ordering="resource", on_dead="block") == []
    (crashed,) = given(inbox.claim_isolated(ENDPOINT))
    (other,) = given(inbox.claim_isolated(ENDPOINT, ordering="resource", on_dead="block"))
    given(inbox.bury(crashed.claim, "no use", Outcome.FAILED))
    given(inbox.release(other.claim, retry_in=0))
    given(inbox.purge(crashed.claim.number))
    inbox.stats()
    inbox.health()
    inbox.find(Query(endpoint=ENDPOINT))
    inbox.get(number)
    inbox.body(number)
    given(inbox.heartbeat("worker", [Served(ENDPOINT)]))
    world.elapse(60 * DAY)
    inbox.prune()


@pytest.mark.parametrize("order", ["as made", "reversed"])
def test_sqlite_reads_by_the_index_that_is_meant(order: str, sqlite: SQLiteWorld) -> None:
    # Without statistics SQLite takes, of several indexes that serve, the one that was made first.
    inbox = sqlite.process()
    inbox.open()
    indexes = sorted(schema.delivery.indexes, key=lambda index: str(index.name), reverse=order == "reversed")
    with sqlite.engine().begin() as connection:
        for index in indexes:
            index.drop(connection)
        for index in indexes:
            index.create(connection)
    statements: dict[str, Any] = {}

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:  # noqa: ANN401 - the driver's
        statements.setdefault(statement, parameters[0] if isinstance(parameters, list) else parameters)

    event.listen(vars(inbox)["_store"]._engine, "before_cursor_execute", note)
    everything(sqlite, inbox)
    with closing(sqlite3.connect(sqlite.path)) as driver:
        read = {
            line: statement
            for statement, parameters in statements.items()
            if re.match("SELECT|UPDATE|DELETE|INSERT|WITH", statement) and not BY_OPERATORS.search(statement)
            for line in plan(driver, statement, parameters)
        }
    assert {line: read[line] for line in read.keys() - READ} == {}
    assert READ - read.keys() == set()


def plan(connection: sqlite3.Connection, statement: str, parameters: object) -> Iterator[str]:
    """Yield what a statement reads of the deliveries."""
    for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):  # type: ignore[arg-type]  # the driver's
        found = re.match(
            r"(SEARCH|SCAN) (?:roovet_delivery|claimed|earlier)\b(?: USING (?:COVERING )?(?:INDEX )?(.*))?", detail
        )
        if found is not None:
            yield " ".join(filter(None, found.groups()))


@pytest.fixture
def misled(postgresql: PostgreSQLWorld) -> PostgreSQLWorld:
    """A world whose database last looked when nothing was open, and has some thousands of open deliveries since."""
    inbox = postgresql.process()
    given(inbox.complete(claimed(inbox, postgresql.delivery()), Outcome.HANDLED))
    postgresql.execute("ALTER TABLE roovet_delivery SET (autovacuum_enabled = off)")
    _copy_first(postgresql, {"key_ts": "key_ts + n"})
    postgresql.execute("ANALYZE roovet_delivery")
    opened = {"state": "'ready'", "outcome": "NULL", "finished_at": "NULL"}
    _copy_first(postgresql, {"key_ts": "key_ts - n", **opened})
    return postgresql


def _copy_first(world: PostgreSQLWorld, changed: dict[str, str]) -> None:
    """Copy the first delivery 2000 times, each of a resource of its own, with some columns by an expression."""
    changed = {"resource": "resource || n", **changed}
    columns = [column.name for column in schema.delivery.columns if column.name != "id"]
    values = ", ".join(changed.get(name, name) for name in columns)
    world.execute(
        f"INSERT INTO roovet_delivery ({', '.join(columns)}) SELECT {values} "  # noqa: S608 - columns of the schema
        "FROM roovet_delivery, generate_series(1, 2000) AS n WHERE id = 1"
    )


class Explained:
    """The statements about deliveries that an inbox executes, and what PostgreSQL would do for each."""

    def __init__(self, world: PostgreSQLWorld, inbox: Any) -> None:  # noqa: ANN401 - a SQLInbox
        self._world = world
        self._statements: list[tuple[str, Any]] = []
        for engine in (inbox._store._engine, inbox._store._handlers):
            event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:  # noqa: ANN401 - the driver's
        if "roovet_delivery" in statement:
            self._statements.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    def plans(self) -> Iterator[str]:
        """Yield the plans of all so far."""
        statements, self._statements = self._statements, []
        assert statements
        with self._world.engine().connect() as connection:
            for statement, parameters in statements:
                rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
                yield "\n".join(rows)


def test_postgresql_finds_a_claim_by_its_number_whatever_it_believes(misled: PostgreSQLWorld) -> None:
    inbox = misled.process()
    held = [claimed(inbox, misled.delivery()) for _ in range(3)]
    explained = Explained(misled, inbox)
    with inbox.transaction(held[0], "book"):
        pass
    inbox.renew(held)
    given(inbox.succeed(held[0], "tell"))
    given(inbox.complete(held[0], Outcome.HANDLED))
    given(inbox.fail(held[1], "it failed", retry_in=0))
    given(inbox.release(held[2], retry_in=0))
    plans = list(explained.plans())
    assert len(plans) >= 7
    for plan_ in plans:
        assert set(re.findall(r"(?:using|on) (roovet_delivery_\w+)", plan_)) == {"roovet_delivery_pkey"}, plan_


@pytest.mark.parametrize("on_dead", ["skip", "block"])
def test_postgresql_looks_at_one_resource_for_each_candidate(misled: PostgreSQLWorld, on_dead: str) -> None:
    inbox = misled.process()
    misled.elapse(60)
    explained = Explained(misled, inbox)
    assert len(take(inbox, limit=3, ordering="resource", on_dead=on_dead)) == 3
    given(inbox.enqueue(ENDPOINT, limit=3, again_after=60, ordering="resource", on_dead=on_dead))
    for plan_ in explained.plans():
        conditions = re.findall(r"using roovet_delivery_(?:resource|claimed) .*\n *Index Cond: (.*)", plan_)
        assert len(conditions) == 2, plan_
        assert all("(resource = " in condition for condition in conditions), plan_
        assert any("ROW(ts, id) < ROW(" in condition for condition in conditions), plan_


def test_postgresql_reaps_among_the_claims(misled: PostgreSQLWorld) -> None:
    inbox = misled.process()
    claimed(inbox, misled.delivery())
    explained = Explained(misled, inbox)
    given(inbox.reap())
    for plan_ in explained.plans():
        assert set(re.findall(r"(?:using|on) (roovet_delivery_\w+)", plan_)) == {"roovet_delivery_claimed"}, plan_
