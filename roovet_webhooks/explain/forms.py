"""A body as JSON: what it says, and how the JSON writers of this world write the same."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from itertools import accumulate, permutations
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import msgspec

from roovet_webhooks.events import MAX_TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes. A larger body is written in the likely forms only, and a huge one searched for the likely mistakes only, so
# that a search through 1 MiB ends within 50 ms.
LARGE = 16_384
HUGE = 262_144
MAX_MADE = 1_048_576
# Of an object with so many keys, in so many bytes, every order is tried: 720 orders in about 15 ms.
MOST_KEYS = 6
SMALL = 2048

_BOM = b"\xef\xbb\xbf"
_UNREAD: object = object()
_ALL_ASCII = bytes(range(128))
_FEW = 16  # characters, up to which it is quicker to replace each by itself
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class Form(NamedTuple):
    """A JSON text, and how it is written: spacing, characters, slashes, order."""

    text: bytes
    words: tuple[str, ...]


class Document:
    """A body read as JSON, once, when it is first asked for."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw.removeprefix(_BOM)
        self._value: object = _UNREAD
        self._valid = False

    def _read(self) -> object:
        if self._value is _UNREAD:
            self._value = None
            try:
                self._value = msgspec.json.decode(self._raw)
                self._valid = True
            except (ValueError, RecursionError):
                pass
        return self._value

    @property
    def is_json(self) -> bool:
        """Whether it can be read at all; what is nested too deep cannot."""
        self._read()
        return self._valid

    @property
    def made_by(self) -> Literal["jsonb", "sort_keys"] | None:
        """What has written it, as far as the order of its keys shows; ``None`` where that may be what was signed."""
        names = [] if (fields := self._fields()) is None else list(fields)
        if len(names) < 2 or names[:3] == ["event", "id", "ts"]:  # noqa: PLR2004 - one name is in every order
            return None
        if names == sorted(names, key=_as_jsonb) and b'": ' in self._raw:
            return "jsonb"
        return "sort_keys" if names == sorted(names) else None

    def _fields(self) -> dict[str, object] | None:
        value = self._read()
        return cast("dict[str, object]", value) if isinstance(value, dict) else None

    def orders(self) -> Iterator[Form]:
        """Return an object with its keys in every other order, where they are few and the body is small."""
        fields = self._fields()
        if fields is None or not 1 < len(fields) <= MOST_KEYS or len(self._raw) > SMALL:
            return
        with suppress(RecursionError):  # as in forms
            yield from self._orders(fields)

    @staticmethod
    def _orders(fields: dict[str, object]) -> Iterator[Form]:
        for order in permutations(fields):
            compact = _compact({name: fields[name] for name in order}, large=False)
            for place, (text, words) in enumerate(compact):
                yield Form(text, (*words, f"keys in the order {', '.join(order)}"))
                if not place:
                    yield Form(_spaced(text, 0), ("spaced", *words[1:], f"keys in the order {', '.join(order)}"))

    @property
    def time(self) -> int | None:
        """The ``ts`` of the event, which nobody has verified; ``None`` where there is none that could be signed."""
        value = self._read()
        moment = cast("dict[str, object]", value).get("ts") if isinstance(value, dict) else None
        return moment if isinstance(moment, int) and 0 <= moment <= MAX_TIMESTAMP else None

    def forms(self) -> Iterator[Form]:
        """Return the same JSON in other forms, the likely ones first; nothing where the body is no JSON."""
        if self.is_json:
            try:
                yield from self._forms()
            except RecursionError:
                return  # what could just be read may be too deep to be written

    def _forms(self) -> Iterator[Form]:
        value = self._read()
        large = len(self._raw) > LARGE
        if isinstance(value, str):
            yield Form(value.encode(), ("not wrapped in a JSON string",))
        compact: list[Form] = []
        for form in _compact(value, large=large):
            compact.append(form)
            yield form
        # Spacing alone is changed in the text itself, which leaves numbers, strings and repeated names as they came.
        compact.append(Form(_spaced(self._raw, -1), ("compact", "strings and numbers as they came")))
        yield compact[-1]
        for text, words in compact[:1] if large else compact:
            yield Form(_spaced(text, 0), ("spaced", *words[1:]))
        for form in _reordered(value, large=large):
            yield form
            if not large:
                yield Form(_spaced(form.text, 0), ("spaced", *form.words[1:]))
                compact.append(form)
        if not large:
            for indent in (2, 4):
                if _indented_size(compact[0].text, indent) <= MAX_MADE:
                    for text, words in compact:
                        yield Form(_spaced(text, indent), (f"indented by {indent}", *words[1:]))


def _compact(value: object, order: Literal["sorted"] | None = None, *, large: bool) -> Iterator[Form]:
    """Return a value as compact JSON, first as PHP writes it for Roovet."""
    text = msgspec.json.encode(value, order=order)
    texts: list[tuple[bytes, tuple[str, ...]]] = [(text, ())]
    if not text.isascii():
        texts = [(text, ("UTF-8",))]
        if not (large and order):
            texts.insert(0, (_ascii(text), ("ASCII-escaped",)))
    for written, characters in texts:
        if b"/" not in written:
            yield Form(written, ("compact", *characters))
            continue
        yield Form(written, ("compact", *characters, "slashes unescaped"))
        if not large or written.isascii():
            yield Form(written.replace(b"/", b"\\/"), ("compact", *characters, "slashes escaped"))


def _ascii(text: bytes) -> bytes:
    """Return a compact JSON text with all but ASCII escaped."""
    characters = set(text.translate(None, _ALL_ASCII).decode())
    if len(characters) > _FEW:
        return json.dumps(msgspec.json.decode(text), separators=(",", ":")).encode()
    for character in characters:
        text = text.replace(character.encode(), json.dumps(character)[1:-1].encode())
    return text


def _reordered(value: object, *, large: bool) -> Iterator[Form]:
    """Return an object with its names in another order than they came in."""
    if isinstance(value, dict | list):
        for text, words in _compact(cast("object", value), "sorted", large=large):
            yield Form(text, (*words, "keys sorted"))
    if isinstance(value, dict) and not large:
        fields = cast("dict[str, object]", value)
        for text, words in _compact(_jsonb(fields), large=large):
            yield Form(text, (*words, "keys by length, as PostgreSQL's jsonb has them"))
        documented = {name: fields[name] for name in ("event", "id", "ts") if name in fields} | fields
        for text, words in _compact(documented, large=large):
            yield Form(text, (*words, "event, id and ts first"))


def _as_jsonb(name: str) -> tuple[int, bytes]:
    encoded = name.encode("utf-8", "surrogatepass")
    return len(encoded), encoded


def _jsonb(value: object) -> object:
    """Return a value with the keys of its objects in the order that PostgreSQL's jsonb gives them."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {name: _jsonb(fields[name]) for name in sorted(fields, key=_as_jsonb)}
    if isinstance(value, list):
        return [_jsonb(item) for item in cast("list[object]", value)]
    return value


def _spaced(text: bytes, indent: int) -> bytes:
    return msgspec.json.format(text, indent=indent)


def _indented_size(text: bytes, indent: int) -> int:
    """Return a bound on the bytes of a compact JSON text when it is indented: a deep one grows by its square."""
    structure = _STRING.sub(b"", text)
    steps = [_STEP[byte] for byte in structure if byte in _STEP]
    depth = max(accumulate(steps), default=0)
    return 2 * len(text) + (len(steps) + structure.count(b",")) * (1 + depth * indent)
