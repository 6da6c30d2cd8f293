"""``inbox``: look at what a durable inbox has recorded, and see whether all is well."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roovet_webhooks import operations
from roovet_webhooks._validation import number_and_noun
from roovet_webhooks.cli.changing import purge, replay
from roovet_webhooks.cli.groups import HELP_OPTIONS, Group
from roovet_webhooks.cli.targets import with_filters, with_target
from roovet_webhooks.cli.text import plain
from roovet_webhooks.errors import DeliveryNotFound
from roovet_webhooks.inbox.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from roovet_webhooks.cli.targets import Choice, Target
    from roovet_webhooks.inbox.records import RecordedAttempt, RecordedDelivery

NOT_WELL = 1
CANNOT = 2
_WIDE = 200
_NARROW = 100
_NONE = "No deliveries match."
_STYLES = {"ready": "cyan", "claimed": "blue", "done": "green", "dead": "red"}
_ATTEMPT_STYLES = {"handled": "green", "failed": "red", "crashed": "red"}
_LEVELS = {"ok": "green", "warning": "yellow", "error": "red"}
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


@click.group(cls=Group, invoke_without_command=True, context_settings=HELP_OPTIONS)
@click.pass_context
def inbox(context: click.Context) -> None:
    """Look after what a durable inbox holds.

    Each command takes the inbox of an application (--app) or the URL of its database (--inbox, ROOVET_INBOX). The exit
    status is 0 when all went well; 1 when something was found, refused or not there; 2 when the command could not be
    carried out.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(CANNOT)


@inbox.command("list")
@with_target
@with_filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@_as_json
def list_(*, target: Target, choice: Choice, limit: int, as_json: bool) -> int:
    """List deliveries, the newest first.

    Example: roovet-webhooks inbox list --app shop.webhooks:receiver --state dead --since 12h
    """
    records = operations.iter_deliveries(target.inbox, choice.query(limit))
    if as_json:
        for record in records:
            click.echo(json.dumps(operations.to_dict(record)))
        return 0
    console = _console()
    if console.width < _NARROW:
        return _list_narrow(console, records)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("No.", justify="right", no_wrap=True)
    table.add_column("Received", no_wrap=True)
    for heading in ("Event", "Resource", "State"):
        table.add_column(heading, overflow="fold")
    table.add_column("Runs", justify="right", no_wrap=True)
    table.add_column("Last error", overflow="fold")
    for record in records:
        table.add_row(
            str(record.number),
            _time(record.received_at),
            Text(plain(record.event)),
            Text(plain(record.resource)),
            _state(record),
            str(record.attempts),
            Text(plain(record.last_error or "")),
        )
    if table.row_count:
        console.print(table)
    else:
        click.echo(_NONE)
    return 0


def _list_narrow(console: Console, records: Iterable[RecordedDelivery]) -> int:
    """List deliveries one below the other: columns of a table would be too narrow to be read."""
    count = 0
    for record in records:
        count += 1
        console.print(
            Text.assemble((str(record.number), "bold"), "  ", _time(record.received_at), "  ", _state(record))
        )
        console.print(Text(f"  {plain(record.event)}  {plain(record.resource)}"))
        if record.last_error:
            runs = number_and_noun(record.attempts, "run", "runs")
            console.print(Text(f"  {runs}; {plain(record.last_error)}", "dim"))
    if not count:
        click.echo(_NONE)
    return 0


@inbox.command()
@click.argument("which", metavar="NUMBER|ID")
@with_target
@click.option("--body", is_flag=True, help="Print the raw body and nothing else, byte for byte.")
@_as_json
def show(*, which: str, target: Target, body: bool, as_json: bool) -> int:
    """Show one delivery and its attempts, by its number or its dlv_… id.

    Each attempt has what its handlers did, and of an error its class, its message and where it was raised.

    Example: roovet-webhooks inbox show 4711 --inbox sqlite:///roovet.db
    """
    try:
        record = target.inbox.get(operations.number_of(target.inbox, which))
    except DeliveryNotFound as error:
        click.echo(f"Error: {error}", err=True)
        return NOT_WELL
    if body:
        raw = target.inbox.body(record.number)
        if raw is None:
            click.echo("Error: its body has been erased", err=True)
            return NOT_WELL
        click.echo(raw, nl=False)
        return 0
    fields = operations.to_dict(record)
    if as_json:
        click.echo(json.dumps(fields))
        return 0
    console = _console()
    table = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if name != "history":
            table.add_row(Text(name.replace("_", " "), "dim"), Text(plain(_shown(name, value))))
    console.print(table)
    for attempt in record.history:
        console.print(_attempt(attempt), soft_wrap=True)
    return 0


