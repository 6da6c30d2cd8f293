"""Mount a receiver in a Django project, record what it receives there; guard a view of your own. Imports no models."""

from __future__ import annotations

from roovet_webhooks.errors import MissingExtraError

try:
    from roovet_webhooks.django.inbox import DjangoInbox
    from roovet_webhooks.django.views import dispatch_view, verified_webhook
except ModuleNotFoundError as _missing:
    message = "Django is not installed; run: pip install 'roovet-webhooks[django]'"
    raise MissingExtraError(message, extra="django") from _missing

__all__ = ["DjangoInbox", "dispatch_view", "verified_webhook"]
