"""Which inbox, and which of its deliveries, a command of ``inbox`` is about."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from roovet_webhooks import operations
from roovet_webhooks.cli.loading import load_receiver
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from roovet_webhooks.inbox.protocol import DurableInbox
    from roovet_webhooks.receiving.receiver import WebhookReceiver

C = TypeVar("C", bound=Callable[..., Any])

VARIABLE = "ROOVET_INBOX"


class Receivers(NamedTuple):
    """Receivers that an application has mounted: what a framework's own command line leaves in click's context."""

    receivers: tuple[WebhookReceiver, ...]


class Target(NamedTuple):
    """What a command is about.

    Attributes:
        inbox: The inbox.
        receivers: Receivers of it, as far as they are known.
    """

    inbox: DurableInbox
    receivers: tuple[WebhookReceiver, ...]


_APP = click.option("--app", metavar="MODULE:RECEIVER", help="The inbox of your own WebhookReceiver.")
_URL = click.option("--inbox", "url", metavar="URL", envvar=VARIABLE, help=f"Its database; else {VARIABLE} is taken.")


def with_target(command: C) -> C:
    """Give a command the options ``--app`` and ``--inbox``, and the argument ``target`` that they name."""

    @functools.wraps(command)
    def targeted(*, app: str | None, url: str | None, **options: Any) -> object:  # noqa: ANN401 - the command's own
        context = click.get_current_context()
        by_hand = context.get_parameter_source("url") is ParameterSource.COMMANDLINE
        target = _target(context, app, url, by_hand=by_hand, endpoint=options.get("endpoint"))
        try:
            return command(target=target, **options)
        finally:
            operations.close_quietly(target.inbox)

    return cast("C", _APP(_URL(targeted)))


def _target(context: click.Context, app: str | None, url: str | None, *, by_hand: bool, endpoint: str | None) -> Target:
    if app is not None and by_hand:
        message = "--app and --inbox exclude each other; give one"
        raise click.UsageError(message)
    mounted = context.find_object(Receivers)
    if app is not None:
        receivers: tuple[WebhookReceiver, ...] = (load_receiver(app),)
    elif mounted is not None and not by_hand:
        # One that is not mounted any more has left its deliveries in the inbox of the others.
        named = tuple(each for each in mounted.receivers if endpoint in {None, each.endpoint})
        receivers = named or mounted.receivers
    elif url is not None:
        return Target(operations.inbox_at(url), ())
    else:
        message = f"which inbox? Give --app MODULE:RECEIVER or --inbox URL, or set {VARIABLE}"
        raise click.UsageError(message)
    return Target(operations.inbox_in(receivers), receivers)


def _moment(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return operations.moment(text, now=time.time())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILTERS = (
    click.option("--endpoint", metavar="NAME", help="Only of this receiver."),
    click.option("--tenant", metavar="NAME", help="Only of this tenant."),
    click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([state.value for state in State]),
        help="In this state; repeatable.",
    ),
    click.option(
        "--outcome", type=click.Choice([outcome.value for outcome in Outcome]), help="Only those that ended so."
    ),
    click.option("--event", metavar="NAME", help="Only of this event; order.* takes all that begin so."),
    click.option("--resource", metavar="ID", help="Only about this resource."),
    click.option("--since", metavar="TIME", callback=_moment, help="Received since: 30m, 12h, 7d ago, or 2026-01-31."),
    click.option("--until", metavar="TIME", callback=_moment, help="Received before."),
)


class Choice(NamedTuple):
    """Which deliveries are meant; what is ``None`` does not matter."""

    endpoint: str | None
    tenant: str | None
    states: tuple[str, ...]
    outcome: str | None
    event: str | None
    resource: str | None
    since: float | None
    until: float | None

    @property
    def given(self) -> bool:
        """Whether anything was chosen by."""
        return any(value not in {None, ()} for value in self)

    def query(self, limit: int, *, states: frozenset[State] | None = None, purged: bool | None = None) -> Query:
        """Return what to ask an inbox.

        Args:
            limit: How many at most.
            states: Which states are meant when none is given.
            purged: As `Query` takes it.
        """
        return Query(
            endpoint=self.endpoint,
            tenant=self.tenant,
            states=frozenset(map(State, self.states)) or states,
            outcome=None if self.outcome is None else Outcome(self.outcome),
            event=self.event,
            resource=self.resource,
            since=self.since,
            until=self.until,
            purged=purged,
            limit=limit,
        )


def with_filters(command: C) -> C:
    """Give a command the options that choose deliveries, and the argument ``choice`` that they make."""

    @functools.wraps(command)
    def filtered(**options: Any) -> object:  # noqa: ANN401 - the command's own
        choice = Choice(**{name: options.pop(name) for name in Choice._fields})
        return command(choice=choice, **options)

    chosen: Any = filtered
    for option in reversed(_FILTERS):
        chosen = option(chosen)
    return cast("C", chosen)
