"""``manage.py roovet_worker`` and ``manage.py roovet_inbox``."""

from __future__ import annotations

import json
import re
import sys
from io import StringIO
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings
from django.urls import path as url
from documentation.pages import ROOT, python_of, rows_of, section_of, text_of
from support import PATH, SECRET, payload
from support.django_databases import Shop, added, database

from roovet_webhooks import Event, RetryPolicy, WebhookReceiver
from roovet_webhooks.django import DjangoInbox, dispatch_view, views as adapter
from roovet_webhooks.django.dialects import KNOWS_MODES
from roovet_webhooks.django.management.commands.roovet_worker import Command
from roovet_webhooks.django.tables import tables
from roovet_webhooks.inbox.states import State
from roovet_webhooks.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    before = adapter.mounted[:]
    adapter.mounted.clear()
    with database("sqlite", tmp_path) as alias:
        made = Shop(alias, retry=RetryPolicy(max_attempts=1))

        @made.receiver.on("*", name="book")
        def book(event: Event) -> None:
            if event.event == "order.failed":
                raise ValueError
            made.write("book")

        urls = ModuleType("urls_of_a_command")
        # A receiver in memory is none of a worker's business.
        other = WebhookReceiver(SECRET, endpoint="other")
        vars(urls)["urlpatterns"] = [
            url(PATH.removeprefix("/"), dispatch_view(made.receiver)),
            url("other", dispatch_view(other)),
        ]
        vars(urls).update(receiver=made.receiver, other=other)
        sys.modules[urls.__name__] = urls
        with override_settings(ROOT_URLCONF=urls.__name__):
            yield made
        made.inbox.close()
    adapter.mounted[:] = before


def called(*arguments: str, **options: Any) -> tuple[str, str]:  # noqa: ANN401 - of a command
    """Call a command and return what it wrote."""
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err, no_color=True, **options)
    return out.getvalue(), err.getvalue()


def inbox(*arguments: str) -> str:
    return called("roovet_inbox", *arguments)[0]


# The inbox


def test_the_inbox_of_the_mounted_receivers_is_listed_shown_and_counted(shop: Shop) -> None:
    shop.deliver(payload("order.created", id="ord_9"))
    [told] = [json.loads(line) for line in inbox("list", "--json").splitlines()]
    assert (told["event"], told["resource"], told["state"]) == ("order.created", "ord_9", "ready")
    assert json.loads(inbox("show", told["id"], "--json")) == told
    assert json.loads(inbox("stats", "--json"))["counts"]["ready"] == 1
    assert "ord_9" in inbox("list")


def test_deliveries_are_replayed_and_purged(shop: Shop) -> None:
    shop.deliver(payload("order.failed"))
    shop.work()
    assert shop.record().state is State.DEAD
    assert inbox("replay", "--state", "dead") == "1 replayed.\n"
    assert shop.record().state is State.READY
    shop.work()
    assert inbox("purge", str(shop.record().number), "--yes") == "1 purged.\n"
    assert shop.record().purged
    with pytest.raises(SystemExit) as caught:
        inbox("replay", str(shop.record().number))
    assert caught.value.code == 1


def test_the_check_says_what_to_mend_and_fails(shop: Shop) -> None:
    shop.deliver()
    out = StringIO()
    with pytest.raises(SystemExit) as caught:
        call_command("roovet_inbox", "check", stdout=out)
    assert caught.value.code == 1
    assert "PRAGMA synchronous=EXTRA" in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--nonsense"), "No such option"),
        (("purge",), "which deliveries"),
        (("list", "--inbox", "nonsense"), "database URL"),
    ],
)
def test_what_cannot_be_done_is_an_error_of_the_command(shop: Shop, arguments: tuple[str, ...], told: str) -> None:  # noqa: ARG001 - it is mounted
    with pytest.raises(CommandError, match=told) as caught:
        inbox(*arguments)
    assert caught.value.returncode == 2


