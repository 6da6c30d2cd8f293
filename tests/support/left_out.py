"""A pytest plugin: the end of a run says how many tests it left out, and what would run them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the reasons of skipped tests, the most frequent first."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("left out", sep="-")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5} {'test' if count == 1 else 'tests'}: {reason}")
