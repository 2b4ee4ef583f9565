"""Charts as SVG, drawn on the server, each with the same numbers in a table under it.

    {% line_chart "ages" _("Oldest question that waits") series y_name=_("seconds") %}

What a series is, a view says by `Series` and `Mark`. A picture is drawn from left to right in all
languages; what tells series from each other is a dash and a marker, never a colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from math import sqrt
from typing import Any

from babel import Locale
from babel.dates import format_date, format_datetime, format_skeleton
from django import template
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import get_language, to_locale
from django.utils.translation import gettext as _

from dedup.ml.evaluation import Bin
from dedup.ml.plots import Plane, ticks

register = template.Library()

WIDTH, HEIGHT = 360, 232  # a unit is about a pixel of a phone
LEFT, TOP, RIGHT, BOTTOM = 44, 12, 20, 42  # around the data
SQUARE = 200
MOST_MARKERS = 30  # a line of more points is a line
MOST_LABELS = 6  # under an axis
KINDS = 4  # of lines and bars that are told apart
X = float | date | str  # a number, a day, a moment, or the name of a bar


@dataclass(frozen=True)
class Series:
    """A named row of values; None leaves a gap. `band` has an interval for each, or None."""

    name: str
    points: Sequence[tuple[X, float | None]]
    band: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Mark:
    """A line at a value: along the chart (`across`), or up at a place of the x axis."""

    name: str
    at: float | date
    is_across: bool = True


@register.inclusion_tag("dedup/chart.html")
def line_chart(
    name: str, title: str, series: Sequence[Series], *, x_name: str = "", y_name: str = "",
    marks: Sequence[Mark] = (), low: float | None = None, high: float | None = None,
    x_low: float | None = None, x_high: float | None = None,
    is_share: bool = False, x_is_share: bool = False, description: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Lines over numbers or times. `name` is its id in the page; a share is said in per cent."""
    places = [number_of(x) for one in series for x, _y in one.points]
    places += [number_of(mark.at) for mark in marks if not mark.is_across]
    first_x = next((x for one in series for x, _y in one.points), 0.0)
    side = ticks(*y_range(series, marks, low, high, is_share))
    x_from, x_to = widened(
        min(places, default=0.0) if x_low is None else x_low,
        max(places, default=1.0) if x_high is None else x_high,
    )
    plane = plane_of(x_from, x_to, side[0], side[-1])
    under = under_times(series) if isinstance(first_x, date) else under_numbers(plane, x_is_share)
    return {
        **frame(name, title, plane, description, x_name, y_name),
        "up": up_labels(plane, side, is_share),
        "under": [(f"{plane.x(at):.1f}", words) for at, words in under],
        "bands": [area for i, one in enumerate(series) for area in bands(plane, one, i)],
        "lines": [line for i, one in enumerate(series) for line in lines(plane, one, i)],
        "dots": [dot for i, one in enumerate(series) for dot in dots(plane, one, i)],
        "marks": [drawn_mark(plane, mark) for mark in marks],
        "legend": legend(series, marks, is_share, x_is_share),
        "has_bands": any(one.band for one in series),
        "columns": [x_name, *(one.name for one in series)],
        "rows": rows_of(series, is_share, x_is_share),
    }


