"""The record in Django's admin: what is shown to whom, and what can be done there."""

from __future__ import annotations

import itertools
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from conformance.mounts import DJANGO_SETTINGS
from cryptography.fernet import Fernet
from django.core.checks.registry import registry
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client, RequestFactory, override_settings
from django.urls import clear_url_caches, path
from support import payload
from support.django_databases import Shop

from roovet_webhooks import Event, RetryPolicy
from roovet_webhooks.django import dispatch_view, views as adapter
from roovet_webhooks.django.tables import tables
from roovet_webhooks.inbox.records import Query

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST = "/admin/roovet_webhooks/delivery/"
_names = itertools.count(1)
SETTINGS: dict[str, Any] = {
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "roovet_webhooks.django",
    ],
    "MIDDLEWARE": [
        "django.contrib.sessions.middleware.SessionMiddleware",
        *DJANGO_SETTINGS["MIDDLEWARE"],
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "STATIC_URL": "static/",
}


@pytest.fixture(scope="module", autouse=True)
def _project() -> Iterator[None]:
    before = registry.registered_checks.copy()
    with override_settings(**SETTINGS):
        # Only now are its models those of an application that is installed.
        call_command("migrate", verbosity=0)
        yield
        for name in [name for name in connection.introspection.table_names() if not name.startswith("sqlite_")]:
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA foreign_keys = OFF")
                cursor.execute(f"DROP TABLE {name}")
                cursor.execute("PRAGMA foreign_keys = ON")
    # The other applications are gone, and what they check with them.
    registry.registered_checks = before


@pytest.fixture(scope="module")
def site(_project: None) -> Iterator[None]:
    from django.contrib import admin  # noqa: PLC0415 - needs the project

    admin.autodiscover()
    urls = ModuleType("urls_of_the_admin")
    vars(urls)["urlpatterns"] = [path("admin/", admin.site.urls)]
    sys.modules[urls.__name__] = urls
    clear_url_caches()
    with override_settings(ROOT_URLCONF=urls.__name__):
        yield
    clear_url_caches()


@pytest.fixture
def shop(site: None) -> Iterator[Shop]:  # noqa: ARG001 - it has to be there
    before = adapter.mounted[:]
    adapter.mounted.clear()
    made = Shop("default", retry=RetryPolicy(max_attempts=1))
    dispatch_view(made.receiver)

    @made.receiver.on("*", name="book")
    def book(event: Event) -> None:
        if event.event == "order.failed":
            raise ValueError

    yield made
    made.inbox.close()
    adapter.mounted[:] = before
    tables().delivery.objects.all().delete()
    from django.contrib.admin.models import LogEntry  # noqa: PLC0415 - needs the project

    LogEntry.objects.all().delete()


