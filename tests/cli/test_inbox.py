"""`inbox` and `worker` on the command line, over a real SQLite file: what is shown, what is done, how it exits."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest
import sqlalchemy
from click.testing import CliRunner, Result
from support import NOW
from support.shop_processes import database
from support.worker import deliver, receiver_on, records_of, soon, states_of, written

from roovet_webhooks import ConfigurationError, Event, InboxUnavailable, MemoryInbox, WebhookReceiver, operations
from roovet_webhooks.cli.root import root
from roovet_webhooks.findings import Finding
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.records import Health, Query
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import SyncBridge, run as run_coroutine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from roovet_webhooks.worker import Worker


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WebhookReceiver:
    """Return a receiver with one delivery in each state: ready, done, dead and claimed, numbered so from 1."""
    made = receiver_on(tmp_path)
    monkeypatch.setenv("ROOVET_INBOX", f"sqlite:///{tmp_path / 'inbox.db'}")
    for number, event in enumerate(("order.created", "order.paid", "wallet.credited", "order.created"), 1):
        deliver(made, event, id=f"res_{number}")
    ended = "UPDATE roovet_delivery SET state = ?, outcome = ?, finished_at = 1, last_error = ? WHERE id = ?"
    written(made, ended, "done", "handled", None, 2)
    written(made, ended, "dead", "failed", "failed: take \x1b[31m", 3)
    written(
        made, "UPDATE roovet_delivery SET state = 'claimed', fence = 1, owner = 'o', lease_until = 9e15 WHERE id = 4"
    )
    return made


def run(*arguments: str, status: int = 0, answer: str | None = None) -> Result:
    result = CliRunner().invoke(root, ["inbox", *arguments], input=answer)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def numbers(*arguments: str) -> list[int]:
    return [line["number"] for line in lines(run("list", "--json", *arguments))]


# list


@pytest.mark.usefixtures("receiver")
def test_list_shows_the_newest_first() -> None:
    shown = run("list").stdout
    assert [row.split()[0] for row in shown.splitlines() if re.match(r" *\d", row)] == ["4", "3", "2", "1"]
    assert "\x1b" not in shown
    assert "dead (failed)" in shown


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), [4, 3, 2, 1]),
        (("--limit", "2"), [4, 3]),
        (("--state", "done", "--state", "dead"), [3, 2]),
        (("--outcome", "failed"), [3]),
        (("--event", "order.*"), [4, 2, 1]),
        (("--event", "order.paid"), [2]),
        (("--resource", "res_1"), [1]),
        (("--endpoint", "default", "--tenant", "default"), [4, 3, 2, 1]),
        (("--endpoint", "other"), []),
        (("--since", "1h"), [4, 3, 2, 1]),
        (("--until", "1h"), []),
    ],
)
def test_filters_choose(arguments: tuple[str, ...], found: list[int]) -> None:
    assert numbers(*arguments) == found


@pytest.mark.usefixtures("receiver")
def test_a_list_of_nothing_says_so() -> None:
    assert run("list", "--event", "no.such").stdout == "No deliveries match.\n"


def test_a_long_list_is_read_page_by_page(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_PAGE", 2)
    assert numbers() == [4, 3, 2, 1]
    deliver(receiver)
    assert numbers() == [5, 4, 3, 2, 1]
    assert numbers("--limit", "3") == [5, 4, 3]


@pytest.mark.usefixtures("receiver")
def test_a_time_that_is_none_is_refused() -> None:
    assert "'soon' is no time" in run("list", "--since", "soon", status=2).stderr


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("90s", NOW - 90),
        ("2h", NOW - 7200),
        ("1w", NOW - 604_800),
        (str(NOW), NOW),
        ("1762782800.5", NOW + 0.5),
        ("2025-11-10T13:53:20Z", NOW),
        ("2025-11-10T14:53:20+01:00", NOW),
        ("2025-11-10T13:53:20", NOW),
        ("2025-11-10", NOW - 50_000),
    ],
)
def test_a_time_is_read(text: str, then: float) -> None:
    assert operations.moment(text, now=NOW) == then


# show


def test_show_takes_a_number_or_an_id(receiver: WebhookReceiver) -> None:
    record = records_of(receiver)[2]
    for which in ("3", record.id):
        (told,) = lines(run("show", which, "--json"))
        assert told == json.loads(json.dumps(operations.to_dict(record)))
        shown = run("show", which).stdout
        assert "wallet.credited" in shown
        assert "failed: take \\x1b[31m" in shown
        assert re.search(r"finished at +1970-01-01 00:00:00Z", shown)


def test_show_prints_the_raw_body(receiver: WebhookReceiver) -> None:
    raw = cast("SQLInbox", receiver.inbox).body(1)
    assert run("show", "1", "--body").stdout_bytes == raw
    run("purge", "2", "--yes")
    assert run("show", "2", "--body", status=1).stderr == "Error: its body has been erased\n"


def test_show_names_the_handlers_that_succeeded(receiver: WebhookReceiver) -> None:
    written(receiver, "INSERT INTO roovet_handled VALUES (3, 1, 'book', 1)")
    assert re.search(r"succeeded +book", run("show", "3").stdout)


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("which", ["99", "dlv_00", "first", "-1", "\u0661", "9" * 30])
def test_show_says_what_is_not_there(which: str) -> None:
    assert run("show", "--", which, status=1).stderr.startswith("Error: ")


# replay and purge


def test_replay_takes_dead_ones_unless_told_otherwise(receiver: WebhookReceiver) -> None:
    assert run("replay", "--endpoint", "default").stdout == "1 replayed.\n"
    assert states_of(receiver) == ["ready", "done", "ready", "claimed"]


def test_replay_asks_before_it_repeats_effects(receiver: WebhookReceiver) -> None:
    refused = run("replay", "2", answer="n\n", status=2)
    assert "Repeat all their effects?" in refused.stderr
    assert "nothing was done" in run("replay", "2", answer="", status=2).stderr
    assert states_of(receiver)[1] == "done"
    assert run("replay", "2", answer="y\n").stdout == "1 replayed.\n"
    assert (records_of(receiver)[1].state, records_of(receiver)[1].round) == ("ready", 2)


def test_replay_asks_about_what_was_too_old(receiver: WebhookReceiver) -> None:
    written(receiver, "UPDATE roovet_delivery SET outcome = 'too_old' WHERE id = 3")
    run("replay", "3", answer="n\n", status=2)
    assert run("replay", "3", "--yes").stdout == "1 replayed.\n"


@pytest.mark.usefixtures("receiver")
def test_what_is_refused_is_named() -> None:
    result = run("replay", "1", "3", "4", "99", "3", status=1)
    assert result.stdout == "1 replayed.\n"
    assert "Refused: the inbox has no delivery 99\n" in result.stderr
    assert "Refused: 1: a delivery that is ready cannot be replayed\n" in result.stderr
    assert "Refused: 4: a delivery that is claimed cannot be replayed\n" in result.stderr
    (told,) = lines(run("replay", "1", "nobody", "--json", status=1))
    assert told["replayed"] == 0
    assert [one["number"] for one in told["refused"]] == [1]
    assert len(told["missing"]) == 1


def test_a_dry_run_changes_nothing(receiver: WebhookReceiver) -> None:
    assert run("replay", "--state", "done", "--dry-run").stdout == "1 would be replayed.\n"
    (told,) = lines(run("purge", "--event", "*", "--dry-run", "--json"))
    assert [one["number"] for one in told.pop("refused")] == [1, 4]
    assert told == {"purged": 0, "missing": [], "would_be": 2}
    assert states_of(receiver) == ["ready", "done", "dead", "claimed"]


def test_purge_erases_one_resource_and_names_what_is_open(receiver: WebhookReceiver) -> None:
    deliver(receiver, id="res_3")
    assert "What is erased can never be replayed." in run("purge", "--resource", "res_3", answer="", status=2).stderr
    result = run("purge", "--resource", "res_3", "--yes", status=1)
    assert result.stdout == "1 purged.\n"
    assert "Refused: " in result.stderr
    assert [record.purged for record in records_of(receiver)] == [False, False, True, False, False]
    assert run("replay", "3", status=1).stdout == "0 replayed.\n"
    assert "purged" in run("list", "--state", "dead").stdout


def test_many_are_gone_through_in_lots(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(receiver, count=45)
    written(receiver, "UPDATE roovet_delivery SET state = 'dead', outcome = 'failed', finished_at = 1")
    monkeypatch.setattr(operations, "_AT_ONCE", 10)
    told: list[int] = []
    inbox = cast("SQLInbox", receiver.inbox)
    step = operations.replaying(inbox, confirmed=False)
    assert operations.apply_each(inbox, range(1, 50), step, on_progress=told.append) == []
    assert told == [10, 20, 30, 40, 49]
    refused = operations.apply_each(inbox, range(1, 50), step)
    assert [one.number for one in refused] == [*range(1, 50)]
    shown = run("replay", "--state", "ready", status=1).stderr
    assert shown.endswith("and 29 more\n")


def test_a_step_that_is_refused_at_once_is_refused(receiver: WebhookReceiver) -> None:
    inbox = cast("SQLInbox", receiver.inbox)

    def step(number: int) -> None:
        inbox.replay(number).result(10)

    assert [one.number for one in operations.apply_each(inbox, [1, 3], step)] == [1]


def test_progress_is_shown_on_a_terminal(receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert "replayed" in run("replay", "3").stderr
    assert states_of(receiver)[2] == "ready"


@pytest.mark.usefixtures("receiver")
@pytest.mark.parametrize("command", ["replay", "purge"])
def test_it_has_to_be_said_which(command: str) -> None:
    assert "which deliveries?" in run(command, status=2).stderr
    assert "not both" in run(command, "1", "--state", "dead", status=2).stderr


# stats


def test_stats_count(receiver: WebhookReceiver) -> None:
    (told,) = lines(run("stats", "--json"))
    assert told["counts"] == {"ready": 1, "claimed": 1, "done": 1, "dead": 1}
    assert 0 <= told["oldest_due_seconds"] < 60
    written(receiver, "UPDATE roovet_delivery SET available_at = available_at - 7200000 WHERE id = 1")
    assert re.search(r"default +1 +1 +1 +1 +0 +2 h +0", run("stats").stdout)
    written(receiver, "DELETE FROM roovet_delivery WHERE state = 'ready'")
    assert re.search(r"default +0 +1 +1 +1 +0 +- +0", run("stats").stdout)
    assert lines(run("stats", "--json"))[0]["oldest_due_seconds"] is None
    written(receiver, "DELETE FROM roovet_delivery")
    assert run("stats").stdout == "No delivery has been recorded yet.\n"


# check


def levels(result: Result) -> dict[str, str]:
    return {line["subject"]: line["level"] for line in lines(result)}


def test_check_finds_what_is_to_be_done(receiver: WebhookReceiver) -> None:
    written(receiver, "UPDATE roovet_delivery SET available_at = 1, crashes = 1 WHERE id = 1")
    assert levels(run("check", "--json", status=1)) == {
        "store": "ok",
        "durability": "ok",
        "room": "ok",
        "clock": "ok",
        "workers of default": "error",
        "backlog of default": "warning",
        "crashes of default": "warning",
        "dead letters of default": "warning",
    }
    shown = run("check", status=1).stdout
    assert "start one: roovet-webhooks worker module:receiver, flask roovet worker or manage.py roovet_worker" in shown


def test_check_is_content_when_all_is_well(receiver: WebhookReceiver) -> None:
    written(receiver, "DELETE FROM roovet_delivery WHERE state = 'dead'")
    cast("SQLInbox", receiver.inbox).heartbeat("me", [Served("default")]).result(10)
    assert set(levels(run("check", "--json")).values()) == {"ok"}
    written(receiver, "DELETE FROM roovet_delivery")
    assert levels(run("check", "--json"))["deliveries"] == "ok"


class Sick(SQLInbox):
    def health(self) -> Health:
        return Health(store="here", schema="1", clock=time.time() - 60, full="no disk", fault="fsync is off")


def test_check_tells_of_the_store(tmp_path: Path) -> None:
    sick = Sick(f"sqlite:///{tmp_path / 'inbox.db'}")
    found = {finding.subject: finding for finding in operations.check(sick)}
    assert {name for name, finding in found.items() if finding.level != "ok"} == {"durability", "room", "clock"}
    assert "differ by 60 s" in found["clock"].message


@pytest.mark.parametrize("error", [InboxUnavailable("down"), ConfigurationError("newer")])
def test_check_tells_of_a_store_that_cannot_be_used(error: Exception, tmp_path: Path) -> None:
    class Down(SQLInbox):
        def open(self) -> None:
            raise error

    (found,) = operations.check(Down(f"sqlite:///{tmp_path / 'inbox.db'}"))
    assert (found.level, found.subject, found.message) == ("error", "store", str(error))


class FakeEngine:
    name = "fake"
    shares_transaction = False
    window = 10
    again_after = 60.0

    def __init__(self, *faults: Finding) -> None:
        self._faults = faults

    def attach(self, receiver: WebhookReceiver) -> None: ...

    def enqueue(self, connection: object, endpoint: str, numbers: object) -> None: ...

    def faults(self) -> Iterable[Finding]:
        return self._faults


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InboxUnavailable, match=f"there is no folder {tmp_path}/nowhere"):
        SQLInbox(f"sqlite:///{tmp_path}/nowhere/inbox.db").open()


def test_check_finds_a_database_that_can_only_be_read() -> None:
    with database() as url:
        SQLInbox(url).open()
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            name = engine.url.database
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        engine.dispose()
        (found,) = operations.check(SQLInbox(url))
    assert (found.level, found.subject) == ("error", "store")
    assert "read-only transaction" in found.message


def test_check_of_a_store_that_is_away_says_it_once(tmp_path: Path) -> None:
    inbox = SQLInbox(f"sqlite:///{tmp_path / 'inbox.db'}")
    inbox.open()
    inbox.close()
    (tmp_path / "inbox.db.lock").unlink()
    (tmp_path / "inbox.db.lock").mkdir()
    result = run("check", "--inbox", f"sqlite:///{tmp_path / 'inbox.db'}", status=1)
    assert result.stdout.startswith("error   store: the lock file")
    assert "correct its URL, permissions or disk" in result.stdout
    assert result.stderr == ""


def test_check_looks_at_the_engine(tmp_path: Path) -> None:
    inbox = SQLInbox(f"sqlite:///{tmp_path / 'inbox.db'}")
    well = WebhookReceiver(inbox=inbox, engine=FakeEngine())
    ill = WebhookReceiver(
        inbox=inbox, endpoint="ill", engine=FakeEngine(Finding("forgetful", "it forgets", "remind it"))
    )
    late = WebhookReceiver(
        inbox=inbox, endpoint="late", engine=FakeEngine(Finding("slow", "it is slow", level="warning"))
    )
    plain = WebhookReceiver(inbox=inbox, endpoint="plain")
    found = {finding.subject: finding for finding in operations.check(inbox, [well, ill, late, plain])}
    assert found["fake of default"].level == "ok"
    assert found["fake of ill"] == Finding("forgetful", "it forgets", "remind it", subject="fake of ill")
    assert found["fake of late"].level == "warning"
    with pytest.raises(ConfigurationError, match="engine= runs what is stored"):
        WebhookReceiver(engine=FakeEngine())


# Which inbox


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROOVET_INBOX", raising=False)
    name = f"shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from roovet_webhooks import WebhookReceiver\n"
        f"receiver = WebhookReceiver(inbox='sqlite:///{tmp_path}/inbox.db')\n"
        "receiver.on('*')(print)\n"
        "memory = WebhookReceiver()\n"
    )
    return name


def test_an_application_names_its_inbox(receiver: WebhookReceiver, module: str) -> None:
    assert numbers("--app", f"{module}:receiver") == [4, 3, 2, 1]
    assert states_of(receiver) == ["ready", "done", "dead", "claimed"]
    assert "in memory" in run("list", "--app", f"{module}:memory", status=2).stderr
    both = run("list", "--app", f"{module}:receiver", "--inbox", "sqlite:///x.db", status=2)
    assert "exclude each other" in both.stderr


def test_without_a_command_it_says_which_there_are() -> None:
    result = run(status=2)
    assert result.stderr.startswith("Usage: ")
    assert "replay" in result.stderr


def test_no_inbox_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROOVET_INBOX", raising=False)
    assert "which inbox?" in run("list", status=2).stderr
    missing = tmp_path / "missing.db"
    assert "does not exist" in run("list", "--inbox", f"sqlite:///{missing}", status=2).stderr
    assert not missing.exists()
    assert "database URL" in run("list", "--inbox", "nonsense", status=2).stderr
    with pytest.raises(ConfigurationError, match="no receiver"):
        operations.inbox_in([])
    with pytest.raises(ConfigurationError, match="2 inboxes"):
        operations.inbox_in([WebhookReceiver(inbox=MemoryInbox()), WebhookReceiver(inbox=MemoryInbox())])


def test_a_database_that_holds_no_inbox_is_left_as_it_is(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")
    before = (tmp_path / "other.db").read_bytes()
    assert (
        "there is no inbox there: none of its tables is there"
        in run("list", "--inbox", f"sqlite:///{tmp_path}/other.db", status=2).stderr
    )
    assert (tmp_path / "other.db").read_bytes() == before
    with database() as url:
        assert "there is no inbox there: none of its tables is there" in run("list", "--inbox", url, status=2).stderr
        engine = sqlalchemy.create_engine(url)
        assert sqlalchemy.inspect(engine).get_table_names() == []
        engine.dispose()


def test_a_store_that_is_away_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "inbox.db").write_bytes(b"no database" * 1000)
    result = run("list", "--inbox", f"sqlite:///{tmp_path / 'inbox.db'}", status=2)
    assert result.stderr.startswith("Error: the inbox in SQLite")
    assert "file is not a database" in result.stderr
    assert len(result.stderr.splitlines()) == 1


# worker


def test_the_worker_command_works_until_told_to_stop(
    receiver: WebhookReceiver, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Worker] = []

    def run_a_while(self: Worker) -> None:
        made.append(self)
        _run_a_while(self)

    monkeypatch.setattr("roovet_webhooks.cli.working.Worker.run", run_a_while)
    arguments = ["worker", f"{module}:receiver", "--concurrency", "3", "--grace", "2", "--poll", "0.05"]
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 0, result.output
    assert (made[0].concurrency, made[0].grace, made[0].poll) == (3, 2.0, 0.05)
    assert states_of(receiver) == ["done", "done", "dead", "claimed"]
    bad = CliRunner().invoke(root, ["worker", module])
    assert (bad.exit_code, "must be module:receiver" in bad.stderr) == (2, True)
    memory = CliRunner().invoke(root, ["worker", f"{module}:memory"])
    assert (memory.exit_code, "in memory" in memory.stderr) == (2, True)


def test_a_worker_whose_store_has_gone_ends_well(
    receiver: WebhookReceiver, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_store(_self: Worker) -> None:
        cast("SQLInbox", receiver.inbox).close()
        (tmp_path / "inbox.db.lock").unlink()
        (tmp_path / "inbox.db.lock").mkdir()

    monkeypatch.setattr("roovet_webhooks.cli.working.Worker.run", lose_the_store)
    result = CliRunner().invoke(root, ["worker", f"{module}:receiver"])
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.usefixtures("receiver")
def test_the_worker_command_logs_where_nobody_has_set_up_logging(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[dict[str, object]] = []
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "basicConfig", lambda **options: configured.append(options))
    monkeypatch.setattr("roovet_webhooks.cli.working.Worker.run", lambda _self: None)
    for level in ("warning", "info"):
        assert CliRunner().invoke(root, ["worker", f"{module}:receiver", "--log-level", level]).exit_code == 0
    assert [options["level"] for options in configured] == ["WARNING", "INFO"]


def _run_a_while(worker: Worker) -> None:
    inbox = cast("SQLInbox", worker.receivers[0].inbox)
    open_ = Query(states=frozenset({State.READY, State.CLAIMED}))

    async def main() -> None:
        task = asyncio.create_task(worker.serve())
        await soon(lambda: all(record.owner == "o" for record in inbox.find(open_)))
        worker.stop()
        await task

    asyncio.run(main())


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(root, ["inbox", "--help"]).stdout
    assert all(name in shown for name in ("check", "list", "purge", "replay", "show", "stats"))


# Attempts


def test_show_has_what_every_attempt_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = receiver_on(tmp_path)
    monkeypatch.setenv("ROOVET_INBOX", f"sqlite:///{tmp_path / 'inbox.db'}")

    @receiver.on("order.paid", name="book")
    def book(_event: Event) -> None:
        message = "no such account\x1b[31m"
        raise ValueError(message)

    deliver(receiver, "order.paid")
    inbox = receiver.durable_inbox
    [claimed] = operations.waited(inbox, inbox.claim("default", limit=1))
    run_coroutine(receiver.handle(claimed, bridge=SyncBridge()))
    shown = run("show", "1").stdout
    assert re.search(r"attempt 1 .* failed after 0\.\d+ s", shown)
    assert re.search(r"  book  failed after 0\.\d+ s  ValueError: no such account\\x1b\[31m\n", shown)
    assert f"{__file__}:" in shown
    assert "in book: raise ValueError(message)" in shown
    [told] = lines(run("show", "1", "--json"))
    [attempt] = told["history"]
    assert (attempt["number"], attempt["outcome"], attempt["dead"], attempt["reason"]) == (1, "failed", False, None)
    assert ("book", "failed") in [(ran["handler"], ran["outcome"]) for ran in attempt["runs"]]
    written(receiver, "UPDATE roovet_delivery SET available_at = 0")
    [claimed] = operations.waited(inbox, inbox.claim("default", limit=1))
    operations.waited(inbox, inbox.bury(claimed.claim, "nobody wants it", Outcome.FAILED))
    assert re.search(r"attempt 2 .* failed, dead .*\n  nobody wants it", run("show", "1").stdout)


@pytest.mark.usefixtures("receiver")
def test_a_narrow_terminal_gets_no_ribbons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roovet_webhooks.cli.inbox._WIDE", 60)
    shown = run("list").stdout
    assert re.search(
        r"^3  \S+ \S+  dead \(failed\)\n  wallet.credited  res_3\n  0 runs; failed: take", shown, re.MULTILINE
    )
    assert run("list", "--event", "no.such").stdout == "No deliveries match.\n"


# Tombstones


def test_a_tombstone_is_nothing_to_do(receiver: WebhookReceiver) -> None:
    assert run("purge", "--state", "dead", "--yes").stdout == "1 purged.\n"
    subjects = [told["subject"] for told in lines(run("check", "--json", status=1))]
    assert "dead letters of default" not in subjects
    assert run("replay", "--state", "dead", "--dry-run").stdout == "0 would be replayed.\n"
    assert run("purge", "--state", "dead", "--dry-run").stdout == "0 would be purged.\n"
    assert "its body has been erased" in run("replay", "3", "--dry-run").stderr
    [told] = lines(run("stats", "--json"))
    assert (told["counts"]["dead"], told["dead_letters"]) == (1, 0)
    assert states_of(receiver)[2] == "dead"


def test_a_short_h_helps_everywhere() -> None:
    for command in ((), ("list",), ("purge",)):
        assert run(*command, "-h").stdout.startswith("Usage: ")


# The log of a worker


def make_logging_bare(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """Have logging as a process finds it that has not set it up. Not a fixture: pytest adds handlers before a test."""
    root_logger = logging.getLogger()
    monkeypatch.setattr(root_logger, "handlers", [])
    monkeypatch.setattr(root_logger, "level", logging.WARNING)
    monkeypatch.setattr(logging.getLogger("roovet_webhooks"), "handlers", [])
    return root_logger


def test_the_log_of_a_worker_has_times_and_leaves_out_what_has_a_handler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_logging = make_logging_bare(monkeypatch)
    operations.log_to_stderr("info", but="django")
    assert bare_logging.level == logging.INFO
    logging.getLogger("shop").info("booked")
    logging.getLogger("django.server").warning("written already")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO booked\n", capsys.readouterr().err)


def test_logging_that_has_been_set_up_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bare_logging = make_logging_bare(monkeypatch)
    mine = logging.NullHandler()
    bare_logging.addHandler(mine)
    operations.log_to_stderr("debug")
    assert (bare_logging.handlers, bare_logging.level) == ([mine], logging.WARNING)
