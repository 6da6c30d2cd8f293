"""The Django application: finds handlers, checks what is mounted."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.module_loading import autodiscover_modules

from roovet_webhooks.django.checks import check_receivers


class RoovetWebhooksConfig(AppConfig):
    """``INSTALLED_APPS += ["roovet_webhooks.django"]``: imports each application's ``webhooks.py``."""

    name = "roovet_webhooks.django"
    label = "roovet_webhooks"
    # Django allows a lazy translation here; ours is plain text.
    verbose_name: str = "Roovet webhooks"  # pyright: ignore[reportIncompatibleVariableOverride]

    def ready(self) -> None:
        """Register the system check, and import the handlers."""
        register(check_receivers, Tags.urls)
        autodiscover_modules("webhooks")
