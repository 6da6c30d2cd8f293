"""Serves one mount under one server: ``python -m conformance.serve SERVER MOUNT FD PORT``.

The socket listens already: the parent has bound it to a port of the system's choice. Granian opens its own,
on the port that the parent holds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from starlette.applications import Starlette

from conformance import mounts
from conformance.stage import EMPTY, HOOK, Stage
from roovet_webhooks.asgi import WebhookApp, WebhookMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication
    from starlette.types import ASGIApp

MOUNT_VARIABLE = "CONFORMANCE_MOUNT"


def _django(*, asynchronous: bool) -> Any:  # noqa: ANN401 - either kind of application
    urls = mounts.django_urls(Stage(), asynchronous=asynchronous)
    settings.ROOT_URLCONF = urls
    return mounts.django_asgi() if asynchronous else mounts.django_wsgi()


def _behind(name: str) -> Any:  # noqa: ANN401 - either kind of application
    from conformance import behind  # noqa: PLC0415 - much to load, and only here

    return getattr(behind, name)()


_MOUNTS: dict[str, Callable[[], Any]] = {
    "starlette_routes": lambda: mounts.starlette_routes(Stage()),
    "starlette_middleware": lambda: mounts.starlette_middleware(Stage()),
    "starlette_behind": lambda: mounts.starlette_behind(Stage()),
    "app_alone": lambda: WebhookApp(Stage().receivers[HOOK]),
    "app_alone_without_handlers": lambda: WebhookApp(Stage().receivers[EMPTY]),
    "middleware_without_handlers": lambda: WebhookMiddleware(Starlette(), receiver=Stage().receivers[EMPTY]),
    "handlers_at_startup": lambda: mounts.handlers_at_startup(Stage()),
    "fastapi_routes": lambda: mounts.fastapi_routes(Stage()),
    "flask_blueprints": lambda: mounts.flask_blueprints(Stage()),
    "django_asgi": lambda: _django(asynchronous=True),
    "django_wsgi": lambda: _django(asynchronous=False),
    "fastapi_behind": lambda: _behind("fastapi_behind"),
    "flask_behind": lambda: _behind("flask_behind"),
    "django_behind": lambda: _behind("django_behind"),
}


def application() -> Any:  # noqa: ANN401 - either kind of application
    """Return the mount that the environment names: what a server with workers calls in each of them."""
    return _MOUNTS[os.environ[MOUNT_VARIABLE]]()


def _uvicorn(http: Any, fd: int) -> None:  # noqa: ANN401 - a literal of uvicorn's
    import uvicorn  # noqa: PLC0415 - one server in a process

    config = uvicorn.Config(
        cast("ASGIApp", application()), http=http, loop="asyncio", ws="none", lifespan="auto", log_level="error"
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


def _hypercorn(fd: int) -> None:
    from hypercorn.asyncio import serve  # noqa: PLC0415 - one server in a process
    from hypercorn.config import Config  # noqa: PLC0415 - one server in a process

    config = Config()
    config.bind = [f"fd://{fd}"]
    config.loglevel = "ERROR"
    asyncio.run(serve(cast("Any", application()), config))


def _granian(interface: str, port: int) -> None:
    from granian import Granian  # noqa: PLC0415 - one server in a process
    from granian.constants import Interfaces  # noqa: PLC0415 - one server in a process
    from granian.log import LogLevels  # noqa: PLC0415 - one server in a process

    Granian(
        "conformance.serve:application",
        factory=True,
        address="127.0.0.1",
        port=port,
        interface=Interfaces(interface),
        blocking_threads=4 if interface == "wsgi" else 1,
        websockets=False,
        log_level=LogLevels.error,
    ).serve()


def _gunicorn(fd: int) -> None:
    options = {"bind": f"fd://{fd}", "worker-class": "gthread", "threads": "4", "log-level": "critical"}
    words = [f"--{name}={value}" for name, value in options.items()]
    program = [sys.executable, "-m", "gunicorn", *words, "--no-control-socket", "conformance.serve:application()"]
    os.execv(sys.executable, program)  # noqa: S606 - gunicorn has no types, so its command line is what we know


def _runserver(fd: int) -> None:
    """Serve as Django's ``runserver`` does."""
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: PLC0415 - as above

    app = cast("WSGIApplication", application())
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=fd)
    server.server_name, server.server_port = server.socket.getsockname()
    server.setup_environ()
    server.set_app(app)
    server.serve_forever()


def _werkzeug(fd: int) -> None:
    """Serve as ``flask run`` does."""
    from werkzeug.serving import make_server  # noqa: PLC0415 - one server in a process

    make_server("127.0.0.1", 0, cast("WSGIApplication", application()), threaded=True, fd=fd).serve_forever()


def main(server: str, mount: str, fd: int, port: int) -> None:
    """Serve until told to stop."""
    os.environ[MOUNT_VARIABLE] = mount
    servers: dict[str, Callable[[], None]] = {
        "uvicorn-h11": lambda: _uvicorn("h11", fd),
        "uvicorn-httptools": lambda: _uvicorn("httptools", fd),
        "hypercorn": lambda: _hypercorn(fd),
        "granian-asgi": lambda: _granian("asgi", port),
        "granian-wsgi": lambda: _granian("wsgi", port),
        "gunicorn": lambda: _gunicorn(fd),
        "runserver": lambda: _runserver(fd),
        "werkzeug": lambda: _werkzeug(fd),
    }
    servers[server]()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
