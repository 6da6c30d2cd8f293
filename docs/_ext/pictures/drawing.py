"""Shapes and text of a picture, as SVG that takes its colours and its font from the page around it.

No text is measured by the machine that builds, which need not have the reader's fonts: the widths here are those of a
wide one, so that text in any other fits as well.
"""

from __future__ import annotations

import html
import math
from typing import NamedTuple

SIZE = 14  # of the text, in units of the picture, which are pixels where it is not scaled
LINE = 18
_CORNER = 8
HEAD = 8  # length of an arrow's head

# Widths of Verdana and DejaVu Sans, in hundredths of the size, rounded up.
_NARROW = {**dict.fromkeys("ijl.,:;'|!", 36), **dict.fromkeys("frt()[]/\\-_ ", 46)}
_WIDE = dict.fromkeys("mwMWQ@%", 100)
_CAPITAL, _ANY, _BOLD, _MONO = 80, 66, 1.12, 0.64


class Point(NamedTuple):
    """A place; y grows downwards."""

    x: float
    y: float


def width_of(text: str, *, bold: bool = False, mono: bool = False) -> float:
    """Return a width in which a line of text fits, whatever the font."""
    if mono:
        return len(text) * SIZE * _MONO
    hundredths = sum(
        _NARROW.get(letter) or _WIDE.get(letter) or (_CAPITAL if letter.isupper() else _ANY) for letter in text
    )
    return hundredths * SIZE / 100 * (_BOLD if bold else 1)


def wrapped(text: str, width: float) -> list[str]:
    """Break text into lines that fit a width; a word that does not has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


class Drawing:
    """A picture that is being drawn.

    Args:
        name: What its parts are called in the page; unique there.
        title: What it is, in a few words.
        description: What it shows, for those who cannot see it.
    """

    def __init__(self, name: str, title: str, description: str) -> None:
        self._name = name
        self._title = title
        self._description = description
        self._parts: list[str] = []

    def box(self, corner: Point, width: float, height: float, css: str) -> None:
        """Draw a rectangle with round corners."""
        self._parts.append(
            f'<rect x="{corner.x:.1f}" y="{corner.y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{_CORNER}"'
            f' class="{css}" fill="none" stroke="currentColor"/>'
        )

    def dot(self, centre: Point, radius: float) -> None:
        """Draw where everything begins."""
        self._parts.append(
            f'<circle cx="{centre.x:.1f}" cy="{centre.y:.1f}" r="{radius:.1f}" class="begin" fill="currentColor"/>'
        )

    def rule(self, left: Point, length: float) -> None:
        """Draw a line that divides."""
        self._parts.append(
            f'<path d="M{left.x:.1f},{left.y:.1f}h{length:.1f}" class="rule" fill="none" stroke="currentColor"'
            ' stroke-dasharray="4 4"/>'
        )

    def arrow(self, *points: Point) -> None:
        """Draw an arrow along the points, with round corners and its head at the last."""
        before, end = points[-2:]
        distance = math.dist(before, end)
        dx, dy = (end.x - before.x) / distance, (end.y - before.y) / distance
        base = Point(end.x - HEAD * dx, end.y - HEAD * dy)
        path = [f"M{points[0].x:.1f},{points[0].y:.1f}"]
        for one, corner, other in zip(points, points[1:], (*points[2:-1], base), strict=False):
            begin, finish = _towards(corner, one), _towards(corner, other)
            path.append(f"L{begin.x:.1f},{begin.y:.1f}Q{corner.x:.1f},{corner.y:.1f} {finish.x:.1f},{finish.y:.1f}")
        path.append(f"L{base.x:.1f},{base.y:.1f}")
        self._parts.append(f'<path d="{"".join(path)}" class="arrow" fill="none" stroke="currentColor"/>')
        half = HEAD / 2
        corners = [end, Point(base.x - half * dy, base.y + half * dx), Point(base.x + half * dy, base.y - half * dx)]
        told = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self._parts.append(f'<polygon points="{told}" class="head" fill="currentColor"/>')

    def text(self, place: Point, words: str, css: str = "", *, anchor: str = "middle") -> None:
        """Write a line; the place is on its base line, at its middle unless the anchor says otherwise."""
        self._parts.append(
            f'<text x="{place.x:.1f}" y="{place.y:.1f}" text-anchor="{anchor}" class="{css}" fill="currentColor">'
            f"{html.escape(words)}</text>"
        )

    def lines(self, top: Point, words: list[str], css: str = "", *, anchor: str = "middle") -> None:
        """Write lines below one another, the first one's top at the place."""
        for number, line in enumerate(words):
            self.text(Point(top.x, top.y + number * LINE + SIZE), line, css, anchor=anchor)

    def svg(self, width: float, height: float) -> str:
        """Return the picture."""
        title, description = f"{self._name}-title", f"{self._name}-description"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" class="picture"'
            f' style="max-width: {width:.0f}px; min-width: min({width:.0f}px, 34rem)" font-size="{SIZE}" role="img"'
            f' aria-labelledby="{title}" aria-describedby="{description}">'
            f'<title id="{title}">{html.escape(self._title)}</title>'
            f'<desc id="{description}">{html.escape(self._description)}</desc>'
            f"{''.join(self._parts)}</svg>"
        )


def _towards(corner: Point, other: Point) -> Point:
    """Return the place on the way from a corner at which its round begins."""
    distance = math.dist(corner, other)
    share = min(_CORNER, distance / 2) / distance if distance else 0
    return Point(corner.x + share * (other.x - corner.x), corner.y + share * (other.y - corner.y))
