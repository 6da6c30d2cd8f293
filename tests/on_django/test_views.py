"""The Django adapter: views, guards, settings, checks. What is refused, and how, is in the conformance suite."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from conformance.mounts import configure_django
from support import OTHER_SECRET, PATH, REFUSED, SECRET, clock, headers_of, payload

from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    Event,
    MissingExtraError,
    Tenant,
    WebhookReceiver,
    WebhookRequest,
)

configure_django()

# Django's own modules ask for settings when they are imported, so they come after them.
from django.apps import apps  # noqa: E402 - Django has to be configured before
from django.core.checks import run_checks  # noqa: E402 - Django has to be configured before
from django.db import connection, connections  # noqa: E402 - Django has to be configured before
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402 - Django has to be configured before
from django.test import AsyncClient, AsyncRequestFactory, Client, override_settings  # noqa: E402 - Django has to be configured before
from django.urls import path  # noqa: E402 - Django has to be configured before
from django.utils.decorators import method_decorator  # noqa: E402 - Django has to be configured before
from django.views import View  # noqa: E402 - Django has to be configured before
from django.views.decorators.cache import never_cache  # noqa: E402 - Django has to be configured before
from django.views.decorators.csrf import csrf_protect  # noqa: E402 - Django has to be configured before
from rest_framework.response import Response  # type: ignore[import-untyped]  # noqa: E402 - no types; after the settings
from rest_framework.views import APIView  # type: ignore[import-untyped]  # noqa: E402 - no types; after the settings

from roovet_webhooks.django import (  # noqa: E402 - Django has to be configured before
    dispatch_view,
    verified_webhook,
    views as adapter,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from django.http import HttpResponseBase


@pytest.fixture(autouse=True)
def _mounts_of_its_own() -> Generator[None]:
    before = adapter.mounted[:]
    adapter.mounted.clear()
    yield
    adapter.mounted[:] = before


def make_receiver(secret: Any = SECRET, endpoint: str = "default") -> WebhookReceiver:  # noqa: ANN401 - whatever the constructor takes
    receiver = WebhookReceiver(secret, endpoint=endpoint, clock=clock)
    receiver.fallback(lambda _event: None)
    return receiver


def site(**views: Callable[..., Any]) -> override_settings:
    """Return settings under which these views are the site, each at ``/<name>`` or where PATH says."""
    urls = ModuleType("urls_of_a_test")
    vars(urls)["urlpatterns"] = [
        path("webhooks/roovet" if name == "hook" else name.replace("__", "/"), view) for name, view in views.items()
    ]
    return override_settings(ROOT_URLCONF=urls)


def post(
    where: str = PATH,
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    asgi: bool = False,
) -> Any:  # noqa: ANN401 - the response of a test client
    """Post a delivery through the middleware of the project, with CSRF enforced."""
    raw = payload() if raw is None else raw
    chosen = dict(headers_of(raw) if headers is None else headers)
    options: dict[str, Any] = {"data": raw, "content_type": chosen.pop("Content-Type")}
    if asgi:
        # By keyword, because before 5.2 Django's own client gives those in headers= underscores for hyphens.
        options.update(chosen)
        return asyncio.run(AsyncClient(enforce_csrf_checks=True).post(where, **options))
    return Client(enforce_csrf_checks=True).post(where, **options, headers=chosen)


def mount(receiver: WebhookReceiver, *, asgi: bool) -> Callable[..., Any]:
    return dispatch_view(receiver, asynchronous=True) if asgi else dispatch_view(receiver)


both_interfaces = pytest.mark.parametrize("asgi", [False, True], ids=["wsgi", "asgi"])


# Views


@both_interfaces
def test_the_documented_path_answers_without_a_redirect_or_a_csrf_token(*, asgi: bool) -> None:
    with site(hook=mount(make_receiver(), asgi=asgi)):
        answer = post(asgi=asgi)
        assert (answer.status_code, answer.json()) == (200, {"status": "handled"})


def _wrapping(view: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(view)
    def wrapped(request: HttpRequest, **kwargs: object) -> object:
        return view(request, **kwargs)

    return wrapped


@pytest.mark.parametrize("decorator", [never_cache, _wrapping, lambda view: never_cache(_wrapping(view))])
def test_the_exemption_from_csrf_survives_other_decorators(decorator: Callable[..., Any]) -> None:
    @verified_webhook(make_receiver())
    def own(_request: HttpRequest, delivery: Delivery) -> HttpResponse:
        return HttpResponse(delivery.event.event)

    with site(hook=decorator(dispatch_view(make_receiver())), own=decorator(own), form=decorator(csrf_protect(_view))):
        assert post().status_code == 200
        assert post("/own").status_code == 200
        # So that the test shows something: here, CSRF protection is on.
        assert post("/form").status_code == 403


def _view(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("reached")


@both_interfaces
def test_a_view_runs_outside_atomic_requests(*, asgi: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)  # noqa: FBT003 - Django's setting
    receiver = WebhookReceiver(SECRET, clock=clock)
    atomic: list[bool] = []

    @receiver.on("*")
    def handler(_event: Event) -> None:
        atomic.append(connection.in_atomic_block)

    with site(hook=mount(receiver, asgi=asgi)):
        assert post(asgi=asgi).status_code == 200
    assert atomic == [False]


@both_interfaces
def test_a_resolver_finds_the_tenant_in_the_path(*, asgi: bool) -> None:
    def tenant(incoming: WebhookRequest) -> Tenant | None:
        return {"acme": Tenant("acme", SECRET)}.get(str(incoming.path_params["tenant"]))

    with site(**{"hooks__<tenant>": mount(make_receiver(tenant), asgi=asgi)}):
        assert post("/hooks/acme", asgi=asgi).status_code == 200
        assert post("/hooks/nobody", asgi=asgi).json() == REFUSED


# Secrets, handlers, checks


def test_the_secret_of_the_settings_comes_before_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", OTHER_SECRET)
    with override_settings(ROOVET_WEBHOOK_SECRET=SECRET), site(hook=dispatch_view(make_receiver(None))):
        assert post().status_code == 200
    raw = payload()
    with site(hook=dispatch_view(make_receiver(None))):
        assert post(raw=raw).status_code == 400
        assert post(raw=raw, headers=headers_of(raw, secret=OTHER_SECRET)).status_code == 200


def test_several_secrets_of_the_settings_are_all_taken() -> None:
    raw = payload()
    with override_settings(ROOVET_WEBHOOK_SECRET=[OTHER_SECRET, SECRET]), site(hook=dispatch_view(make_receiver(None))):
        assert post(raw=raw).status_code == 200


def test_a_missing_secret_is_reported_by_the_system_check() -> None:
    receiver = make_receiver(None)
    with site(hook=dispatch_view(receiver)):
        [error] = run_checks()
        assert (error.id, error.obj) == ("roovet_webhooks.E001", receiver)
        assert "ROOVET_WEBHOOK_SECRET" in error.msg
        # Who starts the server in spite of it refuses every delivery, and loses none.
        answer = post()
        assert (answer.status_code, answer["retry-after"]) == (503, "60")
        with override_settings(ROOVET_WEBHOOK_SECRET=SECRET):
            assert run_checks() == []
            assert post().status_code == 200


def test_a_missing_handler_is_reported_by_the_system_check() -> None:
    with site(hook=dispatch_view(WebhookReceiver(SECRET, endpoint="shop"))):
        [error] = run_checks()
    assert error.id == "roovet_webhooks.E001"
    assert "'shop' has no handler" in error.msg


def test_a_receiver_that_is_mounted_twice_is_reported_once() -> None:
    receiver = WebhookReceiver(SECRET)
    with site(hook=dispatch_view(receiver), again=dispatch_view(receiver)):
        assert len(run_checks()) == 1


def test_a_guard_needs_no_handler_and_the_check_asks_for_none() -> None:
    with site(own=verified_webhook(WebhookReceiver(SECRET))(_view)):
        assert run_checks() == []


def test_the_check_imports_the_urls_that_mount_the_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ModuleType("urls_that_mount")

    def __getattr__(name: str) -> object:  # noqa: N807 - a module's own hook
        if name != "urlpatterns":
            raise AttributeError(name)
        return [path("hook", dispatch_view(WebhookReceiver(SECRET)))]

    vars(urls)["__getattr__"] = __getattr__
    monkeypatch.setitem(sys.modules, urls.__name__, urls)
    with override_settings(ROOT_URLCONF=urls.__name__):
        assert adapter.mounted == []
        assert [error.id for error in run_checks()] == ["roovet_webhooks.E001"]


@pytest.mark.parametrize("make", [dispatch_view, verified_webhook])
def test_without_the_application_a_missing_secret_is_refused_at_mount(make: Callable[..., object]) -> None:
    with override_settings(INSTALLED_APPS=[]):
        with pytest.raises(ConfigurationError, match="has no signing secret"):
            make(make_receiver(None))
        with override_settings(ROOVET_WEBHOOK_SECRET=SECRET):
            make(make_receiver(None))
    assert adapter.mounted == []


def test_the_handlers_of_installed_applications_are_discovered() -> None:
    sys.modules.pop("conformance.shop.webhooks", None)
    with override_settings(INSTALLED_APPS=["roovet_webhooks.django", "conformance.shop"]):
        assert apps.get_app_config("roovet_webhooks").verbose_name == "Roovet webhooks"
        router = sys.modules["conformance.shop.webhooks"].router
        with site(hook=dispatch_view(WebhookReceiver(SECRET, router=router, clock=clock))):
            assert run_checks() == []
            assert post().json() == {"status": "handled"}


# Guards


@verified_webhook(make_receiver())
def guarded(request: HttpRequest, delivery: Delivery, number: int = 0) -> HttpResponse:
    return JsonResponse([delivery.event.id, number, request.body == delivery.raw], safe=False)


@verified_webhook(make_receiver())
async def async_guarded(request: HttpRequest, delivery: Delivery, number: int = 0) -> HttpResponse:
    return JsonResponse([delivery.event.id, number, request.body == delivery.raw], safe=False)


class Guarded(View):
    """Guarded where it is mounted."""

    def post(self, request: HttpRequest, delivery: Delivery, number: int = 0) -> HttpResponse:
        return JsonResponse([delivery.event.id, number, request.body == delivery.raw], safe=False)


class AsyncGuarded(View):
    """The same, async."""

    async def post(self, request: HttpRequest, delivery: Delivery, number: int = 0) -> HttpResponse:
        return JsonResponse([delivery.event.id, number, request.body == delivery.raw], safe=False)


@method_decorator(verified_webhook(make_receiver()), name="dispatch")
class Decorated(Guarded):
    """Guarded where it is written."""


@method_decorator(verified_webhook(make_receiver()), name="dispatch")
class AsyncDecorated(AsyncGuarded):
    """The same, async."""


GUARDED = {
    "function": guarded,
    "async function": async_guarded,
    "class": verified_webhook(make_receiver())(Guarded.as_view()),
    "async class": verified_webhook(make_receiver())(AsyncGuarded.as_view()),
    "class, decorated": Decorated.as_view(),
    "async class, decorated": AsyncDecorated.as_view(),
    "among other decorators": never_cache(_wrapping(guarded)),
}


@both_interfaces
@pytest.mark.parametrize("name", GUARDED)
def test_a_guard_hands_over_a_verified_delivery(name: str, *, asgi: bool) -> None:
    with site(own=GUARDED[name], **{"own__<int:number>": GUARDED[name]}):
        raw = payload(id="ord_7")
        for _ in range(2):  # nothing is recorded, so nothing is a duplicate
            assert post("/own", raw, asgi=asgi).json() == ["ord_7", 0, True]
        assert post("/own/3", raw, asgi=asgi).json() == ["ord_7", 3, True]
        forged = post("/own", raw, headers_of(raw, secret=OTHER_SECRET), asgi=asgi)
        assert (forged.status_code, forged.json(), forged["content-type"]) == (400, REFUSED, "application/json")


def test_a_guard_keeps_the_name_of_its_view() -> None:
    assert (guarded.__name__, async_guarded.__name__) == ("guarded", "async_guarded")


class Rest(APIView):  # type: ignore[misc]  # REST framework has no types
    """As the recipe has it: the guard outside, the framework's parsing inside."""

    def post(self, request: Any, delivery: Delivery) -> Response:  # noqa: ANN401 - REST framework has no types
        return Response({"id": request.data["id"], "same": delivery.event.id == request.data["id"]})


