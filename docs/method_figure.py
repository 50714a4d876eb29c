"""Draw method.svg: python docs/method_figure.py

Four small networks of two layers, with 2 inputs, k = 3 groups of 2 hidden nodes, and 2 outputs.
"""

import pathlib

WIDTH, HEIGHT, PANEL = 960, 300, 240
COLOURS = ('#1f77b4', '#d55e00', '#009e73')
OUTER, HIDDEN_TOP = (120, 180), 60
GREY = '#c8c8c8'
TITLES = (
    ('1  Sparse', 'one group is not zero'),
    ('2  Relaxed', 'each group has a weight'),
    ('3  Mixed', 'one group with summed kernels'),
    ('4  Cardinality d = 2', 'each part mixes by itself'),
)


def line(start: tuple[float, float], end: tuple[float, float], colour: str, opacity: float = 1) -> str:
    """A connection of two nodes."""
    places = f'x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"'
    return f'<line {places} stroke="{colour}" stroke-opacity="{opacity}" stroke-width="1.5"/>'


def node(place: tuple[float, float], colour: str, opacity: float = 1) -> str:
    """A circle."""
    return (
        f'<circle cx="{place[0]}" cy="{place[1]}" r="9" fill="white"/>'
        f'<circle cx="{place[0]}" cy="{place[1]}" r="9" fill="{colour}" fill-opacity="{opacity}" stroke="#333333"/>'
    )


def text(place: tuple[float, float], words: str, size: int = 13, anchor: str = 'middle') -> str:
    """A label."""
    halo = 'paint-order="stroke" stroke="white" stroke-width="4"'
    return f'<text x="{place[0]}" y="{place[1]}" font-size="{size}" text-anchor="{anchor}" {halo}>{words}</text>'


def network(left: float, hidden: list[tuple[float, str, float]]) -> list[str]:
    """Two inputs and two outputs around hidden nodes, each with its height, colour and weight."""
    inputs, outputs = ([(left + x, y) for y in OUTER] for x in (35, 205))
    middle = [((left + 120, y), colour, weight) for y, colour, weight in hidden]
    lines = [line(one, place, colour, max(weight, 0.12)) for one in inputs for place, colour, weight in middle]
    lines += [line(place, other, colour, max(weight, 0.12)) for other in outputs for place, colour, weight in middle]
    nodes = [node(place, colour, weight) for place, colour, weight in middle]
    return lines + nodes + [node(place, '#333333') for place in (*inputs, *outputs)]


def groups(weights: tuple[float, ...]) -> list[tuple[float, str, float]]:
    """Two hidden nodes for each group, one group below the other."""
    heights = [HIDDEN_TOP + 70 * group + 28 * node for group in range(3) for node in range(2)]
    return [
        (height, COLOURS[index // 2] if weights[index // 2] else GREY, weights[index // 2] or 0.3)
        for index, height in enumerate(heights)
    ]


def shares(left: float, top: float, weights: tuple[float, ...]) -> list[str]:
    """A bar of the weights of the groups."""
    bars, start = [], left
    for colour, weight in zip(COLOURS, weights, strict=True):
        bars.append(f'<rect x="{start:g}" y="{top}" width="{60 * weight:g}" height="9" fill="{colour}"/>')
        start += 60 * weight
    return bars


def draw() -> str:
    """The whole figure."""
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">']
    parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')
    for index, (title, below) in enumerate(TITLES):
        parts += [text((PANEL * index + 120, 24), title, 16), text((PANEL * index + 120, 288), below)]
    for index, weights in enumerate(((0, 1, 0), (0.25, 0.6, 0.15))):
        parts += network(PANEL * index, groups(weights))
        for group, weight in enumerate(weights):
            parts.append(text((PANEL * index + 150, HIDDEN_TOP + 70 * group + 19), f'{weight:g}', anchor='start'))
    for index, mixtures in enumerate((((0.25, 0.6, 0.15),) * 2, ((0.25, 0.6, 0.15), (0.1, 0.2, 0.7))), start=2):
        parts += network(PANEL * index, [(OUTER[0], '#777777', 1), (OUTER[1], '#777777', 1)])
        for height, weights in zip(OUTER, mixtures, strict=True):
            parts += shares(PANEL * index + 90, height + 16, weights)
    return '\n'.join([*parts, '</svg>']) + '\n'


if __name__ == '__main__':
    pathlib.Path(__file__).with_name('method.svg').write_text(draw(), encoding='utf-8')
