"""Find the receiver that ``--app module:receiver`` names."""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.receiving.receiver import WebhookReceiver
from roovet_webhooks.tracebacks import own_frames

if TYPE_CHECKING:
    from collections.abc import Callable


def load_receiver(name: str, given_as: str = "--app") -> WebhookReceiver:
    """Import a module, from the current folder or installed, and return a receiver of it.

    Args:
        name: ``module:receiver``.
        given_as: What the command line calls it.

    Raises:
        ConfigurationError: The name, the module or what it has there is not what is needed.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute) or module_name.endswith(".py"):
        message = f"{given_as} must be module:receiver, such as shop.webhooks:receiver, not {name!r}"
        raise ConfigurationError(message)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = carefully(lambda: import_module(module_name), module_name)
    try:
        found: object = functools.reduce(getattr, attribute.split("."), module)
    except AttributeError:
        receivers = [key for key, value in vars(module).items() if isinstance(value, WebhookReceiver)]
        has = f"it has {', '.join(receivers)}" if receivers else "it has no receiver at all"
        message = f"the module {module_name!r} has no {attribute!r}; {has}"
        raise ConfigurationError(message) from None
    if not isinstance(found, WebhookReceiver):
        message = f"{name!r} is of the type {type(found).__name__}; {given_as} needs a WebhookReceiver"
        raise ConfigurationError(message)
    return found


def carefully(step: Callable[[], object], what: str) -> object:
    """Run code of the user's; whatever it raises becomes one sentence that says where.

    Raises:
        ConfigurationError: It raised.
    """
    try:
        return step()
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{what}.".startswith(f"{error.name}."):
            message = f"there is no module {error.name!r} in this folder, nor is one installed"
            raise ConfigurationError(message) from None
        raise _failed(error, what) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module raises
        raise _failed(error, what) from None


def _failed(error: BaseException, what: str) -> ConfigurationError:
    words = str(error).partition("\n")[0]
    fault = f"{type(error).__name__}: {words}" if words else type(error).__name__
    own = own_frames(error)
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return ConfigurationError(f"{what} could not be loaded: {fault}{where}")
