from datetime import UTC, datetime, timedelta

import pytest
from django.template.loader import render_to_string
from django.utils import timezone, translation

from support.templatetags.texts import (
    after,
    beginning,
    day,
    in_percent,
    markdown,
    moment,
    percent,
    when,
)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "[click](data:text/html;base64,PHNjcmlwdD4=)",
        "![a picture](https://example.com/track.gif)",
        '<a href="https://example.com" style="position:fixed">x</a>',
        "```\n</code></pre><script>alert(1)</script>\n```",
    ],
)
def test_whatever_somebody_writes_nothing_of_it_runs_or_is_fetched(text):
    shown = markdown(text)

    for tag in ("<script", "<img", "<a style", "<iframe", "<style"):
        assert tag not in shown
    for address in ("javascript:", "data:"):
        assert f'href="{address}' not in shown


def test_markdown_is_rendered_and_its_links_are_not_vouched_for():
    shown = markdown("Press **Save**, see [there](https://example.com/a?b=1&c=2)")

    assert "<strong>Save</strong>" in shown
    assert 'href="https://example.com/a?b=1&amp;c=2" rel="nofollow noopener ugc"' in shown


def test_a_beginning_is_plain_short_and_still_harmless():
    assert beginning("Open **it**.\n\n- then <b>close</b>") == (
        "Open it. then &lt;b&gt;close&lt;/b&gt;"
    )
    assert len(beginning("word " * 200, 100)) <= 100
    assert beginning("").strip() == ""


@pytest.mark.parametrize(
    ("share", "words"), [(0.934, "93 %"), (0.9999, "99 %"), (0.0001, "1 %"), (1.0, "99 %")]
)
def test_a_probability_is_never_rounded_to_certainty(share, words):
    assert percent(share) == words


def test_a_time_says_how_long_ago_and_exactly_when():
    moment = timezone.now() - timedelta(days=3, hours=5)

    assert ">3 days ago</time>" in when(moment)
    assert f'datetime="{moment:%Y-%m-%dT%H:%M:%S}+00:00"' in when(moment)
    assert ">just now</time>" in when(timezone.now())


@pytest.mark.parametrize(
    ("tags", "rest"), [("undo-12 info", "12"), ("info undo-12", "12"), ("info", ""), ("", "")]
)
def test_the_number_in_a_message_s_tags_is_found(tags, rest):
    assert after(tags, "undo-") == rest


@pytest.mark.parametrize("name", ["500.html", "403_csrf.html"])
def test_pages_of_last_resort_need_neither_request_nor_database(name):
    assert "</html>" in render_to_string(name)


def test_a_refusal_says_what_was_wrong():
    shown = render_to_string("refusal.html", {"status": 413, "detail": "At most 9 <bytes>."})

    assert "413" in shown
    assert "At most 9 &lt;bytes&gt;." in shown


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.165, "16.5 %"), (0.1646, "16.5 %"), (0.5, "50.0 %"), (0.9999, "99.9 %"), (1.0, "100.0 %"),
     (0.01, "1.0 %")],
)  # fmt: skip
def test_a_threshold_is_said_in_percent_with_one_decimal(share, said):
    assert in_percent(share) == said


def test_a_threshold_has_the_decimal_point_of_its_reader():
    with translation.override("de"):
        assert in_percent(0.165).startswith("16,5")


def test_a_share_of_whole_hundredths_loses_none_of_them():
    assert [percent(n / 100) for n in (29, 57, 58)] == ["29 %", "57 %", "58 %"]


def test_a_moment_has_the_name_of_its_month_and_the_exact_time_for_programs():
    at = datetime(2026, 11, 28, 19, 5, 7, tzinfo=UTC)
    with timezone.override("UTC"):
        assert moment(at).startswith(
            '<time datetime="2026-11-28T19:05:07+00:00">Nov 28, 2026, 7:05'
        )
        with translation.override("de"):
            assert "28. Nov. 2026, 19:05" in moment(at)
        with translation.override("ar"):
            assert day(at) == "28 نوفمبر 2026"
