"""`sandbox`, `trigger` and `resend`, as processes and against real servers on loopback."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from rich.console import Console
from starlette.testclient import TestClient
from support import SECRET
from support.cli import complaint, run

from roovet_webhooks import WebhookReceiver
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.cli.sandbox import _guarded, _Log
from roovet_webhooks.sandbox.outbox import DueMessage, Result
from roovet_webhooks.serving import serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

START = 60


@contextmanager
def sandbox(
    *arguments: str, secret: str | None = SECRET, api_key: str = ""
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run ``sandbox --json`` on a free port, and yield the process and the line that it prints."""
    environment = {
        **os.environ,
        **({} if secret is None else {"ROOVET_WEBHOOK_SECRET": secret}),
        "ROOVET_API_KEY": api_key,
    }
    command = [sys.executable, "-m", "roovet_webhooks.cli", "sandbox", "--port", "0", "--json", *arguments]
    with subprocess.Popen(  # noqa: S603 - ours
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def events_of(receiver: WebhookReceiver) -> list[str]:
    seen: list[str] = []

    @receiver.on("*")
    def see(event: Any) -> None:  # noqa: ANN401 - any event
        seen.append(f"{event.event} {event.id} {dict(event.extra)}")

    return seen


def test_an_event_goes_through_the_sandbox_to_a_receiver() -> None:
    receiver = WebhookReceiver(SECRET)
    seen = events_of(receiver)
    with serving(WebhookApp(receiver)) as url, sandbox("--forward", url) as (process, ready):
        assert ready["signing_secret"] is None
        assert run("trigger", "order.created", "--id", "ord_1", "--sandbox", ready["url"]).exit_code == 0
        assert run("resend", "1", "--sandbox", ready["url"]).exit_code == 0
        assert run("resend", "9", "--sandbox", ready["url"]).exit_code == 1
        wait_until_sent(ready["url"], 2)
        headers = {"Authorization": f"Bearer {ready['api_key']}"}
        assert httpx2.get(f"{ready['url']}/api/wallet/balance", headers=headers).status_code == 200
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=START)
        assert (process.returncode, out, errors) == (0, "", "")
    assert seen == ["order.created ord_1 {}"]


def wait_until_sent(url: str, count: int) -> None:
    for _ in range(10_000):
        if httpx2.get(f"{url}/_sandbox/").json()["messages"]["delivered"] == count:
            return
    pytest.fail("the sandbox did not send")


def test_it_keeps_everything_in_a_file_and_makes_a_secret_where_there_is_none(tmp_path: Path) -> None:
    arguments = ("--file", str(tmp_path / "sandbox.db"), "--forward", "http://127.0.0.1:9/")
    with sandbox(*arguments, secret=None) as (_, first):
        assert first["signing_secret"].startswith("whsec_")
    with sandbox(*arguments, secret=None) as (_, second):
        assert second["api_key"] == first["api_key"]


