"""Deliveries: what makes two the same one."""

from __future__ import annotations

import asyncio
import itertools
import pickle
from contextlib import nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import pytest
from hypothesis import given, strategies as st
from support import NOW

from roovet_webhooks import ConfigurationError, Delivery, Event, Verified
from roovet_webhooks.delivery import Dedupe, Identity, id_of, make_delivery
from roovet_webhooks.events import parse_envelope

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

RAW = b'{"event":"order.created","id":"ord_1","ts":1762782800,"note":"private"}'


def delivery_of(
    raw: bytes = RAW, *, endpoint: str = "default", tenant: str = "default", dedupe: Dedupe | None = None
) -> Delivery:
    return make_delivery(
        raw,
        parse_envelope(raw),
        Verified(NOW, "primary"),
        endpoint=endpoint,
        tenant=tenant,
        received_at=NOW + 1.5,
        dedupe=dedupe,
    )


def test_what_it_knows() -> None:
    delivery = delivery_of()
    assert (delivery.endpoint, delivery.tenant, delivery.attempt) == ("default", "default", 1)
    assert (delivery.secret_name, delivery.signed_at, delivery.received_at) == ("primary", NOW, NOW + 1.5)
    assert delivery.raw is RAW
    assert delivery.event.extra == {"note": "private"}
    assert delivery.key == sha256(RAW).hexdigest()
    options: dict[str, Any] = {"endpoint": "default", "tenant": "default", "received_at": NOW + 1.5}
    assert make_delivery(RAW, delivery.event, Verified(NOW, "primary"), **options) == delivery


def test_the_body_stays_out_of_its_text() -> None:
    delivery = delivery_of()
    assert str(delivery) == repr(delivery)
    assert repr(delivery) == f"Delivery(id='{delivery.id}', event='order.created', resource='ord_1', attempt=1)"


def test_identical_bytes_are_one_delivery() -> None:
    assert delivery_of().id == delivery_of(bytes(bytearray(RAW))).id
    assert delivery_of().id.startswith("dlv_")
    assert len(delivery_of().id) == 36


def test_the_id_of_the_resource_alone_makes_no_duplicate() -> None:
    created = delivery_of(b'{"event":"order.created","id":"ord_1","ts":1}')
    updated = delivery_of(b'{"event":"order.updated","id":"ord_1","ts":1}')
    assert created.id != updated.id


def test_endpoint_and_tenant_tell_deliveries_apart() -> None:
    ids = {delivery_of(endpoint=endpoint, tenant=tenant).id for endpoint in ("a", "b") for tenant in ("a", "b")}
    assert len(ids) == 4


@given(
    st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.integers(0, 99), st.binary(max_size=4)), max_size=6)
)
def test_two_identities_never_share_an_id(parts: list[tuple[str, str, int, bytes]]) -> None:
    base = delivery_of()
    identities = {Identity(*part) for part in parts}
    ids = {
        Delivery(identity=identity, event=base.event, raw=b"", secret_name="", signed_at=0, received_at=0.0).id
        for identity in identities
    }
    assert len(ids) == len(identities)


def test_lengths_keep_neighbours_apart() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("1:a", "b"), ("1", ":ab")]
    ids = [delivery_of(endpoint=endpoint, tenant=tenant).id for endpoint, tenant in pairs]
    assert all(one != other for one, other in itertools.combinations(ids, 2))


@pytest.mark.parametrize("key", ["order.created/ord_1", b"order.created/ord_1", "\ud800"], ids=ascii)
def test_dedupe_decides_alone(key: str | bytes) -> None:
    def same(event: Event) -> str | bytes:
        assert event.id == "ord_1"
        return key

    one = delivery_of(dedupe=same)
    other = delivery_of(b'{"event":"order.created","id":"ord_1","ts":5}', dedupe=same)
    assert one.id == other.id
    assert one.identity.ts == 0


