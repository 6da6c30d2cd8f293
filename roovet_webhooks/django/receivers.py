"""The receivers and inboxes of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import get_resolver

from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.views import mounted

if TYPE_CHECKING:
    from roovet_webhooks.receiving.receiver import WebhookReceiver


def receivers() -> list[WebhookReceiver]:
    """Return the receivers that the project has mounted."""
    # Importing the URLs is what mounts them.
    _ = get_resolver().url_patterns
    return mounted[:]


def inboxes() -> list[DjangoInbox]:
    """Return the inboxes in databases of the project, of the receivers that it has mounted."""
    found = {id(receiver.inbox): receiver.inbox for receiver in receivers()}
    return [inbox for inbox in found.values() if isinstance(inbox, DjangoInbox)]
