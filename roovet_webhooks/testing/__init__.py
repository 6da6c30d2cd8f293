"""Test your endpoint: deliveries signed like Roovet's, forgeries, and a record of what your receiver did.

Needs neither pytest nor a web framework. With pytest, its fixtures ``roovet`` and ``tampered`` are there as soon
as the package is installed (`roovet_webhooks.testing.plugin`). Names load on first use, because pytest imports
this package whenever it starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roovet_webhooks.testing.fixed import NOW as NOW, PATH as PATH, SECRET as SECRET, Clock as Clock
    from roovet_webhooks.testing.forgeries import FORGERIES as FORGERIES, Forgery as Forgery
    from roovet_webhooks.testing.records import (
        Record as Record,
        Recorded as Recorded,
        Rejection as Rejection,
        recording as recording,
    )
    from roovet_webhooks.testing.sandbox import LocalRoovet as LocalRoovet
    from roovet_webhooks.testing.sender import Roovet as Roovet, Tampered as Tampered
    from roovet_webhooks.testing.signed import SignedRequest as SignedRequest, signed_request as signed_request

_HOMES = {
    "Clock": "fixed",
    "FORGERIES": "forgeries",
    "Forgery": "forgeries",
    "LocalRoovet": "sandbox",
    "NOW": "fixed",
    "PATH": "fixed",
    "Record": "records",
    "Recorded": "records",
    "Rejection": "records",
    "Roovet": "sender",
    "SECRET": "fixed",
    "SignedRequest": "signed",
    "Tampered": "sender",
    "recording": "records",
    "signed_request": "signed",
}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return list(_HOMES)
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = vars(import_module(f"{__name__}.{_HOMES[name]}"))[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
