"""The models of an inbox, for code that may be imported before Django has loaded its applications."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from roovet_webhooks.django.models import Delivery, Handled, Turn, Worker


NOT_SET_UP = (
    "a DjangoInbox is used by a process that has not set Django up: run it through manage.py (roovet_worker, "
    "roovet_inbox), or call django.setup() first"
)
NOT_INSTALLED = "a DjangoInbox needs its tables: INSTALLED_APPS += ['roovet_webhooks.django'], then manage.py migrate"


class Tables(NamedTuple):
    """The models."""

    delivery: type[Delivery]
    handled: type[Handled]
    worker: type[Worker]
    turn: type[Turn]


@cache
def tables() -> Tables:
    """Return the models.

    Raises:
        ConfigurationError: Django has not been set up, or the application is not installed.
    """
    try:
        from roovet_webhooks.django.models import Delivery, Handled, Turn, Worker  # noqa: PLC0415 - not before Django
    except (AppRegistryNotReady, ImproperlyConfigured) as error:
        raise ConfigurationError(NOT_SET_UP) from error
    except RuntimeError as error:
        raise ConfigurationError(NOT_INSTALLED) from error
    return Tables(Delivery, Handled, Worker, Turn)
