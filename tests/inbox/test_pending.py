"""An answer that comes from another thread: in whatever order the steps of the two fall, it arrives."""

from __future__ import annotations

import asyncio
import threading

from roovet_webhooks.inbox.locks import Turns
from roovet_webhooks.inbox.pending import Pending


class Raced(Pending[str]):
    """Answered right after it was found not to be."""

    def done(self) -> bool:
        was = super().done()
        if not was:
            self.answer("there")
            Pending.wake([self])
        return was


def test_an_answer_that_comes_while_the_waiter_leaves_word() -> None:
    assert asyncio.run(Raced().wait(5)) == "there"
    assert Raced().result(5) == "there"


def test_a_wait_without_a_bound() -> None:
    async def waiting() -> str:
        pending: Pending[str] = Pending()

        def later() -> None:
            pending.answer("there")
            Pending.wake([pending])

        threading.Timer(0.05, later).start()
        return await pending.wait()

    assert asyncio.run(waiting()) == "there"


def test_turns_of_one_process_have_no_lock_file() -> None:
    turns = Turns(None, 1)
    with turns.held():
        pass
    turns.close()
