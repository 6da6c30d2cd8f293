"""Turns: one thread of one process at a time writes to a SQLite file.

The lock file is not the library ``filelock``: it opens and closes the file each time and sleeps between tries, and
this lock is taken for every transaction. It is the kernel's, so that it goes with the process that held it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from roovet_webhooks.errors import InboxUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

if sys.platform == "win32":  # pragma: no cover - the suite runs on POSIX
    import msvcrt

    def _try(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _release(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try(descriptor: int) -> None:
        # flock, not lockf: it belongs to the open file, so that two inboxes of one process exclude each other too.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_FIRST_WAIT = 0.0002
_LONGEST_WAIT = 0.005


class FileLock:
    """An exclusive lock on a file of its own. One thread at a time may use it; the caller sees to that.

    Args:
        path: The file; it is made where it is missing, and stays.
    """

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._descriptor: int | None = None

    def take(self, timeout: float) -> None:
        """Take the lock.

        Args:
            timeout: Seconds to wait for it at most.

        Raises:
            InboxUnavailable: Another process held it all the time, or the file cannot be opened.
        """
        deadline, wait = time.monotonic() + timeout, _FIRST_WAIT
        try:
            while not self._try():
                if time.monotonic() >= deadline:
                    message = f"another process has been writing to the inbox for {timeout:g} s ({self.path})"
                    raise InboxUnavailable(message)
                time.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)
        except FileNotFoundError as error:
            message = f"the inbox cannot be used: there is no folder {os.path.dirname(self.path)}"  # noqa: PTH120 - text
            raise InboxUnavailable(message) from error
        except OSError as error:
            message = f"the lock file {self.path} cannot be used: {error.strerror}"
            raise InboxUnavailable(message) from error

    def _try(self) -> bool:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _try(self._descriptor)
        except (BlockingIOError, PermissionError):
            return False
        if self._is_there(self._descriptor):
            return True
        self.close()  # somebody has removed the file, and others lock the one that has taken its place
        return False

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))  # noqa: PTH116 - for every transaction
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others have it; any thread may."""
        if self._descriptor is not None:
            _release(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class HeldWriteLock:
    """The right to write. Whoever keeps it too long loses it to the thread that watches the time.

    Args:
        end: Lets the next one have it.

    Attributes:
        thread: Which thread has taken it.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self.thread: int = threading.get_ident()
        self._end = end
        self._over = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether it has been given back."""
        return self._over.locked()

    def give_back(self) -> None:
        """Let the next one write; once more is no harm."""
        if self._over.acquire(blocking=False):
            self._end()


class WriteLock:
    """Whose turn it is: of the threads of this process by a lock in memory, of the processes by a lock file.

    Args:
        path: The lock file; ``None`` when no other process can write.
        wait: Seconds to wait for another process; for another thread twice that.
    """

    def __init__(self, path: str | None, wait: float) -> None:
        self._file = None if path is None else FileLock(path)
        self._path = path
        self._thread = threading.Lock()
        self._wait = wait

    def take(self) -> HeldWriteLock:
        """Wait for a turn, and take it.

        Raises:
            InboxUnavailable: It did not come, or the lock file cannot be used.
        """
        if not self._thread.acquire(timeout=2 * self._wait):
            message = f"a transaction has kept the inbox for {2 * self._wait:g} s ({self._path})"
            raise InboxUnavailable(message)
        try:
            if self._file is not None:
                self._file.take(self._wait)
        except BaseException:
            self._thread.release()
            raise
        return HeldWriteLock(self._end)

    def _end(self) -> None:
        if self._file is not None:
            self._file.release()
        self._thread.release()

    def stop(self) -> bool:
        """Keep the threads of this process from taking a turn, once nobody has one; say whether that came to be."""
        return self._thread.acquire(timeout=2 * self._wait)

    def go_on(self) -> None:
        """Let them, after `stop`."""
        self._thread.release()

    @contextmanager
    def while_stopped(self) -> Generator[None]:
        """Hold the lock file alone, after `stop`; errors as `take`."""
        file = cast("FileLock", self._file)  # only a store in a file is stopped
        file.take(self._wait)
        try:
            yield
        finally:
            file.release()

    @contextmanager
    def held(self) -> Generator[None]:
        """Take a turn, and give it back; errors as `take`."""
        held = self.take()
        try:
            yield
        finally:
            held.give_back()

    def close(self) -> None:
        """Close the lock file."""
        if self._file is not None:
            self._file.close()
