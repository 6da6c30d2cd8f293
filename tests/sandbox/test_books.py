"""No sequence of requests makes or loses money, whatever comes at once; paging sees each row once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from roovet_webhooks.sandbox import Sandbox, SandboxClock
from sandbox.conftest import NOW, ApiClient

AMOUNTS = st.sampled_from([0.01, 0.29, 1.0, 999.99, 3998.5, 4000.01])
PRODUCTS = st.sampled_from([f"prd_{number}" for number in range(1, 12)])
WRITES = 400


class ApiMachine(RuleBasedStateMachine):
    """Two users, who write at once and page through what they wrote."""

    carts = Bundle("carts")

    @initialize()
    def start(self) -> None:
        self.sandbox = Sandbox(clock=SandboxClock(lambda: NOW), rate_limit=1_000_000)
        self.users = [ApiClient(self.sandbox, self.sandbox.create_key(user_id=name)) for name in ("user_1", "user_42")]
        self.repeats: dict[tuple[int, str], tuple[object, object]] = {}

    def teardown(self) -> None:
        if hasattr(self, "sandbox"):
            self.sandbox.close()

    def at_once(self, requests: list[tuple[int, str, object, dict[str, str]]]) -> list[tuple[int, Any]]:
        """Make requests at the same time; `ApiClient.request` checks the shape of every error."""

        def make(request: tuple[int, str, object, dict[str, str]]) -> tuple[int, Any]:
            user, path, body, headers = request
            client = ApiClient(self.sandbox, self.users[user].key)
            return client.request("POST", path, body, headers=headers)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(make, requests))
        assert {status for status, _ in answers} <= {200, 400, 404, 409}
        return answers

    @rule(transfers=st.lists(st.tuples(st.integers(0, 1), AMOUNTS), min_size=1, max_size=4))
    def transfer(self, transfers: list[tuple[int, float]]) -> None:
        targets = ["user_42", "user_1"]
        bodies = [(user, {"to": targets[user], "amount": amount}) for user, amount in transfers]
        self.at_once([(user, "/api/wallet/transfer", body, {}) for user, body in bodies])

    @rule(user=st.integers(0, 1), key=st.sampled_from("abc"), amount=AMOUNTS, copies=st.integers(1, 3))
    def transfer_again(self, user: int, key: str, amount: float, copies: int) -> None:
        body = {"to": ["user_42", "user_1"][user], "amount": amount}
        request = (user, "/api/wallet/transfer", body, {"idempotency-key": key})
        answers = self.at_once([request] * copies)
        sent, answered = self.repeats.setdefault((user, key), (body, answers[0]))
        for answer in answers:
            assert answer == answered if body == sent else answer[0] == 409

    @rule(target=carts, user=st.integers(0, 1), product=PRODUCTS, quantity=st.integers(1, 3))
    def fill(self, user: int, product: str, quantity: int) -> tuple[int, str]:
        items = [{"product": product, "quantity": quantity}]
        [(status, answer)] = self.at_once([(user, "/api/shop/cart", {"items": items}, {})])
        return user, answer["id"] if status == 200 else "cart_unknown"

    @rule(cart=carts, method=st.sampled_from(["wallet", "card"]), copies=st.integers(1, 3))
    def checkout(self, cart: tuple[int, str], method: str, copies: int) -> None:
        user, name = cart
        body = {"cart": name, "payment_method": method}
        answers = self.at_once([(user, "/api/shop/checkout", body, {})] * copies)
        assert sum(status == 200 for status, _ in answers) <= 1

    @rule(seconds=st.sampled_from([1, 2, 3600]))
    def advance(self, seconds: int) -> None:
        self.sandbox.advance(seconds)

    @rule(user=st.integers(0, 1), limit=st.integers(1, 4), name=st.sampled_from(["wallet/transactions", "shop/orders"]))
    def page(self, user: int, limit: int, name: str) -> None:
        client = self.users[user]
        there = [row["id"] for row in client.get(f"/api/{name}?limit=100")["data"]]
        seen: list[str] = []
        cursor = ""
        for _ in range(WRITES):
            page = client.get(f"/api/{name}?limit={limit}{cursor}")
            seen += [row["id"] for row in page["data"]]
            # A row that comes meanwhile is newer than the first page: it moves nothing.
            ApiClient(self.sandbox, client.key).order()
            if not page["has_more"]:
                break
            cursor = f"&starting_after={page['next_cursor']}"
        assert seen[: len(there)] == there[: len(seen)]
        assert len(set(seen)) == len(seen)
        if there:
            self.page_back(client, name, limit, there)

    def page_back(self, client: ApiClient, name: str, limit: int, there: list[str]) -> None:
        back: list[str] = []
        cursor = there[-1]
        for _ in range(WRITES):
            page = client.get(f"/api/{name}?limit={limit}&ending_before={cursor}")
            back = [row["id"] for row in page["data"]] + back
            if not page["has_more"]:
                break
            cursor = page["next_cursor"]
        assert back[-len(there) + 1 :] == there[:-1] or len(there) == 1
        assert len(set(back)) == len(back)

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "sandbox"):
            balances = self.sandbox.check_books()
            assert all(cents >= 0 for name, cents in balances.items() if name != "outside")

    @invariant()
    def a_balance_is_the_sum_of_its_transactions(self) -> None:
        if not hasattr(self, "sandbox"):
            return
        for client in self.users:
            cursor, total = "", 0
            while True:
                page = client.get(f"/api/wallet/transactions?limit=100{cursor}")
                total += sum(row["amount_cents"] for row in page["data"])
                if not page["has_more"]:
                    break
                cursor = f"&starting_after={page['next_cursor']}"
            assert client.get("/api/wallet/balance")["balance_cents"] == total


ApiMachine.TestCase.settings = settings(max_examples=8, stateful_step_count=20)
TestApiMachine = ApiMachine.TestCase
