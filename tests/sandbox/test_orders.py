"""Orders at the sandbox under full chaos, all processes being killed on the way: each is fulfilled once.

Few orders in the ordinary run. The long one: ``ROOVET_ORDERS=1000 pytest --long tests/sandbox/test_orders.py``.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from support.example_shops import EXAMPLES, command_of, free_port, in_this_environment, kill, start

from roovet_webhooks.api import RoovetClient
from roovet_webhooks.api.errors import ApiConnectionError, RateLimited, ServerError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

ORDERS = int(os.environ.get("ROOVET_ORDERS", "30"))
PATIENCE = 120.0 + 0.5 * ORDERS
ORDERS_A_ROUND = 200  # in which each process is killed once
# Everything at once. A 429 holds all requests of a client for a second, so there are fewer of them.
CHAOS = "all=0.15,api_rate_limited=0.02,delay_seconds=0.5,timeout_seconds=0.5"
_BUYERS = 8


class Process:
    """A process that can be killed and started again.

    Args:
        command: Starts it.
        settings: Its environment variables.
        log: A file that gets what it writes.
    """

    def __init__(self, command: list[str], settings: dict[str, str], log: Path) -> None:
        self._command, self._settings, self._log = command, settings, log
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("ab") as output:
            return start(self._command, self._settings, output.fileno())

    def restart(self) -> None:
        """Kill it with SIGKILL, and start it again."""
        self.kill()
        self._process = self._start()

    def kill(self) -> None:
        kill(self._process)

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")


class Stage:
    """The sandbox, an example and a second worker, as processes."""

    def __init__(self, name: str, folder: Path, seed: int) -> None:
        example = EXAMPLES[name]
        api, shop = free_port(), free_port()
        self.api, self.shop = f"http://127.0.0.1:{api}", f"http://127.0.0.1:{shop}"
        settings, server = command_of(example, shop)
        settings |= {"SHOP_DATABASE": str(folder / "shop.sqlite3"), "ROOVET_API_URL": self.api}
        self.api_key = settings["ROOVET_API_KEY"]
        sandbox = ["roovet-webhooks", "sandbox", "--port", str(api), "--file", str(folder / "sandbox.db")]
        sandbox += ["--forward", f"{self.shop}/webhooks/roovet", "--rate-limit", "1000000"]
        sandbox += ["--chaos", CHAOS, "--seed", str(seed)]
        self.processes = {"sandbox": Process(in_this_environment(sandbox), settings, folder / "sandbox.log")}
        self.await_answer(f"{self.api}/_sandbox/")
        self.processes["receiver"] = Process(server, settings, folder / "receiver.log")
        self.await_answer(f"{self.shop}/orders.json")
        self.processes["worker"] = Process(in_this_environment(example.worker), settings, folder / "worker.log")
        self._ready = {"sandbox": f"{self.api}/_sandbox/", "receiver": f"{self.shop}/orders.json"}

    def restart(self, name: str) -> None:
        """Kill a process, start it again, and wait until it is there, since a slow start is no fault."""
        self.processes[name].restart()
        if name in self._ready:
            self.await_answer(self._ready[name])

    def await_answer(self, url: str) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON at an address of a process that may be starting."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(httpx2.HTTPError):
                return httpx2.get(url, timeout=30.0).raise_for_status().json()
            assert time.monotonic() < deadline, f"{url} did not answer\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{process.log()[-5000:]}" for name, process in self.processes.items())

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()


@pytest.fixture
def stage_of(tmp_path: Path) -> Iterator[Callable[[str, int], Stage]]:
    stages: list[Stage] = []

    def make(name: str, seed: int) -> Stage:
        stages.append(Stage(name, tmp_path, seed))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


def place(client: RoovetClient, number: int) -> str:
    """Order something, and return the id of the order; each write is repeated under its key until it is answered."""

    def until_answered(write: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the write returns
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return write()
            except (ApiConnectionError, ServerError, RateLimited):
                assert time.monotonic() < deadline, "the sandbox does not answer"
                time.sleep(0.1)

    items = {f"prd_{number % 9 + 1}": number % 3 + 1}
    cart = until_answered(lambda: client.shop.cart(items, idempotency_key=f"cart-{number}"))
    order = until_answered(lambda: client.shop.checkout(cart.id, "card", idempotency_key=f"order-{number}"))
    return str(order.id)


def play(stage: Stage, orders: int, chance: random.Random) -> set[str]:
    """Place orders, and kill each process in turn on the way; return the ids of the orders."""
    victims = [name for _ in range(1 + orders // ORDERS_A_ROUND) for name in chance.sample(sorted(stage.processes), 3)]
    moments = sorted(chance.sample(range(1, orders), len(victims)))
    with (
        RoovetClient(stage.api_key, base_url=stage.api) as client,
        ThreadPoolExecutor(_BUYERS) as buyers,
    ):
        placing = [buyers.submit(place, client, number) for number in range(orders)]
        for moment, victim in zip(moments, victims, strict=True):
            deadline = time.monotonic() + PATIENCE
            while sum(order.done() for order in placing) < moment:
                assert time.monotonic() < deadline, f"no {moment} orders\n{stage.logs()}"
                time.sleep(0.05)
            stage.restart(victim)
        return {order.result() for order in placing}


def check(stage: Stage, placed: set[str]) -> None:
    """Wait until each order is fulfilled, and compare the books of both sides."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shown = stage.await_answer(f"{stage.shop}/orders.json")
        sandbox = stage.await_answer(f"{stage.api}/_sandbox/")
        fulfilled = [order for order in shown if order["state"] == "fulfilled"]
        if len(fulfilled) == len(shown) >= len(placed) and not sandbox["messages"]["pending"]:
            break
        assert time.monotonic() < deadline, f"{Counter(order['state'] for order in shown)} {sandbox}\n{stage.logs()}"
        time.sleep(0.2)
    assert {order["id"] for order in fulfilled} == placed
    assert sum(order["total_cents"] for order in fulfilled) == sandbox["balances_cents"]["shop"]
    assert sum(sandbox["balances_cents"].values()) == 0
    # The order's primary key would hide a second run; the handler drops it, and the log says so.
    assert "delivery.dropped" not in stage.logs()


@pytest.mark.long
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_order_is_fulfilled_once_whatever_is_killed(name: str, stage_of: Callable[[str, int], Stage]) -> None:
    seed = random.randrange(2**32)  # noqa: S311 - chaos, and printed where it fails
    stage = stage_of(name, seed)
    placed = play(stage, ORDERS, random.Random(seed))  # noqa: S311 - likewise
    assert len(placed) == ORDERS
    check(stage, placed)
