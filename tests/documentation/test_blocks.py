"""No block of a page is only to be looked at: code runs, commands exist, and what is shown is what comes."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import dropwhile, groupby
from typing import TYPE_CHECKING

import click
import pytest
from support import NOW, SECRET, headers_of, payload, request_of

from documentation.pages import PAGES, ROOT, TUTORIALS, blocks_of, python_of, rows_of, section_of, text_of
from roovet_webhooks import VerificationError, WebhookReceiver, error_response
from roovet_webhooks.cli.root import root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# How many mounted receivers and guarded views each page shows; every one of them is sent deliveries.
MOUNTED = {
    "README.md": 5,
    "docs/index.md": 1,
    "docs/how-to/fastapi-and-starlette.md": 5,
    "docs/how-to/django.md": 5,
    "docs/how-to/flask.md": 2,
    "docs/how-to/any-other-framework.md": 1,
    "docs/how-to/aws-lambda.md": 2,
    "docs/how-to/many-tenants.md": 1,
    "docs/how-to/choose-an-inbox.md": 1,
    "docs/how-to/run-a-worker.md": 1,
    "docs/how-to/deploy-with-django.md": 1,
}
# What may stand on a page, and where it is held to be true.
LANGUAGES = {
    "python": "test_the_code_of_a_page_runs",
    "sh": "test_every_command_of_ours_on_a_page_can_be_given, and test_tutorials",
    "json": "test_what_is_shown_as_data_is",
    "ini": "test_what_is_shown_as_data_is",
    "toml": "test_what_is_shown_as_data_is",
    "http": "test_the_readme_shows_a_refusal_as_it_is",
    "mermaid": "test_pictures",
    "text": "test_the_readme_shows_a_refusal_as_it_is, and test_tutorials",
}
SET_UP = [
    (
        "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt '.[inbox,sandbox]' && "
        ".venv/bin/roovet-webhooks demo"
    ),
    (
        "python3 -m venv .venv && .venv/bin/pip install -q 'pip>=25.1' && .venv/bin/pip install -q -c constraints.txt "
        "-e '.[all]' --group test && .venv/bin/python -m pytest -n 2"
    ),
]
SECRETS_OF_A_READER = {"ROOVET_WEBHOOK_SECRET": SECRET, "ROOVET_API_KEY": "rvpk_test_3c5d7e9f1a2b4c6d8e0f"}
BUILD = ".venv/bin/sphinx-build -W --keep-going -n docs docs/_build/html"


WITH_CODE = [page for page in PAGES if python_of(page) and page not in TUTORIALS]
# Each page has a process of its own, since it configures frameworks for good; those of the reference share one.
REFERENCE = [page for page in WITH_CODE if page.startswith("docs/reference/")]


@pytest.fixture(scope="module")
def runner() -> Iterator[subprocess.Popen[str]]:
    """Yield the process from which those that run pages are forked."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "documentation.run_page"],
        env={**os.environ, **SECRETS_OF_A_READER, "PYTHONPATH": str(ROOT / "tests")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    "pages", [*([page] for page in WITH_CODE if page not in REFERENCE), REFERENCE], ids=lambda pages: pages[0]
)
def test_the_code_of_a_page_runs(pages: list[str], tmp_path: Path, runner: subprocess.Popen[str]) -> None:
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.write(json.dumps([str(tmp_path), pages]) + "\n")
    runner.stdin.flush()
    status = runner.stdout.readline()
    shown, told = ((tmp_path / name).read_text() for name in ("stdout", "stderr"))
    sys.stdout.write(shown + told)  # where it is searched for secrets
    assert status == "0\n", told
    assert int(shown.splitlines()[-1]) == sum(MOUNTED.get(page, 0) for page in pages)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_of_a_kind_that_is_tested(page: str) -> None:
    blocks = blocks_of(page)
    # No block escapes by the form of its fence.
    assert 2 * len(blocks) == len(re.findall(r"^\s*(?:```|~~~|:::)", text_of(page), re.MULTILINE))
    directives = {block.language for block in blocks if block.language.startswith("{")}
    assert {block.language for block in blocks} - directives <= LANGUAGES.keys()
    for block in python_of(page):
        block.compiled(page)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_shown_as_data_is(page: str) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    readers: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "ini": unit.read_string}
    for block in blocks_of(page):
        if block.language in readers:
            readers[block.language](block.code)


