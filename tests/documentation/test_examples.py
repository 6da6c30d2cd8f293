"""Each example runs by the one command that the README gives for it, and does what a shop needs."""

from __future__ import annotations

import re
import shlex
import time
from contextlib import ExitStack, closing, contextmanager
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support.example_shops import EXAMPLES, ROOT, Example, command_of, ended, start

from roovet_webhooks.api import RoovetClient
from roovet_webhooks.sandbox import Sandbox, sandbox_app
from roovet_webhooks.serving import serving
from roovet_webhooks.testing import FORGERIES, Clock, Forgery, Roovet, SignedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 60.0
ANY_PORT = 0


class Shop:
    """A running example, a sandbox beside it, and a sender of other deliveries."""

    def __init__(
        self, client: httpx.Client, settings: dict[str, str], output: Queue[str | None], sandbox: Sandbox
    ) -> None:
        self.client = client
        self.sandbox = sandbox
        self.api = settings["ROOVET_API_URL"]
        self._output = output
        # The shop's clock is the real one.
        self.roovet = Roovet(secret=settings["ROOVET_WEBHOOK_SECRET"], clock=Clock(time.time()))

    def post(self, request: SignedRequest) -> tuple[int, object]:
        answer = request.post(self.client)
        return answer.status_code, answer.json()

    def order(self) -> str:
        """Order something at the sandbox, which then tells the shop of it; return the id."""
        with RoovetClient(self.sandbox.api_key, base_url=self.api) as client:
            cart = client.shop.cart({"prd_1": 2})
            return client.shop.checkout(cart.id, "card").id

    def await_sent(self) -> None:
        """Wait until the sandbox has sent everything."""
        deadline = time.monotonic() + START_SECONDS
        while self.sandbox.delivery_states()["pending"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def states(self) -> dict[str, str]:
        orders: list[dict[str, Any]] = self.client.get("/orders.json").raise_for_status().json()
        return {order["id"]: order["state"] for order in orders}

    def await_state(self, order: str, state: str | None) -> None:
        """Wait until an order has a state; ``None`` stands for not being listed."""
        deadline = time.monotonic() + START_SECONDS
        while (states := self.states()).get(order) != state:
            assert time.monotonic() < deadline, states
            time.sleep(0.05)

    def wait_for(self, text: str) -> str:
        return wait_for(self._output, re.escape(text)).string


def wait_for(output: Queue[str | None], pattern: str) -> re.Match[str]:
    """Return the first match of a line that a process has yet to be seen writing."""
    seen: list[str] = []
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            line = output.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            line = None
        assert line is not None, f"{pattern!r} was not written; this was:\n{''.join(seen)}"
        if found := re.search(pattern, line):
            return found
        seen.append(line)


@contextmanager
def started(example: Example, directory: Path) -> Iterator[Shop]:
    settings, command = command_of(example, ANY_PORT)
    with ExitStack() as stack:
        sandbox = Sandbox(api_key=settings["ROOVET_API_KEY"], rate_limit=10_000)
        stack.callback(sandbox.close)
        settings["ROOVET_API_URL"] = stack.enter_context(serving(sandbox_app(sandbox), path="", lifespan=True))
        settings["SHOP_DATABASE"] = str(directory / "shop.sqlite3")
        process = start(command, settings)
        output: Queue[str | None] = Queue()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                output.put(line)
            process.stdout.close()
            output.put(None)

        reader = Thread(target=read)
        reader.start()
        stack.callback(reader.join, START_SECONDS)
        stack.enter_context(ended(process))
        address = wait_for(output, r"http://127\.0\.0\.1:[1-9][0-9]*")[0]
        sandbox.register(f"{address}/webhooks/roovet", settings["ROOVET_WEBHOOK_SECRET"])
        client = stack.enter_context(httpx.Client(base_url=address, timeout=30.0, trust_env=False))
        yield Shop(client, settings, output, sandbox)


@pytest.fixture(scope="module", params=EXAMPLES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with started(EXAMPLES[request.param], tmp_path_factory.mktemp(request.param)) as running:
        yield running


def test_an_order_is_fulfilled_once(shop: Shop) -> None:
    order = shop.order()
    shop.await_state(order, "fulfilled")
    shop.sandbox.resend(shop.sandbox.deliveries()[0]["event_id"])
    shop.await_sent()
    assert [attempt["status"] for attempt in shop.sandbox.deliveries()[0]["attempts"]] == [200]
    again = shop.roovet.request("order.created", id=order, told="again")
    assert shop.post(again) == (200, {"status": "stored"})
    assert order in shop.wait_for("delivery.dropped")
    page = shop.client.get("/").raise_for_status().text
    assert page.count(f"<td>{order}</td>") == 1
    assert re.search(rf"<td>{order}</td>\s*<td>2 x Oak chair</td>\s*<td class=\"total\">298.00</td>", page)


def test_the_commands_of_the_readme_order_something(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^curl .*$", readme, re.MULTILINE)
    sandbox = Sandbox(tmp_path / "sandbox.db", api_key="rvpk_test_example_0000")
    with closing(sandbox), serving(sandbox_app(sandbox), path="", lifespan=True) as url:
        for command in commands:
            words = shlex.split(command.replace("http://127.0.0.1:4010", url))
            assert words[0] == "curl"
            headers = dict(words[i + 1].split(": ") for i, word in enumerate(words) if word == "-H")
            body = words[words.index("-d") + 1]
            answer = httpx.post(words[-1], content=body, headers=headers, trust_env=False)
            assert answer.status_code == 200, answer.text
        assert sandbox.check_books()["shop"] == answer.json()["total_cents"] == 29_800


def test_an_order_that_roovet_does_not_show_yet_waits(shop: Shop) -> None:
    assert shop.post(shop.roovet.request("order.created", id="ord_999")) == (200, {"status": "stored"})
    shop.wait_for("ord_999 is not there yet")
    assert shop.states()["ord_999"] == "received"
    assert re.search(r"<td>ord_999</td>\s*<td></td>\s*<td class=\"total\"></td>", shop.client.get("/").text)


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forgery_is_refused_and_has_no_effect(shop: Shop, forgery: Forgery) -> None:
    before = shop.states()
    status, _ = shop.post(shop.roovet.tampered(forgery).request("order.created", id="ord_forged"))
    assert status == 400
    assert shop.states().keys() == before.keys()


def test_an_unknown_event_reaches_the_fallback(shop: Shop) -> None:
    shop.sandbox.trigger("shop.renamed", "shp_1")
    shop.wait_for("no handler for shop.renamed")


def test_a_failure_calls_the_error_hook(shop: Shop) -> None:
    shop.sandbox.trigger("order.created", "parcel_1")
    shop.wait_for("failed: NotFetchable")
    assert shop.states()["parcel_1"] == "received"


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("ROOVET_WEBHOOK_SECRET", "the receiver 'default' has no signing secret"),
        ("ROOVET_API_KEY", "the API key is empty; set ROOVET_API_KEY"),
    ],
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_without_secret_or_key_an_example_does_not_start(
    name: str, missing: str, complaint: str, tmp_path: Path
) -> None:
    settings, command = command_of(EXAMPLES[name], ANY_PORT)
    del settings[missing]
    settings["SHOP_DATABASE"] = str(tmp_path / "shop.sqlite3")
    process = start(command, settings)
    with ended(process):
        output, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode != 0
    assert complaint in output
