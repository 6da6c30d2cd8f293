"""The receiver. Its handlers stand in the applications' ``webhooks.py``."""

from __future__ import annotations

from roovet_webhooks import WebhookReceiver

receiver = WebhookReceiver()
