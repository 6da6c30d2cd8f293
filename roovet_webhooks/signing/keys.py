"""Signing secrets and what holds them: `Secret`, `Keyring`, `Tenant`.

A secret never shows: not in a ``repr``, a log, a traceback's message or a pickle. Its bytes are the UTF-8
bytes of the text, as PHP's ``hash_hmac`` takes them (vendor document, "Webhooks & Signing").
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from roovet_webhooks.errors import ConfigurationError, InvalidSecretError
from roovet_webhooks.signing.secrecy import Unpicklable, forgets_secret, warn_caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cryptography.hazmat.primitives.hmac import HMAC

MINIMUM_SECRET_BYTES = 16
RECOMMENDED_SECRET_BYTES = 24
API_KEY_PREFIX = "rvpk_"

# What templates, shells and deployments leave where they do not know a name.
_PLACEHOLDER = re.compile(
    rb"""["']?(?:[^$]*\$\{[^}]*\}.*|\$\(?[A-Za-z_]\w*\)?|%[A-Za-z_]\w*%|\{\{.*\}\}|<[^<>]*>)["']?"""
)
# What documentations write in place of a secret: with an ellipsis, in words, or crossed out.
_EXAMPLE = re.compile(
    rb"(?:whsec_)?(?:[^.]*(?:\.\.\.|\xe2\x80\xa6).*|(?:your|my|change|replace|insert|put)[-_ ]?[a-z_ -]*)|whsec_x{4,}",
    re.IGNORECASE,
)
# Ours begin so. They work, since the tutorials run.
_OUR_EXAMPLES = b"whsec_example_"
# Not so random bytes, which may have white space anywhere.
_TEXT = re.compile(rb"[\0\t\n\v\f\r -~]*")
_BREAK = re.compile(rb"[\r\n\0]")

_WHERE = "copy the whole signing secret from the webhook settings at Roovet"


class Secret(Unpicklable):
    """One signing secret, with a name that may be logged.

    Args:
        value: The secret as the vendor shows it, or its bytes. At least 16 bytes; below 24 bytes it warns.
        name: What logs and ``Verified.secret_name`` say instead of the secret.
        not_before: From when it is used: an aware `datetime` or Unix seconds; ``None`` for always.
        expires: Until when it is used, likewise; exclusive.

    Raises:
        InvalidSecretError: The value is empty, blank, too short, surrounded by white space or quotes, has a line break
            in it, is an unexpanded variable (``${…}``) or an example of a documentation, or is an API key (``rvpk_…``),
            which signs nothing.

    Example:
        >>> Secret("whsec_5f2b8c1e9a7d4036b1c2d3e4", name="2025-11")
        Secret(name='2025-11')
    """

    __slots__ = ("_value", "expires", "keyed", "name", "not_before")

    @forgets_secret
    def __init__(
        self,
        value: str | bytes,
        *,
        name: str = "default",
        not_before: datetime | float | None = None,
        expires: datetime | float | None = None,
    ) -> None:
        self.name: str = name
        self._value = encode_secret(value)
        fault = _fault(value, self._value)
        if fault is not None:
            message = f"the signing secret {name!r} {fault}"
            raise InvalidSecretError(message)
        self.not_before: float | None = _seconds(not_before, "not_before")
        self.expires: float | None = _seconds(expires, "expires")
        # The MAC object that signing.py keys once and copies for each delivery.
        self.keyed: HMAC | None = None
        if len(self._value) < RECOMMENDED_SECRET_BYTES:
            warn_caller(
                f"the signing secret {name!r} has {len(self._value)} bytes; "
                f"{RECOMMENDED_SECRET_BYTES} or more are recommended"
            )

    def reveal(self) -> bytes:
        """Return the secret's bytes. Keep them out of variables that outlive the call."""
        return self._value

    @property
    def is_example(self) -> bool:
        """Whether it is one of the examples of this package's documentation, with which anybody can sign."""
        return self._value.startswith(_OUR_EXAMPLES)

    def active(self, now: float) -> bool:
        """Say whether the secret is used at ``now`` (Unix seconds)."""
        return (self.not_before is None or now >= self.not_before) and (self.expires is None or now < self.expires)

    def __copy__(self) -> Secret:
        """Return itself: a secret is immutable."""
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        """Return itself, so that settings that hold a secret can be copied."""
        return self

    def __repr__(self) -> str:
        """Show the name, and nothing else."""
        return f"Secret(name={self.name!r})"


