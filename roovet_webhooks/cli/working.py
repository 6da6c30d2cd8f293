"""``worker``: run what receivers have recorded, until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from roovet_webhooks import operations
from roovet_webhooks.cli.loading import carefully, load_receiver
from roovet_webhooks.worker import Worker
from roovet_webhooks.worker.service import DEFAULT_CONCURRENCY, DEFAULT_GRACE, DEFAULT_POLL

if TYPE_CHECKING:
    from collections.abc import Callable


C = TypeVar("C", bound="Callable[..., Any]")

_OPTIONS = (
    click.option(
        "--concurrency",
        type=click.IntRange(1, 10_000),
        default=DEFAULT_CONCURRENCY,
        show_default=True,
        help="How many handlers run at a time.",
    ),
    click.option(
        "--grace",
        type=click.FloatRange(0, 86_400),
        default=DEFAULT_GRACE,
        show_default=True,
        metavar="SECONDS",
        help="How long running handlers may go on after SIGTERM.",
    ),
    click.option(
        "--poll",
        type=click.FloatRange(0.001, 3600),
        default=DEFAULT_POLL,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait at most before an inbox in which nothing is due is looked at again.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(operations.LOG_LEVELS),
        default="info",
        show_default=True,
        help="What is written to standard error, unless your own code has set up logging.",
    ),
)


def worker_options(command: C) -> C:
    """Give a command the options of a worker."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="MODULE:RECEIVER...")
@worker_options
def worker(*, names: tuple[str, ...], concurrency: int, grace: float, poll: float, log_level: str) -> int:
    """Run the deliveries that receivers have recorded.

    SIGTERM or Ctrl-C ends it in order: it takes no more, lets running handlers end for the time of --grace, gives the
    rest back and exits with 0. A second signal ends it at once. Any number of workers may share an inbox. It needs no
    signing secret.

    The exit status is 2 when it cannot begin: its receivers need a durable inbox and handlers. A store that is away for
    the moment is waited for.

    Example: roovet-webhooks worker shop.webhooks:receiver --concurrency 8
    """
    receivers = [load_receiver(name, "MODULE:RECEIVER") for name in names]
    return work(Worker(*receivers, concurrency=concurrency, grace=grace, poll=poll), log_level)


def work(made: Worker, log_level: str) -> int:
    """Run a worker in this process to its end.

    Raises:
        ConfigurationError: As `Worker.check`.
    """
    carefully(made.check, "the worker")
    operations.log_to_stderr(log_level)
    made.run()
    for receiver in made.receivers:
        operations.close_quietly(receiver.durable_inbox)
    return 0
