"""An answer that comes from another thread: in whatever order the steps of the two fall, it arrives."""

from __future__ import annotations

import asyncio
import threading

from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.write_lock import WriteLock


class Raced(InboxFuture[str]):
    """Answered right after it was found not to be."""

    def done(self) -> bool:
        was = super().done()
        if not was:
            self.answer("there")
            InboxFuture.wake([self])
        return was


def test_an_answer_that_comes_while_the_waiter_leaves_word() -> None:
    assert asyncio.run(Raced().wait(5)) == "there"
    assert Raced().result(5) == "there"


def test_a_wait_without_a_bound() -> None:
    async def waiting() -> str:
        pending: InboxFuture[str] = InboxFuture()

        def later() -> None:
            pending.answer("there")
            InboxFuture.wake([pending])

        threading.Timer(0.05, later).start()
        return await pending.wait()

    assert asyncio.run(waiting()) == "there"


def test_turns_of_one_process_have_no_lock_file() -> None:
    write_lock = WriteLock(None, 1)
    with write_lock.held():
        pass
    write_lock.close()
