"""Shows on a terminal what becomes of each delivery, as it comes."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from typing import TYPE_CHECKING, cast

from rich.text import Text

from roovet_webhooks.cli.text import ago, fact, plain, pretty
from roovet_webhooks.tracebacks import is_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.events import Event
    from roovet_webhooks.messages import WebhookRequest

_INDENT = " " * 10

# The log events of the package (telemetry/tables.py), in a person's words.
_WORDS = {
    "delivery.stored": ("stored", "cyan"),
    "delivery.dead": ("dead", "red"),
    "delivery.handled": ("handled", "green"),
    "delivery.ignored": ("ignored", "yellow"),
    "delivery.duplicate": ("duplicate", "cyan"),
    "delivery.in_flight": ("in flight", "yellow"),
    "delivery.failed": ("failed", "red"),
    "handler.dropped": ("dropped", "yellow"),
    "handler.failed": ("handler raised", "red"),
    "handler.retry_later": ("retry later", "yellow"),
    "hook.failed": ("hook raised", "red"),
    "receiver.not_ready": ("not ready", "red"),
    "receiver.error": ("error", "red"),
}

# What has been said already, with more to it: by the event of the handler, or by `Display.refused`.
_SHOWN_ELSEWHERE = frozenset({"delivery.dropped", "delivery.retry_later", "delivery.rejected"})

# What goes without saying.
_USUAL: dict[str, object] = {"endpoint": "default", "tenant": "default", "attempt": 1}


class Display(logging.Handler):
    """Shows deliveries: as a handler and a hook of the receiver's in full, as a handler of its log in a line or two.

    Args:
        console: Where to.
        hidden: Names of log events that are not shown.
    """

    def __init__(self, console: Console, *, hidden: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._console = console
        self._hidden = hidden

    async def accepted(self, event: Event, delivery: Delivery) -> None:
        """Show a verified delivery in full."""
        age = delivery.received_at - delivery.signed_at
        proof = f"verified with the secret {delivery.secret_name!r}, signed {ago(age)}"
        facts = f"{len(delivery.raw)} bytes, delivery {delivery.id}"
        self._show("accepted", "green", f"{event.event}  {event.id}", [proof, facts], pretty(delivery.raw))

    def emit(self, record: logging.LogRecord) -> None:
        """Show a log event."""
        name = record.getMessage().partition(" ")[0]
        fields: dict[str, object] = dict(getattr(record, "roovet", {}))
        if name in self._hidden or name in _SHOWN_ELSEWHERE:
            return
        word, style = _WORDS.get(name, (name, "yellow"))
        subject = [str(fields.pop(key)) for key in ("event_type", "resource", "code") if key in fields]
        reason = str(fields.pop("reason", ""))
        # The id of the delivery says the same, in half as many characters.
        fields.pop("key", None)
        evidence = fields.pop("evidence", None)
        if isinstance(evidence, dict):
            fields.update(cast("dict[str, object]", evidence))
        error = record.exc_info[1] if record.exc_info else None
        raised = "" if error is None else plain(_traceback(error))
        self._show(word, style, "  ".join(subject), [line for line in (reason, _facts(fields)) if line], raised)

    async def refused(self, error: WebhookError, request: WebhookRequest) -> None:
        """Show why a request was refused, and what to do about it."""
        if error.status >= 500:  # noqa: PLR2004 - no fault of the sender: the log has it, with its traceback
            return
        lines = [str(error)]
        for finding in () if error.diagnosis is None else error.diagnosis.findings:
            if finding.message != lines[0]:
                lines.append(f"{finding.code}: {finding.message}")
            lines.append(f"  {finding.remedy}")
        lines.append(_facts({"status": error.status, "path": request.path[:200], **error.evidence}))
        self._show("refused", "red", error.code, lines, "")

    def misdirected(self, request: str, path: str) -> None:
        """Show a request that did not go to the path of the endpoint."""
        self._show("not found", "yellow", request, [f"deliveries go to {path}"], "")

    def _show(self, word: str, style: str, subject: str, lines: list[str], block: str) -> None:
        shown = Text(f"{time.strftime('%H:%M:%S')}  ", "dim")
        shown.append(f"{word:<14}", f"bold {style}")
        shown.append(f"  {plain(subject)}", "bold")
        for line in lines:
            shown.append(f"\n{_INDENT}{plain(line)}", "")
        for line in block.splitlines():
            shown.append(f"\n{_INDENT}{line}", "dim")
        try:
            self._console.print(shown)
        except (BrokenPipeError, SystemExit):
            # Nobody reads any more (rich makes a SystemExit of it): end as Ctrl-C does, after the answer.
            signal.raise_signal(signal.SIGINT)


def _facts(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {fact(value)}" for key, value in fields.items() if _USUAL.get(key) != value)


def _traceback(error: BaseException) -> str:
    """Format a traceback from where the user's own code begins, if it does."""
    frames = error.__traceback__
    while frames is not None and is_library(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__)).rstrip()
