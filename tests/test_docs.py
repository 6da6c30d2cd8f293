"""The tables of the pages say what is true: they are those of the package."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

import pytest
from documentation.pages import DOCS, ROOT, python_of, rows_of, section_of, text_of
from support import NOW, SECRET, payload, request_of

import roovet_webhooks
from roovet_webhooks import Delivery, DropDelivery, Event, RetryLater, WebhookReceiver, errors
from roovet_webhooks.inbox.protocol import STEPS
from roovet_webhooks.life import LIFE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "roovet_webhooks"
# What no page of the reference is about, and why. A page about a package is about what is in it.
INTERNAL = {
    "admission": "a step of the receiver: the life of a delivery says what it checks",
    "cli": "the command line has a page, made from its own help",
    "cli.*": "likewise",
    "dispatch": "a step of the receiver, as admission",
    "inbox": "a folder: what is in it has the pages",
    "intake": "a step of the receiver, as admission",
    "refusal": "a step of the receiver, as admission; explain and the guides say what it tells",
    "mac": "what it computes is documented where it is used, in signing",
}


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
    assert refusals <= told.keys()


def test_the_usual_causes_are_told_of_codes_that_exist() -> None:
    rows = rows_of(text_of("docs/reference/log.md"), 2)
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row[0])}
    assert codes
    assert codes <= classes_of_the_tree().keys()


def what_is_logged(caplog: pytest.LogCaptureFixture) -> dict[str, tuple[str, dict[str, object]]]:
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

    copied = payload("order.copied")
    caplog.set_level("INFO", "roovet_webhooks")
    for name in ("order.done", *raised, "wallet.none"):
        receiver.receive(request_of(payload(name)))
    for _ in range(2):
        receiver.receive(request_of(copied))
    receiver.receive(request_of(headers={}))
    WebhookReceiver(SECRET).receive(request_of())
    times.clear()
    receiver.receive(request_of())
    logged: dict[str, tuple[str, dict[str, object]]] = {}
    for record in caplog.records:
        if record.name == "roovet_webhooks":
            name = record.getMessage().split(" ")[0]
            _, fields = logged.get(name, ("", {}))
            logged[name] = record.levelname.lower(), {**fields, **vars(record)["roovet"]}
    return logged


def test_the_log_is_as_its_page_says(caplog: pytest.LogCaptureFixture) -> None:
    section = text_of("docs/reference/log.md")
    logged = what_is_logged(caplog)
    told = {row[0].strip("`"): row[1] for row in rows_of(section, 3)}
    assert {name: level for name, (level, _) in logged.items()} == told
    for name, _, fields in rows_of(section, 3):
        # What stands after the semicolon are fields.
        own = set(re.findall(r"`(\w+)`", fields.partition(";")[2]))
        assert own <= logged[name.strip("`")][1].keys()
    # The page describes the one by the other.
    assert logged["receiver.not_ready"][1].keys() == logged["delivery.rejected"][1].keys()
    sentence = re.search(r"that was verified also have (.*?)\. `endpoint`", section, re.DOTALL)
    assert sentence is not None
    about = set(re.findall(r"`(\w+)`", sentence[1]))
    assert about == logged["delivery.duplicate"][1].keys()
    for name in told.keys() - {"delivery.rejected", "hook.failed", "receiver.not_ready", "receiver.error"}:
        assert about <= logged[name][1].keys()
    assert {name for name in told if "endpoint" not in logged[name][1]} == {"hook.failed"}


def statuses_of(text: str) -> set[int]:
    return {int(status) for status in re.findall(r"\b[2-5]\d\d\b", re.sub(r"300 seconds", "", text))}


def test_the_table_of_the_life_of_a_delivery_is_that_of_the_code() -> None:
    rows = rows_of(section_of("docs/explanation/semantics.md", "The life of a delivery"), 2)
    assert len(rows) == len(LIFE)
    for (holds, refused_with), step in zip(rows, LIFE, strict=True):
        assert holds.startswith(step.holds)
        ends = {error.status for error in step.refusals} | {answer.status for answer in step.endings}
        assert statuses_of(refused_with) == ends


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = rows_of(section_of("docs/explanation/semantics.md", "States"), 3)
    told = {(row[0].strip("`"), re.findall(r"`(\w+)`", row[1])[0]): row[2].strip("`") for row in rows}
    assert told == {(str(state), str(step)): str(target) for (state, step), target in STEPS.items()}


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


def test_every_module_has_a_page_or_a_reason_to_have_none() -> None:
    modules = set(modules_of_the_package()) - {""}
    without = {
        module
        for module in modules
        if not any(module == page or module.startswith(f"{page}.") for page in REFERENCE)
        and not any(fnmatchcase(module, pattern) for pattern in INTERNAL)
    }
    assert not without, "write docs/reference/<module>.md, or say in INTERNAL why there is none"
    assert REFERENCE.keys() <= modules
    assert all(any(fnmatchcase(module, pattern) for module in modules) for pattern in INTERNAL)


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
