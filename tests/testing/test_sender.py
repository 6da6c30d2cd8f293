"""`Roovet`: one secret and one clock for both sides, until it is closed; with unittest as with pytest."""

from __future__ import annotations

import unittest
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support.shops import LIVE_SECRET, make_receiver

from roovet_webhooks import Delivery, Event, MemoryInbox, Tenant, WebhookReceiver, WebhookRequest
from roovet_webhooks.inbox.memory import DAY
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.testing import FORGERIES, NOW, PATH, SECRET, Clock, Roovet, signed_request

if TYPE_CHECKING:
    from pathlib import Path


def test_a_receiver_in_use_has_the_secret_and_the_clock_of_the_test(roovet: Roovet) -> None:
    receiver = make_receiver()
    live = signed_request("order.created", secret=LIVE_SECRET)
    assert live.post(receiver).status == 400
    record = roovet.use(receiver)
    assert record is roovet.record
    assert roovet.post(receiver, "order.created", id="ord_1").body == b'{"status":"handled"}'
    assert live.post(receiver).status == 400
    record.assert_handled("order.created", id="ord_1", times=1)
    record.assert_rejected("signature_mismatch")


def test_time_travels(roovet: Roovet) -> None:
    receiver = make_receiver()
    roovet.use(receiver)
    request = roovet.request("order.created")
    roovet.clock.tick(300)
    assert request.post(receiver).status == 200
    roovet.clock.tick(1)
    assert roovet.request("order.created").headers["X-Roovet-Timestamp"] == str(NOW + 301)
    late = roovet.request("order.created", age=301)
    assert late.post(receiver).status == 400
    assert roovet.request("order.created", timestamp=NOW).post(receiver).status == 400


def test_what_a_receiver_in_use_remembers_lives_by_the_clock(roovet: Roovet) -> None:
    receiver = make_receiver(tolerance=2 * DAY)
    record = roovet.use(receiver)
    request = roovet.request("order.created")
    for seconds in (0, DAY - 1, 1):
        roovet.clock.tick(seconds)
        request.post(receiver)
    assert [recorded.outcome for recorded in record.deliveries] == ["handled", "duplicate", "handled"]


def test_a_receiver_that_is_in_use_twice_is_recorded_once(roovet: Roovet) -> None:
    receiver = make_receiver()
    roovet.use(receiver)
    record = roovet.use(receiver, secret=LIVE_SECRET)
    roovet.post(receiver, "order.created", secret=LIVE_SECRET)
    assert len(record.deliveries) == 1


def test_closing_gives_back_what_was_the_receivers() -> None:
    receiver = make_receiver(clock=lambda: NOW)
    with Roovet(secret="whsec_another_5f2b8c1e9a7d4036") as roovet:
        roovet.use(receiver)
        assert roovet.in_use
        assert roovet.post(receiver, "order.created").status == 200
    assert not roovet.in_use
    assert roovet.post(receiver, "order.created").status == 400
    assert signed_request("order.created", secret=LIVE_SECRET).post(receiver).status == 200
    assert len(roovet.record.deliveries) == 1


def test_a_receiver_may_keep_its_resolver_and_get_an_inbox(roovet: Roovet) -> None:
    tenants = {"acme": "whsec_acme_5f2b8c1e9a7d4036"}

    def tenant_of(request: WebhookRequest) -> Tenant | None:
        name = request.path.rpartition("/")[2]
        return Tenant(name, tenants[name]) if name in tenants else None

    receiver = make_receiver()
    inbox = MemoryInbox()
    record = roovet.use(receiver, secret=tenant_of, inbox=inbox)
    options = {"secret": tenants["acme"], "path": f"{PATH}/acme"}
    assert roovet.post(receiver, "order.created", **options).status == 200
    assert roovet.post(receiver, "order.created", **{**options, "path": f"{PATH}/globex"}).status == 400
    assert record.handled[0].tenant == "acme"
    assert record.assert_rejected().code == "unknown_tenant"
    assert len(inbox) == 1


def test_a_mounted_receiver_needs_no_secret_before_it_is_in_use(roovet: Roovet) -> None:
    receiver = WebhookReceiver()
    receiver.fallback(lambda _event: None)
    roovet.use(receiver)
    receiver.check()
    assert roovet.post(receiver, "order.created").status == 200


def test_it_shows_no_secret(roovet: Roovet) -> None:
    assert repr(roovet) == f"Roovet(path='{PATH}', clock=Clock({NOW}.0))"
    assert SECRET not in repr(roovet)
    assert (roovet.secret, roovet.path) == (SECRET, PATH)


class WithUnittest(unittest.TestCase):
    """What a TestCase of unittest or Django does."""

    def setUp(self) -> None:
        self.roovet = self.enterContext(Roovet(path="/hooks", clock=Clock(NOW + 5000)))
        self.receiver = make_receiver()
        self.record = self.roovet.use(self.receiver)

    def test_a_delivery(self) -> None:
        request = self.roovet.request("order.created", id="ord_1")
        assert request.path == "/hooks"
        assert request.post(self.receiver).status == 200
        assert self.record.assert_handled("order.created").signed_at == NOW + 5000

    def test_forgeries(self) -> None:
        for forgery in FORGERIES:
            with self.subTest(forgery.name):
                self.roovet.tampered(forgery).assert_refused(self.receiver)


# The fixtures can be overridden


class TestOverriding:
    @pytest.fixture
    def roovet_secret(self) -> str:
        return "whsec_of_this_class_5f2b8c1e9a7d"

    @pytest.fixture
    def roovet_path(self) -> str:
        return "/hooks"

    def test_the_secret_and_the_path(self, roovet: Roovet) -> None:
        assert (roovet.secret, roovet.path) == ("whsec_of_this_class_5f2b8c1e9a7d", "/hooks")


def test_a_durable_inbox_in_use_runs_handlers_inside_the_request(roovet: Roovet, tmp_path: Path) -> None:
    own = SQLInbox(f"sqlite:///{tmp_path}/own.db")
    receiver = WebhookReceiver(roovet.secret, clock=roovet.clock, inbox=own)
    seen: list[str] = []

    @receiver.on("order.created")
    def fulfil(event: Event, delivery: Delivery) -> None:
        with delivery.transaction():
            seen.append(event.id)

    with (
        closing(own),
        closing(SQLInbox(f"sqlite:///{tmp_path}/test.db", clock=roovet.clock, settle=0)) as inbox,
    ):
        with Roovet(secret=roovet.secret, clock=roovet.clock) as used:
            used.use(receiver, inbox=inbox)
            assert used.post(receiver, "order.created", id="ord_1").body == b'{"status":"handled"}'
        assert seen == ["ord_1"]
        assert roovet.post(receiver, "order.created", id="ord_2").body == b'{"status":"stored"}'