@inbox.command()
@with_target
@_as_json
def stats(*, target: Target, as_json: bool) -> int:
    """Count deliveries by receiver and state."""
    now = time.time()
    endpoints = target.inbox.stats()
    if as_json:
        for endpoint in endpoints:
            click.echo(json.dumps(operations.stats_to_dict(endpoint, now=now)))
        return 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Endpoint", overflow="fold")
    for heading in (*(state.capitalize() for state in State), "Crashed", "Oldest due", "Workers"):
        table.add_column(heading, justify="right")
    for endpoint in endpoints:
        waits = None if endpoint.oldest_due is None else now - endpoint.oldest_due
        oldest = "-" if waits is None or waits < 0 else operations.format_duration(waits)
        counts = (str(endpoint.counts[state]) for state in State)
        table.add_row(Text(plain(endpoint.endpoint)), *counts, str(endpoint.crashed), oldest, str(endpoint.workers))
    if table.row_count:
        _console().print(table)
    else:
        click.echo("No delivery has been recorded yet.")
    return 0


@inbox.command()
@with_target
@_as_json
def check(*, target: Target, as_json: bool) -> int:
    """Check the inbox and report problems.

    It checks the store (its schema, durability, room and clock), the workers, the backlog, the dead letters, and with
    --app the engine's broker. The exit status is 0 if there is no problem and 1 if there is one.
    """
    well = True
    for finding in operations.check(target.inbox, target.receivers):
        well = well and finding.level == "ok"
        if as_json:
            fields = {name: getattr(finding, name) for name in ("level", "code", "subject", "message", "remedy")}
            click.echo(json.dumps(fields))
            continue
        line = Text.assemble((f"{finding.level:<8}", f"bold {_LEVELS[finding.level]}"), f"{plain(finding.subject)}: ")
        line.append(plain(finding.message))
        if finding.remedy:
            line.append(f"\n        {plain(finding.remedy)}", "dim")
        _console().print(line, soft_wrap=True)
    return 0 if well else NOT_WELL


inbox.add_command(replay)
inbox.add_command(purge)


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(cast("tuple[str, ...]", value)) or "-"
    return _time(value) if isinstance(value, float) and name.endswith(("_at", "_until")) else str(value)


def _attempt(attempt: RecordedAttempt) -> Text:
    """Return an attempt as a block of lines: what it came to, and what each of its handlers did."""
    took = "" if attempt.duration is None else f" after {attempt.duration:.3f} s"
    outcome = f"{attempt.outcome}{', dead' if attempt.dead else ''}".replace("_", " ")
    style = _ATTEMPT_STYLES.get(attempt.outcome, "yellow")
    text = Text.assemble("\n", (f"attempt {attempt.number}", "bold"), "  ", _time(attempt.ended_at), "  ")
    text.append(outcome, style).append(plain(f"{took}  {attempt.owner or ''}".rstrip()), "dim")
    if attempt.reason:
        text.append(f"\n  {plain(attempt.reason)}")
    for run in attempt.runs:
        raised = ": ".join(part for part in (run.error, run.message) if part)
        text.append(f"\n  {plain(run.handler)}  {run.outcome.replace('_', ' ')} after {run.duration:.3f} s")
        text.append(f"  {plain(raised)}" if raised else "", "red" if run.outcome == "failed" else "yellow")
        for line in (run.traceback or "").splitlines():
            text.append(f"\n      {plain(line)}", "dim")
    return text


def _console() -> Console:
    console = Console(highlight=False)
    # What is written to a file or a pipe has room for a row in a line.
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}Z"


def _state(record: RecordedDelivery) -> Text:
    outcome = f" ({record.outcome})" if record.outcome is not None else ""
    purged = ", purged" if record.purged else ""
    return Text(f"{record.state}{outcome}{purged}", _STYLES[record.state])
