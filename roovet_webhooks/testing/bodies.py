"""Bodies as Roovet writes them: what PHP's ``json_encode`` makes of an event, byte for byte.

The vendor encodes with ``JSON_UNESCAPED_SLASHES`` (vendor document, "Send"): compact, slashes bare, whatever is not
ASCII escaped, a float without a fraction written like an integer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, cast

import msgspec

from roovet_webhooks.events import Event, declared_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    EventLike: TypeAlias = (
        str
        | bytes
        | type[Event]
        | Mapping[str, object]
        | msgspec.Struct
        | DataclassInstance
        | "AttrsInstance"
        | "SupportsModelDump"
    )

_ids = count(1)


class SupportsModelDump(Protocol):
    """A pydantic model."""

    def model_dump(self, *, mode: str = ..., by_alias: bool = ...) -> dict[str, Any]:
        """Return its fields, as JSON knows them."""
        ...


class AttrsInstance(Protocol):
    """An instance of an attrs class."""

    __attrs_attrs__: ClassVar[Any]


def body_of(event: EventLike, fields: Mapping[str, object], *, ts: int) -> bytes:
    """Return the body of a delivery; see `roovet_webhooks.testing.signed_request` for what an event may be.

    Args:
        event: The event.
        fields: Fields of the payload to add or replace.
        ts: When it happened, Unix seconds, where the event does not say.

    Raises:
        TypeError: No body can be made of that.
        ValueError: Nothing says which event it is, or a number is infinite or NaN.
    """
    if isinstance(event, bytes):
        if fields:
            message = f"raw bytes are the whole body, so {', '.join(fields)} cannot be added; pass a dict instead"
            raise TypeError(message)
        return event
    content = {**_content_of(event), **cast("dict[str, object]", _builtins(dict(fields)))}
    if not isinstance(event, Mapping):
        content = _completed(content, event, ts)
    return php_json(content).encode("ascii")


def _content_of(event: object) -> dict[str, object]:
    if isinstance(event, str):
        if event.lstrip().startswith("{"):
            message = "event is a name such as 'order.created'; JSON text goes in as bytes: b'{…}'"
            raise TypeError(message)
        return {"event": event}
    if isinstance(event, type):
        return {} if (name := declared_name(event)) is None else {"event": name}
    content = _builtins(event)
    if not isinstance(content, dict):
        message = (
            "event must be a name, an Event class, a dict, raw bytes, or an instance of Event, of a Struct, "
            f"a dataclass, an attrs class or a pydantic model, not {type(event).__name__}"
        )
        raise TypeError(message)
    extra: Mapping[str, object] = event.extra if isinstance(event, Event) else {}
    return {**cast("dict[str, object]", content), **extra}


def _completed(content: dict[str, object], event: object, ts: int) -> dict[str, object]:
    """Add what every event of Roovet has: its name, a resource of its own, the time."""
    name = content.get("event")
    if name is None:
        kind = event if isinstance(event, type) else type(event)
        message = f"{kind.__name__} does not say which event it is; add event='order.created' or the like"
        raise ValueError(message)
    if "id" not in content:
        content["id"] = f"{str(name)[:3]}_{next(_ids)}"
    return {"event": name, "id": content["id"], "ts": ts, **content}


def _builtins(value: object) -> object:
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_dumped)


def _dumped(value: Any) -> object:  # noqa: ANN401 - whatever msgspec does not know
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    message = f"a {type(value).__name__} cannot stand in a payload; make JSON of it first"
    raise TypeError(message)


def php_json(value: object) -> str:
    r"""Write a value as ``json_encode($value, JSON_UNESCAPED_SLASHES)`` does.

    Args:
        value: ``None``, a bool, a number, a text, a list, or a dict with texts as keys, at any depth.

    Raises:
        ValueError: A number is infinite or NaN: PHP refuses these as well.

    Example:
        >>> print(php_json({"url": "https://roovet.com/é", "amount": 12.0}))
        {"url":"https://roovet.com/\u00e9","amount":12}
    """
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return f"{{{','.join(f'{_php_text(name)}:{php_json(item)}' for name, item in items)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(php_json, cast('list[object]', value)))}]"
    if isinstance(value, str):
        return _php_text(value)
    if isinstance(value, float):
        return _php_float(value)
    return json.dumps(value)


def _php_text(text: str) -> str:
    # PHP leaves DEL as it is; Python escapes it.
    return f'"{chr(127).join(json.dumps(part)[1:-1] for part in text.split(chr(127)))}"'


def _php_float(value: float) -> str:
    if not math.isfinite(value):
        message = f"{value} is not JSON"
        raise ValueError(message)
    mantissa, exponent, power = repr(value).partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    # 1e-07 in Python is 1.0e-7 in PHP.
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{power[0]}{power[1:].lstrip('0')}"