def visitor(*permissions: str, superuser: bool = False) -> Client:
    """Return the browser of somebody who is logged in, and may do this."""
    from django.contrib.auth.models import Permission, User  # noqa: PLC0415 - needs the project

    user = User.objects.create_user(f"user{next(_names)}", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


def handled(shop: Shop, *events: str) -> list[int]:
    """Deliver and handle, and return the numbers."""
    for event in events:
        shop.deliver(payload(event))
        shop.work()
    return sorted(record.number for record in shop.inbox.find(Query()))


def acted(client: Client, action: str, numbers: list[int], **more: Any) -> tuple[str, list[str]]:  # noqa: ANN401 - fields
    """Choose deliveries and an action; return the page that follows and the messages on it."""
    fields = {"action": action, "_selected_action": numbers, **more}
    answer = client.post(LIST, fields, follow=True)
    assert answer.status_code == 200
    text = answer.content.decode()
    return text, re.findall(r'<li class="(?:success|warning)">(.*?)</li>', text)


def states(shop: Shop) -> list[str]:
    return [record.state.value for record in sorted(shop.inbox.find(Query()), key=lambda record: record.number)]


def test_nobody_sees_it_without_permission(shop: Shop) -> None:
    handled(shop, "order.created")
    assert visitor().get(LIST).status_code == 403
    assert "Deliveries" not in visitor().get("/admin/").content.decode()


def test_who_may_view_sees_the_list_and_no_action(shop: Shop) -> None:
    handled(shop, "order.created", "order.failed")
    page = visitor("view_delivery").get(LIST).content.decode()
    assert "order.created" in page
    assert "failed: book" in page
    assert 'name="action"' not in page
    assert "addlink" not in page


def test_a_delivery_is_shown_and_its_body_only_to_those_who_may_see_it(shop: Shop) -> None:
    shop.deliver(payload("order.created", note="<script>alert(1)</script>", id="ord_shown"))
    shop.work()
    [record] = shop.inbox.find(Query())
    where = f"{LIST}{record.number}/change/"
    page = visitor("view_delivery").get(where).content.decode()
    assert record.id in page
    assert "book" in page
    assert "alert" not in page
    assert 'name="_save"' not in page
    page = visitor("view_delivery", "view_delivery_body").get(where).content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


def test_a_body_that_is_gone_or_cannot_be_read_is_said_to_be(shop: Shop) -> None:
    [number] = handled(shop, "order.created")
    client = visitor("view_delivery", "view_delivery_body")
    where = f"{LIST}{number}/change/"
    row = tables().delivery.objects.filter(id=number)
    row.update(body=b"\xff{", codec="")
    assert "\N{REPLACEMENT CHARACTER}{" in client.get(where).content.decode()
    shop.inbox.__init__("default", codec=Fernet(Fernet.generate_key()))  # type: ignore[misc]  # the project has one
    row.update(codec="encrypted")
    assert "cannot be decrypted" in client.get(where).content.decode()
    shop.inbox.purge(number)
    assert "erased" in client.get(where).content.decode()


def test_nothing_can_be_added_changed_or_deleted(shop: Shop) -> None:
    [number] = handled(shop, "order.created")
    client = visitor(superuser=True)
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.get(f"{LIST}{number}/delete/").status_code == 403
    assert client.post(f"{LIST}{number}/change/", {"state": "ready"}).status_code == 403
    assert "delete_selected" not in client.get(LIST).content.decode()
    assert states(shop) == ["done"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=dead", ["order.failed"]),
        ("state=done", ["order.created"]),
        ("outcome=failed", ["order.failed"]),
        ("event=order.created", ["order.created"]),
        ("endpoint=default", ["order.created", "order.failed"]),
        ("tenant=default", ["order.created", "order.failed"]),
        ("tenant=nobody", []),
        ("q=ord_7", []),
        ("q=", ["order.created", "order.failed"]),
    ],
)
def test_filters(shop: Shop, query: str, found: list[str]) -> None:
    handled(shop, "order.created", "order.failed")
    page = visitor("view_delivery").get(f"{LIST}?{query}").content.decode()
    assert sorted(re.findall(r'<td class="field-event">(.*?)</td>', page)) == found


def test_a_delivery_is_found_by_its_id_its_number_and_its_resource(shop: Shop) -> None:
    shop.deliver(payload(id="ord_7"))
    shop.deliver(payload(id="ord_77"))
    [record] = shop.inbox.find(Query(resource="ord_7"))
    client = visitor("view_delivery")
    for term in ("ord_7", record.id, str(record.number), f" {record.id} "):
        page = client.get(LIST, {"q": term}).content.decode()
        assert re.findall(r'<td class="field-resource">(.*?)</td>', page) == ["ord_7"]


def test_dead_deliveries_are_replayed_at_once(shop: Shop) -> None:
    numbers = handled(shop, "order.failed", "order.failed")
    client = visitor("view_delivery", "replay_delivery")
    assert 'value="purge"' not in client.get(LIST).content.decode()
    assert acted(client, "replay", numbers)[1] == ["2 deliveries were replayed."]
    assert states(shop) == ["ready", "ready"]
    assert acted(client, "replay", numbers)[1] == ["2 were not replayed: a delivery that is ready cannot be replayed."]
    from django.contrib.admin.models import LogEntry  # noqa: PLC0415 - needs the project

    assert {entry.change_message for entry in LogEntry.objects.all()} == {"replayed"}


