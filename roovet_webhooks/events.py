"""Events: the envelope every delivery has, the types users build from it, and the decoders that do it.

The vendor documents a thin payload, ``{"event": …, "id": …, "ts": …}``: ``id`` names the resource
(``ord_123``), not the event, and ``ts`` is Unix seconds ("Webhooks & Signing").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import msgspec

from roovet_webhooks.errors import (
    ConfigurationError,
    EventTypeConflictError,
    EventValidationError,
    InvalidEnvelope,
    MalformedPayload,
    MissingExtraError,
)

MAX_NAME_CHARACTERS = 255
MAX_TIMESTAMP = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second a datetime can hold

T = TypeVar("T")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_name(value: object) -> bool:
    """Say whether a value can be the name of an event or the id of a resource."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_CHARACTERS
        and (value.isprintable() or not _CONTROL.search(value))
    )


def is_event_name(value: object) -> bool:
    """Return whether Roovet could send an event of this name: words with dots between them, such as order.created."""
    return (
        is_name(value)
        and isinstance(value, str)
        and "." in value
        and all(value.split("."))
        and "*" not in value
        and not any(map(str.isspace, value))
    )


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class EventMeta(msgspec.StructMeta):
    """Lets a subclass of `Event` say which event it is: ``class X(Event, event="order.created")``."""

    # Not a field: the name under which Router.on(cls) registers.
    __event_name__: str | None

    def __new__(  # noqa: D102, PYI034 - the class docstring says it; mypy knows no Self in a metaclass
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        event: str | None = None,
        **config: Any,  # noqa: ANN401 - msgspec's own options
    ) -> EventMeta:
        if event is not None and not is_event_name(event):
            message = f"class {name}: event= must be a name such as 'order.created', not {event!r}"
            raise ConfigurationError(message)
        cls = super().__new__(mcls, name, bases, namespace, **config)
        cls.__event_name__ = event
        return cls


class Event(msgspec.Struct, metaclass=EventMeta, frozen=True, dict=True):
    """What happened at Roovet: the fields every event has, and what else came with it.

    Attributes:
        event: Name of the event, such as ``order.created``.
        id: The resource it is about, such as ``ord_123``. Several events share it.
        ts: When it happened, Unix seconds.

    Example:
        A type of your own names its event and adds fields; unknown fields are never an error.

        >>> class TransferSettled(Event, event="transfer.settled"):
        ...     amount_cents: int | None = None
        >>> TransferSettled(event="transfer.settled", id="trf_1", ts=1762782800).occurred_at.isoformat()
        '2025-11-10T13:53:20+00:00'
    """

    event: str
    id: str
    ts: int

    @property
    def occurred_at(self) -> datetime:
        """``ts`` as an aware `datetime` in UTC."""
        return datetime.fromtimestamp(self.ts, UTC)

    @property
    def extra(self) -> Mapping[str, object]:
        """The fields of the payload that this type does not declare, decoded from JSON; read-only."""
        raw: bytes | None = vars(self).get("_raw")
        if raw is None:
            return MappingProxyType({})
        try:
            payload: dict[str, object] = msgspec.json.decode(raw)
        except msgspec.ValidationError:
            # A number that fits no float: JSON all the same, and no reason to fail. Integers stay what they are.
            payload = json.loads(raw, parse_int=_integer)
        declared = set(self.__struct_encode_fields__)
        return MappingProxyType({name: value for name, value in payload.items() if name not in declared})

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Pickle the declared fields; the raw body stays where it is."""
        return type(self), msgspec.structs.astuple(self)


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # thousands of digits, which Python does not read for fear of their cost
        return float(digits)


class OrderCreated(Event, event="order.created"):
    """``order.created``, the one event that Roovet documents: fetch the order ``id`` to see its state."""


_envelope = msgspec.json.Decoder(Event)


def parse_envelope(raw: bytes) -> Event:
    """Read the envelope of a verified body.

    Args:
        raw: The body, verified: nothing here is meant for a stranger's bytes, though it is total on them.

    Returns:
        The event with its three fields; ``extra`` has the rest.

    Raises:
        MalformedPayload: The body is not UTF-8, not JSON, or not an object.
        InvalidEnvelope: A field is missing or wrong; ``param`` names it.
    """
    try:
        raw.decode()
        event = _envelope.decode(raw)
    except (ValueError, RecursionError):
        raise _envelope_fault(raw) from None
    if not (is_name(event.event) and is_name(event.id) and 0 <= event.ts <= MAX_TIMESTAMP):
        raise _envelope_fault(raw)
    vars(event)["_raw"] = raw
    return event


def _envelope_fault(raw: bytes) -> MalformedPayload | InvalidEnvelope:
    """Say what is wrong with a body that is no envelope, without a word of the body."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return MalformedPayload(f"the body is not UTF-8 (byte {error.start})")
    try:
        payload = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return MalformedPayload("the body is JSON, but not an object")
    except (ValueError, RecursionError) as error:
        fault = str(error) if isinstance(error, msgspec.DecodeError) else "nested too deeply"
        return MalformedPayload(f"the body is not JSON: {fault}")
    for param in ("event", "id"):
        if param not in payload:
            return InvalidEnvelope(f"the field {param!r} is missing", param=param)
        if not is_name(_value(payload[param])):
            rule = f"a non-empty string of at most {MAX_NAME_CHARACTERS} characters, none of them a control character"
            return InvalidEnvelope(f"the field {param!r} must be {rule}", param=param)
    fault = "must be" if "ts" in payload else "is missing; it must be"
    return InvalidEnvelope(f"the field 'ts' {fault} an integer from 0 to {MAX_TIMESTAMP}", param="ts")


