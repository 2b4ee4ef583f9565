"""Pictures of a release as SVG, for its model card."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from dedup.ml.pairs import Values

SIZE, EDGE = 360, 48  # of the square that data is drawn in, and around it
STYLE = (
    "text{font:12px sans-serif;fill:#555}.axis{stroke:#999;fill:none}"
    ".ideal{stroke:#999;stroke-dasharray:4 4}.one{stroke:#0b6bcb;fill:none;stroke-width:2}"
    ".two{stroke:#c2571a;fill:none;stroke-width:2}.one-dot{fill:#0b6bcb}.two-dot{fill:#c2571a}"
)


@dataclass(frozen=True)
class Plane:
    """Where data comes to lie in a picture: a rectangle, and what stands at its edges."""

    left: float
    top: float
    width: float
    height: float
    x_low: float = 0.0
    x_high: float = 1.0
    y_low: float = 0.0
    y_high: float = 1.0

    def x(self, value: float) -> float:
        """From the left edge of the picture."""
        return self.left + self.width * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        """From the top edge of the picture: more is higher."""
        return self.top + self.height * (self.y_high - value) / (self.y_high - self.y_low)

    def points(self, values: Sequence[tuple[float, float]]) -> str:
        """As `polyline` and `polygon` take them."""
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in values)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that span `low` to `high`: steps of 1, 2, 2.5 or 5 times a
    power of ten (after Heckbert 1990)."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


SQUARE = Plane(EDGE, EDGE, SIZE, SIZE)


def reliability(probabilities: Values, labels: Values, title: str, bins: int = 10) -> str:
    """Share of duplicates by predicted probability, bins of equal width; dots as large as the
    square root of their rows (reliability diagram: DeGroot and Fienberg 1983)."""
    p, y = np.asarray(probabilities), np.asarray(labels, float)
    which = np.minimum((p * bins).astype(int), bins - 1)
    drawn = [line([(0, 0), (1, 1)], "ideal")]
    for b in range(bins):
        rows = which == b
        if rows.any():
            radius = float(np.clip(np.sqrt(rows.sum()) / 4, 2, 12))
            drawn.append(dot(float(p[rows].mean()), float(y[rows].mean()), radius))
    return picture(drawn, title, "predicted probability", "share of duplicates")


def precision_recall(curves: Sequence[tuple[str, Values]], labels: Values, title: str) -> str:
    """Precision over recall for up to two rankings of the same rows, named in a legend."""
    y, drawn = np.asarray(labels) > 0.5, []
    for (name, scores), kind in zip(curves, ("one", "two"), strict=False):
        right = np.cumsum(y[np.argsort(-np.asarray(scores), kind="stable")])
        at = np.flatnonzero(np.diff(right, prepend=0))  # where recall grows
        points = [(right[i] / max(1, y.sum()), right[i] / (i + 1)) for i in at]
        drawn.append(line(points[:: max(1, len(points) // 300)], kind))
        height = EDGE + (16 if kind == "one" else 34)
        drawn.append(
            f'<circle class="{kind}-dot" cx="{EDGE + SIZE - 120}" cy="{height - 4}" r="4"/>'
            f'<text x="{EDGE + SIZE - 110}" y="{height}">{escape(name)}</text>'
        )
    return picture(drawn, title, "recall", "precision")


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points of the unit square."""
    return f'<polyline class="{kind}" points="{SQUARE.points(points)}"/>'


def dot(x: float, y: float, radius: float) -> str:
    """A dot at a point of the unit square."""
    at = f'cx="{SQUARE.x(x):.1f}" cy="{SQUARE.y(y):.1f}"'
    return f'<circle class="one-dot" {at} r="{radius:.1f}"/>'


def picture(drawn: Sequence[str], title: str, across: str, up: str) -> str:
    """An SVG document: the unit square with its axes named, and what is drawn in it."""
    whole = SIZE + 2 * EDGE
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {whole}" '
        f'width="{whole}" height="{whole}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{whole}" height="{whole}" fill="#fff"/>',
        f'<rect class="axis" x="{EDGE}" y="{EDGE}" width="{SIZE}" height="{SIZE}"/>',
        *_ticks(),
        f'<text x="{whole / 2}" y="{whole - 8}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="14" y="{whole / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {whole / 2})">{escape(up)}</text>',
        f'<text x="{whole / 2}" y="24" text-anchor="middle">{escape(title)}</text>',
        *drawn,
        "</svg>\n",
    ])  # fmt: skip


def _ticks() -> Iterator[str]:
    for value in (0, 0.25, 0.5, 0.75, 1):
        x, y = SQUARE.x(value), SQUARE.y(value)
        yield f'<text x="{x}" y="{EDGE + SIZE + 18}" text-anchor="middle">{value:g}</text>'
        yield f'<text x="{EDGE - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
