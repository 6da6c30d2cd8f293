"""Each cause is made for real, and is the first that `explain` names."""

from __future__ import annotations

from support import NOW, OTHER_SECRET, SECRET, headers_of, payload

from roovet_webhooks.explain import CODES, explain


def test_a_genuine_delivery() -> None:
    raw = payload()
    found = explain(raw, headers_of(raw), SECRET, now=NOW)
    assert (found.verdict, found.codes, found.secret_name) == ("verified", ("ok",), "default")


def test_nothing_reproduces_it() -> None:
    raw = payload()
    found = explain(raw, headers_of(raw), OTHER_SECRET, now=NOW)
    assert (found.verdict, found.codes, found.secret_name) == ("refused", ("wrong_secret_or_altered_body",), None)
    assert found.findings[0].remedy == CODES["wrong_secret_or_altered_body"].remedy
