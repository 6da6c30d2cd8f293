"""The pages of the documentation, and what stands on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import types

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_SOURCES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.relative_to(DOCS).parts)
PAGES = ["README.md", *(page.relative_to(ROOT).as_posix() for page in _SOURCES)]
# Their blocks are files and commands, which are written and run in an empty folder.
TUTORIALS = [page for page in PAGES if page.startswith("docs/tutorial/") and page != "docs/tutorial/index.md"]

_FENCE = re.compile(
    r"^(?:<!-- (?P<note>\S.*?) -->\n)?```(?P<language>[\w{}-]+)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        line: How many lines of the page come before its code.
        language: What stands behind the fence.
        code: Its lines.
        note: The comment right before it, which no reader sees, or nothing.
        before: The text between the block before and this one.
    """

    line: int
    language: str
    code: str
    note: str
    before: str

    @property
    def is_fragment(self) -> bool:
        """Whether it cannot run with the others of its page; the note has to say why."""
        return re.match(r"fragment: \S", self.note) is not None

    def compiled(self, page: str) -> types.CodeType:
        """Return its code; the empty lines before make a traceback name the line of the page."""
        return compile("\n" * self.line + self.code, str(ROOT / page), "exec", dont_inherit=True)


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = text_of(page)
    blocks: list[Block] = []
    end = 0
    for fence in _FENCE.finditer(text):
        line = text[: fence.start("code")].count("\n")
        before = text[end : fence.start()]
        blocks.append(Block(line, fence["language"], fence["code"], fence["note"] or "", before))
        end = fence.end()
    return blocks


def python_of(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language == "python"]


def section_of(page: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def rows_of(text: str, columns: int) -> list[list[str]]:
    """Return the cells of all tables of so many columns, without their heads."""
    tables = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]
    return [row for row in rows if len(row) == columns]
