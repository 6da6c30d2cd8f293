"""Ways to put a case to a receiver over a real socket: servers as processes, and a client that sends exact bytes."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Self

from conformance.cases import Answer, Ending, Wire
from conformance.harness import Record
from conformance.stage import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

START_SECONDS = 90.0
STOP_SECONDS = 10.0
ANSWER_SECONDS = 30.0

TESTS = Path(__file__).parents[1]

# Name: the server, the mount, and the traits beyond the server's name.
SERVERS: dict[str, tuple[str, str, frozenset[str]]] = {
    "uvicorn h11, starlette": ("uvicorn-h11", "starlette_routes", frozenset()),
    "uvicorn h11, middleware": ("uvicorn-h11", "starlette_middleware", frozenset()),
    "uvicorn httptools, behind": ("uvicorn-httptools", "starlette_behind", frozenset()),
    "uvicorn httptools, fastapi": ("uvicorn-httptools", "fastapi_routes", frozenset()),
    "uvicorn httptools, django": ("uvicorn-httptools", "django_asgi", frozenset({"spools"})),
    "hypercorn, starlette": ("hypercorn", "starlette_routes", frozenset()),
    "granian, starlette": ("granian-asgi", "starlette_routes", frozenset()),
    "granian, flask": ("granian-wsgi", "flask_blueprints", frozenset({"wsgi"})),
    "gunicorn, flask": ("gunicorn", "flask_blueprints", frozenset({"wsgi"})),
    "gunicorn, django": ("gunicorn", "django_wsgi", frozenset({"wsgi"})),
    "runserver, django": ("runserver", "django_wsgi", frozenset({"wsgi"})),
    "flask run": ("werkzeug", "flask_blueprints", frozenset({"wsgi"})),
}

# As behind a proxy that ends TLS: some applications redirect what came without it.
_HTTPS = (b"X-Forwarded-Proto: https",)
_SEEN = Wire(b"GET", CONTROL.encode() + b"seen", b"1.1", _HTTPS, (), chunked=False, complete=True, ending=Ending.WAIT)


class NotStarted(Exception):
    """The server has ended before it served; its arguments are the exit code and what it said."""


class Connection:
    """One connection of the client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        # Each piece is a packet of its own.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, wire: Wire) -> None:
        """Send a request, as far as the server takes it."""
        lines = [
            b"%b %b HTTP/%b" % (wire.method, wire.target, wire.version),
            b"Host: 127.0.0.1",
            b"Connection: close",
            *wire.lines,
        ]
        # A server that has refused the request closes while it is still being sent; its answer is there to be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
            for chunk in wire.chunks:
                self._socket.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk) if wire.chunked else chunk)
            if wire.chunked and wire.complete:
                self._socket.sendall(b"0\r\n\r\n")
            if wire.ending is Ending.HALF_CLOSE:
                self._half_close()

    def _half_close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            # The server was quicker, and has closed both sides.
            if error.errno != errno.ENOTCONN:
                raise

    def send_raw(self, sent: bytes) -> None:
        """Send these very bytes."""
        self._socket.sendall(sent)

    def until_closed(self) -> bytes:
        """Return all that comes before the server closes the connection.

        Raises:
            TimeoutError: It keeps the connection open.
        """
        received = b""
        with suppress(ConnectionResetError):
            while more := self._socket.recv(65_536):
                received += more
        return received

    def answer(self, *, bodiless: bool = False) -> Answer | None:
        """Read the answer; ``None`` when the connection ends without a whole one."""
        received = b""
        while True:
            head, end, rest = received.partition(b"\r\n\r\n")
            if end:
                status, headers = _head(head)
                if 100 <= status < 200:
                    received = rest
                    continue
                length = 0 if bodiless else int(headers.get("content-length", sys.maxsize))
                if len(rest) >= length:
                    return Answer(status, headers, rest[:length])
            try:
                more = self._socket.recv(65_536)
            except ConnectionResetError:
                more = b""
            if not more:
                # Without a length, the end of the connection is the end of the body.
                return Answer(status, headers, rest) if end and "content-length" not in headers else None
            received += more


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


class Server:
    """A running server, as a harness."""

    def __init__(self, port: int, traits: frozenset[str]) -> None:
        self.port = port
        self.traits = traits

    def send(self, wire: Wire) -> Answer | None:
        """Send a request over a connection of its own."""
        with Connection(self.port) as connection:
            connection.send(wire)
            return None if wire.ending is Ending.CLOSE else connection.answer(bodiless=wire.method == b"HEAD")

    def control(self, what: str) -> Record:
        """Ask the control route."""
        answer = self.send(_SEEN._replace(target=f"{CONTROL}{what}".encode()))
        assert answer is not None
        assert answer.status == 200, answer
        return Record(**json.loads(answer.body))

    def record(self) -> Record:
        """Return what has happened so far."""
        return self.control("seen")


@contextmanager
def serving(kind: str, mount: str, traits: frozenset[str] = frozenset()) -> Generator[Server]:
    """Run a server in a process of its own.

    Raises:
        NotStarted: It did not start.
    """
    granian = kind.startswith("granian")
    # Not a pipe, which nobody reads while the server runs: once it is full, the server waits.
    with socket.socket() as listener, TemporaryFile() as said:
        if granian:
            # Granian binds by itself: this socket holds the port for it, and never listens.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        if not granian:
            listener.listen(128)
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(  # noqa: S603 - this very interpreter, with words of our own
            [sys.executable, "-m", "conformance.serve", kind, mount, str(listener.fileno()), str(port)],
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": "ignore"},
            pass_fds=[listener.fileno()],
            stdout=said,
            stderr=subprocess.STDOUT,
            # A server with workers is a group of its own, so that none of them outlives a test.
            start_new_session=True,
        )
        try:
            if not granian:
                # So that a server which has died refuses connections.
                listener.close()
            server = Server(port, traits | {"sockets", kind, *kind.split("-")})
            _wait_until_ready(server, process, said)
            yield server
        finally:
            _stop(process)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        # Refused: granian has not bound its port yet. Closed without an answer: the server is about to end.
        # Neither: a worker that is still importing has the connection wait.
        with suppress(ConnectionRefusedError, TimeoutError):
            if server.send(_SEEN) is not None:
                return
        time.sleep(0.05)
    _kill(process)
    process.wait(STOP_SECONDS)
    said.seek(0)
    raise NotStarted(process.returncode, said.read().decode(errors="replace"))


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does; fail when it does not come."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait(STOP_SECONDS)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The group may be gone already.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
