"""The life of a delivery as a picture: down where a step holds, to the right where it does not."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING

from pictures.drawing import LINE, SIZE, Drawing, Point, width_of, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from life import Step
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.messages import WebhookResponse

_MARGIN = 4
_WIDTH = 330  # of a step
_PADDING = 10
_ASIDE = 44  # length of an arrow to the right
_DOWN = 16  # length of an arrow downwards
_DOT = 8
_STATUS = 34  # from a status to what follows it


def draw_life(steps: Sequence[Step], *, name: str, title: str) -> str:
    """Return the picture of a delivery's life, from the request to its answer."""
    drawing = Drawing(name, title, _described(steps))
    spine = _MARGIN + _WIDTH / 2
    aside = float(_MARGIN + _WIDTH + _ASIDE)
    drawing.dot(Point(spine, _MARGIN + _DOT), _DOT)
    drawing.text(Point(spine + 2 * _DOT, _MARGIN + SIZE - 1), "a request", "phase", anchor="start")
    bottom = float(_MARGIN + 2 * _DOT)
    right = aside
    rules: list[float] = []
    for phase, members in groupby(steps, key=lambda step: step.phase):
        y: float = bottom + _DOWN / 2 + LINE
        rules.append(y)
        drawing.text(Point(aside, y - 6), phase, "phase", anchor="start")
        right = max(right, aside + width_of(phase))
        begin = bottom
        y += LINE / 2
        for step in members:
            last = step is steps[-1]
            asked = wrapped(step.holds, _WIDTH - 2 * _PADDING)
            endings = _endings(step.refusals, () if last else step.endings)
            height: float = LINE * max(len(asked), len(endings)) + 2 * _PADDING
            drawing.arrow(Point(spine, begin), Point(spine, y))
            drawing.box(Point(_MARGIN, y), _WIDTH, height, "question")
            drawing.lines(Point(spine, y + (height - LINE * len(asked)) / 2), asked)
            drawing.arrow(Point(_MARGIN + _WIDTH, y + height / 2), Point(aside - 8, y + height / 2))
            top = y + (height - LINE * len(endings)) / 2
            for number, (status, word) in enumerate(endings):
                place = Point(aside, top + number * LINE + SIZE)
                good = " good" if status.startswith("2") else ""
                drawing.text(place, status, f"status{good}", anchor="start")
                drawing.text(Point(place.x + _STATUS, place.y), word, f"code{good}", anchor="start")
                right = max(right, place.x + _STATUS + width_of(word, mono=True))
            begin = bottom = y + height
            y = bottom + _DOWN
    for y in rules:
        drawing.rule(Point(_MARGIN, y), right - _MARGIN)
    last_words = [f"{status} {word}" for status, word in _endings((), steps[-1].endings)]
    drawing.arrow(Point(spine, bottom), Point(spine, bottom + _DOWN + 8))
    bottom += _DOWN + 8
    drawing.lines(Point(spine, bottom), last_words, "status good")
    return drawing.svg(right + _MARGIN, bottom + LINE * len(last_words) + _MARGIN)


def _endings(refusals: Sequence[type[WebhookError]], answers: Sequence[WebhookResponse]) -> list[tuple[str, str]]:
    """Return status and word of each way to end: a refusal's is its code in the log, an answer's what is sent."""
    told = [(str(error.status), error.code) for error in refusals]
    return told + [(str(answer.status), json.loads(answer.body)["status"]) for answer in answers]


def _described(steps: Sequence[Step]) -> str:
    sentences: list[str] = []
    for step in steps:
        endings = ", ".join(f"{status} {word}" for status, word in _endings(step.refusals, step.endings))
        sentences.append(f"{step.holds}, or else {endings}" if step is not steps[-1] else f"{step.holds}: {endings}")
    return "; ".join(sentences) + "."