def test_endpoint_and_tenant_stay_what_they_are_with_dedupe() -> None:
    delivery = delivery_of(endpoint="shop", tenant="acme", dedupe=lambda event: event.id)
    assert delivery.identity == Identity("shop", "acme", 0, sha256(b"ord_1").digest())
    assert (delivery.endpoint, delivery.tenant) == ("shop", "acme")
    assert delivery_of(endpoint="shop", tenant="acme").identity == Identity(
        "shop", "acme", 1762782800, sha256(RAW).digest()
    )


@pytest.mark.parametrize("key", [None, "", b"", 5, ("a",)], ids=repr)
def test_a_dedupe_that_makes_no_key_is_refused(key: object) -> None:
    with pytest.raises(ConfigurationError, match=r"dedupe must return a non-empty str or bytes for 'order.created'"):
        delivery_of(dedupe=cast("Dedupe", lambda _event: key))


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity("default", "default", 1762782800, bytes(32)), "dlv_6e483fddfd5802d55117858c83a2c062"),
        (Identity("shop", "acme", 0, bytes(range(32))), "dlv_8824ab35c4e7f0299e1e308bc77590de"),
        (Identity("épicerie", "", 253402300799, b"\xff" * 32), "dlv_c31f272905bfde4ed451325538e78dd8"),
    ],
)
def test_an_id_is_the_same_in_every_release(identity: Identity, expected: str) -> None:
    # Users keep them as the keys of what they did.
    assert id_of(identity) == expected


def test_a_dedupe_that_raises_is_named_as_what_failed() -> None:
    fault = KeyError("order")

    def broken(_event: Event) -> str:
        raise fault

    with pytest.raises(ConfigurationError, match=r"dedupe raised KeyError for 'order.created'") as caught:
        delivery_of(dedupe=broken)
    assert caught.value.__cause__ is fault


class RunningHandler:
    """Stands for whoever runs a handler."""

    def transaction(self) -> Any:  # noqa: ANN401 - the connection's own
        return nullcontext("a connection")

    async def in_transaction(self, function: Callable[..., T], *arguments: object) -> T:
        return function("a connection", *arguments)


def test_a_handlers_delivery_opens_its_transaction() -> None:
    delivery = delivery_of()
    within = delivery.within(RunningHandler())
    assert within == msgspec.structs.replace(delivery, scope=within.scope)
    assert delivery.scope is None
    with within.transaction() as connection:
        assert connection == "a connection"
    assert asyncio.run(within.in_transaction(lambda *given: given, 1, 2)) == ("a connection", 1, 2)
    assert delivery.within(None) is delivery


def test_no_other_delivery_has_a_transaction() -> None:
    delivery = delivery_of()
    with pytest.raises(ConfigurationError, match="a handler that runs from a durable inbox"):
        delivery.transaction()
    with pytest.raises(ConfigurationError, match="a handler that runs from a durable inbox"):
        asyncio.run(delivery.in_transaction(lambda _connection: None))


def test_an_attempt_sees_its_number() -> None:
    delivery = delivery_of()
    assert delivery.attempt == 1
    assert delivery.numbered(1) is delivery
    third = delivery.numbered(3)
    assert third == msgspec.structs.replace(delivery, attempt=3)
    assert (third.attempt, third.id) == (3, delivery.id)


def test_it_is_made_of_named_parts() -> None:
    positional: Any = Delivery
    with pytest.raises(TypeError, match="positional"):
        positional(delivery_of().identity)


def test_a_delivery_is_a_value() -> None:
    delivery = delivery_of()
    for value, field in ((delivery, "attempt"), (delivery.identity, "endpoint")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(value, field, 2)
    assert delivery == delivery_of()


def test_a_delivery_travels() -> None:
    delivery = delivery_of()
    assert pickle.loads(pickle.dumps(delivery)).id == delivery.id  # noqa: S301 - made on this line
