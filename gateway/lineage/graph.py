"""Draw what was made of what, from left to right, as an SVG of nodes in layers.

A node stands one layer to the right of the last thing that it was made from. Lines that cross
layers get a place in each, so that they run between the nodes and not over them. Where there
are too many of a kind in one layer, those that matter least are one node that says how many.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Final, Literal
from unicodedata import east_asian_width

from gateway.lineage.answer import share
from gateway.lineage.impact import Impact, Touched
from gateway.lineage.nodes import (
    Author,
    DatasetNode,
    DerivationNode,
    ExchangeNode,
    ExportNode,
    Missing,
    ModelNode,
    Node,
    TeacherNode,
    nodes_of,
)

Kind = Literal[
    "teacher", "people", "dataset", "student", "export", "base", "answer", "rows", "unknown"
]

WIDTH: Final = 216
"""Of a node, in pixels."""

_LINE: Final = 16
_PAD: Final = 10
_GAP: Final = 20
_BETWEEN: Final = 88
_FITS: Final = 1_800
"""A graph that is no wider is shrunk to the page and stays readable; others are scrolled."""
_SHRUNK: Final = 1_000
"""No graph is shrunk below that width: on a small screen it is scrolled."""
_LETTERS: Final = 28
"""What fits on a line of a node, in the type that the page uses; a wide letter counts twice."""

_TITLE_LETTERS: Final = 23
_TITLE_LINES: Final = 2

_PER_LAYER_MAX: Final = 12
_TEACHERS_MAX: Final = 8
_SWEEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing that is drawn."""

    key: str
    kind: Kind
    title: str
    lines: tuple[str, ...] = ()
    gone: str = ""
    """Who withdrew it, and why."""
    held: bool = False
    """Whether something that it was made of was withdrawn."""
    focus: bool = False
    """Whether it is what was asked about."""
    weight: int = 0
    """What matters less is folded first."""


@dataclass(frozen=True, slots=True)
class Line:
    """What leads from one thing to another that was made of it."""

    source: str
    target: str
    label: str = ""
    judges: bool = False


@dataclass(slots=True)
class Graph:
    """Things and what leads from each to others."""

    boxes: dict[str, Box] = field(default_factory=dict)
    lines: dict[tuple[str, str, bool], Line] = field(default_factory=dict)

    def add(self, box: Box) -> str:
        """Take in a thing, once; return its key."""
        self.boxes.setdefault(box.key, box)
        return box.key

    def join(self, source: str, target: str, label: str = "", *, judges: bool = False) -> None:
        """Lead from *source* to *target*."""
        self.lines.setdefault(
            (source, target, judges), Line(source, target, label, judges=judges)
        )


def graph_of(root: Node, impact: Impact, held: Collection[str] = ()) -> Graph:
    """Return everything above *root*, and what *impact* found below it.

    *held* are the manifests of stages that a withdrawal of something above them holds.
    """
    graph = Graph()
    for node in nodes_of(root):
        _add(graph, node)
    focus = _box(root).key
    graph.boxes[focus] = replace(graph.boxes[focus], focus=True)
    for one in impact.touched:
        key = one.stage.manifest
        if key == focus:
            told = graph.boxes[key]
            graph.boxes[key] = replace(told, lines=(*told.lines, *_answers(one)))
            continue
        graph.add(_box_below(one))
        for parent in one.parents or (focus,):
            if parent in graph.boxes:
                graph.join(parent, key)
    for name in set(held) & graph.boxes.keys():
        graph.boxes[name] = replace(graph.boxes[name], held=not graph.boxes[name].gone)
    return folded(graph)


def _add(graph: Graph, node: Node) -> None:
    key = graph.add(_box(node))
    match node:
        case ModelNode():
            for base in node.bases:
                box = Box(key=f"base {base}", kind="base", title=base, lines=("from outside",))
                graph.join(graph.add(box), key)
            for parent in node.parents:
                graph.join(graph.add(_box(parent)), key)
        case ExportNode():
            for parent in node.parents:
                graph.join(graph.add(_box(parent)), key)
        case DatasetNode():
            _add_teachers(graph, node, key)
            _add_authors(graph, node.authors, key)
        case ExchangeNode() if node.student is not None:
            graph.join(graph.add(_box(node.student)), key)
        case ExchangeNode():
            facts = node.receipt
            model = facts.model.reported or facts.model.requested or ""
            box = _teacher(facts.provider.name, model, ())
            graph.join(graph.add(box), key)
        case DerivationNode():
            for one in node.parents:
                judges = one.influence == "judge"
                graph.join(graph.add(_box(one.node)), key, one.parent.role, judges=judges)
            _add_authors(graph, node.authors, key)
        case Missing():
            pass


