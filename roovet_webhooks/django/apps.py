"""The Django application: finds handlers, checks what is mounted."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.utils.module_loading import autodiscover_modules

from roovet_webhooks.django.checks import check_inboxes, check_receivers
from roovet_webhooks.django.project_checks import check_project


class RoovetWebhooksConfig(AppConfig):
    """``INSTALLED_APPS += ["roovet_webhooks.django"]``: imports each application's ``webhooks.py``."""

    name = "roovet_webhooks.django"
    label = "roovet_webhooks"
    default_auto_field: Any = "django.db.models.BigAutoField"
    # Django allows a lazy translation here; ours is plain text.
    verbose_name: str = "Roovet webhooks"  # pyright: ignore[reportIncompatibleVariableOverride]

    def ready(self) -> None:
        """Register the system checks, and import the handlers."""
        register(check_receivers, Tags.urls)
        register(check_project, Tags.urls)
        register(check_inboxes, Tags.database)
        autodiscover_modules("webhooks")
