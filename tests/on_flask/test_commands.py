"""`flask roovet`: the same commands, for the receivers that an application mounts."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import flask
from support import SECRET
from support.worker import deliver, eventually, receiver_on, states_of, written

from roovet_webhooks import Event, MissingExtraError, WebhookReceiver, operations
from roovet_webhooks.flask import commands as flask_commands, webhook_blueprint
from roovet_webhooks.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from click.testing import Result


def run(app: flask.Flask, *arguments: str, status: int = 0) -> Result:
    result = app.test_cli_runner().invoke(args=["roovet", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    return result


def app_with(*receivers: WebhookReceiver) -> flask.Flask:
    app = flask.Flask("shop")
    for number, receiver in enumerate(receivers):
        app.register_blueprint(webhook_blueprint(receiver, path=f"/webhooks/{number}"))
    app.cli.add_command(flask_commands.roovet)
    return app


def test_flask_finds_the_commands_by_itself() -> None:
    (found,) = entry_points(group="flask.commands", name="roovet")
    assert found.load() is flask_commands.roovet


def test_flask_itself_is_enough_to_import_them() -> None:
    code = (
        "import sys\nsys.modules['rich'] = sys.modules['sqlalchemy'] = None\n"
        "from roovet_webhooks.flask.commands import roovet\n"
        "assert roovet.list_commands(None) == ['inbox', 'worker']"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 - this interpreter
    assert ran.returncode == 0, ran.stderr


def test_the_inbox_is_that_of_the_mounted_receivers(tmp_path: Path) -> None:
    orders = receiver_on(tmp_path, endpoint="orders")
    wallets = WebhookReceiver(SECRET, inbox=orders.inbox, endpoint="wallets")
    deliver(orders)
    deliver(wallets)
    app = app_with(orders, wallets)
    lines = run(app, "inbox", "list", "--json").stdout.splitlines()
    assert [json.loads(line)["endpoint"] for line in lines] == ["wallets", "orders"]


def test_one_of_several_inboxes_is_named_by_its_endpoint(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    orders = receiver_on(tmp_path, endpoint="orders")
    wallets = receiver_on(tmp_path / "other", endpoint="wallets")
    deliver(wallets)
    app = app_with(orders, wallets)
    assert "2 inboxes" in run(app, "inbox", "list", status=2).stderr
    app = app_with(orders, wallets)
    (line,) = run(app, "inbox", "list", "--endpoint", "wallets", "--json").stdout.splitlines()
    assert json.loads(line)["endpoint"] == "wallets"


def test_deliveries_of_a_receiver_that_is_no_more_are_found(tmp_path: Path) -> None:
    orders = receiver_on(tmp_path, endpoint="orders")
    deliver(WebhookReceiver(SECRET, inbox=orders.inbox, endpoint="retired"))
    (line,) = run(app_with(orders), "inbox", "list", "--endpoint", "retired", "--json").stdout.splitlines()
    assert json.loads(line)["endpoint"] == "retired"


def test_to_decline_is_to_do_nothing(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    deliver(receiver)
    written(receiver, "UPDATE roovet_delivery SET state = 'done', outcome = 'handled', finished_at = 1")
    assert "nothing was done" in run(app_with(receiver), "inbox", "replay", "1", status=2).stderr
    assert states_of(receiver) == ["done"]


def test_the_exit_status_is_the_command_s(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    deliver(receiver)
    assert "not" in run(app_with(receiver), "inbox", "replay", "1", status=1).stderr
    assert "no receiver" in run(app_with(), "inbox", "list", status=2).stderr
    assert "No such command" in run(app_with(), "inbocks", status=2).stderr
    assert "inbox" in run(app_with(), "--help").stdout


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flask_commands._COMMANDS, "inbox", "no_such_module:inbox")
    assert "pip install 'roovet-webhooks[flask,cli]'" in run(app_with(), "inbox", "list", status=2).stderr
    monkeypatch.undo()

    def missing(*_arguments: object) -> None:
        message = "SQLAlchemy is not installed"
        raise MissingExtraError(message, extra="inbox")

    monkeypatch.setattr(operations, "inbox_in", missing)
    assert "SQLAlchemy is not installed" in run(app_with(receiver_on(tmp_path)), "inbox", "list", status=2).stderr


def test_the_worker_runs_each_handler_in_an_application_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = receiver_on(tmp_path)
    contexts: list[object] = []

    def note() -> None:
        assert flask.current_app.name == "shop"
        # What a request would keep in `g` is its own.
        assert "seen" not in flask.g
        flask.g.seen = True
        contexts.append(object())

    @receiver.on("order.created")
    def take(_event: Event) -> None:
        note()

    @receiver.on("order.paid")
    async def book(_event: Event) -> None:
        note()

    for event in ("order.created", "order.paid") * 2:
        deliver(receiver, event)
    inner = Worker.run

    def run_until_done(self: Worker) -> None:
        def stop() -> None:
            eventually(lambda: len(contexts) == 4)
            self.stop()

        threading.Thread(target=stop).start()
        inner(self)

    monkeypatch.setattr(Worker, "run", run_until_done)
    run(app_with(receiver), "worker", "--concurrency", "2", "--log-level", "error")
    assert states_of(receiver) == ["done"] * 4


def test_a_worker_without_receivers_is_refused() -> None:
    assert "mounts no receiver" in run(app_with(), "worker", status=2).stderr