def test_a_key_that_is_given_is_known_and_not_shown() -> None:
    key = "rvpk_test_0a1b2c3d4e5f60718293"
    with sandbox(api_key=key) as (_, ready):
        assert ready["api_key"] is None
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx2.get(f"{ready['url']}/api/wallet/balance", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["refund", "wallet.credited"])
def test_the_fixtures_of_the_how_to_are_sent(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "send-one-event.md").read_text("utf-8")
    [toml] = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "events.toml").write_text(toml, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    [command] = re.findall(rf"^roovet-webhooks (trigger {name} --fixtures \S+)", page, re.MULTILINE)
    receiver = WebhookReceiver(SECRET)
    seen = events_of(receiver)
    with serving(WebhookApp(receiver)) as url:
        assert run(*command.split(), "--to", url).exit_code == 0
    table = tomllib.loads(toml)[name]
    event, resource = table.pop("event", name), table.pop("id")
    assert seen == [f"{event} {resource} {table}"]


def test_a_page_of_another_host_cannot_reach_it() -> None:
    with sandbox() as (_, ready):
        answer = httpx2.get(f"{ready['url']}/_sandbox/", headers={"Host": "evil.example"})
        assert answer.status_code == 400


def test_the_screen_shows_how_to_use_it(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    arguments = [
        "--port",
        "0",
        "--no-retries",
        "--chaos",
        "cut=1",
        "--seed",
        "7",
        "--file",
        str(tmp_path / "sandbox.db"),
    ]
    command = [sys.executable, "-m", "roovet_webhooks.cli", "sandbox", *arguments, "--forward", "http://127.0.0.1:9/"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(8)]
            names = ["API key", "Signing secret", "Sends to", "Explorer", "Controls"]
            assert [line[2:17].strip() for line in lines[1:6]] == names
            assert run("trigger", "order.created", "--sandbox", lines[0].split()[-1]).exit_code == 0
            sent = process.stdout.readline()
            assert "order.created" in sent
            assert "chaos: cut" in sent
            process.send_signal(signal.SIGINT)
            assert process.wait(START) == 0
        finally:
            process.kill()


class TestTrigger:
    def test_it_signs_and_posts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
        receiver = WebhookReceiver(SECRET)
        seen = events_of(receiver)
        with serving(WebhookApp(receiver)) as url:
            result = run("trigger", "order.created", "--to", url, "--id", "ord_1", "--set", "note=hi", "--set", "n=1")
        assert (result.exit_code, seen) == (0, ["order.created ord_1 {'note': 'hi', 'n': 1}"])

    def test_a_fixture_names_event_id_and_fields(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
        fixtures = tmp_path / "roovet.toml"
        fixtures.write_text('[big]\nevent = "transfer.settled"\nid = "trf_7"\namount_cents = 99\n["order.created"]\n')
        receiver = WebhookReceiver(SECRET)
        seen = events_of(receiver)
        with serving(WebhookApp(receiver)) as url:
            arguments = ("--to", url, "--fixtures", str(fixtures))
            assert run("trigger", "big", *arguments).exit_code == 0
            assert run("trigger", "order.created", *arguments, "--id", "ord_2").exit_code == 0
        assert seen == ["transfer.settled trf_7 {'amount_cents': 99}", "order.created ord_2 {}"]

    def test_a_refusal_or_no_answer_is_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", "whsec_of_somebody_else_000000000000")
        receiver = WebhookReceiver(SECRET)
        events_of(receiver)
        with serving(WebhookApp(receiver)) as url:
            assert run("trigger", "order.created", "--to", url).exit_code == 1
        assert run("trigger", "order.created", "--to", url).exit_code == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("trigger", "order.created"), "say where to"),
            (("trigger", "order.created", "--to", "http://h/", "--sandbox", "http://h/"), "say where to"),
            (("trigger", "order.created", "--to", "nowhere"), "http://"),
            (("trigger", "order.created", "--to", "http://h/", "--set", "x"), "field=value"),
            (("trigger", "order.created", "--to", "http://h/"), "no signing secret"),
            (("trigger", "x", "--to", "http://h/", "--fixtures", "none.toml"), "cannot be read"),
            (("resend", "1"), "give the --sandbox URL"),
            (("sandbox", "--chaos", "surprise"), "the faults are"),
            (("sandbox", "--forward", "nowhere"), "http or https URL"),
            (("sandbox", "--host", "256.1.1.1"), "cannot listen"),
        ],
    )
    def test_what_cannot_be_carried_out_says_why(self, arguments: tuple[str, ...], words: str) -> None:
        assert words in complaint(run(*arguments))

    def test_a_fixture_that_is_none_says_which_there_are(self, tmp_path: Path) -> None:
        fixtures = tmp_path / "roovet.toml"
        arguments = ("trigger", "small", "--to", "http://127.0.0.1:9/", "--fixtures", str(fixtures))
        fixtures.write_text("[big]\n")
        assert "it has big" in complaint(run(*arguments))
        fixtures.write_text("=")
        assert "is not TOML" in complaint(run(*arguments))

    def test_infinity_is_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
        receiver = WebhookReceiver(SECRET)
        seen = events_of(receiver)
        with serving(WebhookApp(receiver)) as url:
            run("trigger", "order.created", "--to", url, "--id", "ord_1", "--set", "n=NaN")
        assert seen == ["order.created ord_1 {'n': 'NaN'}"]


class _Served:
    """Stands for the server: asks the application once, as a client on this machine and as a page elsewhere."""

    def __init__(self, app: ASGIApp, **_options: object) -> None:
        self._app = app
        self.statuses: list[int] = []

    def run(self, *, sockets: list[socket.socket]) -> None:
        assert len(sockets) == 1
        for host in ("127.0.0.1", "evil.example"):
            with TestClient(self._app, base_url=f"http://{host}") as client:
                self.statuses.append(client.get("/explorer").status_code)
        raise KeyboardInterrupt


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_sandbox_on_loopback_checks_the_host(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    made: list[_Served] = []

    def server_of(app: ASGIApp, **options: object) -> _Served:
        made.append(_Served(app, **options))
        return made[0]

    monkeypatch.setattr("roovet_webhooks.cli.sandbox.server_of", server_of)
    shown = run("sandbox", "--host", host, "--port", "0", "--forward", "http://127.0.0.1:9/hook")
    assert made[0].statuses == [200, 400]
    for part in ("Roovet sandbox on http://", "Signing secret", "Sends to", "/explorer", "curl -H"):
        assert part in shown.stdout


@pytest.mark.parametrize("host", ["192.0.2.1", "shop.example"])
def test_a_sandbox_for_other_machines_answers_to_any_name(host: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    assert _guarded(app, host) is app


def test_json_shows_only_what_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr("roovet_webhooks.cli.sandbox.server_of", _Served)
    ready = json.loads(run("sandbox", "--json", "--port", "0", "--forward", "http://127.0.0.1:9/hook").stdout)
    assert ready["signing_secret"] is None
    assert ready["api_key"].startswith("rvpk_")


@pytest.mark.parametrize(
    ("result", "retry_in", "line"),
    [
        (Result(200, 12), None, "200  order.created  ord_1  12 ms, http://shop.example/, attempt 2"),
        (
            Result(None, 5, "timeout", "refused"),
            2.0,
            "---  order.created  ord_1  5 ms, http://shop.example/, attempt 2, chaos: timeout, refused, again in 2.0 s",
        ),
    ],
)
def test_an_attempt_is_a_line(result: Result, retry_in: float | None, line: str) -> None:
    output = io.StringIO()
    message = DueMessage(1, 2, "order.created", "ord_1", "http://shop.example/", b"{}", (SECRET,))
    _Log(Console(file=output, width=200)).sent(message, result, retry_in)
    assert output.getvalue().strip().endswith(line)


def test_a_secret_that_was_given_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    monkeypatch.setattr("roovet_webhooks.cli.sandbox.server_of", _Served)
    shown = run("sandbox", "--port", "0").stdout
    assert "Signing secret" not in shown
