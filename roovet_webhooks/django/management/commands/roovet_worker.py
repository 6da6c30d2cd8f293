"""``manage.py roovet_worker``: run what the project's receivers have recorded, until told to stop."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils.module_loading import import_string

from roovet_webhooks._validation import number_and_noun
from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.receivers import receivers
from roovet_webhooks.errors import ConfigurationError, InboxError
from roovet_webhooks.operations import LOG_LEVELS, close_quietly, log_to_stderr
from roovet_webhooks.receiving.receiver import WebhookReceiver
from roovet_webhooks.worker import Worker
from roovet_webhooks.worker.service import DEFAULT_CONCURRENCY, DEFAULT_GRACE, DEFAULT_POLL

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable

    from django.core.management.base import CommandParser


_KEPT = 60


class Command(BaseCommand):
    """Run the deliveries that receivers have recorded in their durable inboxes."""

    help = (
        "Runs the deliveries that the project's receivers have recorded. SIGTERM or Ctrl-C ends it in order: it takes "
        "no more, lets running handlers end for the time of --grace, gives the rest back and exits with 0. A second "
        "signal ends it at once. Any number of workers may share an inbox. It needs no signing secret."
    )
    # A missing secret is no reason for what was recorded to wait; what a worker needs it checks itself.
    requires_system_checks: Any = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of a worker."""
        parser.add_argument(
            "receivers",
            nargs="*",
            metavar="MODULE:RECEIVER",
            help="A receiver, such as config.roovet:receiver; without any, those that the URLs mount.",
        )
        parser.add_argument("--endpoint", action="append", metavar="NAME", help="Only of this receiver; repeatable.")
        parser.add_argument(
            "--concurrency", type=int, default=DEFAULT_CONCURRENCY, help="How many handlers run at a time."
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=DEFAULT_GRACE,
            metavar="SECONDS",
            help="How long running handlers may go on after SIGTERM.",
        )
        parser.add_argument(
            "--poll",
            type=float,
            default=DEFAULT_POLL,
            metavar="SECONDS",
            help="How long to wait at most before an inbox in which nothing is due is looked at again.",
        )

        parser.add_argument(
            "--log-level",
            choices=LOG_LEVELS,
            default="info",
            help="What is written to standard error, unless the settings set up logging (LOGGING).",
        )

    def handle(self, *_arguments: object, **options: Any) -> None:  # noqa: ANN401 - Django's signature
        """Work until told to stop."""
        try:
            chosen = _chosen(options["receivers"], options["endpoint"])
            numbers = {name: options[name] for name in ("concurrency", "grace", "poll")}
            worker = Worker(*chosen, **numbers)
            # Django's own default has a handler for its loggers, and hides what others say below WARNING.
            log_to_stderr(options["log_level"], but="django")
            with _kept_connections():
                worker.check()
                self._print_start(worker)
                worker.run()
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=2) from None
        for receiver in chosen:
            close_quietly(receiver.durable_inbox)

    def _print_start(self, worker: Worker) -> None:
        inboxes = {id(receiver.inbox): receiver.inbox for receiver in worker.receivers}
        for inbox in inboxes.values():
            if isinstance(inbox, DjangoInbox):
                for fault in _faults(inbox):
                    self.stderr.write(self.style.WARNING(fault))
        names = ", ".join(receiver.endpoint for receiver in worker.receivers)
        handlers = number_and_noun(worker.concurrency, "handler", "handlers")
        self.stdout.write(f"Working for {names}, {handlers} at a time. Ctrl-C stops it.")


def _chosen(names: Iterable[str], endpoints: Collection[str] | None) -> list[WebhookReceiver]:
    """Return the receivers that are meant.

    Raises:
        ConfigurationError: There is none, or not one of the name.
    """
    found = [_named(name) for name in names] or [receiver for receiver in receivers() if receiver.inbox.durable]
    if not found:
        message = (
            "the project mounts no receiver with a durable inbox: dispatch_view(WebhookReceiver(inbox=DjangoInbox()))"
        )
        raise ConfigurationError(message)
    missing = set(endpoints or ()) - {receiver.endpoint for receiver in found}
    if missing:
        has = ", ".join(receiver.endpoint for receiver in found)
        message = f"there is no receiver {', '.join(sorted(missing))}; there is {has}"
        raise ConfigurationError(message)
    return [receiver for receiver in found if not endpoints or receiver.endpoint in endpoints]


def _named(name: str) -> WebhookReceiver:
    try:
        found: object = import_string(name.replace(":", "."))
    except ImportError as error:
        message = f"{name!r} names no receiver: {error}"
        raise ConfigurationError(message) from None
    if not isinstance(found, WebhookReceiver):
        message = f"{name!r} is of the type {type(found).__name__}, not a WebhookReceiver"
        raise ConfigurationError(message)
    return found


def _faults(inbox: DjangoInbox) -> list[str]:
    try:
        return [f"{fault.message}: {fault.remedy}" for fault in [*inbox.faults(), *inbox.advice()]]
    except InboxError as error:
        return [str(error)]  # it is waited for


@contextmanager
def _kept_connections() -> Generator[None]:
    """Have connections live for a while where the settings close them after each request: here are no requests."""
    changed: list[tuple[str, dict[str, Any]]] = []
    for alias in connections:
        settings = connections.settings[alias]
        if settings["CONN_MAX_AGE"] == 0:
            changed.append((alias, {name: settings[name] for name in ("CONN_MAX_AGE", "CONN_HEALTH_CHECKS")}))
            settings.update(CONN_MAX_AGE=_KEPT, CONN_HEALTH_CHECKS=True)
    try:
        yield
    finally:
        for alias, before in changed:
            connections.settings[alias].update(before)
