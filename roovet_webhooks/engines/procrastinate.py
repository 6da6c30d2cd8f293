"""Run deliveries by Procrastinate, in the inbox's own PostgreSQL database. It needs the extra ``procrastinate``."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from roovet_webhooks.engines.running import Receivers
from roovet_webhooks.errors import ConfigurationError, MissingExtraError
from roovet_webhooks.findings import Finding
from roovet_webhooks.worker.bridge import WorkerBridge

try:
    import psycopg
    from procrastinate.exceptions import ConnectorException
except ModuleNotFoundError as _missing:
    message = "Procrastinate is not installed; run: pip install 'roovet-webhooks[procrastinate]'"
    raise MissingExtraError(message, extra="procrastinate") from _missing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from procrastinate import App
    from procrastinate.types import JSONDict

    from roovet_webhooks.inbox.protocol import Claimed
    from roovet_webhooks.receiving.receiver import WebhookReceiver

TASK = "roovet_webhooks.run_delivery"
# Procrastinate itself bounds how many run at a time.
_UNBOUNDED = 10_000


class ProcrastinateEngine:
    """Hands deliveries to a Procrastinate application; its workers run them, one job a delivery.

    A job is made in the transaction that marks its delivery as handed over: there is never one without the other. It is
    never retried by Procrastinate, and has no queueing lock.

    Args:
        app: The application; its tables are in the database of the inbox.
        queue: Name of the queue: ``python -m procrastinate --app shop.tasks.app worker --queues roovet``.
        window: How many deliveries may be handed over and not claimed at a time.
        again_after: Seconds after which one that was handed over and not claimed is handed over once more: its job was
            lost, or deleted.

    Raises:
        ConfigurationError: A number is out of its range.

    Example::

        engine = ProcrastinateEngine(App(connector=PsycopgConnector(conninfo="…")))
        receiver = WebhookReceiver(inbox="postgresql+psycopg://…", engine=engine)
    """

    name: str = "procrastinate"
    shares_transaction: bool = True

    def __init__(self, app: App, *, queue: str = "roovet", window: int = 1000, again_after: float = 300.0) -> None:
        if not (window >= 1 and again_after > 0):
            fault = f"window and again_after must be above 0, not {window!r} and {again_after!r}"
            raise ConfigurationError(fault)
        self.window: int = window
        self.again_after: float = again_after
        self._app = app
        self._receivers = Receivers(self.name)
        self._gate: IsolationGate | None = None

        async def run_delivery(endpoint: str, number: int) -> None:
            gate = self._of_this_loop()
            await self._receivers.run(endpoint, number, gate.bridge, gate.admit)

        self._task = app.task(name=TASK, queue=queue, retry=False)(run_delivery)

    def attach(self, receiver: WebhookReceiver) -> None:
        """Take a receiver's deliveries; see `Engine.attach`."""
        self._receivers.add(receiver)

    def _of_this_loop(self) -> IsolationGate:
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate.loop is not loop:
            self._gate = IsolationGate(loop)
        return self._gate

    def enqueue(self, connection: Any, endpoint: str, numbers: Sequence[int]) -> None:  # noqa: ANN401 - the store's
        """Make a job for each delivery, in the transaction of a connection; see `Engine.enqueue`.

        Raises:
            ConfigurationError: The inbox is not in PostgreSQL.
        """
        # SQLAlchemy's has the driver's behind a pool, Django's has it at once.
        pooled = connection.connection
        driver: Any = getattr(pooled, "driver_connection", pooled)
        if not isinstance(cast("object", driver), psycopg.Connection):
            fault = "Procrastinate keeps its jobs in the inbox's database, which has to be PostgreSQL, through psycopg"
            raise ConfigurationError(fault)
        jobs: list[JSONDict] = [{"endpoint": endpoint, "number": number} for number in numbers]
        self._task.configure(connection=driver).batch_defer(*jobs)

    def faults(self) -> Iterator[Finding]:
        """Look at Procrastinate's tables; see `Engine.faults`."""
        try:
            with self._app.open():
                if not self._app.check_connection():
                    yield Finding(
                        "tables",
                        "Procrastinate's tables are missing",
                        "make them: python -m procrastinate --app … schema --apply",
                    )
        except (ConnectorException, psycopg.Error) as error:
            message = f"Procrastinate's database cannot be used: {type(error.__cause__ or error).__name__}"
            yield Finding("database", message, "start the database, or correct the connector's settings")


class IsolationGate:
    """Who runs beside whom in a Procrastinate worker: a delivery that has crashed before, beside nobody.

    Args:
        loop: The event loop of the worker.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.bridge: WorkerBridge = WorkerBridge(_UNBOUNDED)
        self._running = 0
        self._order = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def admit(self, claimed: Claimed) -> AsyncGenerator[None]:
        """Hold the gate while a delivery runs; one that has crashed waits until it is alone."""
        async with self._order:
            alone = claimed.claim.crashes > 0
            while alone and self._running:
                self._left.clear()
                await self._left.wait()
            if alone:
                yield
                return
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._left.set()
