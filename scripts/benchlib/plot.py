"""Line plots as SVG, both axes logarithmic, readable in light and dark."""

import math
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 70, 130, 40, 50
COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6"]
STYLE = """text { font: 12px sans-serif; fill: #333 } .grid { stroke: #8884; stroke-width: 1 } .line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }"""


def ticks(low, high):
    return [10.0**exponent for exponent in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def svg(title, x_label, y_label, series):
    """`series`: name -> [(x, y)], all above zero."""
    points = [point for line in series.values() for point in line]
    x_ticks, y_ticks = (ticks(min(axis), max(axis)) for axis in zip(*points))
    x_ticks = x_ticks if len(x_ticks) > 1 else [x_ticks[0], x_ticks[0] * 10]
    y_ticks = y_ticks if len(y_ticks) > 1 else [y_ticks[0], y_ticks[0] * 10]
    share = lambda value, marks: (math.log10(value) - math.log10(marks[0])) / (math.log10(marks[-1]) - math.log10(marks[0]))
    x = lambda value: LEFT + share(value, x_ticks) * (WIDTH - LEFT - RIGHT)
    y = lambda value: HEIGHT - BOTTOM - share(value, y_ticks) * (HEIGHT - TOP - BOTTOM)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">', f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>",
           f'<text x="{LEFT}" y="20">{escape(title)}</text>', f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>',
           f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>']
    for value in x_ticks:
        out += [f'<path class="grid" d="M{x(value):.1f} {TOP}V{HEIGHT - BOTTOM}"/>', f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{number(value)}</text>']
    for value in y_ticks:
        out += [f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>', f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{number(value)}</text>']
    below = TOP
    for colour, (name, line) in zip(COLOURS, series.items()):
        path = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in line)
        out += [f'<path class="line" stroke="{colour}" d="M{path}"/>',
                *(f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>' for at, value in line),
                f'<text x="{WIDTH - RIGHT + 10}" y="{below + 10}" style="fill:{colour}">{escape(name)}</text>']
        below += 18
    return "\n".join([*out, "</svg>", ""])