def _add_teachers(graph: Graph, node: DatasetNode, key: str) -> None:
    told = sorted(node.teachers, key=lambda one: -one.teacher.rows)
    plain = [one for one in told if one.student is None]
    shown = plain if len(plain) <= _TEACHERS_MAX else plain[: _TEACHERS_MAX - 1]
    for one in [*shown, *(one for one in told if one.student is not None)]:
        source = (
            _teacher(one.teacher.provider, one.teacher.model or "", _terms(one))
            if one.student is None
            else _box(one.student)
        )
        judges = one.teacher.influence == "judge"
        graph.join(graph.add(source), key, _share(one.teacher.rows, one.of_rows), judges=judges)
    rest = plain[len(shown) :]
    if rest:
        rows = sum(one.teacher.rows for one in rest)
        title = f"{len(rest)} more teachers"
        box = Box(key=f"more {key}", kind="teacher", title=title, lines=(f"{rows:,} rows",))
        of_rows = node.manifest.found.rows
        # Several may stand in one row; then their sum is no share.
        graph.join(graph.add(box), key, _share(rows, of_rows) if rows <= of_rows else "")


def _add_authors(graph: Graph, authors: Sequence[Author], key: str) -> None:
    for one in authors:
        box = Box(
            key=f"people {one.by} {one.licence} {one.source}",
            kind="people",
            title=f"says {one.by}",
            lines=(f"from {one.source}", f"licence {one.licence}"),
            weight=one.rows,
        )
        graph.join(graph.add(box), key, _share(one.rows, one.of_rows))


def _share(rows: int, of_rows: int) -> str:
    return f"{rows:,} ({share(rows, of_rows)})"


def _terms(one: TeacherNode) -> tuple[str, ...]:
    pins = sorted({f"{pin.policy} v{pin.version}" for pin in one.teacher.policies})
    return tuple(pins[:2]) + ((f"and {len(pins) - 2} more policies",) if len(pins) > 2 else ())


def _teacher(provider: str, model: str, lines: tuple[str, ...]) -> Box:
    title = f"{provider} {model}".strip()
    return Box(key=f"teacher {title}", kind="teacher", title=title, lines=lines)


def _box(node: Node) -> Box:
    match node:
        case ModelNode():
            return Box(
                key=node.payload,
                kind="student",
                title=node.name,
                lines=(_where(node.index),),
                gone=node.withdrawn or "",
                weight=1 << 40,
            )
        case ExportNode():
            return Box(
                key=node.payload,
                kind="export",
                title=node.name,
                lines=(_where(node.index),),
                gone=node.withdrawn or "",
            )
        case DatasetNode():
            found = node.manifest.found
            return Box(
                key=node.payload,
                kind="dataset",
                title=node.name,
                lines=(f"{found.rows:,} rows, {found.use.purpose}", _where(node.index)),
                gone=node.withdrawn or "",
                weight=found.rows,
            )
        case ExchangeNode():
            return Box(
                key=node.receipt.exchange,
                kind="answer",
                title=node.receipt.exchange,
                lines=(node.receipt.declared.use.purpose, _where(node.index)),
                gone=node.withdrawn or "",
            )
        case DerivationNode():
            name = node.derivation.derivation
            row = f"{len(node.derivation.rows)} rows" if node.place is None else "one row"
            return Box(
                key=name if node.place is None else f"{name}/{node.place}",
                kind="rows",
                title=node.derivation.transform.name,
                lines=(f"{row}, {node.derivation.transform.kind}", name, _where(node.index)),
                gone=node.withdrawn or "",
            )
        case Missing():
            return Box(key=f"missing {node.what}", kind="unknown", title=node.what)


def _box_below(one: Touched) -> Box:
    stage = one.stage
    kind: Kind = stage.kind or "unknown"
    rows = () if stage.rows is None or kind != "dataset" else (f"{stage.rows:,} rows",)
    reached = (
        (f"{one.rows:,} of them from it",) if one.rows is not None and kind == "dataset" else ()
    )
    return Box(
        key=stage.manifest,
        kind=kind,
        title=stage.name or stage.manifest[:16],
        lines=(*rows, *reached, *_answers(one), _where(stage.leaf)),
        gone=one.withdrawn or "",
        weight=(1 << 40) + one.answers if kind == "student" else stage.rows or 0,
    )


def _answers(one: Touched) -> tuple[str, ...]:
    return (f"{one.answers:,} answers receipted",) if one.answers else ()


def _where(index: int | None) -> str:
    return "not in this ledger" if index is None else f"leaf {index}"


# -- folding ------------------------------------------------------------------------------