def commands_of(page: str) -> Iterator[list[str]]:
    """Yield the commands of a page, without what they set; each part of a pipe is one."""
    for block in blocks_of(page):
        if block.language != "sh":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            for between, part in groupby(words, key=lambda word: word[0] in "|&;<>()"):
                command = list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), part))
                if command and not between:
                    yield command


def resolved(words: list[str]) -> tuple[click.Context, list[str]]:
    """Return the context of the innermost command that words name, and what is left of them."""
    context, rest = click.Context(root, **root.context_settings), words
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, rest)
        assert name is not None
        assert command is not None
        context = click.Context(command, context, name, **command.context_settings)
    return context, rest


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_on_a_page_can_be_given(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let click take each to pieces as it would; files need not be there."""
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    for program, *words in commands_of(page):
        if words[:2] == ["manage.py", "roovet_inbox"]:
            program, words = "roovet-webhooks", ["inbox", *words[2:]]  # noqa: PLW2901 - the same command
        if program.rpartition("/")[2] != "roovet-webhooks":
            continue
        context, rest = resolved(words)
        with context:
            given, left, _ = context.command.make_parser(context).parse_args(rest)
            assert not left
            for parameter in context.command.params:
                if not isinstance(parameter.type, click.File | click.Path):
                    value, _ = parameter.consume_value(context, given)
                    parameter.process_value(context, value)


def test_the_other_commands_of_the_readme_are_run_by_tests() -> None:
    lines = [line for block in blocks_of("README.md") if block.language == "sh" for line in block.code.splitlines()]
    # The set-up and the build have tests below and in test_build, the examples in test_examples.
    rest = [line for line in lines if line not in {*SET_UP, BUILD} and "examples" not in line]
    assert all(".venv/bin/roovet-webhooks sandbox" in line or line.startswith("curl ") for line in rest)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_sentence_names_exists_with_its_options(page: str) -> None:
    told = re.findall(r"`roovet-webhooks ([a-z]+)([^`]*)`", text_of(page))
    if page == "README.md":
        table = rows_of(section_of(page, "The command line"), 2)
        told += [(found[1], found[2]) for row in table if (found := re.match(r"`([a-z]+)([^`]*)`", row[0]))]
        assert {name for name, _ in told} == set(root.list_commands(click.Context(root)))
    for name, rest in told:
        words = [name, *re.findall(r"(?<= )[a-z]+", rest)]
        # A group may be named without one of its commands.
        bare = isinstance(root.get_command(click.Context(root), name), click.Group) and len(words) == 1
        known = (
            set() if bare else {option for parameter in resolved(words)[0].command.params for option in parameter.opts}
        )
        assert set(re.findall(r"--[a-z-]+", rest)) <= known


def test_the_readme_sets_up_with_exactly_two_commands() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section_of("README.md", "Set up"), re.MULTILINE | re.DOTALL)
    assert blocks == [("sh", SET_UP[0] + "\n"), ("sh", SET_UP[1] + "\n")]


def test_the_documentation_is_built_with_one_command() -> None:
    assert f"```sh\n{BUILD}\n```" in section_of("README.md", "Development")
    _, _, options = BUILD.partition("sphinx-build ")
    assert f"sphinx-build -q {options}\n" in (ROOT / ".ci/run").read_text("utf-8")


def test_the_readme_shows_a_refusal_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    shown = {block.language: block.code for block in blocks_of("README.md") if block.language in {"http", "text"}}
    answer = error_response(VerificationError("whatever it was"))
    head, _, body = shown["http"].partition("\n\n")
    assert head.startswith(f"HTTP/1.1 {answer.status} ")
    assert body.strip() == answer.body.decode()
    raw = payload()
    receiver = WebhookReceiver(SECRET, clock=lambda: float(NOW))
    receiver.on("*", name="handler")(click.echo)
    receiver.receive(request_of(raw, headers_of(raw, timestamp=NOW - 600)))
    assert caplog.messages[-1].startswith(shown["text"].strip().removesuffix("…"))
