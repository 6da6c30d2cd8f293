"""A real PgBouncer in transaction mode, and a world whose processes reach PostgreSQL through it alone."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import sqlalchemy
from support.services import url_of

from inbox.worlds import PostgreSQLWorld

if TYPE_CHECKING:
    from roovet_webhooks.inbox.sql import SQLInbox

_SCHEMA = f"roovet_pooler_{os.getpid()}"
_at_exit = ExitStack()
atexit.register(_at_exit.close)


def _program() -> str:
    """Return where PgBouncer is; without it the test is skipped, and under ``CI`` it fails."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is not None:
        return found
    message = "no pgbouncer; the package of that name has it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def url_through_pgbouncer() -> str:
    """Return the URL of the schema of this process, through a PgBouncer that is started at the first call."""
    return _started(_program(), url_of("postgresql"))


@cache
def _started(program: str, direct: str) -> str:
    folder = Path(mkdtemp(prefix="roovet-pgbouncer-"))
    _at_exit.callback(shutil.rmtree, folder)
    folder.chmod(0o755)
    url = sqlalchemy.make_url(direct)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = f"host={url.host} port={url.port or 5432} dbname={url.database} user={url.username}"
    server += f" password={url.password}" if url.password else ""
    configuration = folder / "pgbouncer.ini"
    # A server connection is anybody's for one transaction; so the schema is set by the pooler, and not by a session.
    configuration.write_text(f"""
[databases]
inbox = {server} connect_query='SET search_path TO {_SCHEMA}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 500
""")
    words = [program, "-q", str(configuration)]
    process = subprocess.Popen(  # noqa: S603 - found by its name
        [*words, "-u", "nobody"] if os.geteuid() == 0 else words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _at_exit.callback(process.wait, 30)
    _at_exit.callback(process.kill)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "pgbouncer has ended"
            assert time.monotonic() < deadline, "pgbouncer does not listen"
            time.sleep(0.05)
        else:
            return f"postgresql+psycopg://{url.username}@127.0.0.1:{port}/inbox"


class PoolerWorld(PostgreSQLWorld):
    """A schema whose inboxes go through PgBouncer; what the world itself looks at, it looks at directly."""

    _free: ClassVar[list[tuple[str, sqlalchemy.Connection]]] = []
    _as_made: ClassVar[tuple[object, ...]] = ()

    def set_up(self, *, prepared: bool) -> None:
        self._pooled = url_through_pgbouncer()
        super().set_up(prepared=prepared)

    def _new_name(self) -> str:
        return _SCHEMA  # the pooler knows one, and a process has one world at a time

    def make(self, **options: Any) -> SQLInbox:  # noqa: ANN401 - its options
        return super().make(**{"where": self._pooled, **options})


atexit.register(PoolerWorld.drop_all)
