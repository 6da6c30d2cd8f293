"""``inbox replay`` and ``inbox purge``: one delivery or many, asked about first where it cannot be undone."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from roovet_webhooks import operations
from roovet_webhooks._validation import number_and_noun
from roovet_webhooks.cli.targets import with_filters, with_target
from roovet_webhooks.errors import DeliveryNotFound
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roovet_webhooks.cli.targets import Choice, Target
    from roovet_webhooks.inbox.records import RecordedDelivery

NOT_ALL = 1
_SHOWN = 20
_yes = click.option("--yes", is_flag=True, help="Do it without asking.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say how many deliveries it would be.")
_limit = click.option("--limit", type=click.IntRange(1), default=sys.maxsize, help="How many at most: the newest.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class _NothingDone(click.ClickException):
    exit_code = 2


@click.command()
@click.argument("which", nargs=-1, metavar="[NUMBER|ID]...")
@with_target
@with_filters
@_limit
@_yes
@_dry_run
@_as_json
def replay(  # noqa: PLR0913 - one argument an option
    *, which: tuple[str, ...], target: Target, choice: Choice, limit: int, yes: bool, dry_run: bool, as_json: bool
) -> int:
    """Make ended deliveries ready again.

    They are those named, or all that the filters choose.

    Without --state only dead ones are chosen; handlers that had succeeded do not run again. A done one runs all its
    handlers again, with all their effects, and is asked about first. The exit status is 1 when one was refused.

    Example: roovet-webhooks inbox replay --app shop.webhooks:receiver --event 'order.*' --since 12h
    """
    records, missing = _chosen(target, which, choice, limit, frozenset({State.DEAD}))
    careful = [record for record in records if record.state is State.DONE or record.outcome is Outcome.TOO_OLD]
    if not dry_run and careful and not yes:
        _ask(f"{len(careful)} of {len(records)} are done, or were too old to run. Repeat all their effects?")
    step = operations.replaying(target.inbox, confirmed=bool(careful))
    return _changed(target, "replayed", records, missing, step, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("which", nargs=-1, metavar="[NUMBER|ID]...")
@with_target
@with_filters
@_limit
@_yes
@_dry_run
@_as_json
def purge(  # noqa: PLR0913 - one argument an option
    *, which: tuple[str, ...], target: Target, choice: Choice, limit: int, yes: bool, dry_run: bool, as_json: bool
) -> int:
    """Erase bodies and errors of ended deliveries.

    They are those named, or all that the filters choose.

    What is left is a tombstone that keeps the same delivery from running again. With --resource alone it erases what
    is known about one resource; deliveries of it that are still open are refused, and to be purged once they have
    ended. The exit status is 1 when one was refused.

    Example: roovet-webhooks inbox purge --inbox sqlite:///roovet.db --resource cus_123
    """
    records, missing = _chosen(target, which, choice, limit, None)
    records = [record for record in records if not record.purged]
    if not dry_run and records and not yes:
        bodies = "the body" if len(records) == 1 else "the bodies"
        count = number_and_noun(len(records))
        _ask(f"Erase {bodies} and errors of {count}? What is erased can never be replayed.")
    step = operations.purging(target.inbox)
    return _changed(target, "purged", records, missing, step, dry_run=dry_run, as_json=as_json)


def _chosen(
    target: Target, which: Sequence[str], choice: Choice, limit: int, states: frozenset[State] | None
) -> tuple[list[RecordedDelivery], list[str]]:
    """Return the deliveries that are meant, the oldest first, and what is wrong with the names of others.

    Filters choose no tombstones: nothing can be done to those.
    """
    if which and choice.given:
        message = "name deliveries or choose them by filters, not both"
        raise click.UsageError(message)
    if not which and not choice.given:
        message = "which deliveries? Name them, or give a filter such as --state dead"
        raise click.UsageError(message)
    if not which:
        return list(operations.iter_deliveries(target.inbox, choice.query(limit, states=states, purged=False)))[
            ::-1
        ], []
    records: list[RecordedDelivery] = []
    missing: list[str] = []
    for name in dict.fromkeys(which):
        try:
            records.append(target.inbox.get(operations.number_of(target.inbox, name)))
        except DeliveryNotFound as error:
            missing.append(str(error))
    return records, missing


def _ask(question: str) -> None:
    try:
        answered = click.confirm(question, err=True)
    except click.Abort:
        answered = False
    if not answered:
        message = "nothing was done; --yes does it without asking"
        raise _NothingDone(message)


def _changed(  # noqa: PLR0913 - what the two commands have in common
    target: Target,
    word: str,
    records: Sequence[RecordedDelivery],
    missing: Sequence[str],
    step: operations.Doing,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    numbers = [record.number for record in records]
    refused = _refusals(word, records) if dry_run else _with_progress(target, word, numbers, step)
    would_be = len(numbers) - len(refused)
    done = 0 if dry_run else would_be
    if as_json:
        fields = [{"number": one.number, "reason": one.reason} for one in refused]
        extra = {"would_be": would_be} if dry_run else {}
        click.echo(json.dumps({word: done, "refused": fields, "missing": list(missing), **extra}))
    else:
        would = f"{would_be} would be {word}." if dry_run else f"{done} {word}."
        click.echo(would)
        reasons = [*missing, *(f"{one.number}: {one.reason}" for one in refused)]
        for reason in reasons[:_SHOWN]:
            click.echo(f"Refused: {reason}", err=True)
        if len(reasons) > _SHOWN:
            click.echo(f"and {len(reasons) - _SHOWN} more", err=True)
    return NOT_ALL if missing or (refused and not dry_run) else 0


def _refusals(word: str, records: Sequence[RecordedDelivery]) -> list[operations.Refused]:
    """Return what would be refused, as far as the records tell."""
    refused: list[operations.Refused] = []
    for record in records:
        if record.state in {State.READY, State.CLAIMED}:
            refused.append(operations.Refused(record.number, f"a delivery that is {record.state} cannot be {word}"))
        elif record.purged:
            refused.append(operations.Refused(record.number, f"it cannot be {word}: its body has been erased"))
    return refused


def _with_progress(
    target: Target, word: str, numbers: Sequence[int], step: operations.Doing
) -> list[operations.Refused]:
    console = Console(stderr=True)
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(word, total=len(numbers))
        on_progress: Callable[[int], None] = lambda count: progress.update(bar, completed=count)  # noqa: E731 - its type is said
        return operations.apply_each(target.inbox, numbers, step, on_progress=on_progress)