@register.inclusion_tag("dedup/chart.html")
def bar_chart(
    name: str, title: str, series: Sequence[Series], *, x_name: str = "", y_name: str = "",
    marks: Sequence[Mark] = (), high: float | None = None, is_share: bool = False,
    description: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Bars from zero, side by side where there are several series; x are names."""
    names = list(dict.fromkeys(x for one in series for x, _y in one.points))
    side = ticks(*y_range(series, marks, 0.0, high, is_share))
    plane = plane_of(0.0, float(max(1, len(names))), side[0], side[-1])
    each = -(-len(names) // MOST_LABELS)  # of many bars, every so-manyth is named
    under = [(f"{plane.x(i + 0.5):.1f}", said(x)) for i, x in enumerate(names) if not i % each]
    return {
        **frame(name, title, plane, description, x_name, y_name),
        "up": up_labels(plane, side, is_share),
        "under": under,
        "bars": [bar for i, one in enumerate(series) for bar in bars(plane, one, i, names, series)],
        "marks": [drawn_mark(plane, mark) for mark in marks],
        "legend": legend(series, marks, is_share, is_bars=True),
        "columns": [x_name, *(one.name for one in series)],
        "rows": rows_of(series, is_share),
    }


@register.inclusion_tag("dedup/chart.html")
def reliability(
    name: str, title: str, bins: Sequence[Bin], *, description: str = ""
) -> dict[str, Any]:
    """What share of pairs were duplicates, by the probability that was said; with intervals.

    On the diagonal it is as it was said (DeGroot and Fienberg 1983).
    """
    plane = Plane(LEFT, TOP, WIDTH - LEFT - RIGHT, SQUARE)
    side = [0.0, 0.25, 0.5, 0.75, 1.0]
    seen = Series(_("Pairs, larger where there are more"), [(b.predicted, b.share) for b in bins])
    ideal = Series(_("As it was said"), [(0.0, 0.0), (1.0, 1.0)])
    return {
        **frame(name, title, plane, description, _("Probability said"), _("Were duplicates")),
        "up": up_labels(plane, side, is_share=True),
        "under": [(f"{plane.x(at):.1f}", share_words(at)) for at in side],
        "lines": [("ideal", plane.points([(0, 0), (1, 1)]))],
        "spans": [span(plane, one) for one in bins],
        "dots": [weighed(plane, one) for one in bins],
        "legend": [
            {"kind": "s1", "words": seen.name, "shape": "round"},
            {"kind": "ideal", "words": ideal.name},
        ],
        "columns": [_("Probability said"), _("Were duplicates"), _("Interval"), _("Pairs")],
        "rows": [
            (
                share_words(one.predicted), share_words(one.share),
                interval_words((one.low, one.high), is_share=True), number_words(one.rows),
            )
            for one in bins
        ],
    }  # fmt: skip


def frame(
    name: str, title: str, plane: Plane, description: str, x_name: str, y_name: str
) -> dict[str, Any]:
    """What every chart has: its names and its edges."""
    right, bottom = plane.left + plane.width, plane.top + plane.height
    return {
        "name": name,
        "title": title,
        "description": description or _("The numbers stand in the table below the picture."),
        "x_name": x_name,
        "y_name": y_name,
        "whole": f"0 0 {WIDTH} {bottom + (BOTTOM if x_name else BOTTOM - 20):.0f}",
        "edge": {
            "left": f"{plane.left:.0f}", "right": f"{right:.0f}", "bottom": f"{bottom:.0f}",
            "middle": f"{plane.left + plane.width / 2:.0f}",
            "labels": f"{bottom + 15:.0f}", "name": f"{bottom + 34:.0f}",
            "side": f"{plane.left - 6:.0f}",
        },
    }  # fmt: skip


def plane_of(x_low: float, x_high: float, y_low: float, y_high: float) -> Plane:
    """The rectangle of a wide chart."""
    size = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    return Plane(LEFT, TOP, *size, x_low, x_high, y_low, y_high)


def y_range(
    series: Sequence[Series], marks: Sequence[Mark], low: float | None, high: float | None,
    is_share: bool,
) -> tuple[float, float]:  # fmt: skip
    """From the least to the most that is drawn, or as given; a share from none to all."""
    values = [y for one in series for _x, y in one.points if y is not None]
    values += [end for one in series for ends in one.band if ends for end in ends]
    values += [number_of(mark.at) for mark in marks if mark.is_across]
    if is_share and all(0 <= value <= 1 for value in values):
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
    least = min([0.0, *values]) if low is None else low
    return widened(least, max(values, default=1.0) if high is None else high)


def widened(low: float, high: float) -> tuple[float, float]:
    """The same ends, apart where they were one."""
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def number_of(x: X) -> float:
    """Where a value lies on its axis: a time by its seconds, a day by its noon."""
    if isinstance(x, datetime):
        return x.timestamp()
    if isinstance(x, date):
        return x.toordinal() * 86400.0
    return float(x)


def under_numbers(plane: Plane, is_share: bool) -> list[tuple[float, str]]:
    """Round numbers under the axis."""
    found = ticks(plane.x_low, plane.x_high)
    inside = [at for at in found if plane.x_low - 1e-9 <= at <= plane.x_high + 1e-9]
    return [(at, value_words(at, is_share)) for at in inside]


def under_times(series: Sequence[Series]) -> list[tuple[float, str]]:
    """Some of the times that have a value: as many as fit, the last one always."""
    times = sorted({x for one in series for x, _y in one.points if isinstance(x, date)})
    each = -(-len(times) // (MOST_LABELS - 1))
    return [(number_of(x), said(x, is_short=True)) for x in times[::-1][:: max(1, each)]]


def up_labels(plane: Plane, side: Sequence[float], is_share: bool) -> list[tuple[str, str]]:
    """Heights of the grid's lines, and what stands beside each."""
    return [(f"{plane.y(at):.1f}", value_words(at, is_share)) for at in side]


def kind_of(index: int) -> str:
    """The CSS class of a series."""
    return f"s{index % KINDS + 1}"


def lines(plane: Plane, series: Series, index: int) -> list[tuple[str, str]]:
    """The stretches of a line between its gaps."""
    known = [(number_of(x), y) for x, y in series.points]
    return [(kind_of(index), plane.points(part)) for part in stretches(known) if len(part) > 1]


def stretches(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Points that follow each other without a gap."""
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            found.append([])
        else:
            found[-1].append((x, y))
    return [part for part in found if part]


def bands(plane: Plane, series: Series, index: int) -> list[tuple[str, str]]:
    """Areas between the ends of intervals, one for each two neighbours that both have one."""
    ends = [
        (number_of(x), between)
        for (x, _y), between in zip(series.points, series.band, strict=False)
    ]
    return [
        (
            kind_of(index),
            plane.points([(x, one[0]), (x, one[1]), (after, other[1]), (after, other[0])]),
        )
        for (x, one), (after, other) in pairwise(ends)
        if one and other
    ]


def dots(plane: Plane, series: Series, index: int) -> list[dict[str, str]]:
    """A marker for each value, where there are not too many of them."""
    known = [(number_of(x), y) for x, y in series.points if y is not None]
    if len(known) > MOST_MARKERS:
        known = known[:: -(-len(known) // 6)]
    return [
        {"kind": kind_of(index), "x": f"{plane.x(x):.1f}", "y": f"{plane.y(y):.1f}", "r": "3.2"}
        for x, y in known
    ]


def bars(
    plane: Plane, series: Series, index: int, names: Sequence[X], all_series: Sequence[Series]
) -> list[dict[str, str]]:
    """The bars of one series, each in its part of the place that its name has."""
    width, floor = 0.8 / len(all_series), plane.y(max(plane.y_low, 0.0))
    found = []
    for x, y in series.points:
        if y is not None:
            left = plane.x(names.index(x) + 0.1 + index * width)
            top = min(plane.y(y), floor)
            wide = max(1.0, plane.x(width) - plane.x(0) - 1)
            found.append({
                "kind": kind_of(index), "x": f"{left:.1f}", "y": f"{top:.1f}",
                "width": f"{wide:.1f}", "height": f"{abs(floor - plane.y(y)):.1f}",
            })  # fmt: skip
    return found


def span(plane: Plane, one: Bin) -> dict[str, str]:
    """The interval of a bin as an upright line."""
    x = f"{plane.x(one.predicted):.1f}"
    return {"x": x, "low": f"{plane.y(one.low):.1f}", "high": f"{plane.y(one.high):.1f}"}


def weighed(plane: Plane, one: Bin) -> dict[str, str]:
    """A bin's dot, its radius by the square root of its rows."""
    return {
        "kind": "s1", "x": f"{plane.x(one.predicted):.1f}", "y": f"{plane.y(one.share):.1f}",
        "r": f"{min(9.0, max(2.5, sqrt(one.rows) / 3)):.1f}",
    }  # fmt: skip


def drawn_mark(plane: Plane, mark: Mark) -> dict[str, str]:
    """Ends of a mark's line."""
    at, right, bottom = number_of(mark.at), plane.left + plane.width, plane.top + plane.height
    if mark.is_across:
        y = f"{plane.y(at):.1f}"
        return {"x1": f"{plane.left}", "x2": f"{right}", "y1": y, "y2": y}
    x = f"{plane.x(at):.1f}"
    return {"x1": x, "x2": x, "y1": f"{plane.top}", "y2": f"{bottom}"}


def legend(
    series: Sequence[Series], marks: Sequence[Mark], is_share: bool, x_is_share: bool = False,
    *, is_bars: bool = False,
) -> list[dict[str, str]]:  # fmt: skip
    """What a line, a bar or a mark stands for; one series alone is what the title says."""
    shape = "bar" if is_bars else "dot"
    found = [
        {"kind": kind_of(i), "words": one.name, "shape": shape}
        for i, one in enumerate(series)
        if len(series) > 1 or marks
    ]
    for mark in marks:
        at = said(mark.at, is_share=is_share if mark.is_across else x_is_share)
        words = _("%(name)s: %(value)s") % {"name": mark.name, "value": at}
        found.append({"kind": "mark", "words": words})
    return found


def rows_of(
    series: Sequence[Series], is_share: bool, x_is_share: bool = False
) -> list[tuple[str, ...]]:
    """The table: each place with what each series has there."""
    by_place: dict[X, dict[int, str]] = {}
    for i, one in enumerate(series):
        band = [*one.band, *[None] * (len(one.points) - len(one.band))]
        for (x, y), between in zip(one.points, band, strict=True):
            words = "" if y is None else value_words(y, is_share)
            if between:
                words = f"{words} ({interval_words(between, is_share)})"
            by_place.setdefault(x, {})[i] = words
    return [
        (said(x, is_share=x_is_share), *(cells.get(i, "") for i in range(len(series))))
        for x, cells in by_place.items()
    ]


def said(x: X, *, is_share: bool = False, is_short: bool = False) -> str:
    """A place on the axis in words."""
    if isinstance(x, str):
        return x
    if not isinstance(x, date):
        return value_words(x, is_share)
    reader = Locale.parse(to_locale(get_language() or "en"))
    if isinstance(x, datetime) and timezone.is_aware(x):
        x = timezone.localtime(x)
    if is_short:
        return str(format_skeleton("MMMd", x, locale=reader))
    if isinstance(x, datetime):
        return str(format_datetime(x, "medium", locale=reader))
    return str(format_date(x, "medium", locale=reader))


def value_words(value: float, is_share: bool) -> str:
    """A number as it is read here: three figures of it, or per cent."""
    return share_words(value) if is_share else number_words(value)


def number_words(value: float) -> str:
    """A number with as many decimals as tell something: three figures, a whole one as it is."""
    if value == int(value) or abs(value) >= 100:
        return number_format(round(value), use_l10n=True, force_grouping=True)
    decimals = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return number_format(round(value, decimals), use_l10n=True)


@register.filter
def share_words(share: float) -> str:
    """0.934 as 93.4 %, 0.5 as 50 %."""
    number = round(100 * share, 1)
    exact = number_format(round(number) if number == int(number) else number, use_l10n=True)
    return _("%(number)s %%") % {"number": exact}


def interval_words(ends: tuple[float, float], is_share: bool) -> str:
    """What a value may well be, from and to."""
    low, high = (value_words(end, is_share) for end in ends)
    return _("%(low)s to %(high)s") % {"low": low, "high": high}
