"""One POST over real HTTP or HTTPS, as a sender of webhooks does it: no redirects, bounded in time and size."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ANSWER_BYTES = 65_536
_CHUNK = 8192


class NoAnswer(Exception):
    """The server could not be reached, or did not answer in time, or not in HTTP.

    Attributes:
        code: Stable identifier of the reason.
    """

    code = "no_answer"


class TimedOut(NoAnswer):
    """There was no complete answer in time."""

    code = "timeout"


class BadCertificate(NoAnswer):
    """The certificate of the server does not hold."""

    code = "certificate"


class Answer(NamedTuple):
    """What a server answered.

    Attributes:
        status: HTTP status.
        reason: The words after it.
        headers: Pairs of name and value.
        body: The body, or its first 64 KiB.
        seconds: How long it took.
    """

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether a sender takes it for an acknowledgement: 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of success

    def header(self, name: str) -> str | None:
        """Return the first header of a name, or ``None``."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Target(NamedTuple):
    """Where to post."""

    secure: bool
    host: str
    port: int | None
    path: str

    def __str__(self) -> str:
        """Show the URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{'https' if self.secure else 'http'}://{host}{port}{self.path}"

    def at(self, path: str) -> Target:
        """Return another path of the same server."""
        return self._replace(path=path)

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL.

        Raises:
            ValueError: It is no http or https URL of a host, or holds a user name.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"it must begin with http:// or https:// and name a host, not {url!r}"
            raise ValueError(message)
        if parts.username is not None:
            message = "it must not hold a user name or a password"
            raise ValueError(message)
        # What is escaped already stays as it is; spaces and letters outside ASCII cannot be sent as they are.
        path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path or "/", parts.query))
        return cls(parts.scheme == "https", parts.hostname, parts.port, path + (query and f"?{query}"))


def post(target: Target, body: bytes, headers: Mapping[str, str], *, timeout: float) -> Answer:
    """Post a body and return the answer.

    Args:
        target: Where to.
        body: The body.
        headers: The headers, but those that HTTP itself needs.
        timeout: Seconds to connect, and seconds for the whole answer after that, however it drips in.

    Raises:
        NoAnswer: There was no answer; the message says why.
    """
    started = time.monotonic()
    connection = _connection(target, timeout)
    hung_up = threading.Event()
    late = f"there was no complete answer within {timeout:g} s"
    try:
        connection.connect()
        timer = threading.Timer(timeout, _hang_up, (connection.sock, hung_up))
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", target.path, body, dict(headers))
            response = connection.getresponse()
            content = _read(response)
        finally:
            timer.cancel()
    except TimeoutError:
        raise TimedOut(late) from None
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {target.host} does not hold: {error.verify_message}"
        raise BadCertificate(message) from None
    except (OSError, HTTPException, UnicodeError) as error:
        if hung_up.is_set():
            raise TimedOut(late) from None
        raise NoAnswer(_why(error)) from None
    finally:
        connection.close()
    if hung_up.is_set():
        # What had no declared length ended when we hung up.
        raise TimedOut(late)
    return Answer(response.status, response.reason, response.getheaders(), content, time.monotonic() - started)


def _hang_up(sock: socket.socket, hung_up: threading.Event) -> None:
    """End a connection whose answer never ends: a socket's own timeout is for each piece of it."""
    hung_up.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):  # RemoteDisconnected is one as well
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, BadStatusLine):
        return f"what came is not HTTP: {str(error).strip()[:80]!r}"
    return str(error) or type(error).__name__


def _connection(target: Target, timeout: float) -> HTTPConnection:
    if not target.secure:
        return HTTPConnection(target.host, target.port, timeout=timeout)
    return HTTPSConnection(target.host, target.port, timeout=timeout, context=ssl.create_default_context())


def _read(response: HTTPResponse) -> bytes:
    content = bytearray()
    while len(content) < MAX_ANSWER_BYTES and (chunk := response.read1(_CHUNK)):
        content += chunk
    return bytes(content)
