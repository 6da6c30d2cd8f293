"""Servers that tests talk to: where they are, and what to do where there is none."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit

import pytest

# The ports that the services have by themselves, on this machine, and users that a fresh installation has.
_URLS = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/test",
    "redis": "redis://127.0.0.1:6379/15",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//",
    "mysql": "mysql://root@127.0.0.1:3306/test",
}


def url_of(service: str) -> str:
    """Return the URL of a service: that of ``ROOVET_TEST_<SERVICE>``, or the usual one on this machine.

    Where nothing listens there, the test is skipped with the reason; under ``CI`` it fails.
    """
    variable = f"ROOVET_TEST_{service.upper()}"
    url = os.environ.get(variable, _URLS[service])
    fault = _fault(url)
    if fault is None:
        return url
    message = f"no {service} answers at the URL of {variable}, or at its default: {fault}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@lru_cache
def _fault(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.hostname or parts.port is None:
        return None  # a socket in the file system: whoever connects will see
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=3).close()
    except OSError as error:
        return str(error)
    return None
