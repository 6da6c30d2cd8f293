"""Each example runs by the one command that the README gives for it, and does what a shop needs."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from roovet_webhooks.testing import FORGERIES, Clock, Forgery, Roovet, SignedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[1]
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class Example(NamedTuple):
    """Where an example says how it is run, and how a test chooses its port and its database.

    Attributes:
        durable: Whether its inbox is: then a delivery is answered when it is stored, and a worker runs its handlers.
        retry_after: What a sender is asked to wait while the database is locked, in seconds.
    """

    source: str
    port: tuple[str, ...]
    database: str
    durable: bool = False
    retry_after: str = "5"


EXAMPLES = {
    "flask": Example("examples/flask_app/__init__.py", ("--port", "0"), "FLASK_LEDGER"),
    "django": Example(
        "examples/django_app/manage.py", ("--noreload", "127.0.0.1:0"), "SHOP_DATABASE", durable=True, retry_after="10"
    ),
    "starlette": Example("examples/starlette_app/__init__.py", ("--port", "0"), "LEDGER"),
}


def command_of(example: Example) -> tuple[dict[str, str], list[str]]:
    """Return the one command of an example, as its environment and its words."""
    found = re.findall(r"^    (ROOVET_WEBHOOK_SECRET=.*)$", (ROOT / example.source).read_text("utf-8"), re.MULTILINE)
    assert len(found) == 1
    assert found[0] in (ROOT / "README.md").read_text("utf-8").splitlines()
    setting, program, *words = shlex.split(found[0])
    name, _, value = setting.partition("=")
    # The environment that runs the tests stands for the one that the README sets up.
    assert program.startswith(".venv/bin/")
    return {name: value}, [str(Path(sys.executable).parent / Path(program).name), *words]


class Shop:
    """A running example, and the sender of its deliveries."""

    def __init__(
        self, example: Example, client: httpx.Client, secret: str, database: Path, output: Queue[str | None]
    ) -> None:
        self.example = example
        self.client = client
        self.database = database
        self._output = output
        # The shop's clock is the real one.
        self.roovet = Roovet(secret=secret, clock=Clock(time.time()))

    def post(self, request: SignedRequest) -> tuple[int, object]:
        answer = request.post(self.client)
        return answer.status_code, answer.json()

    def taken(self, end: str = "handled") -> tuple[int, object]:
        """Return the answer to a delivery that is new and ends so."""
        return 200, {"status": "stored" if self.example.durable else end}

    def await_ledger(self, resource: str, lines: list[tuple[str, int | None]]) -> None:
        """Wait until the ledger has these lines of a resource, and no more."""
        deadline = time.monotonic() + (START_SECONDS if self.example.durable else 0)
        while self.ledger(resource) != lines:
            assert time.monotonic() < deadline, f"{self.ledger(resource)} and not {lines}"
            time.sleep(0.05)

    def ledger(self, resource: str) -> list[tuple[str, int | None]]:
        lines = self.client.get("/ledger").raise_for_status().json()
        return [(line["kind"], line["amount_cents"]) for line in lines if line["resource"] == resource]

    def wait_for(self, text: str) -> str:
        return wait_for(self._output, re.escape(text)).string


def wait_for(output: Queue[str | None], pattern: str) -> re.Match[str]:
    """Return the first match of a line that a process has yet to be seen writing."""
    seen: list[str] = []
    while True:
        try:
            line = output.get(timeout=START_SECONDS)
        except Empty:
            line = None
        assert line is not None, f"{pattern!r} was not written; this was:\n{''.join(seen)}"
        if found := re.search(pattern, line):
            return found
        seen.append(line)


@contextmanager
def started(example: Example, directory: Path) -> Iterator[Shop]:
    settings, command = command_of(example)
    database = directory / "shop.sqlite3"
    process = subprocess.Popen(  # noqa: S603 - the command of the README
        [*command, *example.port],
        cwd=ROOT,
        env={**os.environ, **settings, example.database: str(database), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output: Queue[str | None] = Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.put(line)
        output.put(None)

    reader = Thread(target=read)
    reader.start()
    try:
        address = wait_for(output, r"http://127\.0\.0\.1:[1-9][0-9]*")[0]
        with httpx.Client(base_url=address, timeout=10.0, trust_env=False) as client:
            yield Shop(example, client, settings["ROOVET_WEBHOOK_SECRET"], database, output)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
        reader.join(STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module", params=EXAMPLES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with started(EXAMPLES[request.param], tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.mark.parametrize(
    ("event", "fields", "line"),
    [
        ("transfer.settled", {"amount_cents": 1234}, ("transfer", 1234)),
        ("transfer.settled", {}, ("transfer", None)),
        ("order.created", {}, ("order", None)),
        ("wallet.credited", {}, ("wallet", None)),
    ],
)
def test_a_delivery_has_its_effect_once(
    shop: Shop, event: str, fields: dict[str, int], line: tuple[str, int | None]
) -> None:
    resource = f"{event}_{len(fields)}"
    request = shop.roovet.request({"event": event, "id": resource, "ts": int(time.time()), **fields})
    assert shop.post(request) == shop.taken()
    shop.await_ledger(resource, [line])
    assert shop.post(request) == (200, {"status": "duplicate"})
    assert shop.ledger(resource) == [line]


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forgery_is_refused_and_has_no_effect(shop: Shop, forgery: Forgery) -> None:
    resource = f"trf_{forgery.name}"
    shop.roovet.tampered(forgery).assert_refused(shop.client, "transfer.settled", id=resource, amount_cents=5)
    # That of the genuine delivery, which was sent after it.
    shop.await_ledger(resource, [("transfer", 5)])


def test_a_transfer_that_moved_nothing_is_dropped(shop: Shop) -> None:
    request = shop.roovet.request("transfer.settled", id="trf_nothing", amount_cents=0)
    assert shop.post(request) == shop.taken("dropped")
    if shop.example.durable:
        shop.wait_for("delivery.dropped")
    assert shop.ledger("trf_nothing") == []


def test_a_locked_ledger_asks_for_a_later_retry_which_then_runs(shop: Shop) -> None:
    request = shop.roovet.request("transfer.settled", id="trf_later", amount_cents=5)
    with closing(sqlite3.connect(shop.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        later = request.post(shop.client)
    assert (later.status_code, later.headers["retry-after"]) == (503, shop.example.retry_after)
    assert later.json()["error"]["type"] == "unavailable"
    assert shop.ledger("trf_later") == []
    assert shop.post(request) == shop.taken()
    shop.await_ledger("trf_later", [("transfer", 5)])


def test_an_unknown_event_reaches_the_fallback(shop: Shop) -> None:
    assert shop.post(shop.roovet.request("shop.renamed")) == shop.taken()
    shop.wait_for("no handler for shop.renamed")


def test_a_failure_calls_the_error_hook_and_is_a_500_where_the_handlers_run_at_once(shop: Shop) -> None:
    failed = shop.roovet.post(shop.client, "transfer.settled", id="trf_odd", amount_cents="much")
    if shop.example.durable:
        assert (failed.status_code, failed.json()) == shop.taken()
    else:
        assert (failed.status_code, failed.json()["error"]["type"]) == (500, "handler_failed")
    assert "EventValidationError" in shop.wait_for("needs attention: ")
    assert shop.ledger("trf_odd") == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_secret_an_example_does_not_start(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    _, command = command_of(example)
    settings = {**os.environ, example.database: str(tmp_path / "shop.sqlite3")}
    settings.pop("ROOVET_WEBHOOK_SECRET", None)
    ended = subprocess.run(  # noqa: S603 - the command of the README
        [*command, *example.port],
        cwd=ROOT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode != 0
    assert "the receiver 'default' has no signing secret" in ended.stderr
