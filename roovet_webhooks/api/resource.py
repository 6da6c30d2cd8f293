"""`Resource`: the base of everything the API answers with. It keeps the fields that it does not declare."""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

# Decimals, so that an undeclared amount survives as it was sent.
_json = msgspec.json.Decoder(float_hook=Decimal)


class Resource(msgspec.Struct, frozen=True, kw_only=True, dict=True, omit_defaults=True):
    """Something at Roovet: declared fields as attributes, all others in `extra`."""

    @property
    def extra(self) -> Mapping[str, object]:
        """The fields of the answer that this type does not declare; read-only. Numbers with a point are `Decimal`."""
        kept: dict[str, object] = vars(self).get("_extra", {})
        return MappingProxyType(kept)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Pickle and copy with the undeclared fields."""
        return _rebuild, (type(self), msgspec.structs.asdict(self), dict(self.extra))

    def __copy__(self) -> Self:
        """Return itself: a resource is immutable."""
        return self


def _rebuild(kind: type[Resource], fields: dict[str, object], extra: dict[str, object]) -> Resource:
    made = kind(**fields)
    if extra:
        vars(made)["_extra"] = extra
    return made


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list, most recent row first.

    Attributes:
        data: The rows.
        has_more: Whether there are rows beyond this page, in the direction of the request.
        next_cursor: Id to ask for the next page with; ``None`` when there is none.
    """

    data: tuple[T, ...]
    has_more: bool
    next_cursor: str | None = None


def decode(raw: bytes, kind: type[T]) -> T:
    """Build a `Resource`, or a `Page` of them, from the JSON of an answer.

    Raises:
        msgspec.DecodeError: The bytes are not JSON.
        msgspec.ValidationError: The JSON does not fit the type; the message names the field.
    """
    value: object = _json.decode(raw)
    made = msgspec.convert(value, kind, str_keys=True)
    _keep_undeclared(made, value)
    return made


def _keep_undeclared(made: object, value: object) -> None:
    """Walk a built value beside its JSON, and keep in each resource what its type does not declare."""
    if isinstance(made, tuple):
        for part, its_value in zip(cast("tuple[object, ...]", made), cast("list[object]", value), strict=True):
            _keep_undeclared(part, its_value)
    elif isinstance(made, msgspec.Struct):
        left = dict(cast("dict[str, object]", value))
        # msgspec.structs.fields resolves the annotations anew for each value: 0.4 ms a row.
        for name, encoded in zip(made.__struct_fields__, made.__struct_encode_fields__, strict=True):
            if encoded in left:
                _keep_undeclared(getattr(made, name), left.pop(encoded))
        if left and isinstance(made, Resource):
            vars(made)["_extra"] = left
