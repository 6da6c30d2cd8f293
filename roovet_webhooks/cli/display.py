"""Shows on a terminal what becomes of each delivery, as it comes."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from typing import TYPE_CHECKING, cast

from rich.text import Text

from roovet_webhooks.cli.text import ago, fact, is_library, plain, pretty

if TYPE_CHECKING:
    from rich.console import Console

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.events import Event

_INDENT = " " * 10

# The log events of the package (telemetry.py), in a person's words.
_WORDS = {
    "delivery.handled": ("handled", "green"),
    "delivery.ignored": ("ignored", "yellow"),
    "delivery.duplicate": ("duplicate", "cyan"),
    "delivery.in_flight": ("in flight", "yellow"),
    "delivery.failed": ("failed", "red"),
    "delivery.rejected": ("refused", "red"),
    "handler.dropped": ("dropped", "yellow"),
    "handler.failed": ("handler raised", "red"),
    "handler.retry_later": ("retry later", "yellow"),
    "hook.failed": ("hook raised", "red"),
    "receiver.not_ready": ("not ready", "red"),
    "receiver.error": ("error", "red"),
}

# The event of the handler has said it already, with its name and reason.
_SHOWN_BY_HANDLER = frozenset({"delivery.dropped", "delivery.retry_later"})

# What goes without saying.
_USUAL: dict[str, object] = {"endpoint": "default", "tenant": "default", "attempt": 1}


class Display(logging.Handler):
    """Shows deliveries: as a handler of the receiver's in full, as a handler of its log in a line or two.

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
        if name in self._hidden or name in _SHOWN_BY_HANDLER:
            return
        word, style = _WORDS.get(name, (name, "yellow"))
        # What is found beyond the code, which says no more than where verification stopped.
        found = [code for code in cast("list[str]", fields.pop("findings", [])) if code != fields.get("code")]
        about = [str(fields.pop(key)) for key in ("event_type", "resource", "code") if key in fields]
        reason = str(fields.pop("reason", ""))
        evidence = fields.pop("evidence", None)
        if isinstance(evidence, dict):
            fields.update(cast("dict[str, object]", evidence))
        facts = ", ".join(f"{key} {fact(value)}" for key, value in fields.items() if _USUAL.get(key) != value)
        error = record.exc_info[1] if record.exc_info else None
        raised = "" if error is None else plain(_traceback(error))
        lines = (reason, f"found: {', '.join(found)}" if found else "", facts)
        self._show(word, style, "  ".join(about), [line for line in lines if line], raised)

    def misdirected(self, request: str, path: str) -> None:
        """Show a request that did not go to the path of the endpoint."""
        self._show("not found", "yellow", request, [f"deliveries go to {path}"], "")

    def _show(self, word: str, style: str, about: str, lines: list[str], block: str) -> None:
        shown = Text(f"{time.strftime('%H:%M:%S')}  ", "dim")
        shown.append(f"{word:<14}", f"bold {style}")
        shown.append(f"  {plain(about)}", "bold")
        for line in lines:
            shown.append(f"\n{_INDENT}{plain(line)}", "")
        for line in block.splitlines():
            shown.append(f"\n{_INDENT}{line}", "dim")
        try:
            self._console.print(shown)
        except (BrokenPipeError, SystemExit):
            # Nobody reads any more (rich makes a SystemExit of it): end as Ctrl-C does, after the answer.
            signal.raise_signal(signal.SIGINT)


def _traceback(error: BaseException) -> str:
    """Format a traceback from where the user's own code begins, if it does."""
    frames = error.__traceback__
    while frames is not None and is_library(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames or error.__traceback__)).rstrip()
