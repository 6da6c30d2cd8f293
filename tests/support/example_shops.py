"""The example shops as processes: each is started by the one command that the README gives for it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10.0
_COMMAND = re.compile(r"^    ((?:[A-Z_]+=\S+ )+\.venv/bin/.*)$", re.MULTILINE)


class Example(NamedTuple):
    """An example, and how a test changes its command.

    Attributes:
        source: The file whose docstring has the command.
        port: The words of the command that set a port, with ``{port}`` in its place; each replaces its like.
        worker: The command of a worker in a process of its own.
    """

    source: str
    port: tuple[str, ...]
    worker: tuple[str, ...]


EXAMPLES = {
    "flask": Example(
        "examples/flask_app/__init__.py",
        ("--port", "{port}"),
        ("flask", "--app", "examples/flask_app", "roovet", "worker"),
    ),
    "django": Example(
        "examples/django_app/manage.py",
        ("--noreload", "127.0.0.1:{port}"),
        ("python", "examples/django_app/manage.py", "roovet_worker"),
    ),
    "starlette": Example(
        "examples/starlette_app/__init__.py",
        ("--port", "{port}"),
        ("roovet-webhooks", "worker", "starlette_app:receiver"),
    ),
}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return int(sock.getsockname()[1])


def command_of(example: Example, port: int) -> tuple[dict[str, str], list[str]]:
    """Return the one command of an example on another port, as its environment and its words."""
    [command] = _COMMAND.findall((ROOT / example.source).read_text("utf-8"))
    assert command in (ROOT / "README.md").read_text("utf-8").splitlines()
    words = shlex.split(command)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    return settings, [*in_this_environment(words[len(settings) :]), *(word.format(port=port) for word in example.port)]


def in_this_environment(words: Sequence[str]) -> list[str]:
    """Return a command with the programs of the environment that runs the tests."""
    return [str(Path(sys.executable).parent / Path(words[0]).name), *words[1:]]


def start(command: Sequence[str], settings: Mapping[str, str], output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a process in a group of its own, from the root of the repository; all that it writes goes to one place."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROOVET_")}
    environment = {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT / "examples"), **settings}
    return subprocess.Popen(  # noqa: S603 - a command of the README, or one like it
        command,
        cwd=ROOT,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process when the block does."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
