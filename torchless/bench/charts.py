"""Charts as SVG text. Colours are classes that the page defines, so that it can be light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Point", "Series", "Spot", "bar_chart", "line_chart", "roofline_chart", "scatter_chart"]

WIDTH, HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 18, 48
_ROW = 30  # of a bar chart
_NUM_COLORS = 6
_CHARACTER = 7.3  # width of a digit or letter at the size of labels, for what must not overlap


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name and its points (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: `value` draws it, `text` stands behind it; `ceiling`, if any, is a mark on the same scale."""

    label: str
    value: float
    text: str
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a roofline: operations per byte, and operations per second in G."""

    name: str
    intensity: float
    gops: float
    group: int


@dataclass(frozen=True, slots=True)
class Spot:
    """A circle with its name beside it: `title` appears under the pointer, `weight` (0 to 1) is its size."""

    name: str
    x: float
    y: float
    title: str
    weight: float


class _Scale:
    """Maps values to pixels, linearly or by logarithm."""

    def __init__(self, low: float, high: float, start: float, end: float, *, is_log: bool) -> None:
        self._map: Callable[[float], float] = math.log if is_log else float
        self._low, self._high = self._map(low), self._map(high)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._map(value) - self._low) / ((self._high - self._low) or 1)
        return round(self._start + share * (self._end - self._start), 1)


def line_chart(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Lines over numbers that are placed at equal distances (depths, batches), from zero upwards."""
    xs = sorted({x for line in series for x, _ in line.points})
    most = max(y for line in series for _, y in line.points)
    ticks = _ticks(most)
    room = 16 if len(series) == 1 else 28  # for values beside the last points
    x = _Scale(0, max(len(xs) - 1, 1), _LEFT + 16, WIDTH - _RIGHT - room, is_log=False)
    y = _Scale(0, ticks[-1], HEIGHT - _BOTTOM, _TOP + 12, is_log=False)
    place = {value: x(i) for i, value in enumerate(xs)}
    parts = [_y_axis(ticks, y, _number)]
    parts += [_text(place[value], HEIGHT - _BOTTOM + 18, _number(value), "tick middle") for value in xs]
    for i, line in enumerate(series):
        color = f"c{i % _NUM_COLORS}"
        path = " ".join(f"{place[px]},{y(py)}" for px, py in line.points)
        parts.append(f'<polyline class="line {color}" points="{path}"/>')
        for px, py in line.points:
            title = f"{line.name}: {_number(py)} {y_label} at {_number(px)} {x_label}"
            parts.append(_dot(place[px], y(py), color, title))
        if len(series) == 1:
            parts += [_text(place[px], y(py) - 10, _number(py), "value middle") for px, py in line.points]
    if len(series) > 1:
        ends = [(place[line.points[-1][0]], y(line.points[-1][1]), line.points[-1][1]) for line in series]
        parts += _end_labels(ends)
    parts.append(_axis_labels(x_label, y_label))
    return _svg(HEIGHT, parts, y_label) + _legend([line.name for line in series])


def bar_chart(bars: Sequence[Bar], name: str) -> str:
    """Horizontal bars with their values behind them; a ceiling is a thin mark."""
    most = max(max(bar.value, bar.ceiling or 0) for bar in bars) or 1
    left = min(300, 16 + max(len(bar.label) for bar in bars) * _CHARACTER)
    room = 12 + max(len(bar.text) for bar in bars) * _CHARACTER
    x = _Scale(0, most, left, WIDTH - room, is_log=False)
    height = _ROW * len(bars) + 12
    parts = []
    for i, bar in enumerate(bars):
        top = 6 + i * _ROW
        width = max(1.5, x(bar.value) - left)
        shown = (
            bar.label if len(bar.label) * _CHARACTER < left else bar.label[: int(left / _CHARACTER) - 3] + "…"
        )
        parts.append(_text(left - 8, top + 19, shown, "label end", bar.label))
        if bar.ceiling is not None:
            track = max(1.5, x(bar.ceiling) - left)
            parts.append(f'<path class="track" d="{_bar_path(left, top + 5, track, _ROW - 10)}"/>')
        parts.append(
            f'<path class="bar" d="{_bar_path(left, top + 5, width, _ROW - 10)}">'
            f"<title>{escape(bar.label)}: {escape(bar.text)}</title></path>"
        )
        end = x(bar.value)
        if bar.ceiling is not None:
            mark = x(bar.ceiling)
            parts.append(
                f'<line class="ceiling" x1="{mark}" x2="{mark}" y1="{top + 2}" y2="{top + _ROW - 2}"/>'
            )
            end = max(end, mark)
        parts.append(_text(end + 8, top + 19, bar.text, "value"))
    return _svg(height, parts, name)


