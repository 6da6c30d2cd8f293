"""Pictures say what the tables say, whatever the tables come to hold, and can be read."""

from __future__ import annotations

import re
import subprocess
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, strategies as st

import life
from documentation.pages import ROOT
from pictures import life_of_a_delivery, states_of_a_delivery
from pictures.drawing import LINE, SIZE, width_of, wrapped
from pictures.machine import draw_machine
from roovet_webhooks import WebhookError
from roovet_webhooks.inbox import states

SVG = "{http://www.w3.org/2000/svg}"

# What the machine is to become: the inbox's contract, with a name for each of its steps.
STATES = ["ready", "claimed", "done", "dead"]
COMING: list[tuple[str | None, str, str]] = [
    (None, "store", "ready"),
    (None, "store to handle", "claimed"),
    (None, "store too late", "dead"),
    ("ready", "claim", "claimed"),
    ("claimed", "renew", "claimed"),
    ("claimed", "complete", "done"),
    ("claimed", "fail", "ready"),
    ("claimed", "fail for good", "dead"),
    ("claimed", "retry later", "ready"),
    ("claimed", "drain", "ready"),
    ("claimed", "expire", "ready"),
    ("claimed", "expire for good", "dead"),
    ("dead", "replay", "ready"),
    ("done", "replay", "ready"),
    ("done", "purge", "done"),
    ("dead", "purge", "dead"),
]


class Area(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Area) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.2
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.2
        )


def shown(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - likewise


def areas(svg: str) -> tuple[Area, list[Area], list[Area]]:
    """Return the picture's area, those of its boxes, and those of its texts outside of them."""
    root = ET.fromstring(svg)  # noqa: S314 - likewise
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    boxes = [
        Area(x, y, x + float(box.attrib["width"]), y + float(box.attrib["height"]))
        for box in root.iter(f"{SVG}rect")
        for x, y in [(float(box.attrib["x"]), float(box.attrib["y"]))]
        if "end" not in box.attrib["class"]
    ]
    texts = [
        Area(x - half, y - SIZE + 3, x + half, y + 3)
        for text in root.iter(f"{SVG}text")
        for x, y, half in [(float(text.attrib["x"]), float(text.attrib["y"]), width_of(text.text or "") / 2)]
        if text.attrib["class"] == "step"
    ]
    return Area(0, 0, width + 1, height + 1), boxes, texts


def check_layout(svg: str, steps: list[tuple[str | None, str, str]]) -> None:
    whole, boxes, texts = areas(svg)
    assert len(texts) == len(steps)
    for one, other in combinations([*boxes, *texts], 2):
        assert not one.overlaps(other)
    for area in (*boxes, *texts):
        assert whole.left <= area.left
        assert area.right <= whole.right
        assert whole.top <= area.top
        assert area.bottom <= whole.bottom


def test_the_machine_that_is_coming_fits() -> None:
    svg = draw_machine(STATES, COMING, name="coming", title="Coming")
    check_layout(svg, COMING)
    assert sorted(shown(svg)) == sorted([*STATES, *(step for _, step, _ in COMING)])


@given(
    st.integers(1, 6).flatmap(
        lambda count: st.lists(
            st.tuples(st.sampled_from([None, *range(count)]), st.integers(0, count - 1), st.text("iwM", max_size=20)),
            max_size=20,
        ).map(lambda steps: (count, steps))
    )
)
def test_no_text_of_any_machine_stands_on_another_or_on_a_state(
    machine: tuple[int, list[tuple[int | None, int, str]]],
) -> None:
    count, steps = machine
    told = [
        (None if source is None else f"state {source}", f"step {number} {text}", f"state {target}")
        for number, (source, target, text) in enumerate(steps)
    ]
    check_layout(draw_machine([f"state {n}" for n in range(count)], told, name="any", title="Any"), told)


def test_a_step_that_is_added_to_the_table_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(shown(states_of_a_delivery())) == {*states.State, *states.Step}

    class State(StrEnum):
        READY = "ready"
        CLAIMED = "claimed"
        DONE = "done"
        DEAD = "dead"

    monkeypatch.setattr(states, "State", State)
    steps: dict[object, object] = dict(states.STEPS.items())
    steps["claimed", "bury"] = "dead"
    monkeypatch.setattr(states, "STEPS", steps)
    svg = states_of_a_delivery()
    assert {"dead", "bury"} <= set(shown(svg))
    assert "bury: from claimed to dead" in svg


def test_a_state_that_nothing_leaves_has_two_outlines() -> None:
    two = draw_machine(["here", "there"], [("here", "go", "there")], name="two", title="Two")
    assert two.count('class="state end"') == 1
    # A replay leads out of every end.
    assert 'class="state end"' not in states_of_a_delivery()
    assert 'class="state end"' not in draw_machine(STATES, COMING, name="coming", title="Coming")


def test_the_life_has_every_step_with_all_its_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    def endings() -> list[str]:
        return [f"{error.status} {error.code}" for step in life.LIFE for error in step.refusals]

    texts = " ".join(shown(life_of_a_delivery()))
    for step in life.LIFE:
        assert step.holds in texts
    for ending in [*endings(), "200 duplicate", "200 handled", "200 ignored", "200 dropped"]:
        assert ending in texts
    more = life.Step("the moon is <not> full", life.Phase.HEAD, (WebhookError,))
    monkeypatch.setattr(life, "LIFE", (more, *life.LIFE))
    assert {"the moon is <not> full", "webhook_error"} <= set(shown(life_of_a_delivery()))


@pytest.mark.parametrize("draw", [life_of_a_delivery, states_of_a_delivery])
def test_a_picture_can_be_read_in_any_light_and_by_any_reader(draw: object) -> None:
    assert callable(draw)
    svg = draw()
    root = ET.fromstring(svg)  # noqa: S314 - likewise
    assert root.attrib["role"] == "img"
    named = {element.attrib["id"]: element.text for element in root.iter() if "id" in element.attrib}
    assert named[root.attrib["aria-labelledby"]]
    assert len(named[root.attrib["aria-describedby"]] or "") > 50
    # Every colour is the page's.
    colours = re.findall(r'(?:fill|stroke)="([^"]*)"', svg)
    assert set(colours) == {"none", "currentColor"}
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_no_picture_is_kept() -> None:
    listed = subprocess.run(["git", "ls-files", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607 - git
    kept = listed.stdout.split() if listed.returncode == 0 else [str(path) for path in (ROOT / "docs").rglob("*.svg")]
    assert not [path for path in kept if path.endswith((".svg", ".png")) and "_build" not in path]


def test_text_is_broken_where_it_fits() -> None:
    assert wrapped("one two three", width_of("one two")) == ["one two", "three"]
    assert wrapped("incomprehensibilities", 1) == ["incomprehensibilities"]
    assert width_of("mm") > width_of("ii") > 0
    assert width_of("a", mono=True) > 0
    assert LINE > SIZE