def test_without_a_command_it_says_which_there_are(shop: Shop) -> None:  # noqa: ARG001 - it is mounted
    err = StringIO()
    with pytest.raises(SystemExit) as caught:
        call_command("roovet_inbox", stderr=err)
    assert caught.value.code == 2
    assert "Usage: manage.py roovet_inbox" in err.getvalue()


def test_who_says_no_has_done_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.deliver()
    shop.work()
    monkeypatch.setattr(sys, "stdin", StringIO("n\n"))
    with pytest.raises(CommandError, match="nothing was done"):
        inbox("purge", str(shop.record().number))
    assert not shop.record().purged


def test_an_interrupt_ends_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shop.inbox, "find", interrupted)
    with pytest.raises(SystemExit) as caught:
        inbox("list")
    assert caught.value.code == 130


def test_what_is_written_without_a_stream_goes_to_standard_output(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.deliver()
    call_command("roovet_inbox", "stats", "--json")
    assert json.loads(capsys.readouterr().out)["counts"]["ready"] == 1


def test_without_the_extra_it_says_what_to_install(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it is mounted
    for name in [name for name in sys.modules if name.startswith("roovet_webhooks.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(CommandError, match=r"pip install 'roovet-webhooks\[django,cli\]'"):
        inbox("list")


# The worker


@pytest.fixture
def one_look(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Have a worker run until nothing is due, and say with which settings it did."""
    seen: list[dict[str, Any]] = []

    def run(worker: Any) -> None:  # noqa: ANN401 - a Worker
        seen.append({alias: dict(connections.settings[alias]) for alias in connections})
        for receiver in worker.receivers:
            while found := receiver.inbox.claim(receiver.endpoint, limit=worker.concurrency):
                for claimed in found:
                    _handle(receiver, claimed)

    monkeypatch.setattr(Worker, "run", run)
    return seen


def _handle(receiver: WebhookReceiver, claimed: Any) -> None:  # noqa: ANN401 - a Claimed
    from roovet_webhooks.receiving.bridge import SyncBridge, run  # noqa: PLC0415 - only here

    run(receiver.handle(claimed, bridge=SyncBridge()))


def test_a_worker_runs_what_mounted_receivers_have_recorded(shop: Shop, one_look: list[dict[str, Any]]) -> None:
    shop.deliver()
    out, err = called("roovet_worker", "--concurrency", "3")
    assert shop.entries() == ["book"]
    assert out == "Working for default, 3 handlers at a time. Ctrl-C stops it.\n"
    # What endangers deliveries is said at the start.
    assert "PRAGMA synchronous=EXTRA" in err
    # Connections live longer than a request would, for as long as it works.
    [settings] = one_look
    assert (settings[shop.alias]["CONN_MAX_AGE"], settings[shop.alias]["CONN_HEALTH_CHECKS"]) == (60, True)
    assert (
        connections.settings[shop.alias]["CONN_MAX_AGE"],
        connections.settings[shop.alias]["CONN_HEALTH_CHECKS"],
    ) == (
        0,
        False,
    )


def test_connections_that_the_settings_keep_are_kept_as_they_say(shop: Shop, one_look: list[dict[str, Any]]) -> None:
    connections.settings[shop.alias]["CONN_MAX_AGE"] = 5
    called("roovet_worker")
    assert one_look[0][shop.alias]["CONN_MAX_AGE"] == 5


@pytest.mark.parametrize("name", ["urls_of_a_command:receiver", "urls_of_a_command.receiver"])
def test_a_receiver_may_be_named(shop: Shop, one_look: list[dict[str, Any]], name: str) -> None:
    shop.deliver()
    called("roovet_worker", name, "--endpoint", "default")
    assert len(one_look) == 1
    assert shop.entries() == ["book"]


def test_other_inboxes_are_worked_on_as_well(tmp_path: Path, shop: Shop, one_look: list[dict[str, Any]]) -> None:
    receiver = WebhookReceiver(SECRET, endpoint="files", inbox=f"sqlite:///{tmp_path}/roovet.db")
    receiver.on("*")(lambda _event: None)
    vars(sys.modules["urls_of_a_command"])["files"] = receiver
    monkey: Any = receiver.inbox
    monkey.claim = lambda *_arguments, **_options: []
    out, err = called("roovet_worker", "urls_of_a_command:files")
    assert out.startswith("Working for files")
    assert err == ""
    assert len(one_look) == 1
    assert shop


def test_a_database_that_is_down_is_waited_for(shop: Shop, one_look: list[dict[str, Any]]) -> None:
    settings = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "x"}
    with added("down", settings) as alias:
        receiver = WebhookReceiver(SECRET, endpoint="down", inbox=DjangoInbox(alias))
        receiver.on("*")(lambda _event: None)
        vars(sys.modules["urls_of_a_command"])["down"] = receiver
        receiver.inbox.claim = lambda *_arguments, **_options: []  # type: ignore[attr-defined]  # a DjangoInbox
        _, err = called("roovet_worker", "urls_of_a_command:down")
    assert "cannot be used" in err
    assert len(one_look) == 1
    assert shop


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--endpoint", "nobody", "--endpoint", "default"), "there is no receiver nobody; there is default"),
        (("nowhere:receiver",), "'nowhere:receiver' names no receiver"),
        (("urls_of_a_command:urlpatterns",), "is of the type list, not a WebhookReceiver"),
        (("urls_of_a_command:other",), "keeps its deliveries in memory"),
        (("--concurrency", "0"), "concurrency of 1 or more"),
    ],
)
def test_a_worker_that_cannot_work_says_why(shop: Shop, arguments: tuple[str, ...], told: str) -> None:  # noqa: ARG001 - it is mounted
    with pytest.raises(CommandError, match=told) as caught:
        called("roovet_worker", *arguments)
    assert caught.value.returncode == 2


def test_a_project_without_a_durable_inbox_has_no_work() -> None:
    urls = ModuleType("urls_of_nothing")
    vars(urls)["urlpatterns"] = []
    before = adapter.mounted[:]
    adapter.mounted.clear()
    with override_settings(ROOT_URLCONF=urls), pytest.raises(CommandError, match="no receiver with a durable inbox"):
        called("roovet_worker")
    adapter.mounted[:] = before


# The page about them


PAGE = "docs/how-to/deploy-with-django.md"


def test_the_worker_of_the_page_can_be_started_so() -> None:
    lines = re.findall(r"manage\.py roovet_worker(.*)$", text_of(PAGE), re.MULTILINE)
    given = [words for line in lines if (words := re.match(r"[ \w.:-]*", line)) is not None]
    assert len(given) >= 2
    for words in given:
        Command().create_parser("manage.py", "roovet_worker").parse_args(words[0].split())


def test_the_checks_of_the_page_are_those_of_the_code() -> None:
    sections = [section_of(PAGE, "The database"), text_of("docs/how-to/django.md")]
    told = {row[0].strip("`") for section in sections for row in rows_of(section, 3) if "roovet_webhooks." in row[0]}
    folder = ROOT / "roovet_webhooks" / "django"
    found = {id_ for file in folder.glob("*.py") for id_ in re.findall(r"roovet_webhooks\.[EW]\d{3}", file.read_text())}
    assert told == found


def test_the_permissions_of_the_page_are_those_of_the_model() -> None:
    told = {row[0].strip("`") for row in rows_of(section_of(PAGE, "The admin"), 2)}
    meta = tables().delivery._meta
    own = [*meta.permissions, *((f"{action}_delivery", "") for action in meta.default_permissions)]
    assert told == {f"roovet_webhooks.{name}" for name, _ in own}


@pytest.mark.skipif(not KNOWS_MODES, reason="this Django does not know the settings of the page")
def test_the_settings_of_the_page_are_safe(tmp_path: Path) -> None:
    [code] = [block.code for block in python_of(PAGE) if "DATABASES" in block.code]
    settings: dict[str, Any] = {}
    exec(code, settings)  # noqa: S102 - the page's own code is what is tested
    with added("one", {**settings["DATABASES"]["default"], "NAME": str(tmp_path / "shop.sqlite3")}) as alias:
        assert DjangoInbox(alias).fault() is None
