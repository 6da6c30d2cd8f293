"""Errors for calls that are written wrongly: what was passed, and the line that is right."""

from __future__ import annotations

import inspect

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.receiving.receiver import WebhookReceiver
from roovet_webhooks.routing import Router


def check_receiver(value: object, call: str) -> None:
    """Check that an adapter was given a receiver.

    Args:
        value: What it was given.
        call: The call as it should be, with ``receiver`` in it, such as ``WebhookApp(receiver)``.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(value, WebhookReceiver):
        return
    if isinstance(value, Router):
        hint = "; a router knows no secret: make a receiver of it, receiver = WebhookReceiver(router=router)"
    elif inspect.isfunction(value) and call.startswith("@"):
        hint = f" over {value.__qualname__}; it is missing the receiver in parentheses"
    elif isinstance(value, type):
        hint = "; that is the class, make one: receiver = WebhookReceiver()"
    else:
        hint = ""
    kind = "the class " + value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
    message = f"write {call}, with a WebhookReceiver; this one has {kind}{hint}"
    raise ConfigurationError(message)
