"""What a statement of a handler's does to the transaction and to the session, as far as its text says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Comments, literals and quoted names. A comment in a comment, which PostgreSQL knows, is read as ending early: that
# hides no statement. MySQL executes /*! … */.
_NO_CODE = re.compile(
    r"""
    --[^\n]* | /\*(?!!).*?\*/ | \be'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` | \$(\w*)\$.*?\$\1\$
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_MYSQLS_OWN = re.compile(r"/\*!\d*|\*/")
# A statement that begins or ends a transaction; ROLLBACK TO a savepoint does neither.
_ENDS = re.compile(
    r"(commit|end|abort|begin|start\s+transaction|prepare\s+transaction|rollback(?!(\s+(work|transaction))?\s+to\b))\b",
    re.IGNORECASE,
)
# What MySQL commits before it executes it.
_COMMITS_ON_MYSQL = re.compile(
    r"((create|drop)(?!\s+temporary\b)|alter|rename|truncate|lock|unlock|grant|revoke|analyze|optimize|repair|"
    r"set\s+((session|global|local)\s+|@@(session\.|global\.|local\.)?)?autocommit)\b",
    re.IGNORECASE,
)
# The body of a trigger or a function has a BEGIN and an END of its own.
_HAS_BODY = re.compile(r"create\b.*\bbegin\b", re.IGNORECASE | re.DOTALL)
_STAYS_IN = re.compile(
    r"(select|insert|update|delete|merge|with|values|table|lock|explain|savepoint|release|rollback|\(|set\s+(local|"
    r"transaction|constraints)\b)",
    re.IGNORECASE,
)
_REACHES_OUT = re.compile(r"\b(set_config|pg_(try_)?advisory_lock(_shared)?|dblink\w*|setseed)\b", re.IGNORECASE)


def _without(found: re.Match[str]) -> str:
    return " " if found[0].startswith(("--", "/*")) else " ? "


def _statements(text: str) -> Iterator[str]:
    for piece in _MYSQLS_OWN.sub(" ", _NO_CODE.sub(_without, text)).split(";"):
        if statement := piece.strip():
            yield statement
            if _HAS_BODY.match(statement):
                return


def ends_transaction(text: str) -> bool:
    """Return whether one of the statements in a text begins or ends a transaction."""
    return any(_ENDS.match(statement) for statement in _statements(text))


def ends_transaction_on_mysql(text: str) -> bool:
    """Return whether `ends_transaction`, or one of the statements is committed by MySQL itself, as DDL is."""
    return ends_transaction(text) or any(_COMMITS_ON_MYSQL.match(statement) for statement in _statements(text))


def outlives_transaction(text: str) -> bool:
    """Return whether a text may change more of the session than its transaction: a setting, a lock, a temporary table.

    What is not known to stay inside of the transaction may.
    """
    return any(not _STAYS_IN.match(one) or _REACHES_OUT.search(one) for one in _statements(text))
