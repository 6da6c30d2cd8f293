"""JSON that was parsed and written again: `explain` says in which form it was signed."""

from __future__ import annotations

import json

import pytest
from support import NOW, SECRET, headers_of

from roovet_webhooks.explain import explain


def php(value: object, *, slashes: bool = False, unicode: bool = False, pretty: bool = False) -> bytes:
    """Write JSON as PHP's json_encode does, with the flags that are set."""
    text = json.dumps(
        value, separators=(",", ": ") if pretty else (",", ":"), ensure_ascii=not unicode, indent=4 if pretty else None
    )
    return (text if slashes else text.replace("/", "\\/")).encode()


VALUE = {
    "event": "order.created",
    "id": "ord_123",
    "ts": NOW,
    "url": "https://example.org/o/1",
    "note": "Grüße, 5 €",
    "lines": [{"sku": "a/b", "amount": 12.5}, {}, []],
}
# What a sender signs, by how it is written.
WRITTEN = {
    "compact, ASCII-escaped, slashes unescaped": php(VALUE, slashes=True),
    "compact, ASCII-escaped, slashes escaped": php(VALUE),
    "compact, UTF-8, slashes unescaped": php(VALUE, slashes=True, unicode=True),
    "compact, UTF-8, slashes escaped": php(VALUE, unicode=True),
    "spaced, ASCII-escaped, slashes unescaped": json.dumps(VALUE).encode(),
    "spaced, UTF-8, slashes unescaped": json.dumps(VALUE, ensure_ascii=False).encode(),
    "compact, ASCII-escaped, slashes unescaped, keys sorted": json.dumps(
        VALUE, sort_keys=True, separators=(",", ":")
    ).encode(),
    "spaced, ASCII-escaped, slashes unescaped, keys sorted": json.dumps(VALUE, sort_keys=True).encode(),
    "indented by 2, ASCII-escaped, slashes unescaped": json.dumps(VALUE, indent=2).encode(),
    "indented by 4, ASCII-escaped, slashes escaped": php(VALUE, pretty=True),
    "indented by 2, UTF-8, slashes unescaped, keys sorted": json.dumps(
        VALUE, indent=2, ensure_ascii=False, sort_keys=True
    ).encode(),
}


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["", "and a line break"])
@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("held", WRITTEN)
def test_json_that_was_parsed_and_written_again(held: str, form: str, end: bytes) -> None:
    found = explain(WRITTEN[held], headers_of(WRITTEN[form] + end), SECRET, now=NOW)
    if "keys sorted" in held:
        # What is sorted already is in its order as it is, and another order is lost.
        lost, form = "keys sorted" not in form, form.removesuffix(", keys sorted")
        held = held.removesuffix(", keys sorted")
    else:
        lost = False
    if lost:
        assert found.codes == ("wrong_secret_or_altered_body",)
    elif held == form:
        assert found.codes == (("body_trailing_newline",) if end else ("ok",))
    else:
        assert found.codes == ("body_reserialized",)
        assert found.findings[0].evidence["form"] == form
        assert found.secret_name == "default"
