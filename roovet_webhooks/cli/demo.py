"""``demo``: a receiver and four deliveries over real HTTP, and what became of each."""

from __future__ import annotations

import json
import logging
import time
from secrets import token_urlsafe
from typing import TYPE_CHECKING, NamedTuple

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.cli.posting import Answer, NoAnswer, Target, post
from roovet_webhooks.cli.text import plain
from roovet_webhooks.events import OrderCreated
from roovet_webhooks.keys import Keyring, Secret
from roovet_webhooks.receiver import WebhookReceiver
from roovet_webhooks.serving import log_to, serving
from roovet_webhooks.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.messages import WebhookRequest

WRONG = 1
_TIMEOUT = 5.0
_STALE = 600
_NARROW = 80


class Witness:
    """Sees what the receiver does inside, which its answers do not tell."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.reasons: list[str] = []

    async def handle(self, event: OrderCreated, delivery: Delivery) -> None:
        """Note that the handler ran."""
        self.runs.append(event.id)
        self.reasons.append(f"verified with the secret {delivery.secret_name!r}")

    async def refused(self, error: WebhookError, _request: WebhookRequest) -> None:
        """Note why a request was refused."""
        self.reasons.append(f"{error.code}: {error}")


class Case(NamedTuple):
    """One delivery, and what has to become of it."""

    sent: str
    body: bytes
    headers: Mapping[str, str]
    status: int
    word: str
    runs: bool


class Outcome(NamedTuple):
    """What became of a case."""

    case: Case
    answered: str
    why: str
    ran: int
    right: bool


def make_receiver(keyring: Keyring, witness: Witness) -> WebhookReceiver:
    """Return the receiver of the demonstration: nothing about it is special."""
    receiver = WebhookReceiver(keyring)
    receiver.on(OrderCreated)(witness.handle)
    receiver.on_rejected(witness.refused)
    return receiver


def cases(keyring: Keyring) -> Iterator[Case]:
    """Yield the deliveries, in the order in which they are to be sent."""
    signer = Signer(keyring)
    now = int(time.time())
    good, target, late = (_order(f"ord_{number}", now) for number in (1001, 1002, 1003))
    yield Case("a good delivery", good, signer.headers(good), 200, "handled", runs=True)
    yield Case("the same once more", good, signer.headers(good), 200, "duplicate", runs=False)
    tampered = target.replace(b'"amount_cents":1250', b'"amount_cents":1')
    yield Case("altered after signing", tampered, signer.headers(target), 400, "verification_failed", runs=False)
    stale = signer.headers(late, timestamp=now - _STALE)
    yield Case(f"signed {_STALE // 60} min ago", late, stale, 400, "verification_failed", runs=False)


def _order(resource: str, now: int) -> bytes:
    content = {"event": "order.created", "id": resource, "ts": now, "amount_cents": 1250}
    return json.dumps(content, separators=(",", ":")).encode()


def play(url: str, keyring: Keyring, witness: Witness) -> Iterator[Outcome]:
    """Send every case and judge what became of it."""
    target = Target.of(url)
    for case in cases(keyring):
        witness.runs.clear()
        witness.reasons.clear()
        try:
            answer = post(target, case.body, case.headers, timeout=_TIMEOUT)
        except NoAnswer as error:
            yield Outcome(case, "nothing", str(error), len(witness.runs), right=False)
            continue
        word = _word(answer)
        ran = len(witness.runs)
        right = (answer.status, word, ran) == (case.status, case.word, int(case.runs))
        why = "; ".join(witness.reasons) or ("recorded before, so not run again" if word == "duplicate" else "")
        yield Outcome(case, f"{answer.status} {word}", why, ran, right)


def _word(answer: Answer) -> str:
    """Return the word of one of our answers: its status, or the type of its error."""
    try:
        content = json.loads(answer.body)
        return str(content["status"] if answer.ok else content["error"]["type"])
    except (ValueError, LookupError, TypeError):
        return "(no answer of a receiver)"


@click.command(short_help="See all of it work, without any set-up.")
def demo() -> int:
    """See it work: four deliveries over real HTTP, and what became of each.

    Starts a receiver on a free loopback port with a random secret, and sends it a good delivery, a duplicate, a
    tampered and a stale one. The exit status is 0 when every outcome is right, and 1 otherwise.

    Example: roovet-webhooks demo
    """
    console = Console(highlight=False)
    keyring = Keyring([Secret(f"whsec_{token_urlsafe(32)}", name="demo")])
    witness = Witness()
    # What the receiver tells its log stands in the table.
    with log_to(logging.NullHandler()), serving(WebhookApp(make_receiver(keyring, witness))) as url:
        outcomes = list(play(url, keyring, witness))
    console.print(f"\nA receiver listened on [bold]{url}[/bold]\nwith a random secret. It got four deliveries:\n")
    if console.width < _NARROW:
        for outcome in outcomes:
            console.print(_block(outcome))
    else:
        console.print(_table(outcomes))
    wrong = sum(not outcome.right for outcome in outcomes)
    if wrong:
        console.print(f"[bold red]{wrong} of {len(outcomes)} outcomes are wrong.[/bold red]")
        return WRONG
    console.print(f"[bold green]All {len(outcomes)} outcomes are right.[/bold green] A sender is never told why.")
    return 0


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=box.HORIZONTALS, show_lines=True, header_style="bold", pad_edge=False)
    for heading, width in (("Sent", 13), ("Expected", 13), ("Answered", 13)):
        table.add_column(heading, width=width)
    table.add_column("Why", min_width=20)
    table.add_column("Handler", width=7)
    for outcome in outcomes:
        case = outcome.case
        style = _style(outcome)
        table.add_row(
            case.sent,
            _words(f"{case.status} {case.word}"),
            Text(_words(outcome.answered) + ("" if outcome.right else "\nWRONG"), style),
            Text(plain(outcome.why)),
            Text(_times(outcome), style),
        )
    return table


def _block(outcome: Outcome) -> Text:
    """Return an outcome as lines below each other: columns of a table would be too narrow to be read."""
    case = outcome.case
    expected = "" if outcome.right else f", and not {_words(f'{case.status} {case.word}')}: WRONG"
    text = Text(case.sent, "bold")
    text.append(f"\n  {_words(outcome.answered)}{expected}; handler {_times(outcome)}", _style(outcome))
    return text.append(f"\n  {plain(outcome.why)}\n", "not bold")


def _style(outcome: Outcome) -> str:
    return "green" if outcome.right else "bold red"


def _times(outcome: Outcome) -> str:
    return {0: "not run", 1: "ran"}.get(outcome.ran, f"ran {outcome.ran} times")


def _words(answer: str) -> str:
    # Spaces let a narrow column break it.
    return plain(answer).replace("_", " ")
