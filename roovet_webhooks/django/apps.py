"""The Django application: finds handlers, checks what is mounted."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class RoovetWebhooksConfig(AppConfig):
    """``INSTALLED_APPS += ["roovet_webhooks.django"]``: imports each application's ``webhooks.py``."""

    name = "roovet_webhooks.django"
    label = "roovet_webhooks"
    verbose_name = "Roovet webhooks"

    def ready(self) -> None:
        """Import the handlers, and register the system check."""
        from roovet_webhooks.django import checks  # noqa: F401, PLC0415 - registers itself, with the registry ready

        autodiscover_modules("webhooks")
