"""A receiver and its workers under Django are killed at any moment: nothing is lost, and nothing is doubled."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from support import PATH, SECRET
from support.django_databases import added, settings_of
from support.killing import PATIENCE, killed_at_random, wait_until

from roovet_webhooks.django.dialects import KNOWS_MODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT = """
import os, random, sys, time
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={{"default": {database!r}}},
    INSTALLED_APPS=["roovet_webhooks.django"],
    ROOT_URLCONF="project",
    SECRET_KEY="not a secret: nothing here is signed with it",
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command, execute_from_command_line
from django.db import connection, models
from django.urls import path
from roovet_webhooks import RetryPolicy, WebhookReceiver
from roovet_webhooks.django import DjangoInbox, dispatch_view


class Effect(models.Model):
    id = models.BigAutoField(primary_key=True)
    resource = models.TextField()

    class Meta:
        app_label = "till"


inbox = DjangoInbox(settle=0, lease=1.0)
retry = RetryPolicy(initial=0.05, max_delay=0.1, max_attempts=10_000, max_crashes=10_000)
receiver = WebhookReceiver({secret!r}, inbox=inbox, retry=retry)


@receiver.on("*")
def book(event):
    time.sleep(random.random() / 50)
    Effect.objects.create(resource=event.id)
    time.sleep(random.random() / 50)


@receiver.on("*", name="also")
def also(event, delivery):
    if Effect.objects.filter(resource=event.id).count() != 1:
        raise RuntimeError(event.id)


urlpatterns = [path({path!r}, dispatch_view(receiver))]

if __name__ == "__main__":
    sys.modules["project"] = sys.modules["__main__"]
    if sys.argv[1:] == ["prepare"]:
        call_command("migrate", verbosity=0)
        with connection.schema_editor() as editor:
            editor.create_model(Effect)
    else:
        execute_from_command_line(sys.argv)
"""


class Project:
    """The project, its processes, and the sender of its deliveries."""

    def __init__(self, folder: Path, kind: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.kind = kind
        if kind == "sqlite" and KNOWS_MODES:
            options = {"init_command": "PRAGMA synchronous=EXTRA", "transaction_mode": "IMMEDIATE"}
            settings = {**settings, "OPTIONS": options}
        (folder / "project.py").write_text(
            PROJECT.format(database=settings, secret=SECRET, path=PATH.removeprefix("/"))
        )
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.processes: list[subprocess.Popen[bytes]] = []
        assert self.start("prepare").wait(PATIENCE) == 0

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "project.py", *arguments], cwd=self.folder, stdout=output, stderr=output
            )
        self.processes.append(process)
        return process

    def receiver(self) -> subprocess.Popen[bytes]:
        return self.start("runserver", "--noreload", "--skip-checks", f"127.0.0.1:{self.port}")

    def worker(self) -> subprocess.Popen[bytes]:
        return self.start("roovet_worker", "--poll", "0.05", "--concurrency", "4")

    def query(self, statement: str) -> list[Any]:
        with connections[self.kind].cursor() as cursor:
            cursor.execute(statement)
            found: list[Any] = cursor.fetchall()
        return found

    def open(self) -> int:
        [(count,)] = self.query("SELECT count(*) FROM roovet_webhooks_delivery WHERE state IN ('ready', 'claimed')")
        return int(count)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with settings_of(request.param, tmp_path) as settings, added(request.param, settings) as kind:
        made = Project(tmp_path, kind, settings)
        yield made
        made.stop()


@pytest.mark.timeout(1200)  # of the long run; the ordinary one takes half a minute
@pytest.mark.long
def test_killed_at_random(project: Project) -> None:
    makers = [project.receiver, project.worker, project.worker]
    acknowledged, about = killed_at_random(makers, project.port, pause=2.0)
    wait_until(lambda: project.open() == 0)
    about += f"; {project.folder}"
    effects = dict(project.query("SELECT resource, count(*) FROM till_effect GROUP BY resource"))
    states = dict(project.query("SELECT state, count(*) FROM roovet_webhooks_delivery GROUP BY state"))
    if project.kind == "sqlite":
        assert project.query("PRAGMA integrity_check") == [("ok",)]
    assert acknowledged - effects.keys() == set(), f"lost: {about}"
    assert {resource for resource, count in effects.items() if count != 1} == set(), f"doubled: {about}"
    assert states == {"done": len(effects)}, about
