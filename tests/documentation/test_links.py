"""Every link leads somewhere, on a code host and in the pages that Sphinx builds."""

from __future__ import annotations

import re

import pytest

from documentation.pages import DOCS, PAGES, ROOT, text_of
from repository import ABOUT


def anchors_of(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page))):
        if target.startswith("http"):
            continue
        path = ((ROOT / page).parent / target if target else ROOT / page).resolve()
        assert path.exists(), target
        if page != "README.md" and not path.is_relative_to(DOCS):
            assert path.relative_to(ROOT).as_posix() in ABOUT, f"Sphinx has no page about {target}"
        if anchor:
            assert anchor in anchors_of(path.read_text("utf-8")), f"{target}#{anchor}"


def test_the_checks_here_can_fail() -> None:
    assert anchors_of("# One `two`: three\n## Why 400, and not 401\n") == {"one-two-three", "why-400-and-not-401"}
