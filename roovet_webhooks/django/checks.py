"""System checks: every mounted receiver has what it needs, and every inbox a database that keeps what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name for it

from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.receivers import inboxes, receivers
from roovet_webhooks.errors import ConfigurationError, InboxError
from roovet_webhooks.inbox.serving import mismatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from django.apps import AppConfig

    from roovet_webhooks.findings import Finding


def check_receivers(app_configs: Sequence[AppConfig] | None, **_options: object) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """Report each mounted receiver that could not do its work, as ``roovet_webhooks.E001``.

    Without a look at the project's databases, which a build of an image need not reach.
    """
    found: list[CheckMessage] = []
    for receiver in receivers():
        try:
            receiver.check(connect=not isinstance(receiver.inbox, DjangoInbox))
        except ConfigurationError as error:
            found.append(Error(str(error), obj=receiver, id="roovet_webhooks.E001"))
    for inbox in inboxes():
        try:
            found += _warnings(inbox, inbox.advice())
        except ConfigurationError as error:
            found.append(Error(str(error), obj=inbox, id="roovet_webhooks.E002"))
    return found


def check_inboxes(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 - Django's signature
    databases: Sequence[str] | None = None,
    **_options: object,
) -> list[CheckMessage]:
    """Report what endangers the deliveries in these databases: at ``check --database`` and ``migrate``."""
    found: list[CheckMessage] = []
    for inbox in inboxes():
        if inbox.using in (databases or ()):
            try:
                found += _warnings(inbox, inbox.faults())
                found += _mismatches(inbox)
            except InboxError as error:
                found.append(Error(str(error), obj=inbox, id="roovet_webhooks.E002"))
    return found


def _mismatches(inbox: DjangoInbox) -> Iterator[CheckMessage]:
    """Report handlers that a worker lacks, which its heartbeat tells."""
    mine = [receiver for receiver in receivers() if receiver.inbox is inbox and receiver.engine is None]
    try:
        workers = inbox.workers()
    except InboxError:
        return  # `migrate` runs this before the tables are there, or as they are to be
    for found in mismatches(workers, [receiver.served() for receiver in mine]):
        message = f"{found.subject}: {found.message}"
        if found.level == "error":
            yield Error(message, hint=found.remedy, obj=inbox, id="roovet_webhooks.E010")
        else:
            yield Warning(message, hint=found.remedy, obj=inbox, id="roovet_webhooks.W010")


def _warnings(inbox: DjangoInbox, findings: Iterable[Finding]) -> list[Warning]:
    return [Warning(one.message, hint=one.remedy, obj=inbox, id=one.code) for one in findings]
