"""The page on chaos has every fault and every setting, in the words of the reference."""

from __future__ import annotations

import inspect
import re

import pytest

from documentation.pages import rows_of, section_of, text_of
from roovet_webhooks.sandbox.chaos import API_FAULTS, FAULTS, WEBHOOK_FAULTS, Chaos

PAGE = "docs/how-to/break-things.md"
WORDS = dict(re.findall(r"^    (\w+): (.+)$", inspect.getdoc(Chaos) or "", re.MULTILINE))
SETTINGS = [name for name in Chaos.__struct_fields__ if name not in FAULTS]


@pytest.mark.parametrize(
    ("section", "names"),
    [("What can go wrong with a delivery", WEBHOOK_FAULTS), ("What can go wrong at the API", API_FAULTS)],
)
def test_every_fault_is_told_of(section: str, names: tuple[str, ...]) -> None:
    assert dict(rows_of(section_of(PAGE, section), 2)) == {f"`{name}`": WORDS[name] for name in names}


def test_every_setting_is_told_of() -> None:
    rows = [[f"`{name}`", WORDS[name], f"{getattr(Chaos(), name):g}"] for name in SETTINGS]
    assert rows_of(section_of(PAGE, "How bad it gets"), 3) == rows


def test_the_default_probability_is_told() -> None:
    assert "0.2 unless you say otherwise" in text_of(PAGE)
