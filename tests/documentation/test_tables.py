"""The tables of the pages say what is true: they are those of the package."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from typing import TYPE_CHECKING, cast

import pytest
from receiving.life import LIFE
from support import NOW, SECRET, payload, request_of

import roovet_webhooks
from documentation.pages import DOCS, ROOT, python_of, rows_of, section_of, text_of
from roovet_webhooks import Delivery, DropDelivery, Event, RetryLater, WebhookReceiver, errors, messages
from roovet_webhooks.inbox.states import TRANSITIONS
from roovet_webhooks.telemetry import blocking
from roovet_webhooks.telemetry.catalog import DELIVERY_FIELDS, EVENTS, FIELDS, MEANINGS, METRICS, SPANS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "roovet_webhooks"
# What no page of the reference is about, and why. A page about a package is about what is in it.


def classes_of_the_tree() -> dict[str, type[errors.WebhookError]]:
    return {
        value.code: value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.WebhookError)
    }


def test_the_table_of_errors_is_the_tree() -> None:
    tree = classes_of_the_tree()
    section = text_of("docs/reference/answers.md")
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    told = {code: (int(status), word) for status, word, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert told == {code: (tree[code].status, tree[code].type) for code in told}
    refusals = {
        code
        for code, error in tree.items()
        if issubclass(error, (errors.RequestError, errors.VerificationError, errors.PayloadError))
        and not error.__subclasses__()
    }
    # What a store may say to whoever brings a delivery; the others are for operators.
    of_an_inbox = {"inbox_unavailable", "inbox_full", "delivery_in_flight", "lease_lost"}
    assert refusals | of_an_inbox <= told.keys()


def test_every_answer_that_is_no_error_is_on_the_page_of_answers() -> None:
    page = text_of("docs/reference/answers.md")
    answers = (messages.STORED, messages.HANDLED, messages.IGNORED, messages.DROPPED, messages.DUPLICATE)
    assert [re.search(f"`{re.escape(answer.body.decode())}`", page) is not None for answer in answers] == [True] * 5


def test_the_usual_causes_are_told_of_codes_that_exist() -> None:
    rows = rows_of(text_of("docs/reference/log.md").partition("## The fields")[0], 2)
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row[0])}
    assert codes
    assert codes <= classes_of_the_tree().keys()


# What is told of a durable inbox, its workers and engines: the tests of these look at what they log.
OF_A_DURABLE_INBOX = {
    name
    for name in EVENTS
    if name.partition(".")[0] in {"inbox", "worker", "engine"}
    or name
    in {
        "delivery.stored",
        "delivery.too_old",
        "delivery.dead",
        "delivery.unhandled",
        "handler.missing",
        "handler.failed_after_commit",
    }
}


def what_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, set[str]]]:
    """Let everything happen that is logged; return the level and the fields of each event."""
    times = [float(NOW)]
    receiver = WebhookReceiver(SECRET, clock=lambda: times[-1])

    raised = {"order.dropped": DropDelivery, "order.later": RetryLater, "order.failed": ValueError}

    @receiver.on("order.*")
    def do(event: Event) -> None:
        if event.event in raised:
            raise raised[event.event]
        if event.event == "order.copied":
            receiver.receive(request_of(copied))

    @receiver.on_error
    def hook(_error: Exception, _delivery: Delivery) -> None:
        raise ValueError

    @receiver.on("wallet.slow")
    async def slow(_event: Event) -> None: ...

    copied = payload("order.copied")
    monkeypatch.setattr(blocking, "BLOCKED", 0.0)
    caplog.set_level("INFO", "roovet_webhooks")
    for name in ("order.done", *raised, "wallet.none", "wallet.slow"):
        receiver.receive(request_of(payload(name)))
    for _ in range(2):
        receiver.receive(request_of(copied))
    receiver.receive(request_of(headers={}))
    WebhookReceiver(SECRET).receive(request_of())
    example = WebhookReceiver("whsec_example_5f2b8c1e9a7d")
    example.on("order.*")(do)
    example.check()
    times.clear()
    receiver.receive(request_of())
    logged: dict[str, tuple[str, set[str]]] = {}
    for record in caplog.records:
        if record.name == "roovet_webhooks":
            name = record.getMessage().split(" ")[0]
            fields = {*vars(record)["roovet"], *(["the traceback"] if record.exc_info else [])}
            assert logged.setdefault(name, (record.levelname.lower(), fields))[1] == fields
    return logged


def test_what_is_logged_is_what_the_table_says(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = what_is_logged(caplog, monkeypatch)
    # What has no cause here has a traceback where there is one; OpenTelemetry is made to fail elsewhere.
    logged["receiver.not_ready"][1].add("the traceback")
    logged["otel.failed"] = ("error", {"the traceback"})
    assert logged == {
        name: (
            event.level,
            {
                *event.fields,
                *(DELIVERY_FIELDS if event.verified else ()),
                *(["the traceback"] if event.traceback else []),
            },
        )
        for name, event in EVENTS.items()
        if name not in OF_A_DURABLE_INBOX
    }


def test_the_log_is_as_its_page_says() -> None:
    section = text_of("docs/reference/log.md").partition("## The fields")[0]
    events = [
        [
            f"`{name}`",
            event.level,
            "; ".join(
                part
                for part in (
                    event.when,
                    ", ".join([*(f"`{field}`" for field in event.fields), *["the traceback"] * event.traceback]),
                )
                if part
            ),
        ]
        for name, event in EVENTS.items()
    ]
    assert rows_of(section, 3) == events
    fields = [[f"`{name}`", field.meaning] for name, field in FIELDS.items()]
    assert rows_of(section_of("docs/reference/log.md", "The fields"), 2) == fields
    assert tuple(FIELDS)[: len(DELIVERY_FIELDS)] == DELIVERY_FIELDS
    assert len(DELIVERY_FIELDS) == 8, "the page says that it is the first eight"


def test_spans_and_metrics_are_as_the_page_on_observing_says() -> None:
    section = section_of("docs/how-to/observe.md", "Turn on spans and metrics")
    assert rows_of(section, 3) == [[f"`{span.name}`", span.kind, span.covers] for span in SPANS.values()]
    assert dict(rows_of(section, 2)) == {f"`{name}`": meaning for name, meaning in MEANINGS.items()}
    assert rows_of(section, 4) == [
        [
            f"`{metric.name}`",
            f"{metric.kind}, `{metric.unit}`",
            metric.description,
            ", ".join(f"`{name}`" for name in metric.attributes),
        ]
        for metric in METRICS.values()
    ]


def test_alerts_are_about_metrics_that_exist() -> None:
    names = {
        metric.name.replace(".", "_")
        + {"counter": "_total", "histogram": "_seconds_count", "gauge": "_seconds"}[metric.kind]
        for metric in METRICS.values()
    }
    labels = {name.replace(".", "_") for metric in METRICS.values() for name in metric.attributes}
    rows = rows_of(section_of("docs/how-to/observe.md", "Alerts worth having").replace(r"\|", "or"), 3)
    queries = [row[1] for row in rows]
    used = {name for query in queries for name in re.findall(r"(\w+)(?:\{|\[|\))", query) if "_" in name}
    assert used - {"error_type"} == names
    assert {
        label for query in queries for label in re.findall(r"[{(](\w+)(?:!?=|\))", query) if "_" in label
    } - names <= labels


def statuses_of(text: str) -> set[int]:
    return {int(status) for status in re.findall(r"\b[2-5]\d\d\b", re.sub(r"300 seconds", "", text))}


def test_the_table_of_the_life_of_a_delivery_is_that_of_the_code() -> None:
    rows = rows_of(section_of("docs/explanation/semantics.md", "The life of a delivery"), 2)
    assert len(rows) == len(LIFE)
    for (holds, refused_with), step in zip(rows, LIFE, strict=True):
        assert holds.startswith(step.holds)
        ends = {fault.ending.status for fault in step.faults}
        assert statuses_of(refused_with) == ends


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = rows_of(section_of("docs/explanation/semantics.md", "States"), 5)
    told = [[cell.strip("`") for cell in row] for row in rows]
    assert told == [[row.state or "not recorded", row.step, row.when, row.to, row.change] for row in TRANSITIONS]


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_defence_names_a_test_that_exists() -> None:
    rows = rows_of(section_of("docs/explanation/threat-model.md", "What is defended"), 4)
    assert rows
    for *_, proof in rows:
        file, test = re.findall(r"`([^`]+)`", proof)
        assert test in names_of_tests(ROOT / "tests" / file)


# The reference


def modules_of_the_package() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


REFERENCE = {
    module: f"docs/reference/{page.name}"
    for page in sorted((DOCS / "reference").glob("*.md"))
    for module in re.findall(r"automodule:: roovet_webhooks\.(\S+)", page.read_text("utf-8"))
}


def test_every_page_of_the_reference_is_one_of_a_module() -> None:
    assert REFERENCE.keys() <= set(modules_of_the_package())


def test_a_page_of_the_reference_bears_the_name_of_its_module_and_is_in_the_index() -> None:
    index = text_of("docs/reference/index.md")
    for module, page in REFERENCE.items():
        assert page == f"docs/reference/{module}.md"
        assert text_of(page).startswith(f"# {module}\n")
        assert f"[{module}]({module}.md)" in index


def test_every_name_of_the_face_is_imported_on_the_page_of_its_module() -> None:
    imported = {
        (module, name)
        for module, page in REFERENCE.items()
        for block in python_of(page)
        for name in re.findall(r"\w+", block.code.partition("from roovet_webhooks import ")[2].partition("#")[0])
    }
    face = cast("list[str]", roovet_webhooks.__all__)
    homes = {(getattr(roovet_webhooks, name).__module__.removeprefix("roovet_webhooks."), name) for name in face}
    # Of the tree, whose page says so, a few stand for all.
    assert {pair for pair in imported if pair[0] != "errors"} == {pair for pair in homes if pair[0] != "errors"}
    assert {pair for pair in imported if pair[0] == "errors"} < homes


DOCTESTED = sorted(path for path in PACKAGE.rglob("*.py") if ">>>" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", DOCTESTED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_examples_of_docstrings_hold(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
