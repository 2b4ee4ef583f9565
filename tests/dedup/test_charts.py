"""Charts: what they draw, what they say in words, and that no input breaks the picture."""

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from django.template import Context, Template
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from dedup.ml.plots import Plane, ticks
from dedup.templatetags import charts
from dedup.templatetags.charts import Bin, Mark, Series

SERIES = [
    Series("Now", [(0.0, 1.0), (1.0, None), (2.0, 3.0), (3.0, 4.0)],
           [(0.0, 2.0), None, (2.0, 4.0), (3.0, 5.0)]),
    Series("Before", [(0.0, 2.0), (1.0, 2.5), (2.0, 2.0), (3.0, 1.0)]),
]  # fmt: skip
LINES = '{% load charts %}{% line_chart "ages" "Ages" series marks=marks y_name="seconds" %}'
BARS = '{% load charts %}{% bar_chart "bars" "Bars" series is_share=is_share %}'
BINS = '{% load charts %}{% reliability "bins" "Bins" bins %}'


def drawn(template, **given):
    html = Template(template).render(Context(given))
    return html, ElementTree.fromstring(html)


def svg(root):
    return root.find("svg")


def attributes(root, tag, kind):
    return [one.attrib for one in svg(root).iter(tag) if kind in one.get("class", "").split()]


class TestLines:
    def test_a_gap_parts_a_line_and_its_band(self):
        _html, root = drawn(LINES, series=SERIES)

        assert len(attributes(root, "polyline", "s1")) == 1  # a point alone is a dot
        assert len(attributes(root, "polygon", "s1")) == 1
        assert len(attributes(root, "circle", "s1")) == 3

    def test_higher_values_stand_higher_and_later_ones_further_right(self):
        _html, root = drawn(LINES, series=SERIES)
        points = attributes(root, "polyline", "s2")[0]["points"].split()
        x, y = zip(*(map(float, point.split(",")) for point in points), strict=True)

        assert list(x) == sorted(x)
        assert y[3] > y[0] > y[1]  # down the picture

    def test_series_differ_by_marker_and_class_not_by_colour_alone(self):
        series = [Series(str(i), [(0.0, i), (1.0, i)]) for i in range(4)]
        html, root = drawn(LINES, series=series)
        shapes = {one.get("d") for one in svg(root).iter("path")}

        assert len(shapes) == 3  # and circles
        assert len(attributes(root, "circle", "s1")) == 2
        assert html.count('<ul class="legend">') == 1
        assert len(root.findall("figcaption/ul/li")) == 4

    def test_the_picture_has_a_name_a_description_and_the_same_in_a_table(self):
        _html, root = drawn(LINES, series=SERIES)
        named = svg(root).get("aria-labelledby").split()

        assert svg(root).get("role") == "img"
        assert [svg(root).find(tag).get("id") for tag in ("title", "desc")] == named
        rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
        assert rows[1] == ["0", "1 (0 to 2)", "2"]
        assert rows[2] == ["1", "", "2.5"]

    def test_a_mark_is_a_line_across_or_up_and_says_its_value(self):
        marks = [Mark("Promised", 2.0), Mark("Here", 1.0, is_across=False)]
        html, root = drawn(LINES, series=SERIES, marks=marks)
        across, up = attributes(root, "line", "mark")

        assert across["y1"] == across["y2"]
        assert up["x1"] == up["x2"]
        assert "Promised: 2" in html

    def test_days_and_moments_are_said_as_the_reader_writes_them(self):
        days = [(date(2026, 10, 1) + timedelta(days=i), float(i)) for i in range(30)]
        moments = [(datetime(2026, 10, 1, i, tzinfo=UTC), float(i)) for i in range(5)]
        with translation.override("de"):
            html, root = drawn(LINES, series=[Series("a", days)])
        labels = [one.text for one in svg(root).iter("text") if one.get("class") == "under"]

        assert "30. Okt." in labels
        assert len(labels) <= charts.MOST_LABELS
        assert "01.10.2026" in html
        assert "Oct 1, 2026" in drawn(LINES, series=[Series("a", moments)])[0]

    def test_where_commas_are_decimal_points_the_picture_keeps_its_numbers(self):
        with translation.override("de"):
            html, root = drawn(LINES, series=SERIES)
        numbers = [v for one in svg(root).iter() for k, v in one.attrib.items() if k in "xy"]

        assert "2,5" in html
        assert all(re.fullmatch(r"[\d.]+", number) for number in numbers)

    def test_many_points_are_a_line_with_few_markers(self):
        long = Series("a", [(float(i), float(i % 7)) for i in range(200)])
        _html, root = drawn(LINES, series=[long])

        assert len(attributes(root, "circle", "s1")) <= 6

    @pytest.mark.parametrize("points", [[], [(0.0, None)], [(1.0, 1.0)], [(0.0, 0.0), (1.0, 0.0)]])
    def test_nothing_or_next_to_nothing_is_drawn_too(self, points):
        html, _root = drawn(LINES, series=[Series("a", points)])

        assert "nan" not in html
        assert "inf" not in html

    def test_what_a_name_holds_is_text(self):
        html, _root = drawn(LINES, series=[Series("<b>", [(0.0, 1.0)]), Series("&", [])])

        assert "<b>" not in html
        assert "style=" not in html


