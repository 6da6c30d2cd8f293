"""What a Django project switches on for every request: a mounted receiver answers all the same, or a check names it."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import TYPE_CHECKING, Any

import django
import pytest
from conformance.mounts import configure_django
from support import SECRET, clock, headers_of, payload

from roovet_webhooks import Delivery, WebhookReceiver

configure_django()

# Django's own modules ask for settings when they are imported, so they come after them.
from django.conf.urls.i18n import i18n_patterns  # noqa: E402 - Django has to be configured before
from django.core.checks import run_checks  # noqa: E402 - Django has to be configured before
from django.core.checks.registry import registry  # noqa: E402 - Django has to be configured before
from django.http import HttpRequest, HttpResponse  # noqa: E402 - Django has to be configured before
from django.test import AsyncClient, Client, override_settings  # noqa: E402 - Django has to be configured before
from django.urls import include, path  # noqa: E402 - Django has to be configured before
from django.utils import translation  # noqa: E402 - Django has to be configured before
from django.views.decorators.cache import never_cache  # noqa: E402 - Django has to be configured before

from roovet_webhooks.django import (  # noqa: E402 - Django has to be configured before
    dispatch_view,
    verified_webhook,
    views as adapter,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SECURITY = "django.middleware.security.SecurityMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
LOGIN = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]
LOGIN_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "roovet_webhooks.django"]

both_interfaces = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


@pytest.fixture(autouse=True)
def _mounts_and_checks_of_its_own() -> Generator[None]:
    mounted, checks = adapter.mounted[:], set(registry.registered_checks)
    adapter.mounted.clear()
    yield
    adapter.mounted[:] = mounted
    # An application that a test installs registers checks, which fail once it is gone.
    registry.registered_checks = checks


def receiver() -> WebhookReceiver:
    made = WebhookReceiver(SECRET, clock=clock)
    made.fallback(lambda _event: None)
    return made


def views(*, asgi: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a mounted receiver and a guarded view."""
    if asgi:

        @verified_webhook(receiver())
        async def guarded_async(request: HttpRequest, delivery: Delivery) -> HttpResponse:
            return HttpResponse(request.body == delivery.raw)

        return dispatch_view(receiver(), asynchronous=True), guarded_async

    @verified_webhook(receiver())
    def guarded(request: HttpRequest, delivery: Delivery) -> HttpResponse:
        return HttpResponse(request.body == delivery.raw)

    return dispatch_view(receiver()), guarded


