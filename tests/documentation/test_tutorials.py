"""A newcomer who follows a tutorial, and it alone, has a first verified event and a fulfilled order."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from documentation.offline import closure_of, requirement_of
from documentation.pages import TUTORIALS, blocks_of, text_of
from documentation.terminal import Terminal
from documentation.walk import Walk

if TYPE_CHECKING:
    from pathlib import Path


needs_a_shell = pytest.mark.skipif(
    shutil.which("bash") is None, reason="the commands of the tutorials are those of a POSIX shell"
)


@needs_a_shell
@pytest.mark.parametrize("page", TUTORIALS)
@pytest.mark.long
def test_a_tutorial_can_be_followed_to_the_letter(page: str, tmp_path: Path) -> None:
    assert Walk(page, tmp_path, real=False).follow() == len(blocks_of(page))


def test_there_is_one_for_each_framework() -> None:
    assert {page.rpartition("/")[2] for page in TUTORIALS} == {"fastapi.md", "django.md", "flask.md"}


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_server_is_stopped_before_the_next_one_by_the_words_of_the_page(page: str) -> None:
    servers = [block for block in blocks_of(page) if block.note == "keeps running"]
    assert servers
    assert all("Stop the server with Ctrl-C" in block.before for block in servers[1:])
    form = re.compile(r"(terminal [234])?(, )?(keeps running)?")
    assert all(form.fullmatch(block.note) for block in blocks_of(page))
    assert "first verified event" in text_of(page)
    assert "first fulfilled order" in text_of(page)


# The walk can fail


@needs_a_shell
def test_what_is_shown_has_to_come_and_in_its_order(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {}, "", 0.5)
    try:
        assert terminal.run("printf 'one 1\\ntwo 2\\n'; false") == 1
        terminal.expect("one …\ntwo 2")
        terminal.run("printf 'one 1\\ntwo 2\\n'")
        with pytest.raises(AssertionError, match="'one' did not come; this did"):
            terminal.expect("two\none")
    finally:
        terminal.close()


@needs_a_shell
def test_what_keeps_running_is_stopped_for_the_next_and_at_the_end(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {"PATH": os.environ["PATH"]}, "", 10.0)
    try:
        for name in ("first", "second"):
            terminal.start(f"trap 'touch {name}; exit' TERM; echo {name} began; while :; do sleep 0.05; done")
            terminal.expect(f"{name} began")
    finally:
        terminal.close()
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_only_what_was_asked_for_is_installed() -> None:
    names = closure_of([requirement_of("../roovet-webhooks[flask]")]).keys()
    assert names >= {"roovet-webhooks", "flask", "werkzeug", "cryptography", "cffi"}
    assert not names & {"django", "fastapi", "uvicorn", "pytest"}
