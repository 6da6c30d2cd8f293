"""The pictures in the pages show the tables that tests hold the package to."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

from receiving.life import LIFE

from documentation.pages import PAGES, ROOT, blocks_of
from roovet_webhooks.inbox.states import STEPS
from roovet_webhooks.messages import WebhookResponse

if TYPE_CHECKING:
    from receiving.life import Ending

PAGE = "docs/explanation/semantics.md"


def picture(kind: str) -> list[str]:
    """Return the lines of the one picture of its kind, without their indentation."""
    (code,) = (block.code for block in blocks_of(PAGE) if block.language == "mermaid" and block.code.startswith(kind))
    return [line.strip() for line in code.splitlines()]


def ending_text(ending: Ending) -> str:
    """Return a status and the word that the answer or the log has for it."""
    if isinstance(ending, WebhookResponse):
        return f"{ending.status} {re.findall(rb'[a-z]+', ending.body)[-1].decode()}"
    return f"{ending.status} {ending.code}"


def life_lines() -> list[str]:
    """Return the picture of the table: down if a step holds, to the right with every other ending."""
    lines = ["flowchart TD", "request([a request]) --> s1"]
    numbered = list(enumerate(LIFE, start=1))
    for phase, steps in groupby(numbered, key=lambda numbered: numbered[1].phase):
        lines.append(f'subgraph {phase.name}["{phase}"]')
        lines += [f's{number}["{step.holds}"]' for number, step in steps]
        lines.append("end")
    lines.append(" --> ".join(f"s{number}" for number, _ in numbered))
    for number, step in numbered:
        endings = "<br>".join(dict.fromkeys(ending_text(fault.ending) for fault in step.faults))
        lines.append(f's{number} -.-> e{number}["{endings}"]')
    return lines


def test_the_life_of_a_delivery_is_that_of_a_receiver() -> None:
    assert picture("flowchart") == life_lines()


def test_the_states_are_those_of_the_transition_table() -> None:
    kind, *lines = picture("stateDiagram")
    assert kind == "stateDiagram-v2"
    arrows = [re.fullmatch(r"(\S+) --> (\w+): (.+)", line) for line in lines]
    shown = [
        ((None if arrow[1] == "[*]" else arrow[1], step), arrow[2])
        for arrow in arrows
        if arrow is not None
        for step in arrow[3].split(", ")
    ]
    assert None not in arrows
    assert sorted(shown, key=str) == sorted(((key, to) for key, to in STEPS.items()), key=str)


def test_every_picture_is_compared_with_a_table() -> None:
    pictures = [page for page in PAGES for block in blocks_of(page) if block.language == "mermaid"]
    assert pictures == [PAGE, PAGE]
    assert not [path for path in (ROOT / "docs").rglob("*.svg") if "_build" not in path.parts]