@both_interfaces
def test_rest_framework_parses_a_guarded_body(*, asgi: bool) -> None:
    with (
        override_settings(REST_FRAMEWORK={"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []}),
        site(own=verified_webhook(make_receiver())(Rest.as_view())),
    ):
        raw = payload(id="ord_9")
        assert post("/own", raw, asgi=asgi).json() == {"id": "ord_9", "same": True}
        forged = post("/own", raw, headers_of(raw, secret=OTHER_SECRET), asgi=asgi)
        assert (forged.status_code, forged.json()) == (400, REFUSED)


# Bodies that were read first


class ReadFirst:
    """Middleware that reads the body before the view, in one of two ways."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.headers["X-How"] == "body":
            assert request.body
        else:
            request.read()
        return self.get_response(request)


@both_interfaces
@pytest.mark.parametrize("where", [PATH, "/own"])
def test_a_body_that_was_read_first_is_used_and_one_that_was_consumed_is_reported(
    where: str, caplog: pytest.LogCaptureFixture, *, asgi: bool
) -> None:
    own = async_guarded if asgi else guarded
    raw = payload()
    with (
        site(hook=mount(make_receiver(), asgi=asgi), own=own),
        override_settings(MIDDLEWARE=[f"{__name__}.ReadFirst"]),
    ):
        assert post(where, raw, {**headers_of(raw), "X-How": "body"}, asgi=asgi).status_code == 200
        assert post(where, raw, {**headers_of(raw), "X-How": "read"}, asgi=asgi).status_code == 500
    told = [record for record in caplog.records if record.name == "roovet_webhooks"]
    [record] = [record for record in told if record.levelno == logging.ERROR]
    assert "code='body_already_read'" in record.getMessage()
    assert "request.body" in record.getMessage()


def test_a_view_that_reads_after_the_receiver_is_told_so_and_does_not_hang() -> None:
    view = dispatch_view(make_receiver())
    after: list[str] = []

    def reading(request: HttpRequest) -> HttpResponseBase:
        response = view(request)
        try:
            after.append(request.body.decode())
        except Exception as error:  # noqa: BLE001 - whatever Django raises: what matters is that it does
            after.append(type(error).__name__)
        return response

    with site(hook=functools.wraps(view)(reading)):
        assert post().status_code == 200
    assert after == ["RawPostDataException"]


def test_a_spooled_body_that_cannot_be_read_is_incomplete() -> None:
    raw = payload()
    headers = headers_of(raw)
    request = AsyncRequestFactory().post(PATH, data=raw, content_type=headers.pop("Content-Type"), headers=headers)

    def read(*_: object) -> bytes:
        message = "the disk is gone"
        raise OSError(message)

    request.read = read  # type: ignore[method-assign]  # what a full disk does
    response = asyncio.run(dispatch_view(make_receiver(), asynchronous=True)(request))
    assert response.status_code == 400


def test_without_django_the_module_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "django.apps", None)
    for name in ("roovet_webhooks.django", "roovet_webhooks.django.views"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"pip install 'roovet-webhooks\[django\]'") as caught:
        importlib.import_module("roovet_webhooks.django")
    assert caught.value.extra == "django"
