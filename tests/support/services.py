"""Servers that tests talk to: where they are, and what happens to a test whose server is missing."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import amqp
import psycopg
import pymysql
import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Callable
    from urllib.parse import SplitResult

# The ports that the services have by themselves, on this machine, and users that a fresh installation has.
URLS = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/test",
    "redis": "redis://127.0.0.1:6379/15",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
    "mysql": "mysql://root@127.0.0.1:3306/test",
}
_PATIENCE = 10  # seconds for a connection


def url_of(service: str) -> str:
    """Return the URL of a service: that of ``ROOVET_TEST_<SERVICE>``, or the usual one on this machine.

    If the service cannot be used there, the test is skipped; if ``CI`` is set, the test fails.
    """
    variable = variable_of(service)
    url = os.environ.get(variable, URLS[service])
    fault = _fault(service, url)
    if fault is None:
        return url
    if os.environ.get("CI"):
        pytest.fail(f"no {service} at {variable} or its default: {fault}")
    pytest.skip(f"no {service}; {variable} is the URL of one")


def variable_of(service: str) -> str:
    """Return the variable that has the URL of a service."""
    return f"ROOVET_TEST_{service.upper()}"


@cache
def _fault(service: str, url: str) -> str | None:
    """Return why a service cannot be used; a port that is open says too little."""
    try:
        _CONNECT[service](url)
    except (psycopg.Error, pymysql.Error, redis.RedisError, amqp.AMQPError, OSError) as error:
        return str(error).strip()
    return None


def _postgresql(url: str) -> None:
    psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=_PATIENCE).close()


def _mysql(url: str) -> None:
    parts = urlsplit(url)
    user, password = _user_of(parts)
    pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=user, password=password, connect_timeout=_PATIENCE
    ).close()


def _redis(url: str) -> None:
    with redis.Redis.from_url(url, socket_connect_timeout=_PATIENCE, socket_timeout=_PATIENCE) as client:
        client.ping()


def _rabbitmq(url: str) -> None:
    parts = urlsplit(url)
    user, password = _user_of(parts)
    with amqp.Connection(
        f"{parts.hostname}:{parts.port or 5672}",
        userid=user,
        password=password,
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=_PATIENCE,
    ):
        pass


def _user_of(parts: SplitResult) -> tuple[str, str]:
    return unquote(parts.username or ""), unquote(parts.password or "")


_CONNECT: dict[str, Callable[[str], None]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}


def main() -> None:
    """Exit with an error that names every service that cannot be used."""
    faults = {service: _fault(service, os.environ.get(variable_of(service), url)) for service, url in URLS.items()}
    lines = [
        f"no {service} at {variable_of(service)} or its default: {fault}" for service, fault in faults.items() if fault
    ]
    sys.exit("\n".join(lines) or None)


if __name__ == "__main__":
    main()
