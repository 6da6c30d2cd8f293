"""The keys that a delivery may have been signed with: those that are given, mended where need be, and near misses.

Nothing here shows a secret: a `Key` has a name, and what it would mean if it were the right one.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from binascii import unhexlify
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from roovet_webhooks.errors import ConfigurationError, InvalidSecretError
from roovet_webhooks.explain.codes import finding
from roovet_webhooks.explain.encodings import from_base64
from roovet_webhooks.signing.keys import (
    API_KEY_PREFIX,
    MINIMUM_SECRET_BYTES,
    Keyring,
    Secret,
    SecretLike,
    as_keyring,
    encode_secret,
    is_placeholder,
)
from roovet_webhooks.signing.mac import fresh, other
from roovet_webhooks.signing.secrecy import Unpicklable, forgets_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.hmac import HMAC

    from roovet_webhooks.findings import Finding

_LONGEST_INTEGER = 1000  # bits; a longer one is no float, and no time
_PREFIX = b"whsec_"
_QUOTES = (b'"', b"'")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\u00ad"
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_PRINTABLE = re.compile(rb"[!-~]+")


class Key(Unpicklable):
    """A key that may be the right one.

    Args:
        name: Name of the secret it is made of.
        value: Its bytes.
        finding: What is wrong if it is the right one; ``None`` when nothing is.
        period: Of a secret that is not in use now: the times from and until which it is, Unix seconds.
    """

    __slots__ = ("_mac", "_value", "finding", "name", "period")

    def __init__(
        self,
        name: str,
        value: bytes,
        finding: Finding | None = None,
        period: tuple[float | None, float | None] | None = None,
    ) -> None:
        self.name: str = name
        self._value = value
        self._mac: HMAC | None = None
        self.finding: Finding | None = finding
        self.period: tuple[float | None, float | None] | None = period

    def mac(self) -> HMAC:
        """Return a new MAC under this key."""
        if self._mac is None:
            self._mac = fresh(self._value)
        return self._mac.copy()

    def other(self, length: int) -> HMAC | None:
        """Return a new MAC of the algorithm whose digests have a length in bytes, if there is one."""
        return other(self._value, length)

    def in_use_at(self, moment: int | None) -> bool:
        """Say whether a secret with a period was in use at a time, Unix seconds."""
        if self.period is None or moment is None:
            return False
        not_before, expires = self.period
        return (not_before is None or moment >= not_before) and (expires is None or moment < expires)

    def near(self, *, thorough: bool) -> Iterator[Key]:
        """Return the keys that a known mistake makes of this one, here or at the sender.

        Args:
            thorough: Whether the less likely ones are among them.
        """
        for value, code, message, evidence in _near(self._value, thorough=thorough):
            if value not in {b"", self._value}:
                text = message.format(f"the signing secret {self.name!r}")
                yield Key(self.name, value, finding(code, text, secret=self.name, **evidence))

    def __repr__(self) -> str:
        """Show the name, and nothing else."""
        return f"Key({self.name!r})"


class Held(NamedTuple):
    """What is held of secrets.

    Attributes:
        keyring: What `verify` makes of them; ``None`` when it refuses one.
        keys: Those in use first, then those that are not, or that have been mended.
        faults: Why `verify` refuses them.
    """

    keyring: Keyring | None
    keys: tuple[Key, ...]
    faults: tuple[Finding, ...] = ()


@forgets_secret
def hold(given: list[SecretLike], now: float) -> Held:
    """Take a secret in whatever form out of a list, so that no frame on the way keeps it.

    Args:
        given: The secret, as the only element; the list is empty afterwards.
        now: Our clock, Unix seconds.

    Raises:
        ConfigurationError: There is no secret, two have one name, or the time is none.
        InvalidSecretError: One is no text and no bytes, or is blank: there is nothing to try.
    """
    secret = given.pop()
    if not isinstance(now, int | float) or (isinstance(now, int) and now.bit_length() > _LONGEST_INTEGER):
        message = f"now must be a number of Unix seconds, not this {type(now).__name__}"
        raise ConfigurationError(message)
    try:
        keyring = as_keyring(secret)
    except InvalidSecretError:
        if isinstance(secret, list | tuple):
            texts = [(f"secret-{place}", text) for place, text in enumerate(secret, start=1)]
        else:
            texts = [("default", cast("str | bytes", secret))]
        if not all(isinstance(text, Secret) or (encode_secret(text) and text.strip()) for _, text in texts):
            raise
        return _mended(texts, now)
    return Held(keyring, tuple(sorted((_key_of(secret, now) for secret in keyring), key=_retired)))


def _retired(key: Key) -> bool:
    return key.period is not None


def _key_of(secret: Secret, now: float) -> Key:
    value = secret.reveal()
    if secret.active(now):
        return Key(secret.name, value)
    context = f"the digest is that of the signing secret {secret.name!r}, which"
    if secret.not_before is not None and not now >= secret.not_before:
        message = f"{context} comes into use only in {secret.not_before - now:.0f} s"
        state, moment = "not yet in use", secret.not_before
    else:
        moment = cast("float", secret.expires)
        message = f"{context} expired {now - moment:.0f} s ago"
        state = "expired"
    retired = finding("secret_retired", message, secret=secret.name, state=state, at=moment)
    return Key(secret.name, value, retired, (secret.not_before, secret.expires))


# What Secret refuses


def _mended(texts: Sequence[tuple[str, str | bytes | Secret]], now: float) -> Held:
    keys: list[Key] = []
    faults: list[Finding] = []
    for name, text in texts:
        if isinstance(text, Secret):
            keys.append(_key_of(text, now))
            continue
        mended, found = _repair(name, text)
        faults += found
        # As it is held as well: the sender may have made the same mistake.
        keys += [Key(name, value) for value in dict.fromkeys([mended, encode_secret(text)]) if value]
    return Held(None, tuple(sorted(keys, key=_retired)), tuple(faults))


def _repair(name: str, text: str | bytes) -> tuple[bytes, list[Finding]]:
    """Return what a secret was meant to be, and what is wrong with it."""
    context = f"the signing secret {name!r}"
    plain = text.strip()
    spaced = plain != text
    value = encode_secret(plain)
    quoted = len(value) > 1 and value[:1] in _QUOTES and value[:1] == value[-1:]
    if quoted:
        inner = plain[1:-1].strip()
        spaced = spaced or inner != plain[1:-1]
        value = encode_secret(inner)
    is_key = value.startswith(API_KEY_PREFIX.encode())
    faults = (
        (spaced, "secret_has_whitespace", f"{context} begins or ends with white space"),
        (quoted, "secret_is_quoted", f"{context} is wrapped in quotation marks"),
        (b"\n" in value or b"\r" in value, "secret_has_whitespace", f"{context} has a line break in it"),
        (is_placeholder(value), "secret_is_placeholder", f"{context} is no secret, but stands for one"),
        (is_key, "secret_is_api_key", f"{context} is an API key ({API_KEY_PREFIX}…), which signs nothing"),
        (
            not is_key and len(value) < MINIMUM_SECRET_BYTES,
            "secret_too_short",
            f"{context} has {len(value)} bytes, fewer than {MINIMUM_SECRET_BYTES}",
        ),
    )
    return value, [finding(code, message, secret=name) for wrong, code, message in faults if wrong]


# What a known mistake makes of a secret: the bytes, the code, a message about {}, and evidence

_Near: TypeAlias = "tuple[bytes, str, str, dict[str, object]]"


def _near(value: bytes, *, thorough: bool) -> Iterator[_Near]:
    yield from _split(value)
    yield from _prefixed(value)
    yield from _decoded(value)
    if not _PRINTABLE.fullmatch(value):
        yield from _encoded(value)
    yield from _padded(value, thorough=thorough)


def _split(value: bytes) -> Iterator[_Near]:
    parts = [part.strip() for part in value.split(b",")]
    if len(parts) > 1:
        message = "the digest is that of one of the secrets that stand in {}, with commas between them"
        for place, part in enumerate(parts, start=1):
            yield part, "secrets_joined", message, {"place": place, "count": len(parts)}


def _prefixed(value: bytes) -> Iterator[_Near]:
    if value.startswith(_PREFIX):
        message = "the digest is that of {} without its prefix whsec_, which the sender leaves out"
        yield value.removeprefix(_PREFIX), "secret_without_prefix", message, {"where": "at the sender"}
    else:
        message = "the digest is that of {} with whsec_ before it, which is missing here"
        yield _PREFIX + value, "secret_without_prefix", message, {"where": "here"}


def _decoded(value: bytes) -> Iterator[_Near]:
    message = "the digest is that of the bytes which {} stands for in %s; its text is the secret"
    for text in dict.fromkeys([value, value.removeprefix(_PREFIX)]):
        if _HEX.fullmatch(text):
            yield unhexlify(text), "secret_decoded", message % "hex", {"form": "hex", "decoded": "by the sender"}
        if (decoded := from_base64(text)) is not None:
            yield decoded, "secret_decoded", message % "base64", {"form": "base64", "decoded": "by the sender"}


def _encoded(value: bytes) -> Iterator[_Near]:
    message = "the digest is that of the %s text of {}, which is held here as the bytes that the text stands for"
    base64, urlsafe = b64encode(value), urlsafe_b64encode(value)
    for text, form in (
        (value.hex().encode(), "hex"),
        (value.hex().upper().encode(), "hex"),
        *((text, "base64") for text in dict.fromkeys([base64, urlsafe, base64.rstrip(b"="), urlsafe.rstrip(b"=")])),
    ):
        yield text, "secret_decoded", message % form, {"form": form, "decoded": "here"}
        if form == "base64":
            yield _PREFIX + text, "secret_decoded", message % form, {"form": form, "decoded": "here"}


def _padded(value: bytes, *, thorough: bool) -> Iterator[_Near]:
    """Return the secret without invisible characters, and as a sender has it who forgot to strip something."""
    visible = value.decode("utf-8", "surrogateescape").strip(_INVISIBLE).encode("utf-8", "surrogateescape")
    message = "{} begins or ends with an invisible character, such as a byte order mark"
    yield visible, "secret_has_whitespace", message, {"invisible": True}
    message = "the sender's copy of {} begins or ends with white space"
    for padded in (value + b"\n", value + b"\r\n")[: 2 if thorough else 1]:
        yield padded, "secret_has_whitespace", message, {"where": "at the sender"}
    message = "the sender's copy of {} is wrapped in quotation marks"
    for quote in _QUOTES[: 2 if thorough else 1]:
        yield quote + value + quote, "secret_is_quoted", message, {"where": "at the sender"}
