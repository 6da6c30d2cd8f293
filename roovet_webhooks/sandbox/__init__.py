"""A local Roovet, for development and tests: its API, its sender of webhooks, and chaos on demand.

`Sandbox` is all of it without a network; `sandbox_app` serves it over HTTP. On the command line:
``roovet-webhooks sandbox``.
"""

from __future__ import annotations

from roovet_webhooks.errors import MissingExtraError

try:
    from roovet_webhooks.sandbox.app import sandbox_app
    from roovet_webhooks.sandbox.chaos import FAULTS, Chaos, make_chaos
    from roovet_webhooks.sandbox.clock import SandboxClock
    from roovet_webhooks.sandbox.core import RETRIES, Sandbox, new_secret
    from roovet_webhooks.sandbox.sender import Sender
except ModuleNotFoundError as _missing:
    _message = f"the sandbox needs {_missing.name}: run pip install 'roovet-webhooks[sandbox]'"
    raise MissingExtraError(_message, extra="sandbox") from _missing

__all__ = ["FAULTS", "RETRIES", "Chaos", "Sandbox", "SandboxClock", "Sender", "make_chaos", "new_secret", "sandbox_app"]
