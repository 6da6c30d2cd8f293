"""The request examples of the vendor's documentation, with the sandbox's host: each is answered as documented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.programs import program

from roovet_webhooks.sandbox import Sandbox, sandbox_app
from roovet_webhooks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "https://roovet.com"
BALANCE = ["balance_cents", "available_cents", "currency", "updated_at"]
TRANSACTION = ["id", "type", "amount_cents", "currency", "created_at"]
TRANSFER = ["id", "status", "amount_cents", "currency", "created_at"]

CURL_PINNED = """curl -H "Authorization: Bearer rvpk_live_..._1234" \\
  -H "X-Roovet-Version: " \\
  https://roovet.com/api/wallet/balance"""
CURL_BALANCE = 'curl -H "Authorization: Bearer <API_KEY>" https://roovet.com/api/wallet/balance'
CURL_TRANSACTIONS = (
    """curl "https://roovet.com/api/wallet/transactions?limit=2" -H "Authorization: Bearer <API_KEY>\""""
)
CURL_TRANSFER = """curl -X POST https://roovet.com/api/wallet/transfer \\
  -H "Authorization: Bearer <API_KEY>" \\
  -H "Idempotency-Key: 5b0d...d4" \\
  -H "Content-Type: application/json" \\
  -d '{"to":"user_42","amount":12.34,"currency":"USD","note":"Thanks!"}'"""
JAVASCRIPT = """const res = await fetch('https://roovet.com/api/wallet/balance', {
  headers: { Authorization: 'Bearer ' + ROOVET_API_KEY, 'X-Roovet-Version': ''+(window.ApiDocsVersion||'2025-09-15')+'' }
});
const json = await res.json();
"""  # noqa: E501 - the vendor's line
PHP = """$ch = curl_init("https://roovet.com/api/wallet/balance");
curl_setopt_array($ch, [
  CURLOPT_HTTPHEADER => [
    "Authorization: Bearer ".$_ENV["ROOVET_API_KEY"],
    "X-Roovet-Version: 2025-11-10"
  ],
  CURLOPT_RETURNTRANSFER => true
]);
$resp = curl_exec($ch);
"""
PYTHON = """import requests, os
r = requests.get("https://roovet.com/api/wallet/balance", headers={
  "Authorization": f"Bearer {os.getenv('ROOVET_API_KEY')}",
  "X-Roovet-Version": "2025-11-10"
})
print(r.json())
"""


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox()
    with serving(sandbox_app(sandbox), path="", lifespan=True, date_header=False) as url:
        yield sandbox, url
    sandbox.close()


def run(served: tuple[Sandbox, str], command: list[str], text: str) -> str:
    """Run an example with the sandbox's host and key in it, and return what it prints."""
    sandbox, url = served
    text = text.replace(HOST, url).replace("<API_KEY>", sandbox.api_key).replace("rvpk_live_..._1234", sandbox.api_key)
    environment = {**os.environ, "ROOVET_API_KEY": sandbox.api_key, "no_proxy": "127.0.0.1"}
    done = subprocess.run([*command, text], env=environment, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - the examples above
    return done.stdout


def curl(served: tuple[Sandbox, str], text: str) -> Any:  # noqa: ANN401 - JSON
    program("curl")
    return json.loads(run(served, [program("sh"), "-c"], text))


@pytest.mark.parametrize("text", [CURL_PINNED, CURL_BALANCE])
def test_curl_balance(served: tuple[Sandbox, str], text: str) -> None:
    assert list(curl(served, text)) == BALANCE


def test_curl_transactions(served: tuple[Sandbox, str]) -> None:
    answer = curl(served, CURL_TRANSACTIONS)
    assert list(answer) == ["data", "has_more", "next_cursor"]
    assert [list(row)[: len(TRANSACTION)] for row in answer["data"]] == [TRANSACTION] * 2


def test_curl_transfer(served: tuple[Sandbox, str]) -> None:
    first = curl(served, CURL_TRANSFER)
    assert list(first) == TRANSFER
    assert (first["status"], first["amount_cents"], first["currency"]) == ("processing", 1234, "USD")
    assert first["id"].startswith("trf_")
    assert curl(served, CURL_TRANSFER) == first


@pytest.mark.parametrize("path", ["/api/shop/products?query=chair&limit=20", "/api/shop/orders"])
def test_curl_shop(served: tuple[Sandbox, str], path: str) -> None:
    answer = curl(served, f'curl "{HOST}{path}" -H "Authorization: Bearer <API_KEY>"')
    assert list(answer) == ["data", "has_more", "next_cursor"]


def test_the_documented_page(served: tuple[Sandbox, str]) -> None:
    newest = curl(served, CURL_TRANSACTIONS)["data"][0]["id"]
    text = CURL_TRANSACTIONS.replace("limit=2", f"limit=50&starting_after={newest}")
    assert newest not in [row["id"] for row in curl(served, text)["data"]]


def test_the_documented_error(served: tuple[Sandbox, str]) -> None:
    key = served[0].create_key(["shop:write"])
    answer = curl(served, CURL_BALANCE.replace("<API_KEY>", key))
    detail = {"type": "insufficient_scope", "code": "403", "message": "Missing scope: wallet:read", "param": "scope"}
    assert answer == {"error": detail}


def test_an_answer_has_one_date(served: tuple[Sandbox, str]) -> None:
    headers = run(served, [program("sh"), "-c"], CURL_BALANCE.replace("curl", "curl -sD - -o /dev/null", 1))
    assert headers.lower().count("\ndate:") == 1


def test_javascript(served: tuple[Sandbox, str]) -> None:
    frame = "const window = {}, ROOVET_API_KEY = process.env.ROOVET_API_KEY;\n%sconsole.log(JSON.stringify(json));"
    output = run(served, [program("node"), "--input-type=module", "-e"], frame % JAVASCRIPT)
    assert list(json.loads(output)) == BALANCE


def test_php(served: tuple[Sandbox, str]) -> None:
    command = [program("php"), "-d", "variables_order=EGPCS", "-r"]
    assert list(json.loads(run(served, command, PHP + "echo $resp;"))) == BALANCE


def test_python(served: tuple[Sandbox, str]) -> None:
    output = run(served, [sys.executable, "-c"], PYTHON.replace("print(r.json())", "print(r.text)"))
    assert list(json.loads(output)) == BALANCE
