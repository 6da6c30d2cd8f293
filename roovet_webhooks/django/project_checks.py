"""System check: what the project has switched on for every request, and turns deliveries away before the view."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name for it
from django.urls import LocalePrefixPattern, URLResolver, get_resolver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.apps import AppConfig

MARK = "is_roovet_webhook"
"""The attribute by which a view of ours is known in a URLconf, decorated or not."""

_SECURITY = "django.middleware.security.SecurityMiddleware"
_COMMON = "django.middleware.common.CommonMiddleware"
_LOCAL_HOSTS = frozenset({"localhost", ".localhost", "127.0.0.1", "[::1]", "testserver"})
_PARAMETER = re.compile(r"<[^<>]*>")


class Mount(NamedTuple):
    """Where a view of ours answers.

    Attributes:
        route: Its route, without the first slash, as the URLconf has it.
        localized: It stands under a language prefix.
    """

    route: str
    localized: bool


def check_project(app_configs: Sequence[AppConfig] | None, **_options: object) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    """Report settings that turn deliveries away before they reach a mounted receiver."""
    mounts = list(_mounts(get_resolver()))
    found: list[CheckMessage] = []
    if not mounts:
        return found
    redirected = [mount.route for mount in mounts if _needs_https(mount.route)]
    if redirected:
        found.append(
            Warning(
                f"SECURE_SSL_REDIRECT redirects deliveries to {_listed(redirected)} wherever Django does not know that "
                "they came by https, and no sender follows a redirect.",
                hint="Behind a proxy that ends TLS, set SECURE_PROXY_SSL_HEADER, or name the path in "
                "SECURE_REDIRECT_EXEMPT. Where Django's own server ends TLS, silence this check.",
                id="roovet_webhooks.W020",
            )
        )
    if settings.PREPEND_WWW and _COMMON in settings.MIDDLEWARE:
        found.append(
            Warning(
                "PREPEND_WWW redirects deliveries to a host without www, and no sender follows a redirect.",
                hint="Give Roovet the URL with www, and silence this check.",
                id="roovet_webhooks.W021",
            )
        )
    if localized := [mount.route for mount in mounts if mount.localized]:
        found.append(
            Warning(
                f"{_listed(localized)} stands under i18n_patterns: without the language in its path, a delivery is "
                "redirected, and no sender follows a redirect.",
                hint="Mount it outside i18n_patterns.",
                id="roovet_webhooks.W022",
            )
        )
    if not settings.DEBUG and _LOCAL_HOSTS.issuperset(settings.ALLOWED_HOSTS):
        found.append(
            Warning(
                "ALLOWED_HOSTS has no host that Roovet can reach, so every delivery is answered 400.",
                hint="Add the host of the URL that Roovet posts to.",
                id="roovet_webhooks.W023",
            )
        )
    return found


def _mounts(resolver: URLResolver, prefix: str = "", *, localized: bool = False) -> Iterator[Mount]:
    for pattern in resolver.url_patterns:
        # str() of a language prefix is the one of the active language.
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            inner = localized or isinstance(pattern.pattern, LocalePrefixPattern)
            yield from _mounts(pattern, route, localized=inner)
        elif getattr(pattern.callback, MARK, False):
            yield Mount(route, localized)


def _needs_https(route: str) -> bool:
    if not settings.SECURE_SSL_REDIRECT or settings.SECURE_PROXY_SSL_HEADER or _SECURITY not in settings.MIDDLEWARE:
        return False
    path = _PARAMETER.sub("x", route)
    return not any(re.search(exempt, path) for exempt in settings.SECURE_REDIRECT_EXEMPT)


def _listed(routes: Sequence[str]) -> str:
    return ", ".join(f"/{route}" for route in routes)
