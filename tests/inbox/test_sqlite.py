"""The file: what can be wrong with it, with its disk and with its lock, and what becomes of it over a fork."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import event

from inbox.worlds import Gate, SQLiteWorld, claimed, given, record_of, run_in_transaction, take
from roovet_webhooks import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox import filesystem
from roovet_webhooks.inbox.protocol import Stored, Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox, sqlite as store
from roovet_webhooks.inbox.sql.schema import VERSION
from roovet_webhooks.inbox.sql.store import translated
from roovet_webhooks.inbox.states import Outcome
from roovet_webhooks.inbox.write_lock import FileLock, WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld

NEW, DUPLICATE = Stored(Verdict.NEW), Stored(Verdict.DUPLICATE)
NOBODY = 65534


@contextmanager
def as_nobody() -> Generator[None]:
    """Be a user who may only do what a file's mode lets everybody do."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that other users can enter, as those of pytest cannot be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a lock no longer than a test can."""
    monkeypatch.setattr(store, "WAIT", 0.2)


class TestWhereItLies:
    @pytest.mark.parametrize(
        "url",
        [
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite:///file:x?mode=memory&uri=true",
            "sqlite:///file::memory:?cache=shared",
        ],
    )
    def test_in_memory_nothing_would_last(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="an inbox in SQLite needs a file: sqlite:///roovet"):
            SQLInbox(url)

    def test_a_relative_path_stays_what_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        inbox = SQLInbox("sqlite:///roovet.db")
        monkeypatch.chdir("/")
        inbox.open()
        inbox.close()
        assert (tmp_path / "roovet.db").exists()
        assert repr(inbox) == f"SQLInbox(SQLite ({os.path.realpath(tmp_path)}/roovet.db))"

    def test_an_engine_and_a_uri_name_the_same_file(self, sqlite: SQLiteWorld) -> None:
        delivery = sqlite.delivery()
        given(sqlite.process().store(delivery, claim=False))
        engine = sqlalchemy.create_engine(sqlite.url())
        for where in (engine, f"sqlite:///file:{sqlite.path}?uri=true", sqlalchemy.make_url(sqlite.url())):
            assert given(sqlite.process(where=where).store(delivery, claim=False)) == DUPLICATE
        engine.dispose()

    def test_the_applications_engine_says_how_a_connection_is_set_up(self, sqlite: SQLiteWorld) -> None:
        engine = sqlalchemy.create_engine(sqlite.url())

        @event.listens_for(engine, "connect")
        def _set_up(driver: sqlite3.Connection, _record: object) -> None:
            driver.execute("PRAGMA foreign_keys=ON")
            driver.execute("PRAGMA synchronous=OFF")

        inbox = sqlite.process(where=engine)
        sqlite.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY)")
        sqlite.execute("CREATE TABLE purchase (customer INTEGER REFERENCES customer (id))")
        claim = claimed(inbox, sqlite.delivery())
        levels: list[object] = []

        def work(connection: Connection) -> None:
            levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
            connection.exec_driver_sql("INSERT INTO purchase VALUES (1)")

        with pytest.raises(sqlalchemy.exc.IntegrityError, match="FOREIGN KEY"):
            run_in_transaction(inbox, claim, work)
        assert levels == [2]  # FULL: what was acknowledged is on disk, whatever the application does with its own
        engine.dispose()

    def test_a_folder_that_comes_later(self, sqlite: SQLiteWorld) -> None:
        folder = sqlite.folder / "later"
        inbox = sqlite.process(where=f"sqlite:///{folder}/roovet.db")
        with pytest.raises(InboxUnavailable, match=r"cannot be used|there is no folder"):
            given(inbox.store(sqlite.delivery(), claim=False))
        folder.mkdir()
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW

    def test_a_folder_in_its_place(self, sqlite: SQLiteWorld) -> None:
        (sqlite.folder / "folder.db").mkdir()
        with pytest.raises(InboxUnavailable, match="unable to open database file"):
            sqlite.process(where=f"sqlite:///{sqlite.folder}/folder.db").open()

    def test_another_file_in_its_place(self, sqlite: SQLiteWorld) -> None:
        (sqlite.folder / "letter.db").write_text("Dear Sir or Madam, " * 100)
        inbox = sqlite.process(where=f"sqlite:///{sqlite.folder}/letter.db")
        with pytest.raises(InboxUnavailable, match="file is not a database"):
            inbox.open()
        with pytest.raises(InboxUnavailable, match="file is not a database"):
            inbox.find(Query())
        assert (sqlite.folder / "letter.db").read_text().startswith("Dear Sir")

    def test_a_log_that_cannot_be_written_ahead(self, sqlite: SQLiteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        # As some file systems have it: the journal stays what it was.
        class Driver:
            def execute(self, _statement: str) -> Any:  # noqa: ANN401 - a cursor
                return self

            def fetchone(self) -> tuple[str]:
                return ("delete",)

        monkeypatch.setattr(store, "_driver", lambda _connection: Driver())
        with pytest.raises(ConfigurationError, match=r"cannot use a write-ahead log .journal_mode is 'delete'."):
            sqlite.process().open()

    @pytest.mark.parametrize(
        "kind",
        [
            *("nfs4", "cifs", "9p", "afs", "lustre", "gpfs", "ceph", "virtiofs", "vboxsf"),
            *("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph"),
        ],
    )
    def test_a_network_file_system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(
            f"/dev/sda1 / ext4 rw 0 0\nserver:/export /mnt/share\\040d {kind} rw 0 0\n"
            "tmpfs /mnt/share\\040d/local tmpfs rw 0 0\nproc /proc proc rw 0 0\n"
        )
        seen = filesystem.file_system

        def file_system(path: str) -> str | None:
            return seen(path, str(mounts))

        monkeypatch.setattr(filesystem, "file_system", file_system)
        with pytest.raises(ConfigurationError, match=rf"would lie on a network file system .{kind}., whose locks"):
            SQLInbox("sqlite:////mnt/share d/roovet.db")
        for path in ("/mnt/share d/local/roovet.db", "/mnt/share/roovet.db", "/roovet.db"):
            SQLInbox(f"sqlite:///{path}")

    def test_a_kernel_that_does_not_tell(self, tmp_path: Path) -> None:
        assert filesystem.file_system("/x", str(tmp_path / "none")) is None
        (tmp_path / "empty").write_text("")
        assert filesystem.file_system("/x", str(tmp_path / "empty")) is None

    @pytest.mark.parametrize("where", ["mysql://x@y/z", "oracle://x@y/z"])
    def test_a_database_that_is_not_ours(self, where: str) -> None:
        with pytest.raises(ConfigurationError, match=r"an inbox lives in SQLite or PostgreSQL|must be a database URL"):
            SQLInbox(where)


class TestMode:
    """Who may not write cannot promise anything."""

    def test_a_read_only_file(self, open_folder: Path, sqlite: SQLiteWorld) -> None:
        where = f"sqlite:///{open_folder}/roovet.db"
        sqlite.process(where=where).close()
        first = sqlite.process(where=where)
        first.open()
        first.close()
        open_folder.chmod(0o777)
        for name in ("roovet.db", "roovet.db.lock"):
            (open_folder / name).chmod(0o444 if name == "roovet.db" else 0o666)
        inbox = sqlite.process(where=where)
        with as_nobody():
            # Found when it is opened, and so before a server takes its first request.
            with pytest.raises(InboxUnavailable, match="attempt to write a readonly database"):
                inbox.open()
            for _ in range(2):
                with pytest.raises(InboxUnavailable, match="attempt to write a readonly database"):
                    given(inbox.store(sqlite.delivery(), claim=False))
        for path in open_folder.iterdir():
            path.chmod(0o666)
        with as_nobody():
            assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
            inbox.close()

    def test_a_read_only_folder(self, open_folder: Path, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process(where=f"sqlite:///{open_folder}/roovet.db")
        with as_nobody(), pytest.raises(InboxUnavailable, match=r"roovet.db.lock cannot be used: Permission denied"):
            given(inbox.store(sqlite.delivery(), claim=False))
        open_folder.chmod(0o777)
        with as_nobody():
            assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
            inbox.close()


def test_a_connection_that_was_closed_beneath_it_is_made_anew(sqlite: SQLiteWorld) -> None:
    inbox = sqlite.process()
    inbox.open()
    inbox._store._connection.connection.driver_connection.close()
    assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW


def test_one_that_cannot_even_roll_back_is_made_anew(sqlite: SQLiteWorld) -> None:
    inbox = sqlite.process()
    inbox.open()
    first = inbox._store._connection

    def fail(_connection: object) -> None:
        message = "disk I/O error"
        raise sqlalchemy.exc.OperationalError(message, None, sqlite3.OperationalError(message))

    event.listen(first, "rollback", fail)
    with pytest.raises(ZeroDivisionError):
        given(inbox._run(lambda _connection, _now: 1 // 0))
    assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
    assert inbox._store._connection is not first


def test_an_error_that_comes_before_sqlalchemy_has_the_connection() -> None:
    with pytest.raises(InboxUnavailable, match="SQLite cannot be used: disk I/O error"), translated("SQLite"):
        raise sqlite3.OperationalError("disk I/O error")  # noqa: EM101, TRY003 - SQLite's own


@pytest.mark.usefixtures("hasty")
def test_a_file_that_another_holds_before_it_has_a_log(sqlite: SQLiteWorld, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE customer (name TEXT)")
        inbox = sqlite.process(where=f"sqlite:///{path}")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InboxUnavailable, match="database is locked"):
            given(inbox.store(sqlite.delivery(), claim=False))
        other.execute("COMMIT")
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW


def test_what_is_missing_of_an_inbox(sqlite: SQLiteWorld, tmp_path: Path) -> None:
    assert sqlite.process().missing() is None
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")
    assert SQLInbox(f"sqlite:///{other}").missing() == "none of its tables is there"
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database " * 500)
    assert SQLInbox(f"sqlite:///{damaged}").missing() is None  # it cannot be asked, and says so when it is used
    assert SQLInbox(f"sqlite:///{tmp_path}/none.db").missing() == f"the file {tmp_path}/none.db does not exist"


class TestDisk:
    def test_a_full_one(self, sqlite: SQLiteWorld) -> None:
        # SQLite counts pages as a disk counts blocks, and says the same when there is no more: SQLITE_FULL.
        inbox = sqlite.process()
        known = sqlite.delivery()
        given(inbox.store(known, claim=False))
        most: list[int] = [0]

        def limit(connection: sqlite3.Connection, _record: object) -> None:
            if most[0]:
                connection.execute(f"PRAGMA max_page_count = {most[0]}")

        event.listen(inbox._store._engine, "connect", limit)
        most[0] = 1  # SQLite takes the number of pages that there are
        inbox._store._disconnect()
        fat = msgspec.structs.replace(sqlite.delivery(), raw=known.raw + b" " * 100_000)
        for _ in range(2):
            with pytest.raises(InboxUnavailable, match="database or disk is full"):
                given(inbox.store(fat, claim=False))
            assert given(inbox.store(known, claim=False)) == DUPLICATE
        most[0] = 10**6
        inbox._store._disconnect()
        assert given(inbox.store(fat, claim=False)) == NEW

    def test_a_full_one_in_a_batch(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        given(inbox.store(sqlite.delivery(), claim=False))
        event.listen(
            inbox._store._engine, "connect", lambda made, _: made.execute("PRAGMA max_page_count = 1") and None
        )
        inbox._store._disconnect()
        deliveries = [sqlite.delivery("x" * 200, note=number) for number in range(400)]
        answers = [inbox.store(delivery, claim=False) for delivery in deliveries]
        stored = refused = 0
        for delivery, answer in zip(deliveries, answers, strict=True):
            try:
                given(answer)
            except InboxUnavailable:
                refused += 1
            else:
                stored += 1
                assert record_of(inbox, delivery).id == delivery.id
        assert refused
        assert stored + refused == 400
        assert len(inbox.find(Query(limit=1000))) == stored + 1

    def test_a_copy_that_shares_a_batch_with_what_does_not_fit(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        known, running = sqlite.delivery(), sqlite.delivery()
        given(inbox.store(known, claim=False))
        given(inbox.store(running, claim=True))
        event.listen(
            inbox._store._engine, "connect", lambda made, _: made.execute("PRAGMA max_page_count = 1") and None
        )
        inbox._store._disconnect()
        fat = msgspec.structs.replace(sqlite.delivery(), raw=known.raw + b" " * 100_000)
        with Gate(inbox):
            answers = [inbox.store(one, claim=False) for one in (fat, known, running)]
            at_once = [inbox.store(one, claim=True) for one in (fat, known, running)]
        assert [given(answer) for answer in answers[1:]] == [DUPLICATE] * 2
        assert given(at_once[2]) == Stored(Verdict.IN_FLIGHT)
        # Whoever sends what is ready wants it handled now, and that takes a write.
        for answer in (answers[0], at_once[0], at_once[1]):
            with pytest.raises(InboxUnavailable, match="database or disk is full"):
                given(answer)

    def test_a_disk_that_fails(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        given(inbox.store(sqlite.delivery(), claim=False))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        fat = msgspec.structs.replace(sqlite.delivery(), raw=b" " * 3_000_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # what is longer cannot be written: EFBIG
        try:
            with pytest.raises(InboxUnavailable, match=r"disk I/O error|disk is full"):
                given(inbox.store(fat, claim=False))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert given(inbox.store(fat, claim=False)) == NEW

    def test_a_handler_that_catches_it_loses_nothing(self, sqlite: SQLiteWorld) -> None:
        # A full disk makes SQLite roll back the whole transaction, and what comes next would commit itself.
        inbox = sqlite.process()
        delivery = sqlite.delivery()
        claim = claimed(inbox, delivery)

        def work(connection: Any) -> None:  # noqa: ANN401 - a Connection
            sqlite.book(connection, "before")
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
            with suppress(sqlalchemy.exc.OperationalError):
                sqlite.book(connection, "x" * 1_000_000)
            sqlite.book(connection, "after")

        with pytest.raises(ConfigurationError, match="is over before its end"):
            run_in_transaction(inbox, claim, work)
        assert (sqlite.booked(), record_of(inbox, delivery).succeeded) == ([], ())
        run_in_transaction(inbox, claim, lambda connection: sqlite.book(connection, "at last"))
        assert sqlite.booked() == ["at last"]


@pytest.mark.usefixtures("hasty")
class TestLocked:
    def check(self, sqlite: SQLiteWorld, inbox: Any, fault: str) -> None:  # noqa: ANN401 - a SQLInbox
        operations: list[Callable[[], object]] = [
            lambda: given(inbox.store(sqlite.delivery(), claim=False)),
            inbox.open,
            lambda: inbox.find(Query()),
            inbox.stats,
        ]
        for operation in operations:
            with pytest.raises(InboxUnavailable, match=fault):
                operation()

    def test_by_a_connection_that_is_not_ours(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()
        with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.check(sqlite, inbox, "database is locked")
            other.execute("ROLLBACK")
            assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW

    def test_by_another_process(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()
        lock = FileLock(f"{sqlite.path}.lock")
        lock.take(1)
        self.check(sqlite, inbox, r"another process has been writing to the inbox for 0.2 s")
        lock.release()
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
        lock.close()

    def test_while_it_closes(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()
        lock = FileLock(f"{sqlite.path}.lock")
        lock.take(1)
        with pytest.raises(InboxUnavailable):
            inbox.close()
        lock.release()
        inbox.close()
        lock.close()

    def test_by_a_transaction_of_its_own(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox._store.limit = 30
        claim = claimed(inbox, sqlite.delivery())
        with inbox.transaction(claim, "book") as connection:
            sqlite.book(connection, "once")
            self.check(sqlite, inbox, r"a transaction has kept the inbox for 0.4 s")
        assert sqlite.booked() == ["once"]

    def test_a_short_wait_is_none(self, sqlite: SQLiteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "WAIT", 20)
        inbox = sqlite.process()
        inbox.open()
        lock = FileLock(f"{sqlite.path}.lock")
        lock.take(1)
        threading.Timer(0.2, lock.release).start()
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
        lock.close()


class TestReplacedFiles:
    def test_one_that_was_deleted_is_made_anew(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        before, after = sqlite.delivery(), sqlite.delivery()
        given(inbox.store(before, claim=False))
        for path in sqlite.folder.glob("roovet.db*"):
            path.unlink()
        assert given(inbox.store(after, claim=False)) == NEW
        assert [record.id for record in sqlite.process().find(Query())] == [after.id]
        assert given(inbox.store(before, claim=False)) == NEW

    def test_one_that_was_replaced_is_written_to(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        given(inbox.store(sqlite.delivery(), claim=False))
        elsewhere = sqlite.folder / "elsewhere"
        elsewhere.mkdir()
        other = sqlite.process(where=f"sqlite:///{elsewhere}/roovet.db")
        theirs = sqlite.delivery()
        given(other.store(theirs, claim=False))
        other.close()
        for path in sqlite.folder.glob("roovet.db-*"):
            path.unlink()
        (elsewhere / "roovet.db").replace(sqlite.path)
        mine = sqlite.delivery()
        assert given(inbox.store(mine, claim=False)) == NEW
        assert [record.id for record in inbox.find(Query())] == [mine.id, theirs.id]

    def test_without_its_lock_file_processes_still_take_turns(
        self, sqlite: SQLiteWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "WAIT", 0.2)
        inbox = sqlite.process()
        inbox.open()
        Path(f"{sqlite.path}.lock").unlink()
        other = WriteLock(f"{sqlite.path}.lock", 0.2)
        turn = other.take()
        with pytest.raises(InboxUnavailable, match="another process has been writing"):
            given(inbox.store(sqlite.delivery(), claim=False))
        turn.give_back()
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW
        other.close()


class TestDamage:
    """Bytes of the file that are not what SQLite wrote there."""

    def pages_of(self, sqlite: SQLiteWorld, name: str | None) -> list[int]:
        """Return the numbers of the pages that hold a table or an index; all but the first when it has no name."""
        if name is None:
            [(count,)] = sqlite.query("PRAGMA page_count")
            return list(range(2, count + 1))
        found = sqlite.query("SELECT pageno FROM dbstat WHERE name = :name", name=name)
        return [page for (page,) in found]

    @pytest.mark.parametrize(
        ("part", "fault"),
        [
            ("header", "file is not a database"),
            (None, "database disk image is malformed"),
            ("roovet_delivery", "database disk image is malformed"),
            ("sqlite_autoindex_roovet_delivery_1", "database disk image is malformed"),
        ],
        ids=["the header", "all but the first page", "the table", "the index of identities"],
    )
    def test_nothing_is_accepted_until_it_is_restored(self, sqlite: SQLiteWorld, part: str | None, fault: str) -> None:
        before = sqlite.process()
        known = [sqlite.delivery() for _ in range(200)]
        for answer in [before.store(delivery, claim=False) for delivery in known]:
            given(answer)
        before.close()  # all of it is in the file now, and nothing in the log
        good = sqlite.path.read_bytes()
        damaged = bytearray(good)
        if part == "header":
            damaged[:100] = b"\xa5" * 100
        else:
            size = int.from_bytes(good[16:18], "big")
            for page in self.pages_of(sqlite, part):
                damaged[size * (page - 1) : size * page] = b"\xa5" * size
        for leftover in sqlite.folder.glob("roovet.db-*"):
            leftover.unlink()
        sqlite.path.write_bytes(damaged)

        inbox = sqlite.process()
        new = sqlite.delivery()
        message = rf"the inbox in SQLite \(.*roovet\.db\) cannot be used: {fault}"
        for claim in (False, True, False):
            with pytest.raises(InboxUnavailable, match=message):
                given(inbox.store(new, claim=claim))
        assert sqlite.path.read_bytes()[: len(damaged)] == damaged, "what could be rescued was overwritten"

        for leftover in sqlite.folder.glob("roovet.db-*"):
            leftover.unlink()
        restored = sqlite.folder / "restored.db"
        restored.write_bytes(good)
        restored.replace(sqlite.path)
        assert given(inbox.store(new, claim=False)) == NEW
        assert given(inbox.store(known[0], claim=False)) == DUPLICATE
        assert len(inbox.find(Query(limit=1000))) == 201


def started(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)], stderr=subprocess.PIPE
    )


def ended(processes: list[subprocess.Popen[bytes]]) -> list[str]:
    """Wait for processes, and return what they complained of."""
    complaints: list[str] = []
    for process in processes:
        _, errors = process.communicate(timeout=90)
        if process.returncode or errors:
            complaints.append(f"{process.returncode}: {errors.decode()}")
    return complaints


@pytest.mark.long
def test_eight_processes_make_the_tables_at_once(empty: SQLWorld) -> None:
    children: list[int] = []
    start = time.monotonic() + 0.3
    for _ in range(8):
        pid = os.fork()
        if pid == 0:  # pragma: no cover - in a process that coverage does not see
            status = 1
            try:
                inbox: Any = empty.make()
                time.sleep(max(0, start - time.monotonic()))
                inbox.open()
                given(inbox.store(empty.delivery("the same"), claim=False))
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
    assert empty.query("SELECT name, value FROM roovet_meta ORDER BY name") == [
        ("min_compatible", "1"),
        ("version", str(VERSION)),
    ]
    assert empty.query("SELECT count(*) FROM roovet_delivery") == [(1,)]


STORE = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from inbox.worlds import SQLiteWorld, given
world = SQLiteWorld.__new__(SQLiteWorld)
world.wall = time.time()
from roovet_webhooks.inbox.sql import SQLInbox
inbox = SQLInbox(sys.argv[1])
for number in range(15):
    answers = [inbox.store(world.delivery(f"{sys.argv[2]}-{number}-{place}"), claim=False) for place in range(10)]
    assert [given(answer).verdict for answer in answers] == ["new"] * 10
inbox.close()
"""


@pytest.mark.long
def test_several_processes_write_at_once(sqlite: SQLiteWorld) -> None:
    tests = str(Path(__file__).parent.parent)
    assert ended([started(STORE, sqlite.url(), name, tests) for name in range(3)]) == []
    assert len(sqlite.process().find(Query(limit=1000))) == 450


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked child; return its exit status."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in a process that coverage does not see
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


class TestFork:
    """Threads, connections and locks stay with the process that made them."""

    def test_child_and_parent_go_on(self, database: SQLWorld) -> None:
        inbox = database.process()
        before, mine, theirs = (database.delivery() for _ in range(3))
        given(inbox.store(before, claim=False))

        def work() -> None:
            assert given(inbox.store(before, claim=False)) == DUPLICATE
            assert given(inbox.store(theirs, claim=False)) == NEW
            assert len(take(inbox, limit=1)) == 1
            inbox.close()

        assert in_child(work) == 0
        assert given(inbox.store(mine, claim=False)) == NEW
        assert {record.id for record in inbox.find(Query())} == {before.id, mine.id, theirs.id}
        owners = {record.owner for record in inbox.find(Query()) if record.owner}
        assert owners
        assert inbox.owner not in owners

    @pytest.mark.parametrize(
        "act",
        [
            *("store", "claim", "close"),
            *(
                pytest.param(act, marks=pytest.mark.long)
                for act in ("renew", "reap", "transaction", "get", "find", "stats", "body", "number_of", "health")
            ),
        ],
    )
    def test_whatever_a_child_does_first(self, database: Any, act: str) -> None:  # noqa: ANN401 - a SQLWorld
        inbox = database.process()
        delivery, due, new = (database.delivery() for _ in range(3))
        claim = claimed(inbox, delivery)
        given(inbox.store(due, claim=False))
        parents = inbox._committer

        def store() -> None:
            assert given(inbox.store(new, claim=False)) == NEW

        def claim_what_is_due() -> None:
            assert [one.delivery.id for one in take(inbox)] == [due.id]

        acts: dict[str, Callable[[], object]] = {
            "store": store,
            "claim": claim_what_is_due,
            "renew": lambda: inbox.renew([claim]),
            "reap": inbox.reap_now,
            "close": inbox.close,
            "get": lambda: inbox.get(claim.number),
            "find": lambda: inbox.find(Query()),
            "stats": inbox.stats,
            "body": lambda: inbox.body(claim.number),
            "number_of": lambda: inbox.number_of(delivery.id),
            "health": inbox.health,
            "transaction": lambda: run_in_transaction(inbox, claim, lambda made: database.book(made, "child")),
        }

        def work() -> None:
            acts[act]()
            assert inbox._committer is not parents, "the child looked through its parent's connection"
            inbox.close()
            with pytest.raises(InboxUnavailable, match="the inbox has been closed"):
                given(inbox.store(new, claim=False))

        assert in_child(work) == 0
        # The parent's inbox is as open as it was, and knows what the child did.
        assert given(inbox.store(new, claim=False)) == (DUPLICATE if act == "store" else NEW)
        assert (record_of(inbox, due).owner is not None) == (act == "claim")
        assert record_of(inbox, due).owner != inbox.owner
        given(inbox.complete(claim, Outcome.HANDLED))
        assert database.booked() == (["child"] if act == "transaction" else [])

    def test_two_inboxes_of_one_file(self, sqlite: SQLiteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store, "WAIT", 50)  # whoever waits for a lock takes longer than a busy machine does
        one, two = sqlite.process(), sqlite.process()

        def work(who: str) -> None:
            for place, inbox in enumerate((one, two)):
                assert given(inbox.store(sqlite.delivery(f"{who}-{place}"), claim=False)) == NEW

        for number in range(2):
            work(f"parent-{number}")
            started = time.monotonic()
            assert in_child(lambda number=number: work(f"child-{number}")) == 0  # type: ignore[misc]
            assert time.monotonic() - started < 40, "one has waited for the other's lock"
        assert len(one.find(Query())) == 8

    def test_a_fork_inside_of_a_transaction(self, sqlite: SQLiteWorld) -> None:
        # A handler that starts processes: they can do anything but use the inbox.
        inbox = sqlite.process()
        claim = claimed(inbox, sqlite.delivery())
        refused = "this process was forked while its parent had the inbox's file open"

        def work() -> None:
            with pytest.raises(ConfigurationError, match=refused):
                given(inbox.store(sqlite.delivery(), claim=False))
            with pytest.raises(ConfigurationError, match=refused):
                inbox.stats()

        with inbox.transaction(claim, "book") as connection:
            sqlite.book(connection, "before")
            assert in_child(work) == 0
            sqlite.book(connection, "after")
        assert sqlite.booked() == ["after", "before"]

    def test_a_fork_while_somebody_looks(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        given(inbox.store(sqlite.delivery(), claim=False))
        with inbox._store.read():

            def work() -> None:
                with pytest.raises(ConfigurationError, match="this process was forked while"):
                    inbox.stats()

            assert in_child(work) == 0
        assert len(inbox.stats()) == 1

    @pytest.mark.usefixtures("hasty")
    def test_a_fork_while_another_process_writes(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()
        lock = FileLock(f"{sqlite.path}.lock")
        lock.take(1)

        def work() -> None:
            with pytest.raises(ConfigurationError, match="this process was forked while"):
                inbox.stats()

        assert in_child(work) == 0
        lock.release()
        lock.close()
        given(inbox.store(sqlite.delivery(), claim=False))

    def test_a_child_that_outlives_its_parents_inbox_loses_nothing(self, sqlite: SQLiteWorld) -> None:
        # The parent's last close would take the log away from under a child that believes in inherited locks.
        inbox = sqlite.process()
        inbox.open()
        go_on, stored = os.pipe(), os.pipe()

        def work() -> None:
            given(inbox.store(sqlite.delivery("child-1"), claim=False))
            os.write(stored[1], b"1")
            os.read(go_on[0], 1)
            given(inbox.store(sqlite.delivery("child-2"), claim=False))

        pid = os.fork()
        if pid == 0:  # pragma: no cover - in a process that coverage does not see
            try:
                work()
            finally:
                os._exit(0)
        os.read(stored[0], 1)
        inbox.close()
        other = sqlite.process()
        given(other.store(sqlite.delivery("other"), claim=False))
        other.close()
        os.write(go_on[1], b"1")
        os.waitpid(pid, 0)
        for end in (*go_on, *stored):
            os.close(end)
        found = {record.resource for record in sqlite.process().find(Query())}
        assert found == {"child-1", "other", "child-2"}

    def test_a_child_that_outlives_a_killed_parent_holds_no_lock_of_its(self, sqlite: SQLiteWorld) -> None:
        # A lock of the kernel's belongs to the open file, which a child shares with its parent.
        parent = f"""
import os, sys, time
from roovet_webhooks.inbox.sql import SQLInbox
inbox = SQLInbox({sqlite.url()!r})
inbox.open()
with inbox._store.write():
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("ready", flush=True)
    time.sleep(60)
"""
        process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.kill()
            process.wait(30)
            assert given(sqlite.process().store(sqlite.delivery(), claim=False)) == NEW
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    @pytest.mark.long
    def test_forks_under_load(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()
        stop = threading.Event()
        stored: list[Any] = []

        def load() -> None:
            while not stop.is_set():
                delivery = sqlite.delivery()
                if given(inbox.store(delivery, claim=False)) == NEW:
                    stored.append(delivery.id)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            for number in range(12):
                if number % 2:
                    child = sqlite.delivery(f"child-{number}")
                    assert in_child(lambda child=child: given(inbox.store(child, claim=False))) == 0  # type: ignore[misc]
                else:
                    assert in_child(lambda: None) == 0
        finally:
            stop.set()
            thread.join(30)
        records = {record.id for record in inbox.find(Query(limit=100_000))}
        assert set(stored) <= records
        assert len(records) >= len(stored) + 6

    def test_many_threads_of_a_child_share_one_committer(self, sqlite: SQLiteWorld) -> None:
        inbox = sqlite.process()
        inbox.open()

        def work() -> None:
            barrier = threading.Barrier(8)
            seen: set[int] = set()

            def store() -> None:
                barrier.wait()
                given(inbox.store(sqlite.delivery(), claim=False))
                seen.add(id(inbox._committer))

            threads = [threading.Thread(target=store) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(seen) == 1
            assert sum(thread.name == "roovet-webhooks-inbox" for thread in threading.enumerate()) == 1

        assert in_child(work) == 0


class TestLockFile:
    def test_one_that_cannot_be_made(self, tmp_path: Path) -> None:
        lock = FileLock(str(tmp_path / "none" / "x.lock"))
        with pytest.raises(InboxUnavailable, match=f"cannot be used: there is no folder {tmp_path}/none"):
            lock.take(1)
        lock.release()
        lock.close()
        (tmp_path / "folder").mkdir()
        with pytest.raises(InboxUnavailable, match="cannot be used: Is a directory"):
            FileLock(str(tmp_path / "folder")).take(1)

    def test_it_is_exclusive(self, tmp_path: Path) -> None:
        one, two = (FileLock(str(tmp_path / "x.lock")) for _ in range(2))
        one.take(1)
        with pytest.raises(InboxUnavailable, match=r"another process has been writing to the inbox for 0.05 s"):
            two.take(0.05)
        one.release()
        two.take(1)
        one.close()
        two.close()

    def test_a_turn_is_given_back_once(self, tmp_path: Path) -> None:
        write_lock = WriteLock(str(tmp_path / "x.lock"), 0.05)
        turn = write_lock.take()
        assert not turn.is_over
        with pytest.raises(InboxUnavailable, match=r"a transaction has kept the inbox for 0.1 s"):
            write_lock.take()
        turn.give_back()
        assert turn.is_over
        second = write_lock.take()
        turn.give_back()
        with pytest.raises(InboxUnavailable):
            write_lock.take()
        second.give_back()
        write_lock.close()


def test_the_committer_sees_whether_its_transaction_held() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        driver = store._driver(connection)
        with pytest.raises(InboxUnavailable):
            store._check_open(connection)
        driver.execute("BEGIN")
        store._check_open(connection)
        with pytest.raises(InboxUnavailable):
            store._check_ended(connection)
        driver.execute("ROLLBACK")
        store._check_ended(connection)
    engine.dispose()