def plain(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


def site(*patterns: Any, **settings: object) -> override_settings:  # noqa: ANN401 - URL patterns and resolvers
    urls = ModuleType("urls_of_a_test")
    vars(urls)["urlpatterns"] = list(patterns)
    return override_settings(ROOT_URLCONF=urls, **settings)


def post(where: str, *, asgi: bool) -> Any:  # noqa: ANN401 - the response of a test client
    raw = payload()
    headers = headers_of(raw)
    options: dict[str, Any] = {"data": raw, "content_type": headers.pop("Content-Type"), "headers": headers}
    if asgi:
        return asyncio.run(AsyncClient(enforce_csrf_checks=True).post(where, **options))
    return Client(enforce_csrf_checks=True).post(where, **options)


OVERRIDDEN: dict[str, dict[str, object]] = {
    "login": {"MIDDLEWARE": LOGIN, "INSTALLED_APPS": LOGIN_APPS, "LOGIN_URL": "/login"},
    "csrf": {"MIDDLEWARE": ["django.middleware.csrf.CsrfViewMiddleware"]},
    "upload": {"DATA_UPLOAD_MAX_MEMORY_SIZE": 1, "DATA_UPLOAD_MAX_NUMBER_FIELDS": 0},
    "slash": {"MIDDLEWARE": [COMMON], "APPEND_SLASH": True},
}


@both_interfaces
@pytest.mark.parametrize("switched_on", OVERRIDDEN)
def test_what_a_project_demands_of_every_view_is_not_demanded_of_a_webhook(switched_on: str, *, asgi: bool) -> None:
    if switched_on == "login" and django.VERSION < (5, 1):
        pytest.skip("LoginRequiredMiddleware came with Django 5.1")
    hook, guarded = views(asgi=asgi)
    routes = [path("hook", hook), path("cached", never_cache(hook)), path("own", guarded), path("plain", plain)]
    with site(*routes, **OVERRIDDEN[switched_on]):
        answers = [post(where, asgi=asgi) for where in ("/hook", "/cached", "/own", "/plain")]
        assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
        assert [answer.content for answer in answers[1:3]] == [b'{"status":"handled"}', b"True"]
        # So that the test shows something: it is on.
        if switched_on in {"login", "csrf"}:
            assert answers[3].status_code == {"login": 302, "csrf": 403}[switched_on]


@both_interfaces
@pytest.mark.parametrize("debug", [False, True])
def test_a_path_without_its_slash_is_not_found_rather_than_redirected(*, debug: bool, asgi: bool) -> None:
    hook, guarded = views(asgi=asgi)
    with site(path("hook/", hook), path("own/", guarded), MIDDLEWARE=[COMMON], DEBUG=debug, ALLOWED_HOSTS=["*"]):
        assert post("/hook/", asgi=asgi).status_code == 200
        assert [post(where, asgi=asgi).status_code for where in ("/hook", "/own")] == [404, 404]


def hooks() -> list[Any]:
    hook, guarded = views(asgi=False)
    return [path("hooks/", include([path("<slug:shop>/hook", hook)])), path("own", never_cache(guarded))]


NAMED: dict[str, tuple[dict[str, object], list[str]]] = {
    "nothing": ({"MIDDLEWARE": [SECURITY, COMMON]}, []),
    "https": ({"MIDDLEWARE": [SECURITY], "SECURE_SSL_REDIRECT": True}, ["W020 /hooks/<slug:shop>/hook, /own"]),
    "https, without the middleware": ({"MIDDLEWARE": [COMMON], "SECURE_SSL_REDIRECT": True}, []),
    "https, known of a proxy": (
        {
            "MIDDLEWARE": [SECURITY],
            "SECURE_SSL_REDIRECT": True,
            "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        },
        [],
    ),
    "https, one exempt": (
        {"MIDDLEWARE": [SECURITY], "SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": ["^hooks/[a-z]+/hook$"]},
        ["W020 /own"],
    ),
    "www": ({"MIDDLEWARE": [COMMON], "PREPEND_WWW": True}, ["W021 www"]),
    "www, without the middleware": ({"MIDDLEWARE": [SECURITY], "PREPEND_WWW": True}, []),
    "no host": ({"DEBUG": False, "ALLOWED_HOSTS": []}, ["W023 ALLOWED_HOSTS"]),
    "local hosts": ({"DEBUG": False, "ALLOWED_HOSTS": ["localhost", "127.0.0.1"]}, ["W023 ALLOWED_HOSTS"]),
    "a host": ({"DEBUG": False, "ALLOWED_HOSTS": ["localhost", ".shop.example"]}, []),
}


@pytest.mark.parametrize("what", NAMED)
def test_what_a_view_cannot_override_a_system_check_names(what: str) -> None:
    settings, expected = NAMED[what]
    with site(*hooks(), **{"DEBUG": True, **settings}):
        found = {str(message.id).removeprefix("roovet_webhooks."): message for message in run_checks()}
        assert list(found) == [words.split()[0] for words in expected]
        for words in expected:
            number, _, rest = words.partition(" ")
            assert rest in found[number].msg
            assert found[number].hint
    with site(path("plain", plain), **settings):
        assert run_checks() == []


def test_a_mount_under_a_language_prefix_is_named() -> None:
    patterns = i18n_patterns(path("hooks/", include(hooks())))
    with translation.override("en-us"), site(*patterns, *hooks()):
        [found] = run_checks()
    assert found.id == "roovet_webhooks.W022"
    assert "/en-us/hooks/hooks/<slug:shop>/hook, /en-us/hooks/own stands" in found.msg
