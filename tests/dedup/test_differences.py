import pytest
from django.urls import reverse

from dedup.differences import Difference, differences, pieces
from dedup.templatetags.differing import differing_markdown
from tests.factories import FlagFactory, QuestionFactory


@pytest.mark.parametrize(
    ("newer", "older", "kind", "ours", "theirs"),
    [
        ("Fails with error 403", "Fails with error 404", "number", ["403"], ["404"]),
        ("Works in version 2.10", "Works in version 2.1", "version", ["2.10"], ["2.1"]),
        ("It crashed after v3.0.1", "It crashed", "version", ["3.0.1"], []),
        ("How do I pay with Klarna?", "How do I pay with PayPal?", "name", ["Klarna"], ["PayPal"]),
        ("I can't sign in", "I can sign in", "negation", ["can't"], []),
        ("Sign in without a phone", "Sign in with a phone", "negation", ["without"], []),
    ],
)  # fmt: skip
def test_what_makes_two_questions_of_one_is_named(newer, older, kind, ours, theirs):
    assert Difference(kind, ours, theirs) in differences(newer, older)
    assert Difference(kind, theirs, ours) in differences(older, newer)


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("How do I pay?", "How can I pay?"),
        ("Pay 1,000 euros", "pay 1000 euros"),
        ("The app won't start and never did", "App does not start"),
        ("PayPal is refused", "My paypal payment was refused"),
        ("Where is it? Please help.", "Please help: where is it"),
        ("", ""),
    ],
)
def test_what_two_texts_share_in_another_form_is_no_difference(newer, older):
    assert differences(newer, older) == []


def test_a_products_name_counts_whatever_its_case():
    found = differences("billwren is slow", "it is slow", products=["Billwren", "Lampyr"])

    assert found == [Difference("name", ["Billwren"], [])]


def test_words_that_the_other_text_lacks_are_marked_and_nothing_is_lost():
    text = "Resetting my password, on the phone: how?"

    found = pieces(text, "How do I reset passwords on a tablet?")

    assert "".join(piece.text for piece in found) == text
    assert [piece.text for piece in found if piece.is_other] == ["phone"]


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


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a & b <i>", "[x](javascript:1)"])
def test_marking_lets_nothing_through_that_markdown_would_not(text):
    shown = differing_markdown(text, "")

    assert "<script" not in shown
    assert "<i>" not in shown
    assert "javascript" not in shown.partition("href")[2]
