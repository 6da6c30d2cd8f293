"""Run pages: their blocks, their tests, and deliveries through whatever they have mounted; print how many that were.

Each line of the input names a folder to be in and the pages to run, in a process of their own. It is forked from this
one, which has imported what most of them need. Answered is its exit status; what it prints goes into the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import types
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
import django
import flask
import httpx
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models
from support import SECRET, headers_of, payload

from documentation import roovet
from documentation.pages import ROOT, python_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Post = Callable[[str, bytes, Mapping[str, str]], tuple[int, bytes]]

PATH = "/webhooks/roovet"
_PATIENCE = 60  # seconds
_MOUNTED_AS = ("app", "urlpatterns", "lambda_handler")


class Mounted(NamedTuple):
    """A receiver or a guarded view that a page has mounted, and how it is sent a delivery."""

    post: Post
    path: str
    secret: str


def run_page(page: str) -> int:
    module = types.ModuleType("page")
    module.__file__ = str(ROOT / page)
    sys.modules["page"] = module
    namespace = vars(module)
    posts: list[Mounted] = []
    for block in python_of(page):
        if block.is_fragment:
            continue
        before = {name: namespace.get(name) for name in _MOUNTED_AS}
        exec(block.compiled(page), namespace)  # noqa: S102 - the page's own code is what is tested
        # Where a block tells tenants apart, one of them is posted to.
        tenants: dict[str, str] = namespace["SECRETS"] if "SECRETS" in block.code else {}
        path, secret = (f"{PATH}/acme", tenants["acme"]) if tenants else (PATH, SECRET)
        posts += [
            Mounted(poster(namespace[name]), path, secret)
            for name, value in before.items()
            if namespace.get(name) is not value
        ]
    create_tables(namespace)
    for name, test in list(namespace.items()):
        if name.startswith("test_"):
            test()
    for post, path, secret in posts:
        raw = payload("order.created", ts=int(time.time()))
        headers = headers_of(raw, secret=secret, timestamp=int(time.time()))
        status, body = post(path, raw, headers)
        assert status == 200, (status, body)
        status, body = post(path, raw + b" ", headers)
        assert (status, json.loads(body)["error"]["type"]) == (400, "verification_failed")
    return len(posts)


def configure_django() -> None:
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "roovet_webhooks.django"],
        USE_TZ=True,
    )
    django.setup()


def create_tables(namespace: dict[str, Any]) -> None:
    """Do for the inbox in Django's database, and for the models of a page, what migrations do."""
    if "DjangoInbox" not in namespace:
        return
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        for value in namespace.values():
            if isinstance(value, type) and issubclass(value, models.Model):
                editor.create_model(value)


def poster(mounted: object) -> Post:
    """Return what posts a body to whatever a page has mounted."""
    if isinstance(mounted, list):
        return partial(post_to_django, mounted)
    if isinstance(mounted, flask.Flask):
        return partial(post_to_flask, mounted)
    if isinstance(mounted, types.FunctionType):
        return partial(post_to_lambda, mounted)
    if isinstance(mounted, web.Application):
        return partial(post_to_aiohttp, mounted)
    return partial(post_to_asgi, mounted)


def post_to_django(patterns: list[object], path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    from django.test import Client, override_settings  # noqa: PLC0415 - Django has to be configured first

    urls = types.ModuleType("page_urls")
    vars(urls)["urlpatterns"] = patterns
    with override_settings(ROOT_URLCONF=urls):
        response = Client().post(path, raw, "application/json", headers=dict(headers))
    return response.status_code, response.content


def post_to_flask(app: flask.Flask, path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    response = app.test_client().post(path, data=raw, headers=dict(headers))
    return response.status_code, response.data


def post_to_lambda(
    function: Callable[..., dict[str, object]], path: str, raw: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    lower = {name.lower(): value for name, value in headers.items()}
    http = {"method": "POST", "path": path}
    answer = function({"requestContext": {"http": http}, "headers": lower, "body": raw.decode()}, None)
    status, body = answer["statusCode"], answer["body"]
    assert isinstance(status, int)
    assert isinstance(body, str)
    return status, body.encode()


def post_to_aiohttp(app: web.Application, path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    async def post() -> tuple[int, bytes]:
        # An application is bound to the loop that it first ran in, so each delivery has a copy.
        copy = web.Application()
        copy.add_routes([web.route(route.method, PATH, route.handler) for route in app.router.routes()])
        async with TestClient(TestServer(copy)) as client:
            response = await client.post(path, data=raw, headers=headers)
            return response.status, await response.read()

    return anyio.run(post)


def post_to_asgi(app: object, path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(cast("Any", app))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post(path, content=raw, headers=headers)

    response = anyio.run(post)
    return response.status_code, response.content


def run_apart(folder: str, pages: list[str]) -> int:
    """Run pages in a process of their own, and return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    signal.alarm(_PATIENCE)
    try:
        os.chdir(folder)
        for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), stream.fileno())
        sys.stdout.write(f"{sum(run_page(page) for page in pages)}\n")
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must end here, and the test prints its traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    configure_django()
    roovet.stand_in()
    for line in sys.stdin:
        sys.stdout.write(f"{run_apart(*json.loads(line))}\n")
        sys.stdout.flush()
