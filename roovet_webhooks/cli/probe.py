"""``probe``: post to a mounted endpoint as a sender does, and name what stands in the way."""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

import click
from rich.console import Console
from rich.text import Text

from roovet_webhooks._version import __version__
from roovet_webhooks.cli import probe_findings
from roovet_webhooks.cli.keyrings import given_secrets, needed_secrets, secret_options
from roovet_webhooks.cli.posting import NoAnswer, post
from roovet_webhooks.cli.sending import target_of
from roovet_webhooks.cli.text import plain
from roovet_webhooks.receiving.tenants import SECRET_VARIABLE
from roovet_webhooks.signing.verifier import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from roovet_webhooks.cli.keyrings import GivenSecrets
    from roovet_webhooks.cli.posting import Answer, Target
    from roovet_webhooks.findings import Finding

PROBLEMS_FOUND = 1
EVENT = "roovet_webhooks.probe"
"""Name of the test event: no handler of a shop's events wants it."""


class Exchange(NamedTuple):
    """A request of the probe, and its answer."""

    what: str
    answer: Answer


class Probe:
    """Posts to one endpoint, and collects what stands in the way.

    Args:
        target: Where to post.
        signer: Signs the good delivery; without one, none is sent.
        timeout: Seconds for each exchange.
        slow: Seconds after which an answer is late.
    """

    def __init__(self, target: Target, signer: Signer | None, *, timeout: float, slow: float) -> None:
        self.target = target
        self.exchanges: list[Exchange] = []
        self._signer = signer
        self._timeout = timeout
        self._slow = slow
        # By code, so that a fault of every request is reported once.
        self._found: dict[str, Finding] = {}

    @property
    def problems(self) -> list[Finding]:
        """What was found, in the order in which it was."""
        return list(self._found.values())

    def run(self) -> None:
        """Send an unsigned delivery, a badly signed one, and a good one, until one of them does not get through."""
        self._report(probe_findings.of_target(self.target))
        stranger = Signer(secrets.token_hex(32))
        raw = _event(separators=(",", ":"))
        for what, headers in (
            ("unsigned", {"Content-Type": "application/json"}),
            ("badly signed", stranger.headers(raw)),
        ):
            answer = self._post(what, raw, headers)
            if answer is None:
                return
            wrong = probe_findings.of_refusal(answer)
            self._report(wrong)
            if wrong:
                return
        if self._signer is not None:
            self._send_good(self._signer)

    def _send_good(self, signer: Signer) -> None:
        # Written as no serialiser writes it: what parses and writes it again, or strips it, changes it.
        raw = b" " + _event(note="é", separators=(" ,", ":  "), ensure_ascii=False) + b"\r\n"
        answer = self._post("signed", raw, signer.headers(raw))
        if answer is None or answer.ok:
            return
        if probe_findings.refuses_for_the_clock(answer, time.time()):
            return
        for separators in ((",", ":"), (", ", ": ")):
            raw = _event(separators=separators)
            answer = self._post("signed, written as usual", raw, signer.headers(raw))
            if answer is None:
                return
            if answer.ok:
                self._report([probe_findings.problem("body_altered")])
                return
        refused = probe_findings.is_refusal(answer)
        self._report([probe_findings.problem("secret_differs" if refused else "not_a_receiver", str(answer.status))])

    def _post(self, what: str, raw: bytes, headers: Mapping[str, str]) -> Answer | None:
        """Post a body; return the answer, or ``None`` where it did not come, or not from a receiver."""
        sent = {**headers, "User-Agent": f"roovet-webhooks/{__version__}"}
        try:
            answer = post(self.target, raw, sent, timeout=self._timeout)
        except NoAnswer as error:
            self._report([probe_findings.problem(error.code, str(error))])
            return None
        self.exchanges.append(Exchange(what, answer))
        found = probe_findings.of_answer(self.target, answer, now=time.time(), slow=self._slow)
        self._report(found)
        return None if any(one.code not in {"slow_answer", "clock_off"} for one in found) else answer

    def _report(self, found: list[Finding]) -> None:
        for one in found:
            self._found.setdefault(one.code, one)


def _event(*, separators: tuple[str, str], ensure_ascii: bool = True, **fields: object) -> bytes:
    content = {"event": EVENT, "id": f"probe_{secrets.token_hex(8)}", "ts": int(time.time()), **fields}
    return json.dumps(content, separators=separators, ensure_ascii=ensure_ascii).encode()


@click.command()
@click.argument("target", metavar="URL", callback=target_of)
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 600),
    default=10.0,
    metavar="SECONDS",
    help="For each answer; 10 by default.",
)
@click.option(
    "--slow",
    type=click.FloatRange(0.0, 600),
    default=3.0,
    metavar="SECONDS",
    help="Report what takes longer; 3 by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON.")
@secret_options
def probe(  # noqa: PLR0913 - one argument an option
    *,
    target: Target,
    timeout: float,
    slow: float,
    as_json: bool,
    secret_file: GivenSecrets | None,
    secret: GivenSecrets | None,
) -> int:
    """Post to a mounted endpoint as Roovet does, and name what stands in the way.

    Sends an unsigned delivery and a badly signed one, which a receiver refuses, and, where there is a signing secret, a
    good one: the event roovet_webhooks.probe, which handlers of every event and fallbacks see. No redirect is followed,
    and at most five requests are sent. The exit status is 0 when nothing stands in the way, 1 when something does, 2
    when nothing was sent.

    \b
    Example: roovet-webhooks probe https://shop.example/webhooks/roovet
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    given = given_secrets(secret_file, secret)
    if given is None and os.environ.get(SECRET_VARIABLE):
        given = needed_secrets(None, None)
    signer = None if given is None else Signer(given.keyring())
    run = Probe(target, signer, timeout=timeout, slow=slow)
    run.run()
    if as_json:
        click.echo(_as_json(run))
    else:
        _show(run, signed=signer is not None)
    return PROBLEMS_FOUND if run.problems else 0


def _as_json(run: Probe) -> str:
    content = {
        "url": str(run.target),
        "ok": not run.problems,
        "requests": [
            {"what": what, "status": answer.status, "seconds": round(answer.seconds, 3)}
            for what, answer in run.exchanges
        ],
        "problems": [{"code": one.code, "message": one.message, "remedy": one.remedy} for one in run.problems],
    }
    return json.dumps(content)


def _show(run: Probe, *, signed: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"POST {plain(str(run.target))}", "bold"))
    for what, answer in run.exchanges:
        line = Text(f"{what}: {answer.status} {plain(answer.reason)}")
        line.append(f"  in {answer.seconds * 1000:.0f} ms", "dim")
        console.print(line)
    for one in run.problems:
        shown = Text(f"{one.code}: ", "red")
        shown.append(plain(one.message), "")
        shown.append(f"\n  {one.remedy}", "cyan")
        console.print(shown)
    if not run.problems:
        console.print(Text("Nothing stands in the way.", "green"))
        if not signed:
            console.print(Text("No good delivery was sent: give --secret-file PATH for that.", "dim"))
