import time

from dedup.ml.text import LIMIT, model_input, text_hash


def test_title_and_body_are_joined():
    assert model_input("How do I pay?", "By card.") == "How do I pay? By card."


def test_the_product_stays_out():
    assert model_input("How do I pay?", product="Shop") == "How do I pay?"


def test_control_and_zero_width_characters_go():
    assert model_input("pass\x00wo\u200brd\ufeff \u202eok") == "password ok"


def test_text_is_composed():
    assert model_input("cafe\u0301") == "caf\u00e9"


def test_markup_goes_and_its_text_stays():
    assert model_input("<p>a <b>bold</b> [link](http://x.y/z) &amp; more</p>") == (
        "a bold link & more"
    )


def test_comparisons_are_not_markup():
    assert model_input("is 3 < 4 and 5 > 2?") == "is 3 < 4 and 5 > 2?"


def test_five_megabytes_are_cut_quickly():
    begun = time.monotonic()
    assert len(model_input("title", "word " * 1_000_000)) <= LIMIT
    assert len(model_input("<" * 5_000_000)) <= LIMIT
    assert time.monotonic() - begun < 2


def test_the_hash_is_of_the_model_input():
    assert text_hash("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
