"""`demo`: it is right about a right receiver, and wrong ones do not get past it."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from roovet_webhooks import Keyring, OrderCreated, WebhookReceiver
from roovet_webhooks.cli import demo
from roovet_webhooks.cli.root import root
from roovet_webhooks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from roovet_webhooks.cli.demo import Witness

RIGHT = "All 4 outcomes are right."


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def run() -> Result:
    result = CliRunner().invoke(root, ["demo"])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert "whsec_" not in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    return result


def test_every_outcome_is_right() -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert RIGHT in result.stdout
    assert "WRONG" not in result.stdout
    for word in ("handled", "duplicate", "signature_mismatch", "stale", "ran", "not run"):
        assert word in result.stdout


def test_a_narrow_terminal_gets_no_ribbons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = run()
    assert result.exit_code == 0
    assert "a good delivery\n  200 handled; handler ran\n  verified with the secret 'demo'\n" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 60


def test_as_a_stranger_runs_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ROOVET_WEBHOOK_SECRET"}
    result = subprocess.run(
        [sys.executable, "-m", "roovet_webhooks.cli", "demo"],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert RIGHT in result.stdout
    assert "whsec_" not in result.stdout


def accepts_stale(keyring: Keyring, witness: Witness) -> WebhookReceiver:
    receiver = WebhookReceiver(keyring, tolerance=10_000)
    receiver.on(OrderCreated)(witness.handle)
    return receiver


def runs_duplicates(keyring: Keyring, witness: Witness) -> WebhookReceiver:
    numbers = itertools.count()
    receiver = WebhookReceiver(keyring, dedupe=lambda _event: str(next(numbers)))
    receiver.on(OrderCreated)(witness.handle)
    receiver.on_rejected(witness.refused)
    return receiver


def runs_handlers_twice(keyring: Keyring, witness: Witness) -> WebhookReceiver:
    receiver = demo.make_receiver(keyring, witness)
    receiver.on(OrderCreated, name="again")(witness.handle)
    return receiver


def ignores_everything(keyring: Keyring, witness: Witness) -> WebhookReceiver:
    receiver = WebhookReceiver(keyring)
    receiver.on("another.event")(lambda event: witness.runs.append(event.id))
    return receiver


def knows_another_secret(_keyring: Keyring, witness: Witness) -> WebhookReceiver:
    return demo.make_receiver(Keyring(["another secret altogether"]), witness)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (accepts_stale, 1),
        (runs_duplicates, 1),
        (runs_handlers_twice, 1),
        (ignores_everything, 1),
        (knows_another_secret, 2),
    ],
)
def test_a_receiver_that_misbehaves_is_found_out(
    make: Callable[[Keyring, Witness], WebhookReceiver], wrong: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = demo.make_receiver
    monkeypatch.setattr(demo, "make_receiver", lambda keyring, witness: _with(right, make, keyring, witness))
    result = run()
    assert result.exit_code == 1
    assert f"{wrong} of 4 outcomes are wrong." in result.stdout
    assert result.stdout.count("WRONG") == wrong


def _with(
    right: Callable[[Keyring, Witness], WebhookReceiver],
    make: Callable[[Keyring, Witness], WebhookReceiver],
    keyring: Keyring,
    witness: Witness,
) -> WebhookReceiver:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "make_receiver", right)
        return make(keyring, witness)


async def another_server(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_server_that_is_no_receiver_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def serving_another(_app: ASGIApp) -> Iterator[str]:
        with serving(another_server) as url:
            yield url

    monkeypatch.setattr(demo, "serving", serving_another)
    result = run()
    assert result.exit_code == 1
    assert "4 of 4 outcomes are wrong." in result.stdout


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def serving_nothing(_app: ASGIApp) -> Iterator[str]:
        # Bound and not listening: the port is ours, and connections are refused.
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"

    monkeypatch.setattr(demo, "serving", serving_nothing)
    result = run()
    assert result.exit_code == 1
    assert result.stdout.count("WRONG") == 4
    assert "refused" in result.stdout