def _value(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


Decode: TypeAlias = Callable[[bytes, Event], object]
"""Builds what a handler asked for from a raw body and its envelope."""


def decoder_of(wanted: object) -> Decode:
    """Return what builds ``wanted`` from a raw body and its envelope.

    Args:
        wanted: `Event` or a subclass, a msgspec Struct, a dataclass, an attrs class, a TypedDict, a
            pydantic model or dataclass, or whatever else msgspec or pydantic can build.

    Raises:
        ConfigurationError: Neither msgspec nor pydantic can build it.
        MissingExtraError: Only pydantic could, and it is not installed.
    """
    try:
        return _cached_decoder(wanted)
    except TypeError:  # an unhashable type, such as Annotated with a list
        return _make_decoder(wanted)


def _make_decoder(wanted: object) -> Decode:
    if wanted is Event:
        return _envelope_itself
    if not hasattr(wanted, "__pydantic_validator__"):
        # What msgspec does not know, pydantic may. Each kind of type that it does not know has an error of its own.
        with suppress(Exception):
            # A type without a schema has, at some depth, a part that msgspec only lets through, such as a model.
            msgspec.json.schema(wanted)
            return _msgspec_decoder(wanted)
    return _pydantic_decoder(wanted)


_cached_decoder = lru_cache(maxsize=256)(_make_decoder)


def _envelope_itself(_raw: bytes, envelope: Event) -> Event:
    return envelope


def _msgspec_decoder(wanted: Any) -> Decode:  # noqa: ANN401 - any type form
    decoder = msgspec.json.Decoder(wanted)
    keeps_raw = isinstance(wanted, EventMeta)

    def decode(raw: bytes, envelope: Event) -> object:
        try:
            value = decoder.decode(raw)
        except (ValueError, RecursionError) as error:
            raise _refused(str(error), wanted, envelope) from None
        if keeps_raw:
            vars(value)["_raw"] = raw
        return value

    return decode


def _pydantic_decoder(wanted: Any) -> Decode:  # noqa: ANN401 - any type form
    try:
        from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - an extra
    except ImportError as missing:
        message = (
            f"{wanted!r} is not a type that msgspec can build; for a pydantic model, "
            "run: pip install 'roovet-webhooks[pydantic]'"
        )
        raise MissingExtraError(message, extra="pydantic") from missing
    adapter: TypeAdapter[object] | None = None
    with suppress(Exception):  # a name that is not there, a part that it cannot build, and more
        adapter = TypeAdapter(wanted)
    # What it does not know yet it puts off until the first use, where it would be a failure of each delivery.
    if adapter is None or not getattr(adapter, "pydantic_complete", True):
        message = (
            f"{wanted!r} cannot be built from JSON; use an Event class, a dataclass, a TypedDict, "
            "a msgspec Struct or a pydantic model"
        )
        raise ConfigurationError(message)
    validate = adapter.validate_json

    def decode(raw: bytes, envelope: Event) -> object:
        try:
            return validate(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            fault = f"{first['type']} - at `${path}`"
            raise _refused(fault, wanted, envelope) from None

    return decode


_PATH = re.compile(r"at `(?:key` in `)?(\$[^`]*)`\Z")
# A value that msgspec repeats, quoted or not, and whatever else stands in quotes, quotes of its own included.
_VALUE = re.compile(
    r"(?:(?<=Invalid value )|(?<=Invalid enum value )).*?(?= - at (?:`key` in )?`[^`]*`\Z|\Z)|'.*'", re.DOTALL
)


def _refused(fault: str, wanted: object, envelope: Event) -> EventValidationError:
    """Say which field a type refused; a value that the library quotes stays out of logs."""
    path = _PATH.search(fault)
    name = getattr(wanted, "__qualname__", repr(wanted))
    message = f"{envelope.event} does not fit {name}: {_VALUE.sub('…', fault)}"
    return EventValidationError(message, event=envelope.event, param=path[1] if path else None)


def declared_name(wanted: object) -> str | None:
    """Return the event that an `Event` class declares with ``event=``; ``None`` for anything else."""
    return wanted.__event_name__ if isinstance(wanted, EventMeta) else None


def check_same_event(first: EventMeta, second: EventMeta) -> None:
    """Refuse two classes for one event.

    Raises:
        EventTypeConflictError: They are two classes that declare the same name.
    """
    if first is not second and first.__event_name__ == second.__event_name__:
        message = (
            f"{_where(first)} and {_where(second)} both declare the event {first.__event_name__!r}; "
            "keep one, or register the other under its name: @router.on('…', type=…)"
        )
        raise EventTypeConflictError(message)


def _where(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
