"""An application served by uvicorn on a socket that is bound first, so that its port is known at once."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.telemetry import LOGGER_NAME

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.types import ASGIApp

PATH = "/webhooks/roovet"
_GRACE = 5  # seconds that a handler which is running gets to end
_LOCAL = "127.0.0.1"


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigurationError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        if error.errno == errno.EADDRINUSE:
            reason = "the port is taken; give another with --port, or --port 0 for a free one"
        message = f"cannot listen on {host} port {port}: {reason}"
        raise ConfigurationError(message) from None


def url_of(sock: socket.socket, path: str = PATH) -> str:
    """Return the URL of a path on a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def server_of(app: ASGIApp, *, lifespan: bool = False, date_header: bool = True) -> uvicorn.Server:
    """Return a server for an application.

    Args:
        app: The application.
        lifespan: Whether it has one.
        date_header: Whether the server adds a ``Date`` to each answer; an application with a clock of its own does.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on" if lifespan else "off",
        ws="none",
        server_header=False,
        date_header=date_header,
        timeout_graceful_shutdown=_GRACE,
    )
    return uvicorn.Server(config)


@contextmanager
def serving(app: ASGIApp, *, path: str = PATH, lifespan: bool = False, date_header: bool = True) -> Generator[str]:
    """Serve an application on a free loopback port, in a thread; the value is its URL.

    Args:
        app: The application.
        path: The path of the URL.
        lifespan: As `server_of` takes it.
        date_header: Likewise.
    """
    server = server_of(app, lifespan=lifespan, date_header=date_header)
    with bind(_LOCAL, 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield url_of(sock, path)
        finally:
            server.should_exit = True
            thread.join(2 * _GRACE)


@contextmanager
def log_to(handler: logging.Handler, level: int = logging.INFO) -> Generator[None]:
    """Send what the package tells of itself, from a level on, to one handler and nowhere else."""
    logger = logging.getLogger(LOGGER_NAME)
    before = logger.level, logger.propagate, logger.disabled
    logger.addHandler(handler)
    logger.setLevel(level)
    # An application may have disabled all earlier loggers when it configured its own.
    logger.propagate = logger.disabled = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate, logger.disabled = before
