"""Pictures of numbers as SVG that takes its colours from the page around it."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, LABELS, FIGURES, ROW = 680, 210, 70, 22
HEIGHT, LEFT, BOTTOM = 260, 60, 46


@dataclass(frozen=True)
class Bar:
    """A measured number with the spread of its repetitions."""

    label: str
    value: float
    low: float
    high: float
    ours: bool = True


@dataclass(frozen=True)
class Series:
    """Numbers over a quantity, joined by a line."""

    name: str
    points: Sequence[tuple[float, float]]


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars that begin at 0, the spread as a thin line."""
    room = WIDTH - LABELS - FIGURES
    scale = room / max(row.high for row in rows)
    parts = []
    for index, row in enumerate(rows):
        top = 6 + index * ROW
        low, high = LABELS + row.low * scale, LABELS + row.high * scale
        parts += [
            f'<text class="label" x="{LABELS - 8}" y="{top + 13}">{html.escape(row.label)}</text>',
            f'<rect class="{"ours" if row.ours else "others"}" x="{LABELS}" y="{top}" height="{ROW - 6}" '
            f'width="{row.value * scale:.1f}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{top + 8}" y2="{top + 8}"/>',
            f'<text x="{high + 6:.1f}" y="{top + 13}">{figure(row.value)}</text>',
        ]
    return _picture(title, unit, len(rows) * ROW + 12, parts)


def lines(title: str, unit: str, across: str, series: Sequence[Series]) -> str:
    """Lines over a quantity that doubles from mark to mark. The vertical scale is linear, the horizontal one is
    logarithmic."""
    xs = sorted({x for one in series for x, _ in one.points})
    top = max(y for one in series for _, y in one.points)
    first, last = math.log2(xs[0]), math.log2(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log2(x) - first) / (last - first) * (WIDTH - LEFT - 120)
        return LEFT + right, 14 + (HEIGHT - BOTTOM - 14) * (1 - y / top)

    base = place(xs[0], 0)[1]
    parts = [f'<line x1="{LEFT}" x2="{place(xs[-1], 0)[0]:.1f}" y1="{base}" y2="{base}"/>']
    parts += [
        f'<text class="label" x="{LEFT - 8}" y="{place(xs[0], y)[1] + 4:.1f}">{figure(y)}</text>' for y in (0, top)
    ]
    parts += [f'<text class="mark" x="{place(x, 0)[0]:.1f}" y="{base + 16}">{x:g}</text>' for x in xs]
    parts += [f'<text class="mark" x="{(LEFT + place(xs[-1], 0)[0]) / 2:.1f}" y="{base + 36}">{across}</text>']
    for number, one in enumerate(series):
        places = [place(*point) for point in one.points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts += [f'<polyline class="series{number}" points="{drawn}"/>']
        parts += [f'<text x="{places[-1][0] + 8:.1f}" y="{places[-1][1] + 4:.1f}">{html.escape(one.name)}</text>']
    return _picture(title, unit, HEIGHT, parts)


def figure(value: float) -> str:
    """A number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _picture(title: str, unit: str, height: int, parts: Sequence[str]) -> str:
    caption = f"{html.escape(title)}: {html.escape(unit)}"
    return (
        f'<figure class="plot"><figcaption>{caption}</figcaption><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{caption}">{"".join(parts)}</svg></figure>'
    )
