"""The API of Roovet: a table that describes it, and a client made from that table.

Names load on first use: the table alone loads no HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from roovet_webhooks.errors import MissingExtraError

if TYPE_CHECKING:
    from roovet_webhooks.api.assumed import Cart as Cart, Order as Order, Product as Product
    from roovet_webhooks.api.client import AsyncRoovetClient as AsyncRoovetClient, RoovetClient as RoovetClient
    from roovet_webhooks.api.documented import Balance as Balance, Transaction as Transaction, Transfer as Transfer
    from roovet_webhooks.api.errors import (
        ApiConnectionError as ApiConnectionError,
        ApiError as ApiError,
        ApiStatusError as ApiStatusError,
        ApiTimeout as ApiTimeout,
        Conflict as Conflict,
        InsufficientScope as InsufficientScope,
        InvalidApiKey as InvalidApiKey,
        InvalidRequest as InvalidRequest,
        NotFetchable as NotFetchable,
        NotFound as NotFound,
        NotThereYet as NotThereYet,
        RateLimited as RateLimited,
        ServerError as ServerError,
        Unauthenticated as Unauthenticated,
        UndecodableAnswer as UndecodableAnswer,
    )

_HOMES = {
    "assumed": ("Cart", "Order", "Product"),
    "client": ("AsyncRoovetClient", "RoovetClient"),
    "documented": ("Balance", "Transaction", "Transfer"),
    "errors": (
        *("ApiConnectionError", "ApiError", "ApiStatusError", "ApiTimeout", "Conflict", "InsufficientScope"),
        *("InvalidApiKey", "InvalidRequest", "NotFetchable", "NotFound", "NotThereYet", "RateLimited"),
        *("ServerError", "Unauthenticated", "UndecodableAnswer"),
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        module = import_module(f"{__name__}.{_HOME_OF[name]}")
    except ModuleNotFoundError as missing:
        message = f"{missing.name} is not installed; run: pip install 'roovet-webhooks[api]'"
        raise MissingExtraError(message, extra="api") from missing
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