def test_a_done_delivery_is_replayed_after_a_question(shop: Shop) -> None:
    numbers = handled(shop, "order.created", "order.failed")
    client = visitor("view_delivery", "replay_delivery")
    page, told = acted(client, "replay", numbers)
    assert "Done already, or too old to run on arrival: 1 of 2 deliveries." in page
    assert told == []
    assert states(shop) == ["done", "dead"]
    confirmed = re.findall(r'name="confirmed" value="(\d+)"', page)
    assert confirmed == [str(numbers[0])]
    assert acted(client, "replay", numbers, confirmed=confirmed)[1] == ["2 deliveries were replayed."]
    assert states(shop) == ["ready", "ready"]


def test_what_has_become_done_since_the_question_is_not_replayed(shop: Shop) -> None:
    numbers = handled(shop, "order.created", "order.created")
    client = visitor("view_delivery", "replay_delivery")
    _, told = acted(client, "replay", numbers, confirmed=[numbers[0]])
    assert told == [
        "1 delivery was replayed.",
        "1 was not replayed: it is done; a replay repeats all its effects and has to be confirmed.",
    ]
    assert states(shop) == ["ready", "done"]


def test_a_purge_asks_first_and_erases_the_body(shop: Shop) -> None:
    numbers = handled(shop, "order.created")
    shop.deliver()
    numbers = sorted(record.number for record in shop.inbox.find(Query()))
    client = visitor("view_delivery", "purge_delivery")
    page, _ = acted(client, "purge", numbers)
    assert "What the inbox holds of 2 deliveries, body and errors, will be erased for good" in page
    _, told = acted(client, "purge", numbers, confirmed=numbers)
    assert told == ["1 delivery was purged.", "1 was not purged: a delivery that is ready cannot be purged."]
    assert [shop.inbox.body(number) is None for number in numbers] == [True, False]


def test_an_action_needs_its_own_permission(shop: Shop) -> None:
    numbers = handled(shop, "order.failed")
    for permission, action in (("purge_delivery", "replay"), ("replay_delivery", "purge")):
        acted(visitor("view_delivery", permission), action, numbers, confirmed=numbers)
    assert states(shop) == ["dead"]
    assert shop.inbox.body(numbers[0]) is not None


def test_no_more_than_a_thousand_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from roovet_webhooks.django import admin  # noqa: PLC0415 - needs the project

    monkeypatch.setattr(admin, "_MOST_AT_ONCE", 1)
    numbers = handled(shop, "order.failed", "order.failed")
    _, told = acted(visitor("view_delivery", "replay_delivery"), "replay", numbers)
    assert told == [
        "Only the first 1 are taken at a time; for more, use manage.py roovet_inbox.",
        "1 delivery was replayed.",
    ]
    # The newest is the first.
    assert states(shop) == ["dead", "ready"]


def test_atomic_requests_are_no_hindrance(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = handled(shop, "order.failed")
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)  # noqa: FBT003 - Django's setting
    assert acted(visitor("view_delivery", "replay_delivery"), "replay", numbers)[1] == ["1 delivery was replayed."]


def test_without_a_mounted_receiver_the_default_database_is_shown(shop: Shop) -> None:
    numbers = handled(shop, "order.failed")
    adapter.mounted.clear()
    client = visitor("view_delivery", "replay_delivery")
    assert "order.failed" in client.get(LIST).content.decode()
    assert acted(client, "replay", numbers)[1] == ["1 delivery was replayed."]


def test_a_subclass_may_show_another_database(shop: Shop) -> None:  # noqa: ARG001 - the project is needed
    from django.contrib.admin import AdminSite  # noqa: PLC0415 - needs the project

    from roovet_webhooks.django.admin import DeliveryAdmin  # noqa: PLC0415 - needs the project

    class Elsewhere(DeliveryAdmin):
        using = "elsewhere"

    shown = Elsewhere(tables().delivery, AdminSite()).get_queryset(RequestFactory().get(LIST))
    assert shown.db == "elsewhere"


HIDDEN = ("body__startswith=x", "body__contains=x", "key=00", "history__contains=x", "last_error__startswith=x")


