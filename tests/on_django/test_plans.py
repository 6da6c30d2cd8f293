"""What a Django inbox reads at each step does not grow with its backlog, whatever the database believes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from support.django_databases import KINDS, Shop, database

from roovet_webhooks.django.tables import tables
from roovet_webhooks.inbox.states import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

BACKLOG = 20_000
# What one statement may read: steps of SQLite's machine, pages of PostgreSQL, rows of MySQL. Of the backlog it would
# be 100,000 steps, 160 pages of an index, 20,000 rows.
MOST = {"sqlite": 5_000, "postgresql": 100, "mysql": 100}
ORDERED: Any = {"ordering": "resource", "on_dead": "block"}


def _settle(shop: Shop) -> None:
    first, second = shop.inbox.claim("default", limit=2)
    shop.inbox.succeed(first.claim, "book")
    shop.inbox.renew([first.claim, second.claim])
    shop.inbox.complete(first.claim, Outcome.HANDLED)
    shop.inbox.fail(second.claim, "x", retry_in=60)


OPERATIONS: dict[str, Callable[[Shop], object]] = {
    "claim": lambda shop: shop.inbox.claim("default", limit=2),
    "claim in order": lambda shop: shop.inbox.claim("default", limit=2, **ORDERED),
    "claim a suspect": lambda shop: shop.inbox.claim_isolated("default"),
    "claim a suspect in order": lambda shop: shop.inbox.claim_isolated("default", **ORDERED),
    "claim a number": lambda shop: shop.inbox.claim_number(2 * BACKLOG),
    "claim a number in order": lambda shop: shop.inbox.claim_number(2 * BACKLOG - 1, **ORDERED),
    "suspects": lambda shop: shop.inbox.count_crashed("default"),
    "reap": lambda shop: shop.inbox.reap(),
    "settle": _settle,
    "hand over": lambda shop: shop.inbox.enqueue("default", limit=2, again_after=60),
    "hand over in order": lambda shop: shop.inbox.enqueue("default", limit=2, again_after=60, **ORDERED),
    "tidy": lambda shop: shop.inbox.prune(),
}


def _multiply(connection: BaseDatabaseWrapper, **changes: str) -> None:
    """Insert rows like the one that there is, but for what is changed; ``n`` counts them from 1."""
    columns = [str(field.column) for field in tables().delivery._meta.concrete_fields if field.column != "id"]
    names = ", ".join(map(connection.ops.quote_name, columns))
    values = ", ".join(changes.get(column, f"one.{connection.ops.quote_name(column)}") for column in columns)
    digits = " UNION ALL ".join(f"SELECT {digit} AS d" for digit in range(10))
    counted = ", ".join(f"({digits}) {name}" for name in "abcef")
    number = "a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 1"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO roovet_webhooks_delivery ({names}) SELECT {values} "  # noqa: S608 - names of Django's
            "FROM (SELECT * FROM roovet_webhooks_delivery ORDER BY id LIMIT 1) one, "
            f"(SELECT {number} AS n FROM {counted}) numbers WHERE n <= {BACKLOG}"
        )


@pytest.fixture(scope="module", params=[*KINDS, "sqlite, not analyzed"])
def backlogged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop whose database was analyzed when all had been done, and that has had no worker since."""
    kind, *not_analyzed = request.param.split(", ")
    with database(kind, tmp_path_factory.mktemp(kind)) as alias:
        shop = Shop(alias)
        shop.receiver.on("*", name="book")(lambda _event: None)
        shop.deliver()
        shop.work()
        names = {"delivery_id": "CAST({} AS CHAR(36))", "resource": "CAST({} % 5000 AS CHAR(36))"}
        _multiply(connections[alias], **{name: text.format("n") for name, text in names.items()})
        if not not_analyzed:
            with connections[alias].cursor() as cursor:
                cursor.execute("ANALYZE TABLE roovet_webhooks_delivery" if kind == "mysql" else "ANALYZE")
        ready = {"state": "'ready'", "outcome": "NULL", "finished_at": "NULL", "available_at": "n"}
        crashes = {"crashes": f"CASE WHEN n % {BACKLOG // 4} = 7 THEN 1 ELSE 0 END"}
        changed = {name: text.format(f"(n + {BACKLOG})") for name, text in names.items()}
        _multiply(connections[alias], **changed, **ready, **crashes)
        yield shop
        shop.inbox.close()


class Meter:
    """An ``execute_wrapper`` that finds out what each statement reads."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.read: dict[str, int] = {}
        self._connection = connection
        self._asking = False
        self._steps = 0

    def __call__(self, execute: Callable[..., object], sql: str, params: Any, *others: Any) -> object:  # noqa: ANN401 - Django's
        if self._asking or sql.split(maxsplit=1)[0] not in {"SELECT", "UPDATE", "DELETE"}:
            return execute(sql, params, *others)
        self._asking = True
        try:
            measure = getattr(self, f"_{self._connection.vendor}")
            result, self.read[sql] = measure(lambda: execute(sql, params, *others), sql, params)
        finally:
            self._asking = False
        return result

    def _sqlite(self, execute: Callable[[], object], *_statement: Any) -> tuple[object, int]:  # noqa: ANN401 - as the others
        self._steps = 0
        self._connection.connection.set_progress_handler(self._count, 100)
        try:
            return execute(), 100 * self._steps
        finally:
            self._connection.connection.set_progress_handler(None, 0)

    def _count(self) -> None:
        self._steps += 1

    def _postgresql(self, execute: Callable[[], object], sql: str, params: Any) -> tuple[object, int]:  # noqa: ANN401 - Django's
        with transaction.atomic(self._connection.alias), self._connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params)
            [(found,)] = cursor.fetchall()
            transaction.set_rollback(rollback=True, using=self._connection.alias)
        plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
        return execute(), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]

    def _mysql(self, execute: Callable[[], object], *_statement: Any) -> tuple[object, int]:  # noqa: ANN401 - as the others
        counts = [self._handled(), self._handled()]
        result = execute()
        counts.append(self._handled())
        asking = counts[1] - counts[0]
        return result, counts[2] - counts[1] - asking

    def _handled(self) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(count) for _name, count in cursor.fetchall())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_step_reads_the_backlog(backlogged: Shop, operation: str) -> None:
    connection = connections[backlogged.alias]
    connection.ensure_connection()
    meter = Meter(connection)
    with connection.execute_wrapper(meter):
        OPERATIONS[operation](backlogged)
    assert meter.read
    most = MOST[backlogged.alias]
    assert {sql: read for sql, read in meter.read.items() if read > most} == {}