def folded(graph: Graph) -> Graph:
    """Fold what is too much of one kind in one layer into a node that says how many."""
    layer = _layers(graph)
    crowds: dict[tuple[int, Kind], list[Box]] = {}
    for box in graph.boxes.values():
        if not box.focus:
            crowds.setdefault((layer[box.key], box.kind), []).append(box)
    into: dict[str, str] = {}
    small = Graph()
    for (at, kind), boxes in crowds.items():
        if len(boxes) <= _PER_LAYER_MAX:
            continue
        boxes.sort(key=lambda box: -box.weight)
        rest = boxes[_PER_LAYER_MAX - 1 :]
        key = f"folded {at} {kind}"
        gone, held = (
            sum(1 for box in rest if box.gone),
            sum(1 for box in rest if box.held),
        )
        plural = {"rows": "rows of pipelines", "people": "people"}.get(kind, f"{kind}s")
        small.add(
            Box(
                key=key,
                kind=kind,
                title=f"{len(rest):,} more {plural}",
                lines=(
                    *((f"{gone:,} of them withdrawn",) if gone else ()),
                    *((f"{held:,} of them held",) if held else ()),
                ),
            )
        )
        into |= dict.fromkeys((box.key for box in rest), key)
    if not into:
        return graph
    for box in graph.boxes.values():
        if box.key not in into:
            small.add(box)
    for line in graph.lines.values():
        source, target = into.get(line.source, line.source), into.get(line.target, line.target)
        if source != target:
            label = line.label if (source, target) == (line.source, line.target) else ""
            small.join(source, target, label, judges=line.judges)
    return small


def _layers(graph: Graph) -> dict[str, int]:
    """Return for each node how many stand before it on the longest way there."""
    above: dict[str, list[str]] = {key: [] for key in graph.boxes}
    for line in graph.lines.values():
        above[line.target].append(line.source)
    found: dict[str, int] = {}
    waiting = list(graph.boxes)
    # What leads back to itself ends nowhere: after as many rounds as there are nodes it stays.
    for _ in range(len(waiting) + 1):
        later = []
        for key in waiting:
            if all(one in found for one in above[key]):
                found[key] = 1 + max((found[one] for one in above[key]), default=-1)
            else:
                later.append(key)
        if not later or len(later) == len(waiting):
            break
        waiting = later
    return {key: found.get(key, 0) for key in graph.boxes}


# -- layout -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Place:
    """A node, or a line's place between two nodes, in a layer."""

    key: str
    box: Box | None
    y: float = 0.0

    @property
    def height(self) -> int:
        if self.box is None:
            return _LINE
        rows = len(_title(self.box)) + len(self.box.lines)
        return 2 * _PAD + _LINE * (rows + 1 + bool(self.box.gone or self.box.held))


def svg_of(graph: Graph) -> str:
    """Return *graph* as an SVG element; colours come from the page's classes."""
    layer = _layers(graph)
    columns: list[list[_Place]] = [[] for _ in range(1 + max(layer.values(), default=0))]
    for key, box in graph.boxes.items():
        columns[layer[key]].append(_Place(key, box))
    ways: list[tuple[Line, list[str]]] = []
    for line in graph.lines.values():
        steps = [line.source]
        for at in range(layer[line.source] + 1, layer[line.target]):
            steps.append(f"{line.source} {line.target} {line.judges} {at}")
            columns[at].append(_Place(steps[-1], None))
        ways.append((line, [*steps, line.target]))
    _arrange(columns, ways)
    height = max((_bottom(column) for column in columns), default=0) + _GAP
    for column in columns:
        lower = (height - _bottom(column)) / 2
        for place in column:
            place.y += lower
    width = len(columns) * (WIDTH + _BETWEEN) - _BETWEEN + 2 * _GAP
    leaving = Counter(line.source for line in graph.lines.values())
    places = {place.key: (at, place) for at, column in enumerate(columns) for place in column}
    return "\n".join(
        [
            (
                f'<svg class="graph{" fits" * (width <= _FITS)}" role="img"'
                f' viewBox="0 0 {width} {height:.0f}"'
                f' width="{width}" height="{height:.0f}" aria-label="What was made of what"'
                f' style="min-width: {min(width, _SHRUNK)}px">'
            ),
            *(_line(line, [places[step] for step in steps]) for line, steps in ways),
            # Above the lines, so that none runs through them.
            *(
                _label(
                    line.label,
                    [places[step] for step in steps],
                    "source" if leaving[line.source] == 1 else "target",
                )
                for line, steps in ways
                if line.label
            ),
            *(
                text
                for at, column in enumerate(columns)
                for place in column
                if place.box is not None
                for text in _node(place.box, _x(at), place)
            ),
            "</svg>",
        ]
    )


