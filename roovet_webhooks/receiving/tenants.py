"""Whose signing secrets count for a request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, cast

from roovet_webhooks.delivery import DEFAULT_TENANT
from roovet_webhooks.errors import ConfigurationError, TenantLookupFailed, UnknownTenant
from roovet_webhooks.signing.keys import SecretLike, Tenant
from roovet_webhooks.signing.secrecy import forgets_secret
from roovet_webhooks.signing.verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from roovet_webhooks.messages import WebhookRequest
    from roovet_webhooks.receiving.bridge import Bridge

Resolver: TypeAlias = "Callable[[WebhookRequest], Tenant | Awaitable[Tenant | None] | None]"
"""Says whose secrets count for a request; ``None`` where nobody's do."""

SECRET_VARIABLE = "ROOVET_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable, not a secret


class Tenants:
    """One tenant, whose secret was given or is in the settings or the environment; or many, whom a resolver knows.

    Args:
        secret: As `WebhookReceiver` takes it.
        endpoint: Name of the receiver, for messages.
        tolerance: Seconds.
        accept_truncated: Whether a truncated digest is taken as well.

    Raises:
        InvalidSecretError: A secret cannot be one.
    """

    @forgets_secret
    def __init__(
        self, secret: SecretLike | Resolver | None, *, endpoint: str, tolerance: float, accept_truncated: bool
    ) -> None:
        self._endpoint = endpoint
        self._tolerance = tolerance
        self._accept_truncated = accept_truncated
        self._default_secret: Callable[[], SecretLike | None] = _secret_of_environment
        self._resolver: Resolver | None = None
        self._verifier: Verifier | None = None
        if callable(secret):
            self._resolver = secret
        elif secret is not None:
            self._verifier = self._make_verifier(secret)

    @forgets_secret
    def with_secret(self, secret: SecretLike | Resolver | None) -> Tenants:
        """Return the same with another secret or resolver."""
        other = Tenants(
            secret, endpoint=self._endpoint, tolerance=self._tolerance, accept_truncated=self._accept_truncated
        )
        other._default_secret = self._default_secret
        return other

    def ask_first(self, source: Callable[[], SecretLike | None]) -> None:
        """Name where a secret comes from when none was given; the environment is asked after it."""
        self._default_secret = lambda: source() or _secret_of_environment()

    def require(self) -> None:
        """Check that there is a secret, or a resolver.

        Raises:
            ConfigurationError: There is none.
            InvalidSecretError: The one in the settings or the environment cannot be one.
        """
        if self._resolver is None:
            self._static_verifier()

    def examples(self) -> list[str]:
        """Return the names of those secrets, of the ones known before a request, that a documentation shows."""
        keyring = () if self._resolver is not None else self._static_verifier().keyring
        return [secret.name for secret in keyring if secret.is_example]

    async def resolve(self, request: WebhookRequest, bridge: Bridge) -> tuple[str, Verifier]:
        """Return the name of the tenant that a request is for, and what verifies it.

        Raises:
            UnknownTenant: The resolver knows none.
            TenantLookupFailed: The resolver raised, or returned something else.
            ConfigurationError: There is no secret.
        """
        if self._resolver is None:
            return DEFAULT_TENANT, self._static_verifier()
        try:
            tenant = cast("Tenant | None", await bridge.call(self._resolver, request))
        except Exception as error:
            message = f"the resolver of tenants raised {type(error).__name__}"
            raise TenantLookupFailed(message) from error
        if tenant is None:
            message = "the resolver knows no tenant for this request"
            raise UnknownTenant(message)
        if not isinstance(tenant, Tenant):
            message = f"the resolver of tenants must return a Tenant or None, not {type(tenant).__name__}"
            raise TenantLookupFailed(message)
        return tenant.name, self._make_verifier(tenant.keyring)

    def _static_verifier(self) -> Verifier:
        if self._verifier is None:
            self._verifier = self._default_verifier()
        return self._verifier

    @forgets_secret
    def _default_verifier(self) -> Verifier:
        secret = self._default_secret()
        if not secret:
            message = (
                f"the receiver {self._endpoint!r} has no signing secret: pass WebhookReceiver(secret=…), or set "
                f"{SECRET_VARIABLE} in the environment (under Django, in the settings)"
            )
            raise ConfigurationError(message)
        return self._make_verifier(secret)

    def _make_verifier(self, secret: SecretLike) -> Verifier:
        return Verifier(secret, tolerance=self._tolerance, accept_truncated=self._accept_truncated)


def _secret_of_environment() -> SecretLike | None:
    value = os.environ.get(SECRET_VARIABLE, "")
    secrets = [part for part in value.split(",") if part]
    if len(secrets) == 1:
        return secrets[0]
    return secrets or value or None
