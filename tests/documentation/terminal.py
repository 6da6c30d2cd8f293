"""A terminal of a shell: commands go in, what they print can be waited for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MARK = "--end-of-command--"
_STOP_SECONDS = 10.0


class Terminal:
    """A shell with a folder of its own.

    Args:
        folder: Where it is.
        environment: What it inherits.
        preamble: What it runs first.
        patience: Seconds that anything may take.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], preamble: str, patience: float) -> None:
        self._patience = patience
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],  # noqa: S607 - the shell of whoever follows a page
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._server: int | None = None
        self._written: list[str] = []
        self._seen = 0
        self._ended = False
        self._change = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        # Each job in a process group of its own, so that a server can be stopped with all that it has started.
        self.run(f"set -m\n{preamble}")

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            with self._change:
                self._written.append(line.rstrip("\n"))
                self._change.notify_all()
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _write(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{text}\n")
        self._shell.stdin.flush()

    def run(self, command: str) -> int:
        """Run a command to its end and return its status."""
        return self._give(f"{command}\necho {_MARK} $?")

    def start(self, command: str) -> None:
        """Start what keeps running, in the place of what does so already."""
        self.stop()
        self._server = self._give(f"{{ {command}; }} &\necho {_MARK} $!")

    def _give(self, text: str) -> int:
        """Write to the shell and return the number that it marks its answer with."""
        with self._change:
            before = len(self._written)
        self._write(text)
        number = int(self._wait(rf"{_MARK} (\d+)", before)[1])
        with self._change:
            # Whatever has been written since is to be looked at.
            self._seen = before
        return number

    def stop(self) -> None:
        """Stop what keeps running, as Ctrl-C does."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server, signal.SIGTERM)
            self._write("wait; true")
            self._server = None

    def shown(self) -> str:
        """Return what has been written and not looked at."""
        with self._change:
            return "\n".join(self._written[self._seen :])

    def expect(self, shown: str) -> None:
        """Wait until the lines have come, in this order and maybe with others between; … stands for anything."""
        for line in shown.splitlines():
            pattern = ".*".join(re.escape(part) for part in line.strip().split("…"))
            self._wait(pattern, self._seen)

    def _wait(self, pattern: str, begin: int) -> re.Match[str]:
        deadline = time.monotonic() + self._patience
        with self._change:
            while True:
                for number in range(begin, len(self._written)):
                    if found := re.search(pattern, self._written[number]):
                        self._seen = number + 1
                        return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._change.wait(left):
                    shown = "\n".join(self._written[begin:])
                    message = f"{pattern!r} did not come; this did:\n{shown}"
                    raise AssertionError(message)

    def close(self) -> None:
        """End the shell and all that it has started."""
        self.stop()
        assert self._shell.stdin is not None
        with suppress(BrokenPipeError):
            self._shell.stdin.close()
        try:
            self._shell.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait(_STOP_SECONDS)
        self._reader.join(_STOP_SECONDS)
        assert self._shell.stdout is not None
        self._shell.stdout.close()
