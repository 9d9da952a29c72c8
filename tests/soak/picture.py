"""A picture (SVG) of memory, threads and descriptors of all instances over the time of the soak."""

from html import escape

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 960, 200, 60, 20, 30, 30
PANELS = (("memory_mb", "memory (RSS), MB"), ("threads", "threads"), ("descriptors", "descriptors"))
COLOURS = {"steady": "#0b5fa5", "second": "#c05a00", "third": "#2a8a3a", "guest": "#8a4fa0"}
LINES = 4


def draw(file, samples, happened, seconds):
    """`happened`: time and name of each disturbance."""
    height = len(PANELS) * (PANEL + TOP + BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (measure, title) in enumerate(PANELS):
        top = number * (PANEL + TOP + BOTTOM) + TOP
        parts += panel(samples, happened, seconds, measure, title, top)
    parts.append("</svg>")
    file.write_text("\n".join(parts) + "\n")


def panel(samples, happened, seconds, measure, title, top):
    most = max((getattr(s, measure) for s in samples), default=1) * 1.05
    across = (WIDTH - LEFT - RIGHT) / max(seconds, 1)

    def x(at):
        return f"{LEFT + at * across:.1f}"

    def y(value):
        return f"{top + PANEL * (1 - value / most):.1f}"

    parts = [f'<text x="{LEFT}" y="{top - 8}" font-size="13">{escape(title)}</text>']
    for line in range(LINES + 1):
        value = most * line / LINES
        parts.append(
            f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y(value)}" text-anchor="end">{value:.0f}</text>'
        )
    for at, name in happened:
        parts.append(
            f'<path d="M{x(at)} {top}v{PANEL}" stroke="#eee"><title>{escape(name)}</title></path>'
        )
    for minute in range(0, int(seconds // 60) + 1, 5 if seconds > 600 else 1):
        parts.append(
            f'<text x="{x(minute * 60)}" y="{top + PANEL + 14}" text-anchor="middle">{minute} min</text>'
        )
    # Each life of an instance is a line of its own.
    for name in dict.fromkeys(s.name for s in samples):
        role = name.rpartition("-")[0]
        points = " ".join(f"{x(s.at)},{y(getattr(s, measure))}" for s in samples if s.name == name)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[role]}"><title>{name}</title></polyline>'
        )
    for number, (role, colour) in enumerate(COLOURS.items()):
        at = WIDTH - RIGHT - 70 * (len(COLOURS) - number)
        parts.append(f'<text x="{at}" y="{top - 8}" fill="{colour}">{role}</text>')
    return parts
