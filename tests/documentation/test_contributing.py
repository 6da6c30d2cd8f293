"""What the pages say of installing and developing the package is what its files do."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import Any

import pytest
from support import services

from documentation.pages import PAGES, ROOT, rows_of, section_of, text_of


@cache
def project() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))


def cells_of(page: str, title: str, columns: int) -> list[str]:
    """Return the first cells of a section's tables, without their backticks."""
    return [row[0].strip("`") for row in rows_of(section_of(page, title), columns)]


def test_the_test_command_is_the_same_everywhere() -> None:
    command = "python -m pytest -n 2"
    assert text_of("README.md").count(f"{command}\n```") == 1
    assert f"```sh\n.venv/bin/{command}\n```" in section_of("CONTRIBUTING.md", "Run the tests")
    assert f"\n  {command} --long --cov\n" in text_of(".ci/run")


def test_the_stages_are_those_of_the_script() -> None:
    script = text_of(".ci/run")
    stages = cells_of("CONTRIBUTING.md", "What must pass", 2)
    assert f"\nSTAGES=({' '.join(stages)})\n" in script
    assert re.findall(r"^stage_(\w+)\(\)", script, re.MULTILINE) == stages


def test_the_servers_are_those_that_tests_ask_for() -> None:
    rows = rows_of(section_of("CONTRIBUTING.md", "Run the tests"), 3)
    told = {variable.strip("`"): default.strip("`") for _, variable, default in rows}
    assert told == {services.variable_of(service): url for service, url in services.URLS.items()}
    assert all(variable in text_of(".ci/run") for variable in told)


def test_every_extra_has_its_row() -> None:
    named = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows_of(text_of("docs/how-to/install.md"), 2)))
    assert set(named) >= project()["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_installs_by_name_leads_to_the_other_ways(page: str) -> None:
    text = text_of(page)
    extras = project()["project"]["optional-dependencies"].keys()
    for asked in re.findall(r"roovet-webhooks\[([\w,]+)\]", text):
        assert set(asked.split(",")) <= extras
    if "install 'roovet-webhooks[" in text and not page.endswith("/install.md"):
        assert re.search(r"\]\((?:\.\./how-to/)?install\.md\)", text)


def test_the_links_of_the_description_lead_to_the_source() -> None:
    (substitution,) = project()["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    assert substitution["replacement"].startswith(f"]({project()['project']['urls']['Source']}/blob/")


def test_the_recipes_name_files_that_exist() -> None:
    named = re.findall(
        r"`([\w.-]+(?:/[\w.-]+)+|\w+\.(?:md|toml))`", section_of("CONTRIBUTING.md", "How to add something")
    )
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_versions_are_those_of_the_package() -> None:
    table = project()["project"]
    extras = table["optional-dependencies"].values()
    wanted = [*table["dependencies"], *(requirement for extra in extras for requirement in extra)]
    floors: dict[str, str] = {}
    for requirement in wanted:
        if found := re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)$", requirement):
            floors.setdefault(found[1].lower(), found[2])
    lowest = dict(line.split("==") for line in text_of("constraints-lowest.txt").splitlines() if "==" in line)
    assert lowest == floors
    pins = dict(line.lower().split("==") for line in text_of("constraints.txt").split())
    rows = rows_of(text_of("docs/reference/compatibility.md"), 3)
    shown = {name.lower(): (lowest, newest) for name, lowest, newest in rows}
    fastapi = {"fastapi": ("that of Starlette", pins["fastapi"])}
    assert shown == {name: (floor, pins[name]) for name, floor in floors.items()} | fastapi
    assert f"Python {table['requires-python'].removeprefix('>=')} or later" in text_of(
        "docs/reference/compatibility.md"
    )