@pytest.mark.parametrize("query", [*HIDDEN, "codec=", "owner__contains=x", "handled__handler=book", "event__x__y=1"])
def test_the_address_asks_for_nothing_that_is_hidden(shop: Shop, query: str) -> None:
    handled(shop, "order.created")
    answer = visitor("view_delivery").get(f"{LIST}?{query}")
    assert answer.status_code in {302, 400}, "a condition on a hidden column would tell what is in it"
    assert answer.status_code == 400 or "e=1" in answer.headers["Location"]


def test_the_address_may_ask_for_what_is_shown(shop: Shop) -> None:
    handled(shop, "order.created", "order.failed")
    page = visitor("view_delivery").get(f"{LIST}?event__startswith=order.f").content.decode()
    assert re.findall(r'<td class="field-event">(.*?)</td>', page) == ["order.failed"]


def test_a_confirmation_that_is_no_number_confirms_nothing(shop: Shop) -> None:
    numbers = handled(shop, "order.created")
    client = visitor("view_delivery", "replay_delivery")
    page, told = acted(client, "replay", numbers, confirmed=["x", "\N{SUPERSCRIPT TWO}", ""])
    assert told == []
    assert "Done already, or too old to run on arrival: 1 of 1 delivery." in page
    assert states(shop) == ["done"]


def test_the_history_is_shown_and_messages_to_those_who_may_see_bodies(shop: Shop) -> None:
    @shop.receiver.on("*", name="mail")
    def mail(event: Event) -> None:
        message = f"no <route> for {event.id}"
        raise OSError(message)

    [number] = handled(shop, "order.created")
    where = f"{LIST}{number}/change/"
    for page in (LIST, where):
        seen = visitor("view_delivery").get(page).content.decode()
        assert "failed: mail (OSError)" in seen
        assert "route" not in seen
    seen = visitor("view_delivery", "view_delivery_body").get(where).content.decode()
    assert "OSError: no &lt;route&gt; for" in seen
    assert "in mail: raise OSError(message)" in seen
    assert "book: handled" in seen
    assert "no &lt;route&gt;" in visitor("view_delivery", "view_delivery_body").get(LIST).content.decode()


def test_the_only_handler_is_among_those_that_succeeded(shop: Shop) -> None:
    [number] = handled(shop, "order.created")
    page = visitor("view_delivery").get(f"{LIST}{number}/change/").content.decode()
    assert re.search(r"Handlers that succeeded:?</label>\s*<div class=\"readonly\">book<", page), page


def test_what_can_be_done_is_offered_on_the_page_of_a_delivery(shop: Shop) -> None:
    [done, dead] = handled(shop, "order.created", "order.failed")
    shop.deliver()
    ready = max(record.number for record in shop.inbox.find(Query()))
    client = visitor("view_delivery", "replay_delivery", "purge_delivery")

    def offered(number: int, client: Client = client) -> list[str]:
        page = client.get(f"{LIST}{number}/change/").content.decode()
        return re.findall(r'<button type="submit">(\w+)</button>', page)

    assert offered(done) == offered(dead) == ["Replay", "Purge"]
    assert offered(dead, visitor("view_delivery", "purge_delivery")) == ["Purge"]
    assert offered(ready) == offered(dead, visitor("view_delivery")) == []
    assert acted(client, "replay", [dead])[1] == ["1 delivery was replayed."]


def test_a_tombstone_is_marked_and_left_alone(shop: Shop) -> None:
    numbers = handled(shop, "order.created", "order.failed")
    shop.inbox.purge(numbers[1])
    client = visitor("view_delivery", "replay_delivery", "purge_delivery")
    assert "dead (failed), purged" in client.get(LIST).content.decode()
    assert "roovet-action" not in client.get(f"{LIST}{numbers[1]}/change/").content.decode()
    page, _ = acted(client, "purge", numbers)
    assert "1 delivery" in page
    _, told = acted(client, "purge", numbers, confirmed=numbers)
    assert told == ["1 delivery was purged.", "1 was not purged: only its tombstone is left."]
