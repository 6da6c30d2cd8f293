"""Run deliveries by Celery, over RabbitMQ or Redis. It needs the extra ``celery``."""

from __future__ import annotations

import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roovet_webhooks.engines.running import Receivers, TaskBridge
from roovet_webhooks.errors import ConfigurationError, MissingExtraError
from roovet_webhooks.findings import Finding
from roovet_webhooks.receiving.bridge import run

try:
    # Neither has type stubs.
    _kombu: Any = import_module("kombu")
    import_module("celery")
except ModuleNotFoundError as _missing:
    message = "Celery is not installed; run: pip install 'roovet-webhooks[celery]'"
    raise MissingExtraError(message, extra="celery") from _missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from roovet_webhooks.receiving.receiver import WebhookReceiver

TASK = "roovet_webhooks.run_delivery"


class CeleryEngine:
    """Hands deliveries to a Celery application; its workers run them, one task a delivery.

    The task acknowledges late, is rejected when its worker is lost, keeps no result and is never retried by Celery: the
    inbox decides when a delivery runs again. On RabbitMQ its queue is a quorum queue. The engine sets
    ``worker_prefetch_multiplier`` to 1, so that no worker sits on tasks that another could run.

    Args:
        app: The Celery application.
        queue: Name of the queue, which the engine declares: ``celery -A shop.tasks worker -Q roovet``.
        window: How many deliveries may be handed over and not claimed at a time.
        again_after: Seconds after which one that was handed over and not claimed is handed over once more.
        timeout: Seconds that the broker has for each answer.

    Raises:
        ConfigurationError: A number is out of its range.

    Example::

        engine = CeleryEngine(Celery(broker="amqp://…"))
        receiver = WebhookReceiver(inbox="postgresql+psycopg://…", engine=engine)
    """

    name: str = "celery"
    shares_transaction: bool = False

    def __init__(
        self,
        app: Any,  # noqa: ANN401 - a celery.Celery, which has no types
        *,
        queue: str = "roovet",
        window: int = 1000,
        again_after: float = 60.0,
        timeout: float = 5.0,
    ) -> None:
        if not (window >= 1 and again_after > 0 and timeout > 0):
            fault = f"window, again_after and timeout must be above 0, not {window!r}, {again_after!r} and {timeout!r}"
            raise ConfigurationError(fault)
        self.window: int = window
        self.again_after: float = again_after
        self._app = app
        self._queue_name = queue
        self._timeout = timeout
        self._receivers = Receivers(self.name)
        # A connection belongs to the thread that made it: a relay that gives one up takes another.
        self._mine = threading.local()
        app.conf.worker_prefetch_multiplier = 1

        def run_delivery(endpoint: str, number: int) -> None:
            run(self._receivers.run(endpoint, number, TaskBridge()))

        self._task: Any = app.task(
            run_delivery,
            name=TASK,
            acks_late=True,
            reject_on_worker_lost=True,
            acks_on_failure_or_timeout=True,
            ignore_result=True,
            max_retries=0,
            shared=False,
        )
        app.on_after_finalize.connect(self._declare, weak=False)

    def attach(self, receiver: WebhookReceiver) -> None:
        """Take a receiver's deliveries; see `Engine.attach`."""
        self._receivers.add(receiver)

    def _declare(self, **_signal: object) -> None:
        """Let workers know the queue as it is, before one takes it for a classic one."""
        self._app.amqp.queues.add(self._queue(self._app.connection_for_write()))

    def _queue(self, connection: Any) -> Any:  # noqa: ANN401 - kombu's
        name = self._queue_name
        quorum = {"x-queue-type": "quorum"} if connection.transport.driver_type == "amqp" else None
        exchange = _kombu.Exchange(name, type="direct")
        return _kombu.Queue(name, exchange, routing_key=name, queue_arguments=quorum)

    def _connection(self) -> Any:  # noqa: ANN401 - kombu's
        """Return a connection on which nothing waits for ever."""
        seconds = self._timeout
        amqp = {"confirm_publish": True, "read_timeout": seconds, "write_timeout": seconds}
        redis = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry_on_timeout": False}
        kind = self._app.connection_for_write().transport.driver_type
        options = {"amqp": amqp, "redis": redis}.get(kind, {})
        return self._app.connection_for_write(connect_timeout=seconds, transport_options=options)

    def enqueue(self, _connection: object, endpoint: str, numbers: Sequence[int]) -> None:
        """Publish a task for each delivery; see `Engine.enqueue`."""
        try:
            producer = self._producer()
            queue = self._mine.queue
            for number in numbers:
                self._task.apply_async(
                    (endpoint, number),
                    producer=producer,
                    queue=queue,
                    retry=False,
                    timeout=self._timeout,
                    confirm_timeout=self._timeout,
                )
        except BaseException:
            self._disconnect()
            raise

    def _producer(self) -> Any:  # noqa: ANN401 - kombu's
        if getattr(self._mine, "producer", None) is None:
            connection = self._mine.connection = self._connection()
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=self._timeout)
            self._mine.queue = self._queue(connection)
            self._mine.producer = self._app.amqp.Producer(connection.channel(), auto_declare=False)
        return self._mine.producer

    def _disconnect(self) -> None:
        connection = getattr(self._mine, "connection", None)
        self._mine.connection = self._mine.producer = None
        if connection is not None:
            _release_quietly(connection)

    def faults(self) -> Iterator[Finding]:
        """Look at the broker and the application's settings; see `Engine.faults`."""
        if self._app.conf.worker_prefetch_multiplier != 1:
            yield Finding(
                "prefetch",
                f"worker_prefetch_multiplier is {self._app.conf.worker_prefetch_multiplier}",
                "set it to 1, or a worker keeps tasks that others could run",
            )
        try:
            connection = self._connection()
        except Exception as error:  # noqa: BLE001 - kombu's, or a missing library of a transport's
            message = f"the broker's URL names no installed transport: {type(error).__name__}"
            yield Finding(
                "broker_url", message, "give the application the URL of a RabbitMQ (amqp://) or a Redis (redis://)"
            )
            return
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=self._timeout)
            yield from self._broker_faults(connection)
        except Exception as error:  # noqa: BLE001 - each broker's own
            # Not its text: that may have the URL, and so the password.
            kind = type(error).__name__
            message = f"the broker or its queue {self._queue_name!r} cannot be used: {kind}"
            remedy = "start the broker, or correct its URL, or its user's password or rights"
            if kind == "PreconditionFailed":
                remedy = "the queue exists with another type than quorum: delete it once it is empty, or name another"
            yield Finding("broker", message, remedy)
        finally:
            _release_quietly(connection)

    def _broker_faults(self, connection: Any) -> Iterator[Finding]:  # noqa: ANN401 - kombu's
        kind = connection.transport.driver_type
        if kind == "redis":
            yield from _redis_faults(connection.channel().client)
            return
        self._queue(connection).bind(connection.channel()).declare()
        if kind != "amqp":
            yield Finding(
                "broker_type",
                f"the broker is of the type {kind}, which was never tested",
                "use RabbitMQ or Redis",
                level="warning",
            )


