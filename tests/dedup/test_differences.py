import pytest

from dedup.differences import Difference, Piece, Reading, differences


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

    found = Reading("How do I reset passwords on a tablet?", {}).pieces(text)

    assert "".join(piece.text for piece in found) == text
    assert [piece.text for piece in found if piece.is_other] == ["phone"]


def test_a_word_with_a_partner_is_known_by_how_often_it_stood_before():
    reading = Reading("A lamp", {("lamp", 1): 7, ("Bulb", 0): 8})

    assert reading.pieces("lamp, Lamp") == [Piece("lamp, Lamp")]
    assert reading.pieces("lamp of a Bulb") == [
        Piece("lamp", pair=7), Piece(" of a "), Piece("Bulb", is_other=True, pair=8),
    ]  # fmt: skip
