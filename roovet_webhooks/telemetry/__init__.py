"""What the package tells of itself: a log event for each thing that happens, and spans and metrics of it.

Every name that is logged, with its fields, stands in `catalog`; nothing else may be logged. None of it ever holds a
secret, a signature, a body or a header. Spans and metrics exist where the application uses OpenTelemetry; without
it they cost nothing, and nothing of it is imported.
"""

from __future__ import annotations

from roovet_webhooks.telemetry.blocking import LoopStep, report_blocked_loops
from roovet_webhooks.telemetry.instrumentation import HandlerRun, open_receipt
from roovet_webhooks.telemetry.log import LOGGER_NAME, is_enabled, log_event
from roovet_webhooks.telemetry.receipt import UNTRACED, Receipt

__all__ = [
    "LOGGER_NAME",
    "UNTRACED",
    "HandlerRun",
    "LoopStep",
    "Receipt",
    "is_enabled",
    "log_event",
    "open_receipt",
    "report_blocked_loops",
]
