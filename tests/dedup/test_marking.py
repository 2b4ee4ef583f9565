import re
from html.parser import HTMLParser

import pytest
from django.urls import reverse
from hypothesis import example, given
from hypothesis import strategies as st

from dedup.marking import side_by_side
from dedup.ml.words import WORD
from dedup.texts import text_of
from support.models import Question
from support.templatetags.texts import markdown
from tests.factories import FlagFactory, QuestionFactory


def asked(title, body=""):
    return Question(title=title, body=body)


class Reader(HTMLParser):
    """What a browser makes of HTML: its text, its tags but for marks, and words with a partner."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.text, self.tags, self.numbered, self.open = "", [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.open = given.get("data-word")
        if tag not in {"mark", "span"}:
            self.tags.append((tag, given))

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        self.text += data
        if self.open:
            self.numbered.append((self.open, data))


def numbered(html):
    return Reader(html).numbered


def test_words_that_mean_each_other_have_the_same_number_on_both_sides():
    newer, older = asked("Erase a folder", "It is *full*"), asked("Full", "delete directories")
    alignment = [
        ["Erase", 0, "delete", 0, 0.8], ["folder", 0, "directories", 0, 0.7],
        ["full", 0, "Full", 0, 0.9],
    ]  # fmt: skip

    one, other = side_by_side(newer, older, alignment)

    assert numbered(one.title) == [("1", "Erase"), ("2", "folder")]
    assert (numbered(one.body), numbered(other.title)) == ([("3", "full")], [("3", "Full")])
    assert numbered(other.body) == [("1", "delete"), ("2", "directories")]
    assert one.partners == other.partners == 3


def test_a_word_can_be_this_texts_own_and_have_a_partner():
    one, other = side_by_side(
        asked("my folder"), asked("my directory"), [["folder", 0, "directory", 0, 0.8]]
    )

    assert one.title == 'my <mark class="own" data-word="1">folder</mark>'
    assert other.title == 'my <mark class="own" data-word="1">directory</mark>'


def test_of_a_word_that_stands_twice_the_one_that_was_meant_is_marked_titles_first():
    newer = asked("A lamp", "Another lamp, my lamp")

    one, _ = side_by_side(newer, asked("lamp"), [["lamp", 2, "lamp", 0, 0.8]])

    assert 'my <span data-word="1">lamp</span>' in one.body
    assert (numbered(one.title), len(numbered(one.body))) == ([], 1)


def test_a_word_in_code_is_counted_but_has_no_partner_and_neither_has_its_mate():
    newer = asked("Budget", "`lamp.xlsx` and\n\n    lamp\n\nand a lamp")
    older = asked("My lamp", "Blue lamp, `lamp`")
    alignment = [["lamp", 0, "lamp", 0, 0.9], ["lamp", 1, "lamp", 1, 0.8]]

    one, other = side_by_side(newer, older, alignment)

    assert "lamp" in one.body
    assert [numbered(one.body), numbered(other.title), numbered(other.body)] == [
        [("1", "lamp")], [], [("1", "lamp")],
    ]  # fmt: skip


def test_addresses_of_links_are_left_alone():
    newer = asked("See", "[the lamp](https://example.com/lamp)")

    one, _ = side_by_side(newer, asked("lamp"), [["lamp", 0, "lamp", 0, 0.9]])

    assert 'href="https://example.com/lamp"' in one.body
    assert numbered(one.body) == [("1", "lamp")]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a & b <i>", "[x](javascript:1)"])
def test_marking_lets_nothing_through_that_markdown_would_not(text):
    one, other = side_by_side(asked(text, text), asked("", text), [["script", 0, "script", 0, 1.0]])

    for shown in (one.title, one.body, other.body):
        assert "<script" not in shown
        assert "<i>" not in shown
        assert "javascript" not in shown.partition("href")[2]


WORDS = st.sampled_from(
    ["lamp", "Lamp", "<b>", "</span>", "&amp;", "&", '"', "'", "`", "```\n", "*", "[a](b)", "\n\n",
     "[lamp](https://example.com/?a=1&b=2)", "    lamp", "> ", "lamp<script>", "1", "data-word"]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=40)


@given(TEXTS, TEXTS, TEXTS, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=6))
@example("<b>lamp</b>", "lamp & `lamp`", "lamp </span>", [(0, 0), (1, 1)])
def test_marking_changes_no_text_and_no_tag(title, body, other_body, places):
    """Whatever is said to be aligned: only marks come in, and of each pair both or none."""
    newer, older = asked(title, body), asked(title, other_body)
    words = [*WORD.findall(f"{title} {body}")[:1], "lamp"]
    alignment = [[words[0], i, words[-1], j, 0.5] for i, j in places]

    sides = side_by_side(newer, older, alignment)

    for question, side in zip((newer, older), sides, strict=True):
        assert Reader(side.title).text == question.title
        assert Reader(side.title).tags == []
        plain, marked = Reader(markdown(question.body)), Reader(side.body)
        assert (marked.text, marked.tags) == (plain.text, plain.tags)
    one, other = (re.findall(r' data-word="(\d+)"', side.title + side.body) for side in sides)
    assert sorted(one) == sorted(other)


@pytest.mark.django_db
def test_a_card_warns_of_what_differs_and_marks_it_in_titles_and_bodies(agent, client):
    flag = FlagFactory(
        older=QuestionFactory(title="Export fails with error 404", body="Since *Monday*"),
        newer=QuestionFactory(title="Export fails with error 403", body="<b>Since</b> *Tuesday*"),
    )
    client.force_login(agent)

    shown = client.get(reverse("review_card", args=[flag.pk])).content.decode()

    assert "Look twice" in shown
    for own in ("403", "404"):
        assert f'error <mark class="own">{own}</mark>' in shown
    assert '<em><mark class="own">Tuesday</mark></em>' in shown
    assert "<b>" not in shown.partition('class="prose"')[2]
    assert 'data-action="words"' not in shown


@pytest.mark.django_db
def test_a_card_shows_words_that_mean_each_other_while_its_texts_are_the_same(agent, client):
    older, newer = QuestionFactory(title="Find the switch"), QuestionFactory(title="Find a lever")
    flag = FlagFactory(
        older=older, newer=newer, older_hash=text_of(older).hash, newer_hash=text_of(newer).hash,
        alignment=[["lever", 0, "switch", 0, 0.7]],
    )  # fmt: skip
    client.force_login(agent)
    address = reverse("review_card", args=[flag.pk])

    shown = client.get(address).content.decode()

    assert 'data-word="1">lever</mark>' in shown
    assert 'data-word="1">switch</mark>' in shown
    assert 'data-action="words" aria-pressed="false" hidden' in shown

    Question.objects.filter(pk=older.pk).update(body="Not the same any more")
    assert "data-word" not in client.get(address).content.decode()
