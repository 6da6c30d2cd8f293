"""`listen`: a receiver on a port, what it shows, and the user's own receiver behind `--app`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support import OTHER_SECRET, SECRET, headers_of, payload

from roovet_webhooks import Signer, serving
from roovet_webhooks.cli.display import Display
from roovet_webhooks.cli.posting import Answer, Target, post
from roovet_webhooks.cli.root import root
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.serving import bind, log_to, url_of
from roovet_webhooks.telemetry import LOGGER_NAME

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import uvicorn
    from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"

SHOP = """
from roovet_webhooks import DropDelivery, RetryLater, Router, WebhookReceiver

receiver = WebhookReceiver()
router = Router()

@receiver.on("order.created")
def fulfil(event):
    if event.id == "bad":
        raise KeyError("no such order\\x1b[31m")
    if event.id == "later":
        raise RetryLater(after=5, reason="the import runs")
    if event.id == "drop":
        raise DropDelivery("not ours")
    print("fulfilled", event.id, flush=True)
"""


@pytest.fixture(autouse=True)
def _secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder of the user's, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(root, ["listen", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert SECRET not in result.output
    return result


def listen(monkeypatch: pytest.MonkeyPatch, visit: Callable[[str], None], *arguments: str) -> Result:
    """Run `listen` in this thread, on a free port, for as long as the visit to its URL takes in another."""
    faults: list[BaseException] = []

    def server_of(app: ASGIApp) -> uvicorn.Server:
        server = serving.server_of(app)
        serve = server.run

        def run(sockets: list[socket.socket]) -> None:
            def visiting() -> None:
                try:
                    visit(url_of(sockets[0]))
                except BaseException as fault:  # noqa: BLE001 - it is raised again in the test's own thread
                    faults.append(fault)
                server.should_exit = True

            thread = threading.Thread(target=visiting)
            thread.start()
            serve(sockets=sockets)
            thread.join(30)

        monkeypatch.setattr(server, "run", run)
        return server

    with monkeypatch.context() as patch:
        patch.setattr("roovet_webhooks.cli.listening.server_of", server_of)
        result = invoke("--port", "0", *arguments)
    for fault in faults:
        raise fault
    return result


def deliver(url: str, raw: bytes, headers: dict[str, str] | None = None) -> Answer:
    return post(Target.parse(url), raw, Signer(SECRET).headers(raw) if headers is None else headers, timeout=30)


def error_of(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) <= 2
    return result.stderr


# Without --app


def test_an_accepted_delivery_is_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = payload(note="[bold]é\x1b[1m\u202e")

    def visit(url: str) -> None:
        assert deliver(url, raw).status == 200
        assert b"duplicate" in deliver(url, raw).body

    result = listen(monkeypatch, visit)
    assert (result.exit_code, result.stderr) == (0, "\n")
    assert result.stdout.startswith("Listening on http://127.0.0.1:")
    assert result.stdout.count("accepted        order.created  ord_") == 1
    assert result.stdout.count("duplicate       order.created  ord_") == 1
    assert "verified with the secret 'default', signed " in result.stdout
    assert f"{len(raw)} bytes, delivery dlv_" in result.stdout
    assert '"note": "[bold]é\\u001b[1m\\u202e"' in result.stdout


def test_a_refused_delivery_is_shown_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(url: str) -> None:
        raw = payload()
        assert deliver(url, raw + b"\n", Signer(SECRET).headers(raw)).status == 400
        assert deliver(url, raw, Signer(OTHER_SECRET).headers(raw)).status == 400
        assert deliver(url, raw, headers_of(raw)).status == 400
        assert deliver(url, b"[]").status == 400
        assert deliver(url, raw, {"Content-Type": "text/plain"}).status == 415

    result = listen(monkeypatch, visit)
    shown = result.stdout
    assert result.stderr == "\n"
    assert (
        "refused         signature_mismatch\n"
        "          no digest agrees with the body under any active secret: default\n"
        "          body_trailing_newline: the line break at the end of the body was not signed\n"
        "            Keep the body byte for byte; editors, echo and heredocs add a line break.\n"
        "          status 400, path /webhooks/roovet, secrets_tried default\n"
    ) in shown
    assert "          wrong_secret_or_altered_body: no known mistake reproduces the digest; " in shown
    # What the reason has said is not said again.
    stale = shown[shown.index("refused         stale\n") :].splitlines()
    assert stale[1].startswith("          signed ")
    assert stale[2].startswith("            Set the clock; ")
    assert stale[3].startswith("          status 400, path /webhooks/roovet, skew -")
    assert "refused         malformed_payload" in shown
    assert "refused         unsupported_media_type" in shown
    assert shown.count("refused  ") == 5
    assert "\x1b" not in shown


def test_a_request_to_another_path_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(url: str) -> None:
        answer = deliver(url.replace("roovet", "x%1b"), payload())
        assert answer.status == 404
        assert b"Deliveries go to /webhooks/roovet." in answer.body

    shown = listen(monkeypatch, visit).stdout
    assert "not found       POST /webhooks/x\\x1b\n          deliveries go to /webhooks/roovet" in shown


def test_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def visit(url: str) -> None:
        assert deliver(url.replace("/webhooks/roovet", "/hook"), payload()).status == 200
        assert deliver(url, payload()).status == 404

    assert "/hook\n" in listen(monkeypatch, visit, "--path", "/hook").stdout


# With --app


def test_a_durable_inbox_stores_and_a_worker_runs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP.replace("WebhookReceiver()", "WebhookReceiver(inbox='sqlite:///inbox.db')"))

    def visit(url: str) -> None:
        assert deliver(url, payload(id="ord_1", ts=int(time.time()))).status == 200
        inbox = sys.modules["shop"].receiver.inbox
        assert isinstance(inbox, SQLInbox)
        deadline = time.monotonic() + 30
        while [record.state.value for record in inbox.find(Query())] != ["done"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    result = listen(monkeypatch, visit, "--app", "shop:receiver")
    assert result.exit_code == 0, result.output
    shown = result.stdout
    assert "a worker beside it runs them" in shown
    assert 0 < shown.index("stored          order.created  ord_1") < shown.index("handled         order.created  ord_1")
    assert "fulfilled ord_1\n" in shown
    assert "worker." not in shown


def test_the_handlers_of_an_app_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)

    def visit(url: str) -> None:
        for resource, status in (("ord_1", 200), ("bad", 500), ("later", 503), ("drop", 200)):
            assert deliver(url, payload(id=resource)).status == status
        assert deliver(url, payload("other.event")).status == 200
        assert deliver(url, payload(), {"Content-Type": "application/json"}).status == 400

    result = listen(monkeypatch, visit, "--app", "shop:receiver")
    shown = result.stdout
    assert result.exit_code == 0
    assert "fulfilled ord_1\n" in shown
    assert "handled         order.created  ord_1\n" in shown
    assert "handler raised  order.created  bad\n" in shown
    # The traceback begins in the user's own code.
    assert f'Traceback (most recent call last):\n            File "{folder / "shop.py"}", line 10, in fulfil' in shown
    assert "KeyError: 'no such order\\x1b[31m'" in shown
    assert "failed          order.created  bad  handler_failed" in shown
    assert "retry later     order.created  later\n          the import runs" in shown
    assert "dropped         order.created  drop\n          not ours" in shown
    assert (shown.count("order.created  later"), shown.count("order.created  drop")) == (1, 1)
    assert "ignored         other.event" in shown
    assert "refused         missing_signature" in shown


@pytest.mark.parametrize(
    ("debug", "code"), [("True", "body_trailing_newline"), ("False", "wrong_secret_or_altered_body")]
)
def test_an_app_says_itself_whether_causes_are_searched_for(
    monkeypatch: pytest.MonkeyPatch, folder: Path, debug: str, code: str
) -> None:
    (folder / "shop.py").write_text(SHOP.replace("WebhookReceiver()", f"WebhookReceiver(debug={debug})"))

    def visit(url: str) -> None:
        raw = payload()
        assert deliver(url, raw + b"\n", Signer(SECRET).headers(raw)).status == 400

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* has debug=True")
        shown = listen(monkeypatch, visit, "--app", "shop:receiver").stdout
    assert f"          {code}: " in shown


def test_the_secret_options_override_that_of_the_app(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET")

    def visit(url: str) -> None:
        raw = payload()
        assert deliver(url, raw, Signer(OTHER_SECRET).headers(raw)).status == 200
        assert deliver(url, raw).status == 400

    assert listen(monkeypatch, visit, "--app", "shop:receiver", "--secret", OTHER_SECRET).exit_code == 0


def test_an_app_without_a_secret(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET")
    for _ in range(2):  # the second time, the folder is on the path already
        assert "no signing secret" in error_of(invoke("--port", "0", "--app", "shop:receiver"))


def test_what_is_no_fault_of_the_sender_is_shown_once_and_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "shop.py").write_text(SHOP.replace("WebhookReceiver()", "WebhookReceiver(lambda request: 1 / 0)"))

    def visit(url: str) -> None:
        assert deliver(url, payload()).status == 503

    shown = listen(monkeypatch, visit, "--app", "shop:receiver").stdout
    assert shown.count("not ready       tenant_lookup_failed\n") == shown.count("tenant_lookup_failed") == 1
    assert "ZeroDivisionError: division by zero" in shown


@pytest.mark.parametrize(
    ("app", "content", "words"),
    [
        ("shop", "", "must be module:receiver"),
        (":receiver", "", "must be module:receiver"),
        ("shop.py:receiver", SHOP, "must be module:receiver"),
        ("nowhere:receiver", "", "no module 'nowhere' in this folder"),
        ("shop.nowhere:receiver", SHOP, "no module 'shop.nowhere'"),
        ("shop:nothing", SHOP, "has no 'nothing'; it has receiver"),
        ("shop:nothing", "", "it has no receiver at all"),
        ("shop:receiver.deep", SHOP, "has no 'receiver.deep'"),
        ("shop:router", SHOP, "of the type Router; --app needs a WebhookReceiver"),
        ("shop:receiver", "1/0", "shop could not be loaded: ZeroDivisionError: division by zero ("),
        ("shop:receiver", "\nraise ValueError", "shop could not be loaded: ValueError ("),
        ("shop:receiver", "import missing_one", "ModuleNotFoundError: No module named 'missing_one' ("),
        ("shop:receiver", "raise ModuleNotFoundError('odd')", "ModuleNotFoundError: odd ("),
        ("shop:receiver", "def (", "SyntaxError: invalid syntax (shop.py, line 1)"),
        ("shop:receiver", "raise SystemExit(3)", "SystemExit: 3"),
        ("shop:receiver", "import json; json.loads('{')", "shop.py, line 1)"),
        (
            "shop:receiver",
            "from roovet_webhooks import WebhookReceiver; receiver = WebhookReceiver(tolerance=-1)",
            "tolerance must be",
        ),
        ("shop:receiver", "from roovet_webhooks import WebhookReceiver; receiver = WebhookReceiver()", "no handler"),
        (
            "shop:receiver",
            "from roovet_webhooks import WebhookReceiver; receiver = WebhookReceiver(handlers=['missing_two'])",
            "No module named 'missing_two'",
        ),
    ],
)
def test_an_app_that_cannot_be_served(app: str, content: str, words: str, folder: Path) -> None:
    (folder / "shop.py").write_text(content)
    assert words in error_of(invoke("--port", "0", "--app", app))


# The port


def test_a_port_that_is_taken() -> None:
    with bind(LOOPBACK, 0) as taken:
        words = error_of(invoke("--port", str(taken.getsockname()[1])))
    assert "the port is taken; give another with --port, or --port 0" in words


@pytest.mark.parametrize("arguments", [["--host", "no such host"], ["--port", "65536"], ["--path", "hook"]])
def test_a_place_where_one_cannot_listen(arguments: list[str]) -> None:
    error_of(invoke("--port", "0", *arguments))


def test_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET")
    assert "set ROOVET_WEBHOOK_SECRET" in error_of(invoke("--port", "0"))


def test_the_url_of_an_ipv6_address() -> None:
    class Socket:
        def getsockname(self) -> tuple[str, int, int, int]:
            return ("::1", 8000, 0, 0)

    sock: Any = Socket()
    assert url_of(sock) == "http://[::1]:8000/webhooks/roovet"


# What is shown of the log


def shown_of(monkeypatch: pytest.MonkeyPatch, *log: tuple[str, dict[str, object]]) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as capture, log_to(Display(console)):
        for message, fields in log:
            logging.getLogger(LOGGER_NAME).warning(message, extra={"roovet": fields})
    return capture.get()


def test_events_that_are_not_known_yet_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_of(monkeypatch, ("delivery.new_word a=1", {"tenant": "acme", "tried": (), "attempt": 1}))
    assert "delivery.new_word" in shown
    assert "tenant acme, tried none\n" in shown


def test_an_error_without_a_frame_of_the_users_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(highlight=False, soft_wrap=True)
    monkeypatch.setattr("roovet_webhooks.cli.display.is_library", lambda _filename: True)
    with console.capture() as capture, log_to(Display(console)):
        try:
            1 / 0  # noqa: B018 - for its error
        except ZeroDivisionError:
            logging.getLogger(LOGGER_NAME).exception("receiver.error")
    assert "Traceback (most recent call last):" in capture.get()
    assert "ZeroDivisionError" in capture.get()


def test_a_log_that_the_application_has_disabled_is_shown_and_disabled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(LOGGER_NAME)
    monkeypatch.setattr(logger, "disabled", True)
    assert "in flight" in shown_of(monkeypatch, ("delivery.in_flight", {"resource": "ord_1"}))
    assert (logger.disabled, logger.propagate, logger.level) == (True, True, logging.NOTSET)


# Real processes


@contextmanager
def process(*arguments: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `listen` on a free port; the value is the process and its URL. It is ended in any case."""
    listener = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "roovet_webhooks.cli", "listen", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "ROOVET_WEBHOOK_SECRET": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    # Bounds every wait below: a listener that says nothing, or does not end, is killed.
    watchdog = threading.Timer(60, listener.kill)
    watchdog.start()
    try:
        assert listener.stdout is not None
        first = listener.stdout.readline()
        assert first.startswith("Listening on http://"), first
        yield listener, first.split()[-1]
    finally:
        watchdog.cancel()
        listener.kill()
        listener.communicate(timeout=30)


