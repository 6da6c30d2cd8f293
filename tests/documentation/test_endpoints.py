"""The tables of the API's reference have every row of the description."""

from __future__ import annotations

from documentation.pages import rows_of
from endpoints import assumption_table, endpoint_table
from roovet_webhooks.api.assumed import ASSUMPTIONS
from roovet_webhooks.api.table import ENDPOINTS


def test_every_endpoint_is_told_of() -> None:
    rows = rows_of(endpoint_table(), 6)
    assert [row[0].strip("`").split() for row in rows] == [[row.method, row.path] for row in ENDPOINTS]
    assert [row[1].strip("`") for row in rows] == [row.scope for row in ENDPOINTS]
    assert [row[5] == "documented" for row in rows] == [not row.assumptions for row in ENDPOINTS]


def test_every_assumption_is_told() -> None:
    rows = rows_of(assumption_table(), 2)
    assert [sentence for sentence, _ in rows] == list(ASSUMPTIONS.values())
    assert [about != "all" for _, about in rows] == [
        any(topic in row.assumptions for row in ENDPOINTS) for topic in ASSUMPTIONS
    ]
