"""Explain names what removed a prefix or a line break, and what wrote the keys in another order."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from support import NOW, SECRET

from roovet_webhooks import sign
from roovet_webhooks.explain import explain
from roovet_webhooks.explain.forms import MOST_KEYS, SMALL, Document

if TYPE_CHECKING:
    from roovet_webhooks.findings import Diagnosis, Finding

VALUES: dict[str, Any] = {
    "event": "order.created",
    "amount_cents": 1250,
    "id": "ord_1",
    "currency": "EUR",
    "ts": NOW,
    "note": "a/b ü",
}


def written(order: tuple[str, ...] | list[str], **options: Any) -> bytes:  # noqa: ANN401 - json's own
    return json.dumps({name: VALUES[name] for name in order}, separators=(",", ":"), **options).encode()


def as_jsonb(order: tuple[str, ...] | list[str]) -> bytes:
    """Return an object as PostgreSQL shows it: shorter keys first, spaces, and no escapes."""
    ordered = sorted(order, key=lambda name: (len(name.encode()), name.encode()))
    return json.dumps({name: VALUES[name] for name in ordered}, ensure_ascii=False).encode()


def diagnosis(held: bytes, signed: bytes, secret: str = SECRET) -> Diagnosis:
    return explain(held, sign(signed, SECRET, timestamp=NOW), secret, now=NOW)


def found(held: bytes, signed: bytes, secret: str = SECRET) -> Finding:
    (finding,) = diagnosis(held, signed, secret).findings
    return finding


UNUSUAL = ("amount_cents", "ts", "note", "event", "currency", "id")


@pytest.mark.parametrize("count", range(2, MOST_KEYS + 1))
def test_a_body_that_went_through_jsonb(count: int) -> None:
    order = UNUSUAL[-count:]
    if written(order) == as_jsonb(order).replace(b", ", b",").replace(b": ", b":"):
        order = order[::-1]
    finding = found(as_jsonb(order), written(order))
    assert (finding.code, finding.evidence["via"]) == ("body_reserialized", "jsonb")
    assert "as PostgreSQL's jsonb writes it" in finding.message
    assert "bytea or text" in finding.remedy


@pytest.mark.parametrize("options", [{}, {"ensure_ascii": False}], ids=["escaped", "UTF-8"])
def test_sorted_keys_of_an_unusual_order(options: dict[str, Any]) -> None:
    finding = found(written(sorted(UNUSUAL), **options), written(UNUSUAL, **options))
    assert (finding.code, finding.evidence["via"]) == ("body_reserialized", "sort_keys")
    assert f"keys in the order {', '.join(UNUSUAL)}" in finding.message
    assert "sort_keys" in finding.remedy


def test_a_sender_that_signed_what_jsonb_gave_it() -> None:
    finding = found(written(UNUSUAL), as_jsonb(UNUSUAL))
    assert finding.code == "body_reserialized"
    assert "keys by length, as PostgreSQL's jsonb has them" in finding.message
    nested = b'{"id":{"bb":[{"bb":1,"a":2}],"a":2},"event":"x"}'
    assert found(nested, b'{"id": {"a": 2, "bb": [{"a": 2, "bb": 1}]}, "event": "x"}').code == "body_reserialized"


def test_any_order_of_any_keys_is_found() -> None:
    names = ("event", "id", "ts", "currency")
    held = written(names)
    for order in itertools.permutations(names):
        if order != names:
            assert found(held, written(order)).code == "body_reserialized"


def test_only_a_few_keys_in_a_small_body_are_tried_in_every_order() -> None:
    many = json.dumps({f"k{number}": number for number in range(MOST_KEYS + 1)}).encode()
    large = json.dumps({"a": "x" * SMALL, "b": 1}).encode()
    for body in (many, large, b"[1,2]", b'{"a":1}', b"no JSON"):
        assert not list(Document(body).orders())
        assert Document(body).made_by in {None, "jsonb", "sort_keys"}
    assert diagnosis(many, b"something else").codes == ("wrong_secret_or_altered_body",)
    deep = b'{"b":' + b"[" * 900 + b"]" * 900 + b',"a":1}'
    assert diagnosis(deep, b"something else").verdict == "refused"


def test_a_secret_without_its_prefix() -> None:
    body = written(("event", "id", "ts"))
    bare = SECRET.removeprefix("whsec_")
    finding = found(body, body, bare)
    assert (finding.code, finding.evidence["where"]) == ("secret_without_prefix", "here")
    assert bare not in finding.message
    (finding,) = explain(body, sign(body, bare, timestamp=NOW), SECRET, now=NOW).findings
    assert (finding.code, finding.evidence["where"]) == ("secret_without_prefix", "at the sender")


@pytest.mark.parametrize(
    ("held", "signed", "code", "words", "not_said"),
    [
        (b"{}\n", b"{}", "body_trailing_newline", "editors, echo and heredocs add", "strip"),
        (b"{}", b"{}\n", "body_trailing_newline", "Keep the line break, which was signed", "heredocs"),
        (b"{}  ", b"{}", "body_trimmed", "something adds white space", "strips"),
        (b"{}", b"{}  ", "body_trimmed", "something strips it", "adds"),
        (b" {}", b"{}", "body_trimmed", "something adds white space", "strips"),
        (b"{}", b" {}", "body_trimmed", "something strips it", "adds"),
    ],
)
def test_a_remedy_says_in_which_direction(held: bytes, signed: bytes, code: str, words: str, not_said: str) -> None:
    finding = found(held, signed)
    assert finding.code == code
    assert words in finding.remedy
    assert not_said not in finding.remedy