def _release_quietly(connection: Any) -> None:  # noqa: ANN401 - kombu's
    with suppress(Exception):  # a broker that is away need not hear of it
        connection.release()


def _redis_faults(client: Any) -> Iterator[Finding]:  # noqa: ANN401 - redis's own
    client.ping()
    try:
        settings: dict[str, str] = {}
        for name in ("maxmemory-policy", "appendonly", "save"):
            settings |= client.config_get(name)
    except _redis_errors().ResponseError:
        yield Finding(
            "redis_settings",
            "Redis does not show its settings (CONFIG is forbidden)",
            "check by hand that maxmemory-policy is noeviction and that Redis keeps its data on a disk",
            level="warning",
        )
        return
    policy = settings.get("maxmemory-policy")
    if policy != "noeviction":
        yield Finding(
            "redis_eviction",
            f"Redis may evict tasks: its maxmemory-policy is {policy}",
            "set maxmemory-policy to noeviction; until then evicted tasks come back after again_after seconds only",
        )
    if settings.get("appendonly") == "no" and not settings.get("save"):
        yield Finding(
            "redis_persistence",
            "Redis keeps tasks in memory alone: appendonly is off, and save is empty",
            "set appendonly to yes; until then tasks that a restart loses come back after again_after seconds only",
            level="warning",
        )


def _redis_errors() -> Any:  # noqa: ANN401 - a module; the extra brings it, and only Redis as a broker needs it
    return import_module("redis.exceptions")