def _arrange(columns: list[list[_Place]], ways: Sequence[tuple[Line, list[str]]]) -> None:
    """Order each layer by where its neighbours stand, to and fro, and set the heights."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for _, steps in ways:
        for one, other in itertools.pairwise(steps):
            after.setdefault(one, []).append(other)
            before.setdefault(other, []).append(one)
    for sweep in range(_SWEEPS):
        near = after if sweep % 2 else before
        for column in reversed(columns) if sweep % 2 else columns:
            at = {place.key: number for other in columns for number, place in enumerate(other)}
            rank = {
                place.key: (
                    sum(at[one] for one in near[place.key]) / len(near[place.key])
                    if place.key in near
                    else at[place.key]
                )
                for place in column
            }
            column.sort(key=lambda place: rank[place.key])
    for column in columns:
        y = float(_GAP)
        for place in column:
            place.y = y
            y += place.height + _GAP


def _bottom(column: list[_Place]) -> float:
    return column[-1].y + column[-1].height if column else 0.0


def _x(column: int) -> int:
    return _GAP + column * (WIDTH + _BETWEEN)


def _line(line: Line, steps: Sequence[tuple[int, _Place]]) -> str:
    (first, source), *rest = steps
    x, y = _x(first) + WIDTH, source.y + source.height / 2
    path = [f"M{x} {y:.0f}"]
    for column, place in rest:
        to_x, to_y = _x(column), place.y + place.height / 2
        half = (to_x - x) / 2
        path.append(f"C{x + half:.0f} {y:.0f} {to_x - half:.0f} {to_y:.0f} {to_x} {to_y:.0f}")
        x, y = to_x, to_y
        if place.box is None:
            path.append(f"H{to_x + WIDTH}")
            x = to_x + WIDTH
    kind = "judges" if line.judges else "taught"
    return f'<path class="{kind}" d="{" ".join(path)}"/>'


def _label(text: str, steps: Sequence[tuple[int, _Place]], near: str) -> str:
    """Write on a line, at the end of it where no other begins or ends."""
    (column, place), (_, other) = steps[0], steps[1]
    x, anchor = _x(column) + WIDTH + 4, "start"
    if near == "target":
        (column, place), (_, other) = steps[-1], steps[-2]
        x, anchor = _x(column) - 4, "end"
    # On the side that the line bends away from.
    middle = place.y + place.height / 2
    y = middle - 5 if other.y + other.height / 2 >= middle else middle + 13
    return (
        f'<text class="share" x="{x}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _node(box: Box, x: int, place: _Place) -> Iterator[str]:
    states = {"gone": bool(box.gone), "held": box.held, "focus": box.focus}
    classes = " ".join((box.kind, *(name for name, is_so in states.items() if is_so)))
    told = "; ".join(filter(None, (f"{box.kind} {box.title}", *box.lines, box.gone)))
    yield f'<g class="node {classes}"><title>{escape(_printable(told))}</title>'
    yield (f'<rect x="{x}" y="{place.y:.0f}" width="{WIDTH}" height="{place.height}" rx="6"/>')
    y = place.y + _PAD + _LINE - 4
    texts = [("kind", box.kind), *(("title", one) for one in _title(box))]
    texts += [("more", _short(one, _LETTERS)) for one in box.lines]
    if box.gone:
        texts.append(("why", _short(f"WITHDRAWN {box.gone}", _LETTERS - 3)))
    elif box.held:
        texts.append(("why", "HELD"))
    for style, text in texts:
        yield f'<text class="{style}" x="{x + _PAD}" y="{y:.0f}">{escape(text)}</text>'
        y += _LINE
    yield "</g>"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _title(box: Box) -> list[str]:
    """Return the lines of a title: as many as it may have, the last one cut short."""
    text, lines = _printable(box.title), list[str]()
    while text and len(lines) < _TITLE_LINES - 1:
        line = _begin(text, _TITLE_LETTERS)
        if line != text:
            # Between words, or behind what parts them in a name, it reads best.
            at = max(line.rfind(mark) for mark in " -_/.") + 1
            line = line[:at] if at > len(line) // 2 else line
        lines.append(line.rstrip())
        text = text[len(line) :].lstrip()
    return [*lines, _short(text, _TITLE_LETTERS)] if text else lines or [""]


def _short(text: str, letters: int) -> str:
    text = _printable(text)
    begin = _begin(text, letters)
    return text if begin == text else f"{_begin(text, letters - 1)}…"


def _begin(text: str, letters: int) -> str:
    """Return as much of *text* as fits into so many letters' width."""
    wide = itertools.accumulate(1 + (east_asian_width(char) in "WF") for char in text)
    return text[: sum(1 for width in wide if width <= letters)]