class TestBars:
    def test_bars_of_several_series_stand_side_by_side_from_zero(self):
        names = ["0.1", "0.2", "0.3"]
        series = [Series(s, [(n, 0.25 * k) for k, n in enumerate(names)]) for s in ("a", "b")]
        _html, root = drawn(BARS, series=series, is_share=True)
        bars = [*attributes(root, "rect", "s1"), *attributes(root, "rect", "s2")]
        places = sorted((float(b["x"]), float(b["x"]) + float(b["width"])) for b in bars)

        assert len(bars) == 6
        assert all(one[1] <= other[0] for one, other in pairwise(places))
        assert len({round(float(b["y"]) + float(b["height"])) for b in bars}) == 1
        assert float(bars[2]["height"]) == pytest.approx(2 * float(bars[1]["height"]), abs=0.2)

    def test_of_many_bars_not_each_is_named(self):
        series = [Series("a", [(f"product {i}", i) for i in range(40)])]
        _html, root = drawn(BARS, series=series)
        labels = [one for one in svg(root).iter("text") if one.get("class") == "under"]

        assert 1 < len(labels) <= charts.MOST_LABELS + 1
        assert len(list(root.iter("tr"))) == 41


def test_reliability_has_a_dot_an_interval_and_a_row_for_each_bin():
    bins = [Bin(0.1, 0.1, 0.05, 0.2, 400), Bin(0.9, 0.7, 0.4, 0.9, 9)]
    html, root = drawn(BINS, bins=bins)
    first, second = attributes(root, "circle", "s1")

    assert float(first["r"]) > float(second["r"])
    assert len(attributes(root, "line", "reach")) == 2
    assert float(second["cy"]) > Plane(0, charts.TOP, 1, charts.SQUARE).y(0.9)  # below the diagonal
    assert "40 % to 90 %" in html


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e6), st.integers(2, 9))
def test_ticks_are_round_few_and_span_what_is_drawn(low, width, count):
    found = ticks(low, low + width, count)
    steps = {round((b - a) / (found[1] - found[0]), 1) for a, b in pairwise(found)}

    assert found[0] <= low + 1e-6 * width
    assert found[-1] >= low + width * (1 - 1e-6)
    assert len(found) <= count + 2
    assert steps == {1.0}


@pytest.mark.parametrize(
    ("value", "words"), [(3, "3"), (0.1234, "0.123"), (12.34, "12.3"), (12345.6, "12,346")]
)
def test_a_number_is_said_with_what_tells_something(value, words):
    assert charts.number_words(value) == words
