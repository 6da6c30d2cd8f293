"""The receiver. Its handlers stand in the applications' ``webhooks.py``.

What it has acknowledged is in the shop's own database, and a worker runs the handlers.
"""

from __future__ import annotations

from roovet_webhooks import WebhookReceiver
from roovet_webhooks.django import DjangoInbox

# A delivery that a worker held when it was killed runs again after one to two and a half leases.
inbox = DjangoInbox(lease=10)
receiver = WebhookReceiver(inbox=inbox)
