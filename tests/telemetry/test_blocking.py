"""Which handler blocks an event loop is logged, also where one runs inside of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks.telemetry import HandlerRun, LoopStep, blocking, report_blocked_loops
from roovet_webhooks.telemetry.catalog import DELIVERY_FIELDS

if TYPE_CHECKING:
    import pytest

about = dict.fromkeys(DELIVERY_FIELDS, "x")


def told(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [vars(record)["roovet"]["handler"] for record in caplog.records]


def test_each_step_is_told_by_its_own_handler(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "BLOCKED", 0.0)
    with HandlerRun("outer", about), LoopStep():
        with HandlerRun("inner", about), LoopStep():
            report_blocked_loops()
            report_blocked_loops()
        report_blocked_loops()
    report_blocked_loops()
    assert told(caplog) == ["inner", "inner", "outer", "outer"]


def test_a_short_step_and_one_of_no_handler_are_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "BLOCKED", 3600.0)
    with HandlerRun("short", about), LoopStep():
        report_blocked_loops()
    monkeypatch.setattr(blocking, "BLOCKED", 0.0)
    with LoopStep():
        report_blocked_loops()
    assert told(caplog) == []
