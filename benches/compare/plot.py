"""A plot of cost against size, as an SVG that people read in light and in dark."""

import math
from xml.sax.saxutils import escape

import report

PANEL_WIDTH, PANEL_HEIGHT = 340, 220
MARGIN_LEFT, MARGIN_TOP, GAP = 60, 40, 70
TICK_PIXELS = 4
# In the order of the series of a panel.
COLOURS = ("one", "two")
# What stands on an axis: of which figures, and which of their numbers.
PANELS = (
    ("users", "s", (("first load", "value"), ("unchanged poll", "value"))),
    ("users", "MB", (("first load", "peak"), ("first load", "idle"))),
    ("accounts", "s", (("first load", "value"), ("unchanged poll", "value"))),
    ("accounts", "MB", (("first load", "peak"), ("first load", "idle"))),
)
LABELS = {"value": "", "peak": "peak memory", "idle": "idle memory"}
STYLE = """
  text { font: 12px sans-serif; fill: #24292f }
  .axis { stroke: #57606a } .grid { stroke: #d0d7de }
  polyline { fill: none; stroke-width: 2 }
  .one { stroke: #0969da } .two { stroke: #bc4c00 }
  text.one { fill: #0969da; stroke: none } text.two { fill: #bc4c00; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .axis { stroke: #8d96a0 } .grid { stroke: #30363d }
    .one { stroke: #58a6ff } .two { stroke: #f0883e }
    text.one { fill: #58a6ff } text.two { fill: #f0883e }
  }
"""


def series(results, axis, what, kind):
    """Points of a program: size → median."""
    points = [
        (figure.at[1], report.median(figure, kind))
        for figure in results.figures.values()
        if figure.at and figure.at[0] == axis and figure.at[2] == what and not figure.void
    ]
    return sorted(point for point in points if point[1])


def decades(values):
    """The powers of ten around the values, as exponents."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def panel(results, left, top, axis, unit, wanted):
    lines = [(what, kind, series(results, axis, what, kind)) for what, kind in wanted]
    lines = [line for line in lines if line[2]]
    if not lines:
        return []
    low_x, high_x = decades([x for *_, points in lines for x, _ in points])
    low_y, high_y = decades([y for *_, points in lines for _, y in points])

    def place(x, y):
        across = (math.log10(x) - low_x) / (high_x - low_x)
        up = (math.log10(y) - low_y) / (high_y - low_y)
        return left + across * PANEL_WIDTH, top + (1 - up) * PANEL_HEIGHT

    parts = []
    right, bottom = left + PANEL_WIDTH, top + PANEL_HEIGHT
    for exponent in range(low_y, high_y + 1):
        y = place(10**low_x, 10**exponent)[1]
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        label = f"{10**exponent:,g} {unit}"
        parts.append(
            f'<text x="{left - 6}" y="{y + TICK_PIXELS:.1f}" text-anchor="end">{label}</text>'
        )
    for exponent in range(low_x, high_x + 1):
        x = place(10**exponent, 10**low_y)[0]
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        label = f"{10**exponent:,}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    parts.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
    parts.append(f'<text x="{right}" y="{bottom + 36}" text-anchor="end">{axis}</text>')
    for number, (what, kind, points) in enumerate(lines):
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        colour = COLOURS[number]
        parts.append(f'<polyline class="{colour}" points="{placed}"/>')
        label = escape(LABELS[kind] or what)
        at = left + number * PANEL_WIDTH / len(COLOURS)
        parts.append(f'<text class="{colour}" x="{at:.1f}" y="{top - 12}">{label}</text>')
    return parts


def drawn(results):
    width = 2 * (MARGIN_LEFT + PANEL_WIDTH) + GAP
    height = 2 * (PANEL_HEIGHT + GAP) + MARGIN_TOP
    parts = []
    for number, wanted in enumerate(PANELS):
        left = MARGIN_LEFT + number % 2 * (PANEL_WIDTH + MARGIN_LEFT + GAP // 2)
        top = MARGIN_TOP + number // 2 * (PANEL_HEIGHT + GAP)
        parts += panel(results, left, top, *wanted)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    title = "<title>Time and memory of scimtail against users and accounts</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])
