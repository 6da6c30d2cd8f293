"""How many deliveries a worker holds, and who may run beside whom. It lives on one event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

# Seconds of work that may be claimed ahead of the handlers. Little, because whatever is held when the process dies
# counts as crashed.
SOON = 0.1
MOST_AHEAD = 256
_MEASURED = 0.05


class Throughput:
    """Measures how many deliveries end in a second. Pure: told what ends and what time it is.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._ended = 0
        self._rate = 0.0

    def ended(self, count: int) -> None:
        """Count some."""
        self._ended += count

    def ahead(self, now: float) -> int:
        """Return how many deliveries will have ended a moment from now, if it goes on like this."""
        elapsed = now - self._since
        if elapsed >= _MEASURED:
            self._rate = self._ended / elapsed
            self._since, self._ended = now, 0
        return min(MOST_AHEAD, int(self._rate * SOON))


class Capacity:
    """Where the deliveries of a worker are while it holds them.

    Beside those whose handlers run it holds as many as will be begun in a moment: their claims and settlements
    then share transactions, and a slot need not wait for a disk. With slow handlers that is none.

    Args:
        concurrency: How many handlers run at a time.
        takers: How many share the room.
        clock: Monotonic seconds.

    Attributes:
        released: How many deliveries were given back to the inbox.
    """

    def __init__(self, concurrency: int, takers: int, clock: Callable[[], float] = monotonic) -> None:
        self._concurrency = concurrency
        self._takers = takers
        self._clock = clock
        self._throughput = Throughput(clock())
        self._held = 0
        self.released: int = 0
        self._closed = False
        self._end = asyncio.Event()
        self._order = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self._held

    @property
    def ended(self) -> bool:
        """Whether the worker ends."""
        return self._end.is_set()

    async def take(self) -> int:
        """Wait for room, hold it, and return how much it is: 0 when the worker ends."""
        while not self.ended:
            room = 0 if self._closed else self._concurrency + self._throughput.ahead(self._clock()) - self._held
            if room > 0:
                share = max(1, room // self._takers)
                self._held += share
                return share
            await self._change()
        return 0

    def give(self, room: int, *, ended: int = 0) -> None:
        """Give back room, some of which held deliveries that have ended."""
        self._held -= room
        self._throughput.ended(ended)
        self._changed.set()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[bool]:
        """Have the floor to oneself; the value is whether one has it, which one has not when the worker ends."""
        async with self._order:
            self._closed = True
            try:
                while self._held and not self.ended:
                    await self._change()
                yield not self._held and not self.ended
            finally:
                self._closed = False
                self._changed.set()

    def end(self) -> None:
        """Let nobody wait any more, and give no more room."""
        self._end.set()
        self._changed.set()

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the worker ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._end.wait()
        except TimeoutError:
            pass

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