def encode_secret(value: object) -> bytes:
    """Return the bytes of a secret; empty for what is no text, no bytes, or cannot be encoded."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            # surrogateescape: an environment variable that is not UTF-8 comes back as the bytes it was.
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return b""
    return b""


def is_placeholder(encoded: bytes) -> bool:
    """Return whether a secret is an unexpanded variable, or an example of a documentation."""
    return _PLACEHOLDER.fullmatch(encoded) is not None or _EXAMPLE.fullmatch(encoded) is not None


def _fault(value: object, encoded: bytes) -> str | None:
    """Say what is wrong with a secret, in words that do not contain it; ``None`` when nothing is."""
    if not isinstance(value, str | bytes):
        return f"must be a str or bytes, not {type(value).__name__}; {_WHERE}"
    text = isinstance(value, str) or _TEXT.fullmatch(encoded) is not None
    quoted = encoded[:1] in {b'"', b"'"} and encoded[:1] == encoded[-1:]
    blank = "is nothing but bytes of white space; " if isinstance(value, bytes) else "is blank; "
    faults = (
        (not value, "is empty; set ROOVET_WEBHOOK_SECRET or pass the secret; " + _WHERE),
        (not encoded, "is not valid text; " + _WHERE),
        (not value.strip(), blank + _WHERE),
        (
            encoded.strip().startswith(API_KEY_PREFIX.encode()),
            f"is an API key ({API_KEY_PREFIX}…), which signs nothing; keep it out of here; {_WHERE}",
        ),
        (
            text and value != value.strip(),
            "begins or ends with white space; remove it (a line break at the end of a file is the usual cause)",
        ),
        (
            text and _BREAK.search(encoded) is not None,
            "has a line break in it; pass several secrets as a list, one element each",
        ),
        (
            _PLACEHOLDER.fullmatch(encoded) is not None,
            "is a variable that nothing has expanded, such as ${NAME}; the shell or the deployment must fill it in",
        ),
        (_EXAMPLE.fullmatch(encoded) is not None, "is an example from a documentation, which anybody knows; " + _WHERE),
        (text and quoted, "is wrapped in quotation marks; remove them (they belong to the shell or the .env file)"),
        (
            len(encoded) < MINIMUM_SECRET_BYTES,
            f"has {len(encoded)} bytes, fewer than {MINIMUM_SECRET_BYTES}, and could be guessed; {_WHERE}",
        ),
    )
    return next((words for wrong, words in faults if wrong), None)


def _seconds(moment: datetime | float | None, what: str) -> float | None:
    if moment is None or isinstance(moment, int | float):
        return moment
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        message = f"{what} must be an aware datetime (with a time zone) or Unix seconds, not {moment!r}"
        raise ConfigurationError(message)
    return moment.timestamp()


class Keyring(Unpicklable):
    """Named secrets, so that one can follow another without a delivery lost.

    The first active one signs; every active one verifies, and each proof says which one matched, so that
    one knows when the old one may go.

    Args:
        secrets: `Secret` objects, or texts, which are named ``secret-1``, ``secret-2``, … by their place.

    Raises:
        ConfigurationError: There is no secret, or two have one name.
        InvalidSecretError: One of the texts cannot be a secret.

    Example:
        >>> Keyring(["whsec_new_5f2b8c1e9a7d4036", Secret("whsec_old_b1c2d3e4f5061728", name="old")])
        Keyring('secret-1', 'old')
    """

    __slots__ = ("_timeless", "secrets")

    @forgets_secret
    def __init__(self, secrets: Iterable[str | bytes | Secret]) -> None:
        self.secrets: tuple[Secret, ...] = ()
        self.secrets = tuple(
            secret if isinstance(secret, Secret) else Secret(secret, name=f"secret-{place}")
            for place, secret in enumerate(secrets, start=1)
        )
        names = [secret.name for secret in self.secrets]
        if not names:
            message = "a keyring needs at least one signing secret"
            raise ConfigurationError(message)
        if len(set(names)) != len(names):
            message = f"the secrets of a keyring need names of their own, not {names}"
            raise ConfigurationError(message)
        self._timeless = all(secret.not_before is None and secret.expires is None for secret in self.secrets)

    def active(self, now: float) -> Sequence[Secret]:
        """Return the secrets in use at ``now`` (Unix seconds), in their order; possibly none."""
        if self._timeless:
            return self.secrets
        return tuple(secret for secret in self.secrets if secret.active(now))

    def only(self) -> Secret | None:
        """Return the secret when there is a single one, without a period; ``None`` otherwise."""
        return self.secrets[0] if self._timeless and len(self.secrets) == 1 else None

    def __iter__(self) -> Iterator[Secret]:
        """Iterate over all secrets, active or not."""
        return iter(self.secrets)

    def __len__(self) -> int:
        """Count all secrets, active or not."""
        return len(self.secrets)

    def __repr__(self) -> str:
        """Show the names, and nothing else."""
        return f"Keyring({', '.join(repr(secret.name) for secret in self.secrets)})"


SecretLike: TypeAlias = "str | bytes | Secret | Keyring | Sequence[str | bytes | Secret]"
"""What names one signing secret or several, wherever one is asked for."""


def as_keyring(secret: SecretLike) -> Keyring:
    """Make a keyring of whatever names one or several secrets.

    Args:
        secret: A text, bytes, a `Secret`, a sequence of these, or a `Keyring`, which is returned as it is.

    Raises:
        ConfigurationError: A sequence is empty.
        InvalidSecretError: A secret cannot be one.
    """
    if isinstance(secret, Keyring):
        return secret
    if isinstance(secret, Secret):
        return Keyring([secret])
    if isinstance(secret, list | tuple):
        return Keyring(secret)
    # Everything else is one secret, or is refused by Secret with a sentence about its type.
    return Keyring([Secret(secret)])  # type: ignore[arg-type]


class Tenant(Unpicklable):
    """Whose keyring verified a delivery: what a resolver returns.

    Args:
        name: Stable name of the tenant; part of the identity of each of its deliveries.
        secret: Its signing secret or secrets, as `as_keyring` takes them.

    Raises:
        ConfigurationError: The name is no text, or empty.
        InvalidSecretError: A secret cannot be one.
    """

    __slots__ = ("keyring", "name")

    @forgets_secret
    def __init__(self, name: str, secret: SecretLike) -> None:
        if not isinstance(name, str) or not name:
            message = f"a tenant's name must be a non-empty str, not {type(name).__name__}; str(…) makes one of a key"
            raise ConfigurationError(message)
        self.name: str = name
        self.keyring: Keyring = as_keyring(secret)

    def __repr__(self) -> str:
        """Show the tenant's name and the names of its secrets."""
        return f"Tenant({self.name!r}, {self.keyring!r})"
