"""The vendor's API as its documentation has it: keys, scopes, versions, limits, errors, paging, idempotency."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from roovet_webhooks.api.documented import SCOPES
from roovet_webhooks.api.table import ENDPOINTS
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.sandbox import Sandbox, SandboxClock
from roovet_webhooks.sandbox.api import OPERATIONS, ApiRequest
from sandbox.conftest import NOW, ApiClient

if TYPE_CHECKING:
    from pathlib import Path

TRANSFER = {"to": "user_42", "amount": 12.34, "currency": "USD", "note": "Thanks!"}


def test_every_endpoint_of_the_table_is_there() -> None:
    assert set(OPERATIONS) == {endpoint.name for endpoint in ENDPOINTS}


class TestWallet:
    def test_a_balance_has_the_documented_fields(self, api: ApiClient) -> None:
        answer = api.get("/api/wallet/balance")
        assert list(answer) == ["balance_cents", "available_cents", "currency", "updated_at"]
        assert answer["updated_at"].endswith("Z")

    def test_transactions_have_the_documented_fields(self, api: ApiClient) -> None:
        answer = api.get("/api/wallet/transactions?limit=2")
        assert list(answer) == ["data", "has_more", "next_cursor"]
        assert list(answer["data"][0])[:5] == ["id", "type", "amount_cents", "currency", "created_at"]
        assert answer["next_cursor"] == answer["data"][-1]["id"]

    def test_a_transfer_moves_money(self, api: ApiClient) -> None:
        before = api.get("/api/wallet/balance")["balance_cents"]
        answer = api.post("/api/wallet/transfer", TRANSFER)
        assert list(answer) == ["id", "status", "amount_cents", "currency", "created_at"]
        assert (answer["status"], answer["amount_cents"]) == ("processing", 1234)
        assert api.get("/api/wallet/balance")["balance_cents"] == before - 1234
        newest = api.get("/api/wallet/transactions?limit=1")["data"][0]
        assert (newest["type"], newest["amount_cents"], newest["source"]) == ("debit", -1234, answer["id"])

    def test_the_receiver_may_spend_it_when_it_has_settled(self, api: ApiClient) -> None:
        receiver = ApiClient(api.sandbox, api.sandbox.create_key(user_id="user_42"))
        api.post("/api/wallet/transfer", TRANSFER)
        answer = receiver.get("/api/wallet/balance")
        assert (answer["balance_cents"], answer["available_cents"]) == (1234, 0)
        api.sandbox.advance(2)
        assert receiver.get("/api/wallet/balance")["available_cents"] == 1234

    def test_a_receiver_may_be_named_by_email(self, api: ApiClient) -> None:
        api.post("/api/wallet/transfer", {**TRANSFER, "to": "ada@example.com"})
        assert api.sandbox.check_books()["user_42"] == 1234

    @pytest.mark.parametrize(
        ("change", "refusal"),
        [
            ({"to": "nobody"}, (404, "not_found", "to")),
            ({"to": "user_1"}, (400, "invalid_request", "to")),
            ({"to": ""}, (400, "invalid_request", "to")),
            ({"amount": 0}, (400, "invalid_request", "amount")),
            ({"amount": -1}, (400, "invalid_request", "amount")),
            ({"amount": 0.001}, (400, "invalid_request", "amount")),
            ({"amount": "12.34"}, (400, "invalid_request", "amount")),
            ({"amount": None}, (400, "invalid_request", "amount")),
            ({"currency": "EUR"}, (400, "invalid_request", "currency")),
            ({"surprise": 1}, (400, "invalid_request", "surprise")),
            ({"amount": 999_999.99}, (409, "conflict", None)),
        ],
    )
    def test_what_cannot_be_transferred_is_refused(
        self, api: ApiClient, change: dict[str, object], refusal: tuple[int, str, str | None]
    ) -> None:
        before = api.sandbox.check_books()
        assert api.refused("POST", "/api/wallet/transfer", {**TRANSFER, **change}) == refusal
        assert api.sandbox.check_books() == before

    def test_an_amount_never_passes_through_a_float(self, api: ApiClient) -> None:
        raw = b'{"to":"user_42","amount":0.29000000000000000000}'
        assert api.request("POST", "/api/wallet/transfer", raw=raw)[1]["amount_cents"] == 29
        raw = b'{"to":"user_42","amount":0.29000000000000000001}'
        assert api.refused("POST", "/api/wallet/transfer", raw=raw) == (400, "invalid_request", "amount")

    @pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"to":1e99999999999}'])
    def test_a_body_that_is_no_json_is_refused(self, api: ApiClient, raw: bytes) -> None:
        assert api.refused("POST", "/api/wallet/transfer", raw=raw)[:2] == (400, "invalid_request")

    def test_a_body_that_is_no_object_is_refused(self, api: ApiClient) -> None:
        assert api.refused("POST", "/api/wallet/transfer", [1])[0] == 400

    def test_a_body_of_another_type_is_refused(self, api: ApiClient) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert api.refused("POST", "/api/wallet/transfer", TRANSFER, headers=headers)[2] == "Content-Type"


class TestShop:
    def test_a_search_finds_names_and_descriptions(self, api: ApiClient) -> None:
        names = [row["name"] for row in api.get("/api/shop/products?query=CHAIR&limit=20")["data"]]
        assert names == ["Folding chair", "Oak chair"]
        assert api.get("/api/shop/products?query=dishwasher")["data"][0]["name"] == "Stoneware mug"

    def test_a_wildcard_of_sql_is_a_letter_like_any(self, api: ApiClient) -> None:
        assert api.get("/api/shop/products?query=%")["data"] == []

    def test_a_cart_becomes_an_order(self, api: ApiClient) -> None:
        cart = api.post("/api/shop/cart", {"items": [{"product": "prd_1"}, {"product": "prd_5", "quantity": 2}]})
        assert (cart["status"], cart["total_cents"]) == ("open", 14_900 + 2 * 1_250)
        order = api.post("/api/shop/checkout", {"cart": cart["id"], "payment_method": "wallet"})
        assert (order["status"], order["total_cents"], order["cart"]) == ("paid", cart["total_cents"], cart["id"])
        assert order["items"] == cart["items"]
        assert api.get("/api/shop/orders")["data"] == [order]
        assert api.sandbox.check_books()["shop"] == cart["total_cents"]

    def test_a_card_pays_without_the_wallet(self, api: ApiClient) -> None:
        before = api.get("/api/wallet/balance")["balance_cents"]
        order = api.order()
        assert order["payment_method"] == "card"
        assert api.get("/api/wallet/balance")["balance_cents"] == before
        assert api.sandbox.check_books()["shop"] == order["total_cents"]

    def test_a_cart_is_updated(self, api: ApiClient) -> None:
        cart = api.post("/api/shop/cart", {"items": [{"product": "prd_1"}, {"product": "prd_1", "quantity": 2}]})
        assert cart["items"][0]["quantity"] == 3
        changed = api.post("/api/shop/cart", {"items": [{"product": "prd_2"}], "cart": cart["id"]})
        assert [item["product"] for item in changed["items"]] == ["prd_2"]
        assert changed["id"] == cart["id"]

    def test_a_cart_is_ordered_once(self, api: ApiClient) -> None:
        order = api.order()
        body = {"cart": order["cart"], "payment_method": "card"}
        assert api.refused("POST", "/api/shop/checkout", body) == (409, "conflict", "cart")
        items = {"items": [{"product": "prd_1"}], "cart": order["cart"]}
        assert api.refused("POST", "/api/shop/cart", items) == (409, "conflict", "cart")

    def test_a_wallet_that_does_not_suffice_orders_nothing(self, api: ApiClient) -> None:
        cart = api.post("/api/shop/cart", {"items": [{"product": "prd_4", "quantity": 100}]})
        body = {"cart": cart["id"], "payment_method": "wallet"}
        assert api.refused("POST", "/api/shop/checkout", body)[0] == 409
        assert api.get("/api/shop/orders")["data"] == []
        assert api.post("/api/shop/checkout", {**body, "payment_method": "card"})["status"] == "paid"

    @pytest.mark.parametrize("product", ["prd_99", "prd_0", "prd_x", "ord_1", "prd", "prd_" + "9" * 30])
    def test_an_unknown_product_is_refused(self, api: ApiClient, product: str) -> None:
        assert api.refused("POST", "/api/shop/cart", {"items": [{"product": product}]}) == (404, "not_found", "items")

    def test_a_product_that_is_sold_out_is_refused(self, api: ApiClient) -> None:
        assert api.refused("POST", "/api/shop/cart", {"items": [{"product": "prd_10"}]}) == (409, "conflict", "items")

    def test_nobody_sees_what_is_anothers(self, api: ApiClient) -> None:
        cart = api.post("/api/shop/cart", {"items": [{"product": "prd_1"}]})
        api.order()
        other = ApiClient(api.sandbox, api.sandbox.create_key(user_id="user_42"))
        body = {"cart": cart["id"], "payment_method": "card"}
        assert other.refused("POST", "/api/shop/checkout", body) == (404, "not_found", "cart")
        assert other.get("/api/shop/orders")["data"] == []
        assert other.get("/api/wallet/transactions")["data"] == []


class TestKeys:
    @pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic {key}", "{key}", "Bearer whsec_something"])
    def test_without_a_key_nothing_is_answered(self, api: ApiClient, header: str) -> None:
        headers = {"authorization": header.format(key=api.key)}
        assert api.refused("GET", "/api/wallet/balance", headers=headers) == (401, "unauthenticated", "Authorization")

    def test_a_request_without_the_header_is_refused(self, sandbox: Sandbox) -> None:
        assert sandbox.answer(ApiRequest("GET", "/api/wallet/balance", [], {}, b"")).status == 401

    def test_a_missing_scope_has_the_documented_answer(self, sandbox: Sandbox) -> None:
        api = ApiClient(sandbox, sandbox.create_key(["shop:read"]))
        _, answer = api.request("GET", "/api/wallet/balance")
        expected = {
            "type": "insufficient_scope",
            "code": "403",
            "message": "Missing scope: wallet:read",
            "param": "scope",
        }
        assert answer == {"error": expected}

    @pytest.mark.parametrize("endpoint", ENDPOINTS, ids=[endpoint.name for endpoint in ENDPOINTS])
    def test_each_endpoint_needs_its_scope_and_no_other(self, sandbox: Sandbox, endpoint: Any) -> None:  # noqa: ANN401 - Endpoint[object]
        without = ApiClient(sandbox, sandbox.create_key([scope for scope in SCOPES if scope != endpoint.scope]))
        assert without.request(endpoint.method, endpoint.path, {})[0] == 403
        alone = ApiClient(sandbox, sandbox.create_key([endpoint.scope]))
        assert alone.request(endpoint.method, endpoint.path, {})[0] in {200, 400}

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/api/news"), ("PUT", "/api/wallet/balance"), ("GET", "/api/")]
    )
    def test_an_unknown_endpoint_is_not_found(self, api: ApiClient, method: str, path: str) -> None:
        assert api.refused(method, path) == (404, "not_found", None)


class TestVersions:
    @pytest.mark.parametrize("version", ["", " ", "2025-09-15", "2025-11-10"])
    def test_documented_versions_are_taken(self, api: ApiClient, version: str) -> None:
        api.get("/api/wallet/balance", headers={"x-roovet-version": version})

    def test_another_is_refused(self, api: ApiClient) -> None:
        headers = {"x-roovet-version": "2020-01-01"}
        refusal = api.refused("GET", "/api/wallet/balance", headers=headers)
        assert refusal == (400, "invalid_request", "X-Roovet-Version")


class TestRateLimit:
    def test_sixty_in_a_minute(self) -> None:
        clock = SandboxClock(lambda: NOW)
        sandbox = Sandbox(clock=clock)
        api = ApiClient(sandbox)
        for remaining in reversed(range(60)):
            api.get("/api/wallet/balance")
            assert api.last is not None
            headers = dict(api.last.headers)
            assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("60", str(remaining))
            assert headers["X-RateLimit-Reset"] == str(int(NOW) + 60)
        assert api.refused("GET", "/api/wallet/balance") == (429, "rate_limited", None)
        assert api.last is not None
        assert dict(api.last.headers)["Retry-After"] == "60"
        another = ApiClient(sandbox, sandbox.create_key())
        another.get("/api/wallet/balance")
        sandbox.advance(60)
        api.get("/api/wallet/balance")

    def test_the_reset_goes_by_the_date_of_the_answer(self) -> None:
        sandbox = Sandbox(clock=SandboxClock(lambda: NOW))
        sandbox.advance(3600)
        api = ApiClient(sandbox)
        api.get("/api/wallet/balance")
        assert api.last is not None
        headers = dict(api.last.headers)
        date = parsedate_to_datetime(headers["Date"]).timestamp()
        assert (date, headers["X-RateLimit-Reset"]) == (NOW + 3600, str(int(NOW) + 3660))

    def test_a_refused_write_does_nothing(self) -> None:
        sandbox = Sandbox(clock=SandboxClock(lambda: NOW), rate_limit=1)
        api = ApiClient(sandbox)
        api.get("/api/wallet/balance")
        before = sandbox.check_books()
        assert api.refused("POST", "/api/wallet/transfer", TRANSFER)[0] == 429
        assert sandbox.check_books() == before


class TestPaging:
    @pytest.fixture
    def orders(self, api: ApiClient) -> list[str]:
        return [api.order()["id"] for _ in range(5)][::-1]

    def test_forwards(self, api: ApiClient, orders: list[str]) -> None:
        seen: list[str] = []
        cursor = ""
        while True:
            page = api.get(f"/api/shop/orders?limit=2{cursor}")
            seen += [row["id"] for row in page["data"]]
            if not page["has_more"]:
                assert page["next_cursor"] is None
                break
            cursor = f"&starting_after={page['next_cursor']}"
        assert seen == orders

    def test_backwards(self, api: ApiClient, orders: list[str]) -> None:
        page = api.get(f"/api/shop/orders?limit=2&ending_before={orders[-1]}")
        assert [row["id"] for row in page["data"]] == orders[2:4]
        assert (page["has_more"], page["next_cursor"]) == (True, orders[2])
        page = api.get(f"/api/shop/orders?limit=2&ending_before={orders[2]}")
        assert [row["id"] for row in page["data"]] == orders[:2]
        assert page["has_more"] is False

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=x", "limit"),
            ("limit=", "limit"),
            ("starting_after=ord_99", "starting_after"),
            ("ending_before=txn_1", "ending_before"),
            ("starting_after=", "starting_after"),
            ("starting_after={0}&ending_before={0}", "ending_before"),
        ],
    )
    def test_what_names_no_page_is_refused(self, api: ApiClient, orders: list[str], query: str, param: str) -> None:
        path = f"/api/shop/orders?{query.format(orders[0])}"
        assert api.refused("GET", path) == (400, "invalid_request", param)

    def test_a_page_has_twenty_rows_unless_told_otherwise(self, api: ApiClient) -> None:
        for _ in range(21):
            api.order()
        assert len(api.get("/api/shop/orders?unknown=1")["data"]) == 20


class TestIdempotency:
    KEY = {"idempotency-key": "5b0d-d4"}  # noqa: RUF012 - read only

    def test_a_repeat_gets_the_same_answer_and_acts_once(self, api: ApiClient) -> None:
        first = api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY)
        assert api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY) == first
        assert api.sandbox.check_books()["user_42"] == 1234

    def test_repeats_that_come_at_once_act_once(self, api: ApiClient) -> None:
        def transfer(_number: int) -> object:
            return ApiClient(api.sandbox).post("/api/wallet/transfer", TRANSFER, headers=self.KEY)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(transfer, range(16)))
        assert all(answer == answers[0] for answer in answers)
        assert api.sandbox.check_books()["user_42"] == 1234

    def test_a_refusal_is_repeated_too(self, api: ApiClient) -> None:
        body = {**TRANSFER, "to": "user_77"}
        assert api.refused("POST", "/api/wallet/transfer", body, headers=self.KEY)[0] == 404
        api.sandbox.create_key(user_id="user_77")
        assert api.refused("POST", "/api/wallet/transfer", body, headers=self.KEY)[0] == 404

    @pytest.mark.parametrize(
        ("path", "body"),
        [("/api/wallet/transfer", {**TRANSFER, "amount": 1}), ("/api/shop/cart", {"items": [{"product": "prd_1"}]})],
    )
    def test_another_request_under_the_key_is_a_conflict(self, api: ApiClient, path: str, body: object) -> None:
        api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY)
        assert api.refused("POST", path, body, headers=self.KEY) == (409, "conflict", "Idempotency-Key")

    def test_a_key_is_forgotten_after_a_day(self, api: ApiClient) -> None:
        first = api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY)
        api.sandbox.advance(24 * 3600 - 1)
        assert api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY) == first
        api.sandbox.advance(1)
        assert api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY) != first

    def test_keys_of_two_callers_do_not_meet(self, api: ApiClient) -> None:
        other = ApiClient(api.sandbox, api.sandbox.create_key())
        first = api.post("/api/wallet/transfer", TRANSFER, headers=self.KEY)
        assert other.post("/api/wallet/transfer", TRANSFER, headers=self.KEY) != first

    @pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256])
    def test_a_key_that_is_none_is_refused(self, api: ApiClient, key: str) -> None:
        refusal = api.refused("POST", "/api/wallet/transfer", TRANSFER, headers={"idempotency-key": key})
        assert refusal == (400, "invalid_request", "Idempotency-Key")

    def test_a_read_needs_none(self, api: ApiClient) -> None:
        api.get("/api/wallet/balance", headers=self.KEY)
        api.get("/api/shop/orders", headers=self.KEY)


class TestChaos:
    @pytest.mark.parametrize(
        ("fault", "status", "acts"),
        [("api_rate_limited", 429, 0), ("api_error", 500, 0), ("api_timeout", 500, 0), ("api_lost_answer", 500, 1)],
    )
    def test_a_fault_answers_an_error(self, api: ApiClient, fault: str, status: int, acts: int) -> None:
        headers = {"authorization": f"Bearer {api.key}", "content-type": "application/json"}
        request = ApiRequest("POST", "/api/wallet/transfer", [], headers, b'{"to":"user_42","amount":1}')
        assert api.sandbox.answer(request, fault).status == status
        assert api.sandbox.check_books()["user_42"] == 100 * acts


class TestFile:
    def test_everything_is_there_after_a_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "sandbox.db"
        sandbox = Sandbox(path)
        secret = sandbox.register("http://127.0.0.1:8000/webhooks/roovet")
        key = sandbox.api_key
        order = ApiClient(sandbox).order()
        sandbox.advance(3600)
        sandbox.close()
        again = Sandbox(path)
        assert again.api_key == key
        assert ApiClient(again).get("/api/shop/orders")["data"] == [order]
        assert again.endpoints() == ["http://127.0.0.1:8000/webhooks/roovet"]
        assert again.clock.offset == 3600
        assert again.delivery_states()["pending"] == 1
        assert secret not in repr(again)
        again.close()

    def test_a_key_of_ones_own(self, tmp_path: Path) -> None:
        path = tmp_path / "sandbox.db"
        for _ in range(2):
            sandbox = Sandbox(path, api_key="rvpk_test_of_my_own")
            assert sandbox.api_key == "rvpk_test_of_my_own"
            ApiClient(sandbox).get("/api/wallet/balance")
            sandbox.close()
        again = Sandbox(path)
        assert again.api_key == "rvpk_test_of_my_own"
        again.close()
        with pytest.raises(ConfigurationError, match="rvpk_"):
            Sandbox(api_key="whsec_something_else")

    def test_a_reset_begins_anew_and_keeps_keys_and_endpoints(self, sandbox: Sandbox, api: ApiClient) -> None:
        sandbox.register("http://127.0.0.1:8000/")
        api.order()
        sandbox.reset()
        assert api.get("/api/shop/orders")["data"] == []
        assert sandbox.endpoints() == ["http://127.0.0.1:8000/"]
        assert sandbox.delivery_states() == {"pending": 0, "delivered": 0, "failed": 0}
