"""Runs deliveries from durable inboxes: in a process of its own, on a server's event loop, or in a thread."""

from __future__ import annotations

from roovet_webhooks.worker.service import Worker, run_worker, working

__all__ = ["Worker", "run_worker", "working"]
