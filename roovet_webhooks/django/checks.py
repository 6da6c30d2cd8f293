"""System check: every mounted receiver has a secret and a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.checks import CheckMessage, Error
from django.urls import get_resolver

from roovet_webhooks.django.views import mounted
from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.apps import AppConfig


def check_receivers(app_configs: Sequence[AppConfig] | None, **_options: object) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """Report each mounted receiver that could not do its work, as ``roovet_webhooks.E001``."""
    # Importing the URLs is what mounts the receivers.
    _ = get_resolver().url_patterns
    found: list[CheckMessage] = []
    for receiver in mounted:
        try:
            receiver.check()
        except ConfigurationError as error:
            found.append(Error(str(error), obj=receiver, id="roovet_webhooks.E001"))
    return found
