"""Charts drawn by hand: SVG that takes its colours from the page, so that it is light or dark with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
"""px of a chart, and of its margins."""
COLOURS = 8
"""The page has the classes s1 … s8 for series."""

Numbers = Sequence[float]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    raw = (high - low) / max(1, most - 1) or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class Chart:
    """A chart that marks are added to, one after the other.

    Args:
        x: Range of the x axis.
        y: Range of the y axis.
        labels: What the axes are.
        title: What the chart shows, for those who do not see it.
        log: Both axes are logarithmic (base 2).
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], labels: tuple[str, str], title: str, log: bool = False
    ) -> None:
        self.x, self.y, self.labels, self.title, self.log = x, y, labels, title, log
        self.marks: list[Markup] = []
        self.names: list[tuple[str, str]] = []

    def _place(self, value: float, span: tuple[float, float]) -> float:
        """Return where a value lies on its axis, 0 to 1."""
        low, high = span
        if self.log:
            value, low, high = (math.log2(max(v, 1e-9)) for v in (value, low, high))
        return (value - low) / ((high - low) or 1.0)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point in px."""
        across, up = self._place(x, self.x), self._place(y, self.y)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line(self, x: Numbers, y: Sequence[float | None], name: str = "", look: str = "s1") -> None:
        """Add a line; it is broken where y is None or no number."""
        parts: list[list[str]] = [[]]
        for a, b in zip(x, y, strict=True):
            if b is None or not math.isfinite(b):
                parts.append([])
            else:
                parts[-1].append("{:.1f},{:.1f}".format(*self.at(a, min(max(b, self.y[0]), self.y[1]))))
        for points in filter(None, parts):
            tag = (
                '<polyline class="line {}" points="{}"/>'
                if len(points) > 1
                else '<polyline class="dot {}" points="{}"/>'
            )
            self.marks.append(Markup(tag).format(look, " ".join(points * (1 if len(points) > 1 else 2))))
        if name:
            self.names.append((name, look))

    def points(self, x: Numbers, y: Numbers, name: str = "", look: str = "s1", radius: float = 1.6) -> None:
        """Add points."""
        for a, b in zip(x, y, strict=True):
            px, py = self.at(a, b)
            self.marks.append(
                Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(look, f"{px:.1f}", f"{py:.1f}", radius)
            )
        if name:
            self.names.append((name, look))

    def bar(self, low: float, high: float, value: float, look: str = "s1", hint: str = "") -> None:
        """Add a bar from x = low to high, and from the bottom to ``value``."""
        (x1, y1), (x2, y2) = self.at(low, value), self.at(high, self.y[0])
        mark = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
        sides = (f"{v:.1f}" for v in (x1 + 1, y1, max(x2 - x1 - 2, 1), max(y2 - y1, 0)))
        self.marks.append(mark.format(look, *sides, hint))

    def _axes(self) -> list[Markup]:
        """Return grid, numbers and names of the axes."""
        out = []
        grid = [2.0**i for i in range(-2, 16)] if self.log else None
        text = Markup('<text x="{}" y="{}" class="{}">{}</text>')
        rule = Markup('<line class="grid" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
        for value in grid or ticks(*self.x):
            if self.x[0] <= value <= self.x[1]:
                px, _ = self.at(value, self.y[0])
                out.append(rule.format(px, TOP, px, HEIGHT - BOTTOM))
                out.append(text.format(f"{px:.1f}", HEIGHT - BOTTOM + 16, "tick mid", f"{value:g}"))
        for value in grid or ticks(*self.y):
            if self.y[0] <= value <= self.y[1]:
                _, py = self.at(self.x[0], value)
                out.append(rule.format(LEFT, py, WIDTH - RIGHT, py))
                out.append(text.format(LEFT - 6, f"{py + 4:.1f}", "tick end", f"{value:g}"))
        out.append(text.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "axis mid", self.labels[0]))
        turned = Markup('<text transform="translate(12 {}) rotate(-90)" class="axis mid">{}</text>')
        out.append(turned.format((TOP + HEIGHT - BOTTOM) / 2, self.labels[1]))
        return out

    def __html__(self) -> str:
        """Return the chart with its legend."""
        head = Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-left="{}" data-right="{}" data-top="{}" '
            'data-bottom="{}">'
        ).format(WIDTH, HEIGHT, self.title, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM)
        names = "".join(
            Markup('<span class="key"><i class="{}"></i>{}</span>').format(look, escape(name))
            for name, look in self.names
        )
        legend = Markup('<div class="legend">{}</div>').format(Markup(names)) if names else ""
        return str(head + Markup("".join([*self._axes(), *self.marks])) + Markup("</svg>") + legend)
