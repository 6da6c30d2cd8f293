"""The pages build, with every warning an error, and need nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import click
import pytest

from documentation.pages import DOCS, PAGES
from roovet_webhooks.cli.root import root

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html")
    ran = subprocess.run(  # noqa: S603 - the command of the README, with another place for what it makes
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", str(DOCS), str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def test_every_page_is_built(built: Path) -> None:
    for page in PAGES:
        name = page.removeprefix("docs/").removesuffix(".md") if page != "README.md" else "readme"
        assert (built / f"{name}.html").is_file(), page


def test_the_command_line_is_explained_by_its_own_help(built: Path) -> None:
    page = (built / "reference" / "command-line.html").read_text("utf-8")
    for name in root.list_commands(click.Context(root)):
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert f'id="roovet-webhooks-{name}"' in page
        for parameter in command.params:
            assert all(option in page for option in parameter.opts if option.startswith("--"))


class Loaded(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe"}:
            self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_no_page_loads_anything_from_elsewhere(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert pages
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        assert loaded.addresses
        assert not [address for address in loaded.addresses if re.match(r"\w+:|//", address)]
