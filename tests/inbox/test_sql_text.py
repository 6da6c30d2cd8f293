"""What the text of a statement says that it does to the transaction."""

from __future__ import annotations

import pytest

from roovet_webhooks.inbox.sql_text import ends_transaction


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "SELECT 'commit'; SELECT 2",
        "ROLLBACK TO SAVEPOINT s",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET n = 1; END",
        ";;",
    ],
)
def test_it_goes_on(text: str) -> None:
    assert not ends_transaction(text)


@pytest.mark.parametrize("text", ["COMMIT", "SELECT 1; commit", "/* done */ ROLLBACK", "-- done\nEND", "begin"])
def test_it_begins_or_ends(text: str) -> None:
    assert ends_transaction(text)