def send(url: str, *arguments: str) -> int:
    return subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, "-m", "roovet_webhooks.cli", "send", "--url", url, "--event", "order.created", *arguments],
        env={**os.environ, "ROOVET_WEBHOOK_SECRET": SECRET},
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def test_listen_and_send_as_two_processes(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    with process("--app", "shop:receiver", folder=folder) as (listener, url):
        assert send(url, "--id", "ord_1", "--repeat", "2") == 0
        assert send(url, "--id", "ord_2", "--tamper") == 1
        listener.send_signal(signal.SIGINT)
        shown, errors = listener.communicate(timeout=60)
    # Ctrl-C ends it quietly.
    assert (listener.returncode, errors) == (0, "\n")
    assert shown.count("fulfilled ord_1") == 1
    assert "duplicate       order.created  ord_1" in shown
    assert "refused         signature_mismatch" in shown
    assert "ord_2" not in shown
    assert SECRET not in shown


def test_listen_ends_quietly_when_nobody_reads_any_more(folder: Path) -> None:
    with process(folder=folder) as (listener, url):
        assert listener.stdout is not None
        listener.stdout.readline()
        listener.stdout.readline()
        listener.stdout.close()
        # The delivery that finds it out is answered all the same.
        assert send(url, "--id", "ord_1") == 0
        assert listener.wait(timeout=60) == 0
        assert listener.stderr is not None
        assert listener.stderr.read() == "\n"
        listener.stdout = None


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)

    class Gone(Console):
        def print(self, *_objects: object, **_options: object) -> None:
            raise BrokenPipeError

    Display(Gone()).misdirected("POST /", "/hook")
    assert raised == [signal.SIGINT]
