"""Mount a receiver in a Django project; guard a view of your own. Imports no models."""

from __future__ import annotations

from roovet_webhooks.errors import MissingExtraError

try:
    import django as _django  # noqa: F401 - only to say which extra is missing
except ImportError as missing:
    message = "Django is not installed; run: pip install 'roovet-webhooks[django]'"
    raise MissingExtraError(message, extra="django") from missing

from roovet_webhooks.django.views import dispatch_view, verified_webhook

__all__ = ["dispatch_view", "verified_webhook"]
