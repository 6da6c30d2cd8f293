"""A state machine as a picture: states in a row, steps forward above them and steps back below.

Steps between the same two states share an arrow, with a line of text for each. An arrow that passes over a state has a
level of its own, the wider outside of the narrower, and the states stand as far apart as the texts need. So nothing
overlaps, however many steps the table has, and arrows cross only where their spans do.

Why not a library: grandalf has had no release since 2023; igraph and fast-sugiyama return places for states, and
nothing for the texts of steps, which are most of this picture; graphviz, in whatever package, lays out by the fonts of
the machine that builds.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from pictures.drawing import HEAD, LINE, Drawing, Point, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Steps = Iterable[tuple[str | None, str, str]]

_MARGIN = 4
_PORT = 16  # between arrows that end at the same side of a state
_GAP, _FIRST_GAP = 56, 28  # between states, and before the first
_PADDING = 16  # beside a text
_FIRST_LEVEL = 24  # from a state to the nearest arrow that passes by
_BETWEEN_LEVELS = 12
_BOX = 46
_DOT = 8
_INSET = 4  # of the second outline of a state that nothing leaves
_ABOVE, _BELOW = -1, 1


class Arrow:
    """Every step from one state to another.

    Attributes:
        low: Place in the row of the state further left.
        high: Place of the other one, or the same.
        forward: Whether it goes from low to high.
        steps: What it is labelled with.
        low_port: Where it ends at the state further left, from its left edge.
        high_port: Likewise at the other one.
        level: How many arrows it passes outside of.
    """

    def __init__(self, source: int, target: int, steps: list[str]) -> None:
        self.low, self.high = sorted((source, target))
        self.forward = source <= target
        self.steps = steps
        self.width = max(map(width_of, steps), default=0.0) + _PADDING
        self.low_port = self.high_port = 0.0
        self.level = 0

    @property
    def loops(self) -> bool:
        """Whether it leads back to where it comes from."""
        return self.low == self.high

    @property
    def straight(self) -> bool:
        """Whether it goes to the next state, with nothing in between."""
        return self.forward and self.high == self.low + 1

    def ends(self, lefts: Sequence[float]) -> tuple[float, float]:
        """Return where it ends, from left to right, given where the states begin."""
        return lefts[self.low] + self.low_port, lefts[self.high] + self.high_port


class Side(NamedTuple):
    """The arrows that pass on one side of the states, how far out each level is, and how far all of it reaches."""

    arrows: list[Arrow]
    direction: int
    levels: list[float]
    reach: float


def draw_machine(states: Sequence[str], steps: Steps, *, name: str, title: str) -> str:
    """Return the picture of a state machine.

    Args:
        states: The states in the order of a good life; it begins in the first, unless steps say where.
        steps: From which state each step leads to which: source, step, target. ``None`` is where there is no state yet.
        name: What the parts of the picture are called.
        title: What it is.
    """
    steps = list(steps)
    arrows = _arrows(states, steps)
    straight = [arrow for arrow in arrows if arrow.straight]
    above = [arrow for arrow in arrows if arrow.forward and not arrow.straight]
    below = [arrow for arrow in arrows if not arrow.forward]
    widths = [2.0 * _DOT, *(width_of(state, bold=True) + 2 * _PADDING for state in states)]
    for side in (above, below):
        _set_ports(side, widths)
    lefts = _spread(widths, straight, [*above, *below])
    upper, lower = _levelled(above, lefts, _ABOVE), _levelled(below, lefts, _BELOW)
    # Half of a straight arrow's texts stand above it and half below, beside the states.
    height = max([_BOX, *(2 * LINE * _half(arrow.steps) + 8 for arrow in straight)])
    top = _MARGIN + upper.reach
    middle = top + height / 2
    left_again = {source for source, _, target in steps if source != target}
    drawing = Drawing(name, title, _described(steps))
    drawing.dot(Point(lefts[0] + _DOT, middle), _DOT)
    for place, state in enumerate(states, 1):
        drawing.box(Point(lefts[place], top), widths[place], height, "state")
        if state not in left_again:
            corner = Point(lefts[place] + _INSET, top + _INSET)
            drawing.box(corner, widths[place] - 2 * _INSET, height - 2 * _INSET, "state end")
        drawing.text(Point(lefts[place] + widths[place] / 2, middle + 5), state, "name")
    for arrow in straight:
        begin, end = lefts[arrow.low] + widths[arrow.low], lefts[arrow.high]
        drawing.arrow(Point(begin, middle), Point(end, middle))
        half, x = _half(arrow.steps), (begin + end - HEAD) / 2
        drawing.lines(Point(x, middle - half * LINE - 2), arrow.steps[:half], "step")
        drawing.lines(Point(x, middle + 4), arrow.steps[half:], "step")
    _draw_side(drawing, upper, lefts, top, middle)
    _draw_side(drawing, lower, lefts, top + height, middle)
    return drawing.svg(lefts[-1] + widths[-1] + _MARGIN, top + height + lower.reach + _MARGIN)


def _arrows(states: Sequence[str], steps: Steps) -> list[Arrow]:
    places: dict[str | None, int] = {None: 0, **{state: place for place, state in enumerate(states, 1)}}
    between: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for source, step, target in steps:
        between[places[source], places[target]].append(step)
    if all(source for source, _ in between):
        between[0, 1] = []
    return [Arrow(source, target, labels) for (source, target), labels in between.items()]


def _described(steps: Steps) -> str:
    return "; ".join(f"{step}: from {source or 'the beginning'} to {target}" for source, step, target in steps) + "."


def _half(steps: list[str]) -> int:
    return (len(steps) + 1) // 2


def _set_ports(side: list[Arrow], widths: list[float]) -> None:
    """Give every end of an arrow its place at its state, and widen states that need it.

    From left to right: what comes from the left, the nearest first; what loops; what goes to the right, the furthest
    first. In this order no two arrows at one state cross.
    """
    for place in range(1, len(widths)):
        from_left = sorted((a for a in side if a.high == place and not a.loops), key=lambda a: -a.low)
        loops = [a for a in side if a.loops and a.low == place]
        to_right = sorted((a for a in side if a.low == place and not a.loops), key=lambda a: -a.high)
        at = 0.0
        for arrow in from_left:
            arrow.high_port = at
            at += _PORT
        for arrow in loops:
            arrow.low_port, arrow.high_port = at, at + max(arrow.width, 2 * _PORT)
            at = arrow.high_port + _PORT
        for arrow in to_right:
            arrow.low_port = at
            at += _PORT
        widths[place] = max(widths[place], at + _PORT)
        shift = (widths[place] - (at - _PORT)) / 2
        for arrow in (*from_left, *loops):
            arrow.high_port += shift
        for arrow in (*loops, *to_right):
            arrow.low_port += shift
    for arrow in side:
        if arrow.low == 0:
            # All leave the beginning by the same way.
            arrow.low_port = _DOT


def _spread(widths: list[float], straight: Iterable[Arrow], passing: Iterable[Arrow]) -> list[float]:
    """Return where each state begins, so far apart that every text fits its arrow."""
    gaps = [float(_FIRST_GAP), *[float(_GAP)] * (len(widths) - 2)]
    for arrow in straight:
        gaps[arrow.low] = max(gaps[arrow.low], arrow.width + HEAD)

    def lefts() -> list[float]:
        return list(accumulate((width + gap for width, gap in zip(widths, gaps, strict=False)), initial=float(_MARGIN)))

    for arrow in sorted(passing, key=lambda a: a.high - a.low):
        if not arrow.loops:
            begin, end = arrow.ends(lefts())
            gaps[arrow.high - 1] += max(0.0, arrow.width - (end - begin))
    return lefts()


def _levelled(arrows: list[Arrow], lefts: list[float], direction: int) -> Side:
    """Put every arrow outside of all that it spans."""
    placed: list[Arrow] = []
    for arrow in sorted(arrows, key=lambda a: a.ends(lefts)[1] - a.ends(lefts)[0]):
        begin, end = arrow.ends(lefts)
        inside = [other.level for other in placed if other.ends(lefts)[0] < end and begin < other.ends(lefts)[1]]
        arrow.level = max(inside, default=-1) + 1
        placed.append(arrow)
    levels: list[float] = []
    reach = 0.0
    for level in range(max((arrow.level for arrow in placed), default=-1) + 1):
        levels.append(reach + (_BETWEEN_LEVELS if level else _FIRST_LEVEL))
        reach = levels[-1] + LINE * max(len(arrow.steps) for arrow in placed if arrow.level == level)
    return Side(placed, direction, levels, reach)


def _draw_side(drawing: Drawing, side: Side, lefts: list[float], edge: float, middle: float) -> None:
    for arrow in side.arrows:
        begin, end = arrow.ends(lefts)
        y = edge + side.direction * side.levels[arrow.level]
        start = edge if arrow.low else middle + side.direction * _DOT
        corners = [Point(begin, start), Point(begin, y), Point(end, y), Point(end, edge)]
        drawing.arrow(*(corners if arrow.forward else reversed(corners)))
        text = y + 3 if side.direction == _BELOW else y - LINE * len(arrow.steps) - 3
        drawing.lines(Point(_free(arrow, side.arrows, lefts), text), arrow.steps, "step")


def _free(arrow: Arrow, others: Iterable[Arrow], lefts: list[float]) -> float:
    """Return where an arrow's text goes: in the widest part that no other arrow crosses, and not beyond its ends."""
    begin, end = arrow.ends(lefts)
    crossed = [x for other in others if other.level > arrow.level for x in other.ends(lefts) if begin < x < end]
    _, left, right = max((right - left, left, right) for left, right in pairwise(sorted([begin, *crossed, end])))
    half = arrow.width / 2
    return min(max((left + right) / 2, begin + half), end - half)