def scatter_chart(spots: Sequence[Spot], x_label: str, y_label: str) -> str:
    """Circles at (x, y), both from zero upwards, each with its name where there is room."""
    x_ticks, y_ticks = _ticks(max(spot.x for spot in spots)), _ticks(max(spot.y for spot in spots))
    x = _Scale(0, x_ticks[-1], _LEFT, WIDTH - _RIGHT - 40, is_log=False)
    y = _Scale(0, y_ticks[-1], HEIGHT - _BOTTOM, _TOP + 12, is_log=False)
    parts = [_y_axis(y_ticks, y, _number)]
    parts += [_text(x(tick), HEIGHT - _BOTTOM + 18, _number(tick), "tick middle") for tick in x_ticks]
    taken: list[tuple[float, float, float]] = []  # left, right and height of names
    for spot in sorted(spots, key=lambda spot: -spot.weight):  # small ones on top
        left, top, radius = x(spot.x), y(spot.y), 4 + 10 * spot.weight
        parts.append(
            f'<circle class="dot c0" fill-opacity="0.7" cx="{left}" cy="{top}" r="{radius:.1f}">'
            f"<title>{escape(spot.title)}</title></circle>"
        )
    for spot in sorted(spots, key=lambda spot: y(spot.y)):
        left, height = x(spot.x) + 6 + 10 * spot.weight, y(spot.y) + 4
        right = left + len(spot.name) * _CHARACTER
        while any(a < right and left < b and abs(height - other) < 13 for a, b, other in taken):
            height += 1
        taken.append((left, right, height))
        parts.append(_text(left, height, spot.name, "label", spot.title))
    parts.append(_axis_labels(x_label, y_label))
    return _svg(HEIGHT, parts, f"{y_label} over {x_label}")


def roofline_chart(
    points: Sequence[Point], read_gb: float, peaks: Sequence[tuple[str, float]], groups: Sequence[str]
) -> str:
    """Operations per second over operations per byte, both logarithmic, under the machine's roofs."""
    top_peak = max(peak for _, peak in peaks)
    low_x = min([point.intensity for point in points] + [1.0]) / 2
    high_x = max([point.intensity for point in points] + [2 * top_peak / read_gb]) * 2
    low_y = min([point.gops for point in points] + [low_x * read_gb]) / 2
    x = _Scale(low_x, high_x, _LEFT, WIDTH - _RIGHT, is_log=True)
    y = _Scale(low_y, top_peak * 2, HEIGHT - _BOTTOM, _TOP, is_log=True)
    parts = [_y_axis(_powers(low_y, top_peak * 2), y, _number)]
    parts += [
        _text(x(tick), HEIGHT - _BOTTOM + 18, _number(tick), "tick middle") for tick in _powers(low_x, high_x)
    ]
    ridge = top_peak / read_gb
    parts.append(
        f'<line class="roof" x1="{x(low_x)}" y1="{y(low_x * read_gb)}" x2="{x(ridge)}" y2="{y(top_peak)}"/>'
    )
    for name, peak in peaks:
        start = peak / read_gb
        parts.append(f'<line class="roof" x1="{x(start)}" y1="{y(peak)}" x2="{x(high_x)}" y2="{y(peak)}"/>')
        text = f"{name} {_number(peak)} GOP/s"
        parts.append(_text(WIDTH - _RIGHT, y(peak) - 5, text, "note end"))
    middle = math.sqrt(low_x * ridge)
    angle = math.degrees(
        math.atan2(y(top_peak) - y(low_x * read_gb), x(ridge) - x(low_x))  # up is negative
    )
    px, py = x(middle), y(middle * read_gb)
    parts.append(
        f'<text class="note middle" transform="rotate({angle:.1f} {px} {py})" x="{px}" y="{py - 6}">'
        f"reads {read_gb:.1f} GB/s</text>"
    )
    for point in points:
        title = f"{point.name}: {_number(point.gops)} GOP/s at {_number(point.intensity)} operations per byte"
        parts.append(_dot(x(point.intensity), y(point.gops), f"c{point.group % _NUM_COLORS}", title))
    parts.append(_axis_labels("operations per byte read", "GOP/s"))
    return _svg(HEIGHT, parts, "Roofline") + _legend(groups)


