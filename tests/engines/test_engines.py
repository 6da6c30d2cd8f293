"""Engines over real servers: what is handed over runs, outlives a kill of the engine's worker, and is never doubled."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Any, cast

import celery
import procrastinate
import psycopg
import psycopg_pool
import pytest
import redis
from documentation.pages import python_of, text_of
from support import SECRET
from support.services import url_of
from support.shop_processes import Shop, database, killed, shop_on
from support.worker import PATIENCE, deliver, eventually, nothing, receiver_on, records_of, soon, states_of, written

from roovet_webhooks import ConfigurationError, Event, InboxUnavailable, RetryPolicy, WebhookReceiver
from roovet_webhooks.engines.celery import CeleryEngine
from roovet_webhooks.engines.procrastinate import IsolationGate, ProcrastinateEngine
from roovet_webhooks.engines.running import Receivers, TaskBridge
from roovet_webhooks.inbox.engine import Engine
from roovet_webhooks.inbox.protocol import Claim, Claimed
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.receiving.bridge import run
from roovet_webhooks.worker import Worker, relay

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from roovet_webhooks.findings import Finding

pytestmark = pytest.mark.timeout(300)

CELERY = """
from celery import Celery
from roovet_webhooks.engines.celery import CeleryEngine
celery_app = Celery(broker={broker!r}, broker_transport_options={options!r}, broker_connection_retry_on_startup=True)
engine = CeleryEngine(celery_app, queue={queue!r}, again_after=2.0)
"""
PROCRASTINATE = """
import procrastinate
from roovet_webhooks.engines.procrastinate import ProcrastinateEngine
tasks = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo={conninfo!r}))
engine = ProcrastinateEngine(tasks, again_after=2.0)
"""


class Rig:
    """An application whose deliveries an engine runs."""

    def __init__(self, shop: Shop, engine: Sequence[str], *, forks: bool) -> None:
        self.shop = shop
        self._engine = engine
        # Whether each task has a process to itself, which the engine replaces when it dies.
        self.forks = forks

    def relay(self) -> subprocess.Popen[bytes]:
        return self.shop.worker()

    def told(self) -> object:
        """Return what a person needs to see who wonders why it has not come to that."""
        return records_of(self.shop.receiver), (self.shop.folder / "output").read_text()

    def engine(self) -> subprocess.Popen[bytes]:
        return self.shop.start(*self._engine)


@contextmanager
def celery_on(broker: str, folder: Path, store: str) -> Generator[Rig]:
    queue = f"roovet-{token_hex(6)}"
    options = {"global_keyprefix": f"{queue}:"} if broker.startswith("redis") else {}
    app = celery.Celery(broker=broker, broker_transport_options=options)
    engine = CELERY.format(broker=broker, options=options, queue=queue)
    line = ["-m", "celery", "-A", "shop:celery_app", "worker", "-Q", queue, "-c", "2", "-l", "warning"]
    try:
        with shop_on(folder, store, engine=engine) as shop:
            yield Rig(shop, [*line, "--without-gossip", "--without-mingle", "--without-heartbeat"], forks=True)
    finally:
        with app.connection_for_write() as connection:
            CeleryEngine(app, queue=queue)._queue(connection).bind(connection.channel()).delete()


def psycopg_url(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def procrastinate_on(folder: Path) -> Generator[Rig]:
    with database() as url:
        conninfo = psycopg_url(url)
        with procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=conninfo)).open() as app:
            app.schema_manager.apply_schema()
        with shop_on(folder, url, engine=PROCRASTINATE.format(conninfo=conninfo)) as shop:
            line = ["-m", "procrastinate", "--app", "shop.tasks", "worker", "--queues", "roovet", "--concurrency", "2"]
            yield Rig(shop, [*line, "--fetch-job-polling-interval", "0.1", "--delete-jobs", "always"], forks=False)


@pytest.fixture(params=["rabbitmq", "redis", "procrastinate"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "rabbitmq":
        with database() as store, celery_on(url_of("rabbitmq"), tmp_path, store) as made:
            yield made
    elif request.param == "redis":
        with celery_on(url_of("redis"), tmp_path, f"sqlite:///{tmp_path / 'inbox.db'}") as made:
            yield made
    else:
        with procrastinate_on(tmp_path) as made:
            yield made


def test_what_is_handed_over_runs_and_survives_a_kill_of_the_engine_s_worker(rig: Rig) -> None:
    shop = rig.shop
    deliver(shop.receiver, "order.slow", id="slow")
    deliver(shop.receiver, "order.fails_once", id="fails")
    deliver(shop.receiver, count=20)
    states = ["done"] * 22
    if rig.forks:
        deliver(shop.receiver, "order.poison", id="poison")
        states.append("dead")
    rig.relay()
    first = rig.engine()
    eventually(lambda: shop.states == ["claimed", *states[1:]], rig.told)
    assert shop.did("begun") == ["slow"]
    # A handler's failure is the inbox's business: the engine's task has succeeded.
    fails = records_of(shop.receiver)[1]
    assert (fails.attempts, fails.failures, fails.crashes) == (2, 1, 0)
    killed(first)
    shop.go()
    second = rig.engine()
    eventually(lambda: shop.states == states, rig.told)
    assert shop.did("begun") == ["slow", "slow"]
    assert len(shop.did("quick")) == 20
    assert [record.crashes for record in records_of(shop.receiver)] == [1, *[0] * 21, *[2] * rig.forks]
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE) == 0, (shop.folder / "output").read_text()


def test_a_poison_ends_dead_where_tasks_share_a_process(tmp_path: Path) -> None:
    with procrastinate_on(tmp_path) as rig:
        shop = rig.shop
        deliver(shop.receiver, "order.poison", id="poison")
        deliver(shop.receiver, count=5)
        rig.relay()
        engines: list[subprocess.Popen[bytes]] = []

        def revived() -> bool:
            # What a supervisor does.
            if not engines or engines[-1].poll() is not None:
                engines.append(rig.engine())
            return shop.states == ["dead"] + ["done"] * 5

        eventually(revived)
        assert records_of(shop.receiver)[0].outcome == "poisoned"
        assert shop.did("poison") == ["poison"] * 2


# The relay, with an engine that only takes notes


class Notes:
    name = "notes"
    window = 3
    again_after = 60.0

    def __init__(self, *, shares_transaction: bool = False) -> None:
        self.shares_transaction = shares_transaction
        self.numbers: list[int] = []
        self.fault: Exception | None = None
        self.lots = 0

    def attach(self, receiver: WebhookReceiver) -> None:
        self.receivers = Receivers(self.name)
        self.receivers.add(receiver)

    def enqueue(self, connection: Any, endpoint: str, numbers: Sequence[int]) -> None:  # noqa: ANN401 - the protocol's
        assert endpoint == "default"
        self.lots += 1
        if self.shares_transaction:
            connection.exec_driver_sql("SELECT 1")
        if self.fault is not None:
            raise self.fault
        self.numbers += numbers

    def faults(self) -> list[Finding]:
        return []

    def run(self, number: int) -> None:
        run(self.receivers.run("default", number, TaskBridge()))


@contextmanager
def relaying(receiver: WebhookReceiver) -> Generator[Worker]:
    worker = Worker(receiver, poll=0.05, grace=5)
    worker.start()
    try:
        yield worker
    finally:
        worker.close()
        cast("SQLInbox", receiver.inbox).close()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().split(" ")[0] for record in caplog.records]


@pytest.mark.parametrize("shares_transaction", [False, True])
def test_a_window_is_handed_over_and_no_more(tmp_path: Path, *, shares_transaction: bool) -> None:
    notes = Notes(shares_transaction=shares_transaction)
    receiver = receiver_on(tmp_path, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver, count=8)
    with relaying(receiver):
        eventually(lambda: notes.numbers == [1, 2, 3])
        time.sleep(0.2)
        assert notes.numbers == [1, 2, 3]
        notes.run(2)
        eventually(lambda: notes.numbers == [1, 2, 3, 4])
        # Repeated, early, out of order, for one that is done: the same in the end.
        for number in (2, 8, 1, 1, 3, 99):
            notes.run(number)
        eventually(lambda: notes.numbers == [1, 2, 3, 4, 5, 6])
        notes.run(5)
        eventually(lambda: notes.numbers == [1, 2, 3, 4, 5, 6, 7])
        for number in (7, 6, 5, 4):
            notes.run(number)
        eventually(lambda: states_of(receiver) == ["done"] * 8)
    assert {record.attempts for record in records_of(receiver)} == {1}


def test_what_was_lost_is_handed_over_again(tmp_path: Path) -> None:
    notes = Notes()
    notes.again_after = 0.3
    receiver = receiver_on(tmp_path, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver)
    with relaying(receiver):
        eventually(lambda: notes.numbers[:2] == [1, 1])


@pytest.mark.parametrize("shares_transaction", [False, True])
def test_an_engine_that_is_away_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, shares_transaction: bool
) -> None:
    caplog.set_level("INFO")
    notes = Notes(shares_transaction=shares_transaction)
    notes.fault = OSError("amqp://user:password@host")
    receiver = receiver_on(tmp_path, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver, count=2)
    with relaying(receiver):
        eventually(lambda: notes.lots >= 3)
        notes.fault = None
        eventually(lambda: notes.numbers == [1, 2])
        eventually(lambda: "worker.broker_back" in logged(caplog))
    assert logged(caplog).count("worker.broker_down") == 1
    assert "password" not in caplog.text
    assert [record.handed_at is not None for record in records_of(receiver)] == [True, True]


def test_an_engine_that_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PATIENCE", 0.1)
    go_on = threading.Event()

    class Hanging(Notes):
        def enqueue(self, connection: Any, endpoint: str, numbers: Sequence[int]) -> None:  # noqa: ANN401 - the protocol's
            if not self.lots:
                self.lots += 1
                go_on.wait(20)
                return
            super().enqueue(connection, endpoint, numbers)

    notes = Hanging()
    receiver = receiver_on(tmp_path, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver)
    with relaying(receiver):
        eventually(lambda: notes.numbers == [1])
        # Accepting has nothing to do with it.
        deliver(receiver)
    go_on.set()


def test_a_relay_outlives_its_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Flaky(SQLInbox):
        down = True

        def enqueue(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
            if self.down:
                message = "the store is away"
                raise InboxUnavailable(message)
            return super().enqueue(*arguments, **options)

    inbox = Flaky(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    notes = Notes()
    receiver = WebhookReceiver(SECRET, inbox=inbox, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver)
    with relaying(receiver):
        eventually(lambda: "worker.store_down" in logged(caplog))
        inbox.down = False
        eventually(lambda: notes.numbers == [1])
        eventually(lambda: "worker.store_back" in logged(caplog))


# A task


def test_a_task_of_an_endpoint_that_is_not_known_here_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run(Receivers("notes").run("elsewhere", 1, TaskBridge()))
    assert logged(caplog) == ["engine.unknown_endpoint"]


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit, type("Panic", (BaseException,), {})])
def test_a_task_succeeds_whatever_the_handler_does(tmp_path: Path, raised: type[BaseException]) -> None:
    notes = Notes()
    receiver = receiver_on(tmp_path, engine=notes, retry=RetryPolicy(max_attempts=1))

    @receiver.on("order.created")
    def leave(_event: Event) -> None:
        raise raised

    @receiver.on("order.paid")
    async def fail(_event: Event) -> None:
        raise ValueError

    deliver(receiver)
    deliver(receiver, "order.paid")
    for number in (1, 2):
        notes.run(number)
    assert states_of(receiver) == ["dead", "dead"]


def test_a_task_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    class Flaky(SQLInbox):
        failing = 2

        def _submit(self, operation: Any) -> Any:  # noqa: ANN401 - passed on
            if self.failing:
                self.failing -= 1
                message = "the store is away"
                raise InboxUnavailable(message)
            return super()._submit(operation)

    inbox = Flaky(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    inbox.failing = 0
    notes = Notes()
    receiver = WebhookReceiver(SECRET, inbox=inbox, engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver)
    inbox.failing = 2
    notes.run(1)
    assert states_of(receiver) == ["done"]


def test_a_fault_of_ours_does_not_fail_the_task(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(SQLInbox):
        def complete(self, claim: Any, outcome: Any, **_: Any) -> Any:  # noqa: ANN401 - never called on
            raise ZeroDivisionError(claim, outcome)

    notes = Notes()
    receiver = WebhookReceiver(SECRET, inbox=Faulty(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0), engine=notes)
    receiver.on("*")(nothing)
    deliver(receiver)
    notes.run(1)
    assert "engine.error" in logged(caplog)
    assert states_of(receiver) == ["claimed"]


def test_a_task_that_is_cancelled_before_it_began_gives_its_claim_back(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, engine=Notes())
    receiver.on("*")(nothing)
    deliver(receiver)
    deliver(receiver)
    written(receiver, "UPDATE roovet_delivery SET crashes = 1 WHERE id = 2")
    receivers = Receivers("notes")
    receivers.add(receiver)

    async def main() -> None:
        gate = IsolationGate(asyncio.get_running_loop())
        blocker = Claimed(cast("Any", None), Claim(cast("Any", None), 1))
        async with gate.admit(blocker):
            task = asyncio.create_task(receivers.run("default", 2, gate.bridge, gate.admit))
            await soon(lambda: states_of(receiver)[1] == "claimed")
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert states_of(receiver) == ["ready", "ready"]
        for number in (2, 1):
            await receivers.run("default", number, gate.bridge, gate.admit)

    asyncio.run(main())
    assert states_of(receiver) == ["done", "done"]


def test_a_task_that_is_cancelled_while_its_handler_runs_gives_its_claim_back(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, engine=Notes())
    begun: list[str] = []

    @receiver.on("*")
    async def wait(event: Event) -> None:
        begun.append(event.id)
        await asyncio.sleep(20)

    deliver(receiver)
    receivers = Receivers("notes")
    receivers.add(receiver)

    async def main() -> None:
        gate = IsolationGate(asyncio.get_running_loop())
        task = asyncio.create_task(receivers.run("default", 1, gate.bridge, gate.admit))
        await soon(lambda: bool(begun))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (record,) = records_of(receiver)
    assert (record.state, record.failures, record.crashes) == ("ready", 0, 0)


def test_a_suspect_has_no_company() -> None:
    order: list[str] = []

    async def main() -> None:
        gate = IsolationGate(asyncio.get_running_loop())

        async def be(name: str, crashes: int) -> None:
            async with gate.admit(Claimed(cast("Any", None), Claim(cast("Any", None), 1, crashes=crashes))):
                order.append(f"{name} in")
                await asyncio.sleep(0.02)
                order.append(f"{name} out")

        await asyncio.gather(be("a", 0), be("b", 0), be("suspect", 1), be("c", 0))

    asyncio.run(main())
    assert order == ["a in", "b in", "a out", "b out", "suspect in", "suspect out", "c in", "c out"]


# Celery


@pytest.mark.parametrize("service", ["rabbitmq", "redis"])
def test_celery_s_broker_is_looked_at(service: str) -> None:
    app = celery.Celery(broker=url_of(service))
    engine = CeleryEngine(app, queue=f"roovet-{token_hex(6)}")
    assert [fault.message for fault in engine.faults() if fault.level == "error"] == []
    with app.connection_for_write() as connection:
        engine._queue(connection).bind(connection.channel()).delete()
    app.conf.worker_prefetch_multiplier = 4
    assert [fault.message for fault in engine.faults() if fault.level == "error"] == ["worker_prefetch_multiplier is 4"]


DURABLE_REDIS = {"maxmemory-policy": "noeviction", "appendonly": "yes", "save": ""}


@pytest.mark.parametrize(
    ("settings", "said", "level"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, ["maxmemory-policy is allkeys-lru"], "error"),
        ({"appendonly": "no"}, ["keeps tasks in memory alone"], "warning"),
        ({"appendonly": "no", "save": "3600 1"}, [], "ok"),
        ({}, [], "ok"),
    ],
    ids=["evicts", "forgets", "saves", "appends"],
)
def test_a_redis_that_evicts_or_forgets_is_a_fault(
    settings: dict[str, str], said: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CeleryEngine(celery.Celery(broker=url_of("redis")))
    monkeypatch.setattr("redis.Redis.config_get", lambda _self, name: {name: (DURABLE_REDIS | settings)[name]})
    faults = list(engine.faults())
    assert [text in fault.message for text, fault in zip(said, faults, strict=True)] == [True] * len(said)
    assert {fault.level for fault in faults} <= {level}


def test_a_redis_that_keeps_its_settings_to_itself_is_to_be_looked_at_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_self: object, _name: str) -> None:
        message = "unknown command 'CONFIG'"
        raise redis.ResponseError(message)

    monkeypatch.setattr("redis.Redis.config_get", forbidden)
    (fault,) = CeleryEngine(celery.Celery(broker=url_of("redis"))).faults()
    assert (fault.level, "CONFIG is forbidden" in fault.message) == ("warning", True)


def test_a_queue_of_another_type_is_a_fault() -> None:
    app = celery.Celery(broker=url_of("rabbitmq"))
    engine = CeleryEngine(app, queue=f"roovet-{token_hex(6)}")
    with app.connection_for_write() as connection:
        queue = engine._queue(connection)
        queue.queue_arguments = None
        queue = queue.bind(connection.channel())
        queue.declare()
        try:
            (fault,) = engine.faults()
        finally:
            queue.delete()
    assert fault.remedy.startswith("the queue exists with another type than quorum")


@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("nonsense://user:hunter2@127.0.0.1", "names no installed transport: KeyError"),
        ("amqp://user:hunter2@127.0.0.1:1//", "cannot be used"),
        ("memory://", "of the type memory"),
    ],
    ids=["nonsense", "nobody listens", "memory"],
)
def test_a_broker_that_will_not_do_is_a_fault(broker: str, said: str) -> None:
    (fault,) = CeleryEngine(celery.Celery(broker=broker), timeout=1).faults()
    assert said in fault.message
    assert "hunter2" not in repr(fault)


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_broker_that_accepts_and_never_answers_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = f"{scheme}://user:password@127.0.0.1:{server.getsockname()[1]}//"
        engine = CeleryEngine(celery.Celery(broker=broker), timeout=0.3)
        with pytest.raises(Exception, match=r"timed out|Timeout"):
            engine.enqueue(None, "default", [1])
        (fault,) = engine.faults()
        assert "cannot be used" in fault.message
        assert "password" not in fault.message


def test_a_broker_without_limits_of_its_own_is_taken_as_it_is() -> None:
    app = celery.Celery(broker="memory://")
    engine = CeleryEngine(app)
    engine.enqueue(None, "default", [1, 2])
    engine.enqueue(None, "default", [3])
    with app.connection_for_write() as connection:
        queue = engine._queue(connection).bind(connection.channel())
        bodies = [json.loads(queue.get().body)[0] for _ in range(3)]
    assert bodies == [["default", 1], ["default", 2], ["default", 3]]


def test_celery_s_task_runs_a_delivery(tmp_path: Path) -> None:
    app = celery.Celery(broker="memory://")
    engine = CeleryEngine(app)
    receiver = receiver_on(tmp_path, engine=engine)
    receiver.on("*")(nothing)
    deliver(receiver)
    app.finalize()
    task = app.tasks["roovet_webhooks.run_delivery"]
    assert (task.acks_late, task.reject_on_worker_lost, task.max_retries, task.ignore_result) == (True, True, 0, True)
    assert "roovet" in app.amqp.queues
    task("default", 1)
    assert states_of(receiver) == ["done"]


def test_a_broker_that_is_none_is_an_error() -> None:
    engine = CeleryEngine(celery.Celery(broker="nonsense://"))
    with pytest.raises(KeyError):
        engine.enqueue(None, "default", [1])


def test_celery_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="window"):
        CeleryEngine(celery.Celery(), window=0)


# Procrastinate


def test_procrastinate_s_tables_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with database() as url:
        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=psycopg_url(url)))
        engine = ProcrastinateEngine(app)
        assert [fault.message for fault in engine.faults()] == ["Procrastinate's tables are missing"]
        with app.open():
            app.schema_manager.apply_schema()
        assert list(engine.faults()) == []

    def wait_in_vain(*_arguments: object, **_options: object) -> None:
        raise psycopg_pool.PoolTimeout

    # Its pool would wait for 30 seconds.
    monkeypatch.setattr("psycopg_pool.ConnectionPool.open", wait_in_vain)
    (fault,) = engine.faults()
    assert fault.message == "Procrastinate's database cannot be used: PoolTimeout"


def test_the_guide_s_application_and_commands_find_each_other(tmp_path: Path) -> None:
    page = "docs/how-to/deploy-with-procrastinate.md"
    make_tables = re.search(r"^python (-m procrastinate .* schema --apply)$", text_of(page), re.MULTILINE)
    work = re.search(r"`python (-m procrastinate .* worker .*?)`", text_of(page))
    assert make_tables is not None
    assert work is not None
    with database() as url:
        code = python_of(page)[0].code.replace("postgresql+psycopg://shop@db/shop", url)
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "tasks.py").write_text(code.replace("postgresql://shop@db/shop", psycopg_url(url)))
        for line in (make_tables[1].split(), [*work[1].split(), "--one-shot"]):
            ran = subprocess.run([sys.executable, *line], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603 - the guide's
            assert ran.returncode == 0, ran.stderr


def test_a_job_is_made_with_the_mark_or_not_at_all() -> None:
    with database() as url:
        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=psycopg_url(url)))
        with app.open():
            app.schema_manager.apply_schema()
        engine = ProcrastinateEngine(app)
        inbox = SQLInbox(url, settle=0)
        receiver = WebhookReceiver(SECRET, inbox=inbox, engine=engine)
        receiver.on("*")(nothing)
        deliver(receiver, count=2)

        def enqueue(connection: object, numbers: Sequence[int]) -> None:
            engine.enqueue(connection, "default", numbers)
            if fail:
                raise ZeroDivisionError

        def jobs() -> int:
            with psycopg.connect(psycopg_url(url)) as connection:
                row = connection.execute("SELECT count(*) FROM procrastinate_jobs").fetchone()
            assert row is not None
            return int(row[0])

        for fail, expected in ((True, 0), (False, 2)):
            answer = inbox.enqueue("default", limit=10, again_after=60, with_each=enqueue)
            if fail:
                with pytest.raises(ZeroDivisionError):
                    answer.result(10)
            else:
                assert answer.result(10) == [1, 2]
            assert jobs() == expected
        assert inbox.enqueue("default", limit=10, again_after=60, with_each=enqueue).result(10) == []
        with app.replace_connector(procrastinate.PsycopgConnector(conninfo=psycopg_url(url))) as working:
            working.run_worker(wait=False, queues=["roovet"], install_signal_handlers=False)
        assert states_of(receiver) == ["done", "done"]
        inbox.close()


def test_procrastinate_needs_the_inbox_in_postgresql(tmp_path: Path) -> None:
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
    engine = ProcrastinateEngine(app)
    receiver = receiver_on(tmp_path, engine=engine)
    deliver(receiver)
    cast("SQLInbox", receiver.inbox)
    with pytest.raises(ConfigurationError, match="has to be PostgreSQL"):
        cast("SQLInbox", receiver.inbox).enqueue(
            "default",
            limit=1,
            again_after=1,
            with_each=lambda connection, numbers: engine.enqueue(connection, "", numbers),
        ).result(10)
    with pytest.raises(ConfigurationError, match="window"):
        ProcrastinateEngine(app, window=0)


@pytest.mark.parametrize("name", ["celery", "procrastinate"])
def test_a_missing_engine_is_an_error_that_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"roovet_webhooks.engines.{name}")
    for missing in ("celery", "kombu", "procrastinate", "procrastinate.exceptions"):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"pip install 'roovet-webhooks\[{name}\]'"):
        __import__(f"roovet_webhooks.engines.{name}")


@pytest.mark.parametrize("engine", [CeleryEngine, ProcrastinateEngine])
def test_an_engine_has_all_that_the_protocol_names(engine: type[object]) -> None:
    names = {name for name in (*vars(Engine), *Engine.__annotations__) if not name.startswith("_")}
    assert {name for name in names if callable(getattr(Engine, name, None))} <= set(dir(engine))
    assert names >= {"attach", "enqueue", "faults", "window"}