# -- parts --------------------------------------------------------------------------------------------


def _end_labels(ends: Sequence[tuple[float, float, float]]) -> list[str]:
    """Values beside the last points (x, y, value) of several lines, moved down where they would overlap."""
    labels = []
    lowest = -math.inf
    for x, y, value in sorted(ends, key=lambda end: end[1]):
        lowest = max(y + 4, lowest + 14)
        labels.append(_text(x + 9, lowest, _number(value), "value"))
    return labels


def _svg(height: int, parts: Sequence[str], name: str) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">\n{body}\n</svg>'


def _y_axis(ticks: Sequence[float], y: _Scale, text: Callable[[float], str]) -> str:
    lines = []
    for i, tick in enumerate(ticks):
        kind = "axis" if i == 0 else "grid"
        lines.append(
            f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>'
        )
        lines.append(_text(_LEFT - 8, y(tick) + 4, text(tick), "tick end"))
    return "\n".join(lines)


def _axis_labels(x_label: str, y_label: str) -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    below = _text(middle, HEIGHT - 8, x_label, "note middle")
    height = (HEIGHT - _BOTTOM + _TOP) / 2
    beside = f'<text class="note middle" transform="rotate(-90 14 {height})" x="14" y="{height}">'
    return f"{below}\n{beside}{escape(y_label)}</text>"


def _dot(x: float, y: float, color: str, title: str) -> str:
    return f'<circle class="dot {color}" cx="{x}" cy="{y}" r="5"><title>{escape(title)}</title></circle>'


def _text(x: float, y: float, text: str, kind: str, title: str | None = None) -> str:
    hover = "" if title is None or title == text else f"<title>{escape(title)}</title>"
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}{hover}</text>'


def _bar_path(x: float, y: float, width: float, height: float) -> str:
    """A bar whose end is rounded and whose start is not."""
    r = min(4.0, width / 2)
    return f"M{x:.1f},{y} h{width - r:.1f} q{r},0 {r},{r} v{height - 2 * r:.1f} q0,{r} {-r},{r} h{r - width:.1f} z"


def _legend(names: Sequence[str]) -> str:
    """Names of the colours; one alone needs none, the chart's title says it."""
    if len(names) < 2:
        return ""
    items = [
        f'<span><i class="key c{i % _NUM_COLORS}"></i>{escape(name)}</span>' for i, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(items)}</div>'


def _ticks(most: float) -> list[float]:
    """From 0 to at least `most` in four to six round steps."""
    raw = (most or 1) / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [step * i for i in range(math.ceil(most * 1.001 / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten between two numbers."""
    return [10.0**i for i in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _number(value: float) -> str:
    """At most three significant digits, thousands with a k."""
    if value >= 9999.5:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
